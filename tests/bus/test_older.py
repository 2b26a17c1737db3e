"""A broker alone whose store is put back as it was, while clients go on: it learns so, and is filled by what they hold."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.older import BACK_S, OlderCopy
from dsmt.bus.broker.wholeness import AFTER_S
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire.frames import Subscribe
from dsmt.errors import FailedError
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft, Start
from dsmt.trust.revocations import topic_of
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.saying import user
from tests.bus.stored import copy_store
from tests.waiting import until

ID, NODE = "a" * 16, "node/n1"


class FewRows:
    """A store that was left with so many rows."""

    identity = ID

    def __init__(self, head: int, arrived_ms: int = 3000) -> None:
        self.head, self.arrived_ms = head, arrived_ms

    def row_at(self, arrived_ms: int) -> int:
        """Those with which it was left arrived long ago, and all others at one time."""
        return self.head if self.arrived_ms < arrived_ms else 10


def asked(row: int | None, time_ms: int | None, store: str = ID) -> Subscribe:
    return Subscribe(id=1, patterns=("/",), start="history", store=store, row=row, time_ms=time_ms)


def found(older: OlderCopy) -> bool:
    with suppress(FailedError):
        older.check()
        return False
    return True


def looked(row: int | None, time_ms: int | None, *, known: bool = False, store: str = ID, grown: int = 0) -> bool:
    """Whether it is proven by a reader, in a store that was left with 10 rows at 1000 ms and has `grown` since."""
    kept = FewRows(10)
    older = OlderCopy(kept, now_ms=lambda: 1000, known=known)
    kept.head += grown
    older.reader_asks(NODE, asked(row, time_ms, store))
    return found(older)


@pytest.mark.parametrize(
    ("row", "time_ms", "grown", "proves"),
    [
        (10, 900, 0, False),
        (11, 900, 0, True),
        (11, 2000, 0, True),
        (11, 900, 5, True),
        (11, 1000, 5, False),
        (11, None, 5, False),
        (10, 100, 5, False),
        (None, 900, 0, False),
    ],
)
def test_a_place_that_this_store_cannot_have_given_proves_it(row: int | None, time_ms: int | None, grown: int, proves: bool):
    assert looked(row, time_ms, grown=grown) == proves


def test_what_was_read_of_another_store_proves_nothing_and_a_process_believes_it_once():
    assert not looked(11, 900, store="b" * 16)
    assert not looked(11, 900, known=True)


def test_where_realm_time_was_set_back_a_row_of_now_is_taken_for_no_other():
    kept = FewRows(10, arrived_ms=600)
    older = OlderCopy(kept, now_ms=lambda: 5000, known=False)
    kept.head += 5
    for time_ms in (700, 600):  # the very moment at which they arrived is one of them
        older.reader_asks(NODE, asked(12, time_ms))
        assert not found(older)


def test_one_that_was_proven_may_be_one_until_its_broker_ends():
    older = OlderCopy(FewRows(10), now_ms=lambda: 1000, known=False)
    older.awaits([NODE], 100.0)
    older.reader_asks(NODE, asked(11, 900))
    assert older.may_be(100.0), "nobody else is awaited, and it was found a moment ago"
    assert older.may_be(100.0 + BACK_S)


def test_it_may_be_one_until_the_nodes_that_were_attached_have_come_back_but_not_for_long():
    older = OlderCopy(FewRows(10), now_ms=lambda: 1000, known=False)
    assert not older.may_be(100.0)
    older.awaits(["node/n1", "node/n2"], 100.0)
    older.reader_asks("node/n1", asked(None, None))
    assert older.may_be(100.0)
    older.reader_asks("node/n2", asked(10, 900))
    assert not older.may_be(100.0)
    older.awaits(["node/n3"], 100.0)
    assert older.may_be(100.0 + BACK_S - 0.01)
    assert not older.may_be(100.0 + BACK_S)


async def copied(r: TestRealm, broker: Broker) -> tuple[Broker, Path]:
    """A copy of its store, made while it was down and a node was attached; and the broker, which goes on."""
    await until(lambda: held(broker, f"broker/b1/session/{NODE}"))
    await r.stop(broker)
    broker._store.close()
    to = r.directory / "older"
    to.mkdir()
    copy_store(r.directory / "b1.db", to / "b1.db")
    return await r.broker("b1", identity=r.identities[broker], address=broker.address), to / "b1.db"


def held(broker: Broker, topic: str) -> Any:
    row = broker._store.winner(topic)
    return None if row is None else row.read().event.data


@scenario
async def test_what_was_said_since_and_is_held_comes_back_and_nobody_is_told_that_it_is_whole_before(r: TestRealm) -> None:
    broker = await r.broker()
    node = await r.client(NODE)
    said = Tombstone(by="alice", reason="")
    broker, older = await copied(r, broker)
    async with reading(node, "tombstone/", conflate=True) as got:
        operator = await r.client("operator/alice")
        emission = operator.emit(Draft("tombstone/service/x", to_data(said), subject="x"))
        await emission.acknowledged()
        await got.until(lambda g: g.of("tombstone/service/x"))
        await r.stop(operator)
        node.on_attached(lambda: node.offer([emission.signed]))
        broker = await r.restarted(broker, store=str(older))
        identity = broker._store.identity
        assert held(broker, "tombstone/service/x") is None
        assert not broker.whole, "its node may prove that it is older"
        broker = await r.renewed(broker)
        assert broker._store.identity != identity
        assert not broker.whole
        await until(lambda: held(broker, "tombstone/service/x"))
        await until(lambda: broker.whole, seconds=AFTER_S + 10)
        notices = [row.read().event.data for row in broker._store.rows(0, 1000) if row.topic == "broker/b1/notice"]
        (told,) = [one["message"] for one in notices if one["kind"] == "older"]
        assert told.startswith(f"its store is an older copy: {NODE} had read its row ")


@scenario
async def test_a_key_that_had_ended_since_is_ended_again_by_whoever_was_told(r: TestRealm) -> None:
    broker = await r.broker()
    node = await r.client(NODE)
    thief = r.identity("operator/eve")
    await r.stop(await r.client("operator/eve", identity=thief))
    broker, older = await copied(r, broker)
    async with reading(node, "tombstone/", conflate=True):
        root = await r.client("root")
        topic = topic_of(thief.key.key_id, "root")
        await root.publish(Draft(topic, {"by": "alice"}))
        await until(lambda: node._certificates._ended_keys._known)
        await r.stop(root)
        broker = await r.restarted(broker, store=str(older))
        assert held(broker, topic) is None
        broker = await r.renewed(broker)
        await until(lambda: held(broker, topic))
        eve = await r.client("operator/eve", identity=thief, wait=False)
        await until(lambda: eve.refusal is not None and eve.refusal.code == "trust.revoked")


@scenario
async def test_who_lies_about_what_it_has_read_has_a_broker_begin_anew_once(r: TestRealm) -> None:
    broker = await r.broker()
    liar = await r.raw("operator/eve")
    for life in ("one", "two"):
        lie = asked(10**9, None, broker._store.identity)
        liar.send(lie)
        if life == "one":
            broker = await r.renewed(broker)
            liar = await r.raw("operator/eve", identity=r.identity("operator/eve"))
    bystander = await r.client("operator/alice")
    await bystander.publish(Draft("user/alice", {"n": 1}))
    assert not r.tasks[broker].done()


@scenario
async def test_a_broker_that_is_only_begun_anew_keeps_its_store_and_is_whole_when_its_nodes_are_back(r: TestRealm) -> None:
    broker = await r.broker()
    node, operator = await r.client(NODE), await r.client("operator/alice")
    async with reading(node, "user/", conflate=True, signals=True) as got:
        for number in range(20):
            await operator.publish(Draft("user/alice", {"n": number}))
            if number % 5 == 0:
                await got.until(lambda g, n=number: {"n": n} in g.of("user/alice"))
                identity = broker._store.identity
                broker = await r.restarted(broker)
                await until(lambda b=broker: b.whole, seconds=BACK_S + 1)
                assert broker._store.identity == identity


@scenario
async def test_who_is_cut_off_while_it_reads_what_was_said_before_the_start_proves_nothing(r: TestRealm) -> None:
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        await r.stop(broker)
        await until(lambda: not alice.attached)
        late = alice.emit(user(1))
        await until(lambda: alice.now_ms() > late.signed.event.time_ms)  # type: ignore[union-attr]
        broker._store.close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FanOut, "_mark", lambda *_, **_more: False)  # there is more to be read
            again = await r.broker("b1", identity=r.identities[broker], address=broker.address)
            await got.until(lambda g: g.of("user/t"))
            again._disconnect(again._sessions.by_name[bob.source].peer)
            await until(lambda: not bob.attached)
        await got.until(lambda g: g.bookmarks or len(g.completes) > 1 or again._recorder.older._said)
        assert again._recorder.older._said == ""


def test_a_store_that_leaves_its_id_keeps_its_rows_and_says_its_trim_records_again(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity=ID, boot="boot-1")
    store.leave_identity()
    store.close()
    again = SqliteStore(path, identity="b" * 16, boot="boot-1")
    assert again.identity == "b" * 16
    again.close()
    kept = SqliteStore(path, identity="c" * 16, boot="boot-1")
    assert kept.identity == "b" * 16
    kept.close()
