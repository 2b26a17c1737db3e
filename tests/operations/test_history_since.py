"""A history from a time on: all of it is proven as in a whole one, and of what was before nothing is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import cbor2
import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.errors import FailedError, NotFoundError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.records import to_data
from dsmt.event.rowtree import RowTree, row_hash
from dsmt.operations.offline.history import export, packed
from dsmt.operations.offline.items import items
from dsmt.operations.offline.replaying import replay_file
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, TestRealm
from tests.loops import in_real_time
from tests.operations.histories import DAY_MS, Run, decoded, hidden, judged, lived, numbered, said, trim
from tests.operations.test_forging import OTHER, stats


class Lived(NamedTuple):
    """What ran, and what was said first behind the place from which on it is exported."""

    made: TestRealm
    broker: Broker
    reader: BusClient
    dave: BusClient
    first: EventId

    async def since(self, begin: int | EventId, *patterns: str) -> Run:
        written: list[bytes] = []
        await export(self.reader, self.reader._trust, written.append, patterns, since=begin)
        return Run(list(items(b"".join(written))), self.made.trust().realm)


async def spoken(client: BusClient, count: int) -> list[EventId]:
    """Signals of one source on three topics, each acknowledged."""
    emitted = [client.emit(Draft(f"user/dave/{number % 3}", {"number": number})) for number in range(count)]
    for one in emitted:
        await one.acknowledged()
    return [one.signed.id for one in emitted]


@asynccontextmanager
async def twice(directory: Path) -> AsyncIterator[Lived]:
    async with lived(directory, 90) as (made, broker, reader):
        dave = await made.client("operator/dave")
        await spoken(dave, 20)
        first, *_ = await spoken(dave, 40)
        await said(made, [await made.client(f"operator/{name}") for name in ("erin", "frank")], 40)
        yield Lived(made, broker, reader, dave, first)


def row_of(run: Run, at: int) -> int:
    return int(cbor2.loads(run.items[at])[1])


def changes(run: Run, at: int) -> list[list[bytes]]:
    """One row removed, hidden, moved, added once more, changed, and said to have come later."""
    row, arrived_ms, raw = cbor2.loads(run.items[at])[1:]
    other = at + 1 if at + 1 in run.rows else at - 1
    swapped = list(run.items)
    swapped[at], swapped[other] = numbered(run.items[other], row), numbered(run.items[at], row_of(run, other))
    flipped = bytearray(run.items[at])
    flipped[(at * 37) % len(flipped)] ^= 1 + at % 255
    before, after = run.items[:at], run.items[at + 1 :]
    return [
        [*before, *after],
        hidden(run, at),
        swapped,
        [*before, run.items[at], *run.items[at:]],
        [*before, bytes(flipped), *after],
        [*before, packed("R", row, arrived_ms + 1, raw), *after],
    ]


def test_whatever_is_done_to_an_event_since_then_is_noticed_and_nothing_before_is_claimed(tmp_path: Path) -> None:
    async def main() -> tuple[Run, EventId]:
        async with twice(tmp_path) as made:
            return await made.since(made.first), made.first

    run, first = asyncio.run(main())
    found = judged(run, run.items)
    assert found.ok, (found.faults, found.gaps)
    before, history = row_of(run, run.rows[0]) - 1, found.history
    assert decoded(cbor2.loads(run.items[run.rows[0]])[3]).id == first
    assert before > 100
    assert (history.before, history.left_out, history.trimmed) == (before, 0, 0)
    assert history.rows == before + len(run.rows) == before + found.events
    assert found.first <= history.begins <= found.last
    assert f"that no other row was there from row {before + 1} up to row {history.rows}" in found.proves
    assert found.cannot_prove[0].startswith(f"what stood before row {before + 1}, which arrived at {history.begins}")
    assert [at for at in run.rows for changed in changes(run, at) if judged(run, changed).ok] == []


def test_more_that_is_hidden_at_the_beginning_is_a_history_that_begins_later_and_says_so(tmp_path: Path) -> None:
    async def main() -> Run:
        async with twice(tmp_path) as made:
            return await made.since(made.first)

    run = asyncio.run(main())
    begins = run.items.index(packed("F"))
    later = hidden(run, run.rows[0])
    later[begins], later[begins + 1] = later[begins + 1], later[begins]
    assert judged(run, later).history.before == judged(run, run.items).history.before + 1
    last = [*run.items[:begins], *run.items[begins + 1 : -1], packed("F"), run.items[-1]]
    for wrong in (last, [*run.items[: begins + 1], packed("F"), *run.items[begins + 1 :]], run.items[:begins]):
        assert not judged(run, wrong).ok


def test_a_file_that_says_that_it_is_whole_lacks_what_was_before(tmp_path: Path) -> None:
    async def main() -> Run:
        async with twice(tmp_path) as made:
            return await made.since(made.first)

    run = asyncio.run(main())
    found = judged(run, [one for one in run.items if one != packed("F")])
    assert {fault.code for fault in found.faults} == {"history.missing"}


def test_of_some_topics_since_then_what_is_hidden_in_a_chain_is_a_gap(tmp_path: Path) -> None:
    async def main() -> Run:
        async with twice(tmp_path) as made:
            return await made.since(made.first, "user/dave/")

    run = asyncio.run(main())
    found = judged(run, run.items)
    assert found.ok, (found.faults, found.gaps)
    assert found.history.left_out > 0 < found.history.before
    chains: dict[tuple[str, str], list[int]] = {}
    for at in run.rows:
        event = decoded(cbor2.loads(run.items[at])[3]).event
        chains.setdefault((event.source, event.topic), []).append(at)
    between = [at for places in chains.values() for at in places[1:-1]]
    assert len(between) > 10
    assert [at for at in between if not judged(run, hidden(run, at)).gaps] == []


def test_from_a_time_on_is_from_the_first_row_on_that_arrived_then(tmp_path: Path) -> None:
    async def main() -> tuple[Run, Run, Run]:
        async with twice(tmp_path) as made:
            part = await made.since(made.first)
            _, _, begins, _ = cbor2.loads(part.items[part.rows[40]])
            return await made.since(begins), await made.since(0), await made.since(made.broker.now_ms() + DAY_MS)

    some, whole, none = asyncio.run(main())
    begins = cbor2.loads(some.items[some.rows[0]])[2]
    arrived = dict(cbor2.loads(whole.items[at])[1:3] for at in whole.rows)
    assert min(row for row, ms in arrived.items() if ms >= begins) == row_of(some, some.rows[0])
    assert [judged(run, run.items).ok for run in (some, whole, none)] == [True, True, True]
    assert judged(whole, whole.items).history.before == 0
    assert (none.rows, judged(none, none.items).events) == ([], 0)


def test_what_was_trimmed_before_and_since_is_told_apart(tmp_path: Path) -> None:
    async def main() -> Run:
        async with twice(tmp_path) as made:
            begins = made.broker.now_ms()
            trim(made.broker, begins + DAY_MS)
            await spoken(made.dave, 20)
            return await made.since(begins)

    run = asyncio.run(main())
    found = judged(run, run.items)
    assert found.ok, (found.faults, found.gaps)
    assert found.history.before > 100
    assert found.history.trimmed == 0


@pytest.mark.parametrize(("arrived_later_ms", "gaps"), [(60_000, 0), (-60_000, 1)])
def test_what_comes_late_has_no_gap_to_what_came_before_the_beginning(
    tmp_path: Path, arrived_later_ms: int, gaps: int
) -> None:
    """Of three the second was stored before, and the others since. If the first was signed since so was the second."""

    async def main() -> tuple[Run, list[SignedEvent], Identity, Pen]:
        async with twice(tmp_path) as made:
            ivan = made.made.identity("operator/ivan")
            pen = Pen(ivan)
            late = [pen.write("user/ivan/x", {"number": number}) for number in range(3)]
            return await made.since(made.first), late, ivan, Pen(made.made.identities[made.broker])

    run, (first, second, third), ivan, broker = asyncio.run(main())
    tree, at_ms = RowTree(), first.event.time_ms + arrived_later_ms
    tree.add(at_ms, second.leaf)
    before = [packed("N", 1, 0, row_hash(1, at_ms, second.leaf)), packed("F")]
    for signed in (first, third):
        tree.add(at_ms, signed.leaf)
    end = broker.write("broker/b1/stats", to_data(stats(OTHER, tree)))
    held = [one[1] for one in map(cbor2.loads, run.items) if one[0] == "C"]
    certificates = [packed("C", raw) for raw in dict.fromkeys([*held, *(one.raw for one in ivan.chain)])]
    rows = [packed("R", 2, at_ms, first.raw), packed("R", 3, at_ms, third.raw), packed("E", end.raw)]
    found = judged(run, [packed("H", 1, run.realm.name, OTHER, []), *certificates, *before, *rows])
    assert (len(found.gaps), found.faults) == (gaps, [])


@in_real_time
async def test_an_event_that_the_history_does_not_hold_is_told(tmp_path: Path) -> None:
    async with twice(tmp_path) as made:
        with pytest.raises(NotFoundError, match="does not hold operator/dave#1-1"):
            await made.since(EventId.parse("operator/dave#1-1"))


@in_real_time
async def test_where_rows_were_lost_before_then_nothing_stands_for_them_and_it_is_said(tmp_path: Path) -> None:
    async with twice(tmp_path) as made:
        trim(made.broker, made.broker.now_ms() + DAY_MS)
        made.broker._store._db.do(
            "DELETE FROM events WHERE row = (SELECT min(row) FROM events WHERE topic = 'broker/b1/stats')"
        )
        with pytest.raises(FailedError, match="has lost rows before that"):
            await made.since(made.broker.now_ms())


def test_a_replay_says_that_facts_of_before_are_not_there(tmp_path: Path) -> None:
    async def main() -> Run:
        async with twice(tmp_path) as made:
            return await made.since(made.first)

    run = asyncio.run(main())
    done = replay_file(b"".join(run.items), run.trust())
    assert (done.ok, done.verified) == (True, True)
    assert done.before == judged(run, run.items).history.before > 0
