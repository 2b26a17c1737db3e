"""What another broker had trimmed before it was read is trimmed at who read it, whose history verifies (rule B6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others.trimmed import Trimmed
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.trimming import PARTS, RECORDS
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import row_hash
from dsmt.operations.offline.history import packed
from dsmt.ports.bus import Draft, Notice, Start
from dsmt.trust.identity import Identity
from tests.bus.meshes import at, held, linked, mesh
from tests.bus.realm import Pen, TestRealm, memory_network, reading, realm
from tests.bus.saying import user
from tests.bus.stored import append
from tests.operations.histories import Run, exported, judged, lived
from tests.operations.test_forging import OTHER, Row, certified, rebuilt, rows
from tests.waiting import until

LATER_MS = 2 * 3600 * 1000


def played(scenario: Callable[[TestRealm], Awaitable[None]], directory: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(45), realm(memory_network(), directory) as made:
            await scenario(made)

    asyncio.run(main())


async def told_at(made: TestRealm, broker: Broker) -> tuple[list[Any], bool, list[str]]:
    """What a reader is told is missing at a broker, whether what that exports verifies, and what that cannot prove."""
    reader = await made.client("operator/reader", brokers=at(broker), reads=True)
    async with reading(reader, "user/", start=Start.HISTORY) as got:
        await got.until(lambda g: sum("topic" in one.fields for one in g.notices) == 2)
        missing = [(one.type, one.fields["from"], one.fields["to"]) for one in got.notices if "topic" in one.fields]
    run = await exported(made, reader)
    found = judged(run, run.items)
    assert not found.faults
    return missing, found.ok, found.cannot_prove


def trimmed(broker: Broker) -> None:
    while broker._store.trim(broker.now_ms() + LATER_MS):
        pass
    broker._recorder.trim()


MISSING = [("dsmt.notice.gap", 2, 6), ("dsmt.notice.trimmed", 2, 6)]
UNKNOWN = "that nothing was lost among what others had trimmed before this broker read them"


def test_what_was_trimmed_before_a_broker_was_added_is_trimmed_there_and_not_lost(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        first = await made.broker("b1")
        alice = await made.client("operator/alice")
        await alice.publish(Draft("user/t", {"kept": True}, version=1))
        for n in range(5):
            await alice.publish(user(n))
        trimmed(first)
        await alice.publish(user(5))
        second = await made.broker("b2", born=False, others=at(first))
        await until(lambda: held(second) >= held(first))
        missing, ok, unknown = await told_at(made, second)
        assert (missing, ok) == (MISSING, True)
        assert UNKNOWN in unknown

    played(scenario, tmp_path)


def test_what_was_trimmed_while_a_broker_was_away_is_trimmed_there_and_not_lost(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        first, second = await mesh(made, "b1", "b2")
        alice = await made.client("operator/alice", brokers=at(first))
        await alice.publish(user(0))
        await until(lambda: held(second) >= held(first))
        identity = made.identities[second]
        await made.stop(second)
        second._store.close()
        for n in range(1, 6):
            await alice.publish(user(n))
        trimmed(first)
        await alice.publish(user(6))
        second = await made.broker("b2", identity=identity, address=second.address, born=False, others=at(first))
        await until(lambda: linked(second) == 1 and held(second) >= held(first))
        missing, ok, _ = await told_at(made, second)
        assert (missing, ok) == (MISSING, True)

    played(scenario, tmp_path)


def told(upto: int, *budgets: str) -> Notice:
    return Notice("dsmt.notice.trimmed", "", {"from": 1, "to": upto, "budgets": list(budgets)})


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    yield made
    made.close()


def test_a_broker_that_ends_while_it_reads_knows_where_that_began(store: SqliteStore) -> None:
    store.append([append(n) for n in range(1, 4)])
    said: list[str] = []
    Trimmed(store, lambda: said.append("")).told(b"k", "on", [told(7, "signal")])
    store.append([append(n) for n in range(4, 6)])
    again = Trimmed(store, lambda: said.append("again"))
    again.reached(b"k", "on", 6)
    again.reached(b"other", "on", 9)
    again.told(b"k", "on", [told(9, "signal")])
    again.reached(b"k", "on", 8)
    assert (said, store.trimmed_between("signal", 1, 5)) == ([], 0), "it was not read beyond what is trimmed there"
    again.reached(b"k", "on", 9)
    assert said == ["again"]
    assert [store.trimmed_between("signal", *two) for two in ((1, 3), (3, 4), (5, 6), (6, 9))] == [0, 1, 1, 0]
    assert store.trimmed_between("evidence", 1, 9) == 0
    (part,) = store.untold()
    assert (part.budget, part.first, part.last, len(RowSet.read(part.rows))) == ("signal", 4, 5, 0)
    again.reached(b"k", "on", 10)
    assert said == ["again"]


def test_what_a_broker_had_trimmed_is_told_though_it_has_lost_its_store_meanwhile(store: SqliteStore) -> None:
    """The rows of its next store begin anew: who waits for those of the former one waits until it has as many again."""
    said: list[str] = []
    reading = Trimmed(store, lambda: said.append("told"))
    reading.told(b"k", "on", [told(7000, "signal")])
    store.append([append(n) for n in range(1, 4)])
    reading.told(b"k", "on", [told(5, "evidence")])
    reading.reached(b"k", "on", 4)
    assert not said
    reading.reached(b"k", "on", 5)
    assert said == ["told"]
    assert [store.trimmed_between(budget, 1, 3) for budget in ("signal", "evidence")] == [1, 1]


def test_there_are_so_many_parts_at_most_and_none_is_put_together_with_records_of_rows(store: SqliteStore) -> None:
    for n in range(1, PARTS + 3):
        store.trimmed_elsewhere("signal", 2 * n, 2 * n)
        for part in store.untold():
            store.told(part.number, 1000 + n)
    assert len(store._trimmings.pins) == PARTS
    found = [store.trimmed_between("signal", row, row) for row in (1, 2, 3, 4, 2 * PARTS + 1, 2 * PARTS + 5)]
    assert found == [0, 1, 0, 1, 1, 0]
    for n in range(RECORDS + 1):
        store._trimmings._note(1, RowSet.of([5000 + 2 * n]))
    for part in store.untold():
        store.told(part.number, 2000 + part.number)
    store.untold()
    assert store.trimmed_between("signal", 2, 2 * PARTS + 4) == PARTS


def test_nobody_else_s_word_nor_one_of_another_store_or_of_rows_to_come_explains_what_is_missing(tmp_path: Path) -> None:
    async def main() -> tuple[Run, Identity, Identity]:
        async with lived(tmp_path, 60) as (made, broker, reader):
            return await exported(made, reader), made.identities[broker], made.identity("broker/b9")

    run, own, other = asyncio.run(main())
    cut = [row for row in rows(run) if row.signed.event.topic == "user/alice/fact"][2]
    kept = [row for row in rows(run) if row.signed.event.source.startswith("operator/") and row != cut]
    hole = [place for place, row in enumerate(kept, 1) if row.signed.event.topic == "user/alice/fact"][1]

    def gaps(by: Identity, store: str, first: int, last: int) -> int:
        record = {"store": store, "number": 1, "budget": "signal", "first": first, "last": last, "count": 0}
        word = Pen(by).write(f"{by.name}/trimmed", {**record, "rows": RowSet().dump()})
        whole = rebuilt(run, [*kept, Row(kept[-1].arrived_ms, word)], own, "broker/b1/stats")
        found = judged(run, [whole[0], *certified(run, own, other), *whole[-len(kept) - 2 :]])
        assert not found.faults
        return len(found.gaps)

    assert gaps(own, OTHER, hole, hole) == gaps(own, OTHER, 1, len(kept)) == 0
    assert gaps(other, OTHER, hole, hole) == gaps(own, "e" * 16, hole, hole) == 1
    assert gaps(own, OTHER, 1, hole - 1) == gaps(own, OTHER, 1, len(kept) + 1) == 1


def test_a_hole_of_a_chain_that_was_not_stored_in_order_is_explained_by_what_was_trimmed_before_it(tmp_path: Path) -> None:
    """Its first event was with a broker that was cut off; the second, which had been here before it, is trimmed first."""

    async def main() -> tuple[Run, Identity]:
        async with lived(tmp_path, 60) as (made, broker, reader):
            return await exported(made, reader), made.identities[broker]

    run, own = asyncio.run(main())
    kept = [row for row in rows(run) if row.signed.event.source.startswith("operator/")]
    first, second = [row for row in kept if row.signed.event.topic == "user/alice/fact"][:2]
    kept = [*(row for row in kept if row is not first), first]
    gone = kept.index(second) + 1
    record = {"store": OTHER, "number": 1, "budget": "signal", "first": gone, "last": gone, "count": 1}
    word = Pen(own).write("broker/b1/trimmed", {**record, "rows": RowSet.of([gone]).dump()})
    whole = rebuilt(run, [*kept, Row(kept[-1].arrived_ms, word)], own, "broker/b1/stats")
    assert judged(run, whole).ok
    at = next(place for place, item in enumerate(whole) if item[1:3] == b"aR") + gone - 1
    hidden = packed("N", gone, 0, row_hash(gone, second.arrived_ms, second.signed.leaf))
    found = judged(run, [*whole[:at], hidden, *whole[at + 1 :]])
    assert (found.gaps, found.ok) == ([], True)
