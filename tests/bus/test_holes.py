"""Gaps, duplicates and forks of a source's numbers: each is noticed, asked for and told."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.fan_out import MESSAGE_BYTES
from dsmt.bus.broker.past import Past
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire import frames as f
from dsmt.event.rowset import RowSet
from dsmt.ports.bus import Draft, Start
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.bus.saying import numbers, user
from tests.bus.stored import append
from tests.waiting import until


@scenario
async def test_what_is_missing_on_the_way_is_asked_for_and_nobody_notices(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    send, dropped = broker._fan_out._send, []
    async with reading(bob, "user/", start=Start.LIVE) as got:
        await alice.publish(user(0))
        await got.until(lambda g: g.arrived)

        def lossy(session, frame, parts):
            if type(frame).__name__ == "Deliver" and len(dropped) < 1:
                dropped.append(frame)
                return True
            return send(session, frame, parts)

        broker._fan_out._send = lossy
        await alice.publish(user(1))
        await alice.publish(user(2))
        await alice.publish(user(3))
        await got.until(lambda g: len(g.arrived) == 4)
        assert dropped
        assert numbers(got) == [0, 1, 2, 3]
        assert got.types() == []


@scenario
async def test_a_signed_record_says_what_was_trimmed(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    for n in range(5):
        await alice.publish(user(n))
    broker._store.trim(alice.now_ms() + 2 * 3600 * 1000)
    broker._recorder.trim()
    await alice.publish(user(6))
    async with reading(bob, "broker/+/trimmed", start=Start.HISTORY) as told:
        (record,) = told.of("broker/b1/trimmed")
        assert (record["budget"], record["store"]) == ("signal", broker._store.identity)
        assert record["count"] == len(RowSet.read(record["rows"])) >= 5


@scenario
async def test_what_a_source_said_before_it_was_cut_off_for_long_is_trimmed_and_did_come(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    for n in range(5):
        await alice.publish(user(n))
    broker._ingest.forget_source(alice.source)  # as when it leaves
    while broker._store.trim(broker.now_ms() + 2 * 3600 * 1000):
        pass
    assert broker._store.high_mark(alice.source)[1] < 6
    async with reading(bob, "user/", "broker/+/notice", start=Start.LIVE) as got:
        await alice.publish(user(6))
        assert broker._ingest.holes.wanted(alice.source) is None
        broker._ingest.holes._say(broker._ingest._marks.overdue(broker.now_ms() + 10_000))
        await alice.publish(user(7))
        await got.until(lambda g: len(g.of("user/t")) == 2)
        assert got.of("broker/b1/notice") == []


@scenario
async def test_evidence_that_is_gone_is_lost_though_signals_beside_it_were_trimmed(r: TestRealm):
    broker = await r.broker()
    controller = await r.client("controller/c1")
    data = {"version": "x", "ruleset": 1, "pid": None, "decisions": 0}
    for n in range(5):
        await controller.publish(Draft("controller/c1/state", data | {"decisions": n}))
        controller.heartbeat("controller/c1/heartbeat", 1.0)
    await controller.publish(Draft("controller/c1/state", data | {"decisions": 5}))
    while broker._store.trim(broker.now_ms() + 2 * 3600 * 1000):
        pass
    assert broker._store.trimmed_between("signal", 1, broker._store.head) >= 5
    rows = [row.row for row in broker._store.rows(0, 1000) if row.topic == "controller/c1/state"]
    broker._store._db.do("DELETE FROM events WHERE row = ?", (rows[2],))
    bob = await r.client("operator/bob")
    async with reading(bob, "controller/", start=Start.HISTORY) as got:
        await got.until(lambda g: "lost" in g.types())
        assert [one.fields["topic"] for one in got.notices if one.type == "dsmt.notice.lost"] == ["controller/c1/state"]
        assert not any(one.fields.get("topic") == "controller/c1/state" for one in got.notices if "trimmed" in one.type)


@scenario
async def test_an_event_sent_twice_is_stored_once_and_acknowledged_again(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    raw, bob = await r.raw("operator/alice", identity=identity), await r.client("operator/bob")
    pen = Pen(identity)
    event = pen.write("user/t", {"n": 1})
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        for _ in range(3):
            raw.send(f.Publish(), event.raw, event.raw)
            acked, _ = await raw.next(f.Acked)
            assert acked.ranges[0] == ("operator/alice", pen.chain.incarnation, 1, 1)
        end = pen.write("user/t", {"n": 2})
        raw.send(f.Publish(), end.raw)
        await got.until(lambda g: len(g.arrived) >= 2)
        assert numbers(got) == [1, 2]
        assert got.types() == []


@scenario
async def test_two_events_with_one_number_are_noticed_and_the_source_is_told_to_restart(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    raw, bob = await r.raw("operator/alice", identity=identity), await r.client("operator/bob")
    start = int(time.time() * 1000)
    one, other = (Pen(identity, start).write("user/t", {"n": n}) for n in (1, 2))
    async with reading(bob, "user/", "broker/+/notice", start=Start.LIVE) as got:
        raw.send(f.Publish(), one.raw)
        raw.send(f.Publish(), other.raw)
        nacked, _ = await raw.next(f.Nacked)
        assert (nacked.code, nacked.restart) == ("event.equivocation", True)
        await got.until(lambda g: g.of("broker/b1/notice"))
        notice = got.of("broker/b1/notice")[0]
        assert (notice["kind"], notice["source"]) == ("equivocation", "operator/alice")
        assert numbers(got) == [1]


@scenario
async def test_a_source_told_to_restart_says_everything_again_under_a_new_incarnation(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    alice, bob = await r.client("operator/alice", identity=identity), await r.client("operator/bob")
    first = alice.emit(user(0))
    await first.acknowledged()
    # what a clone of the process would have said with the next number
    clone = Pen(identity, first.id.incarnation)
    for _ in range(first.id.sequence):
        clone.write("user/t", {"n": 0})
    taken = clone.write("user/t", {"n": -1})
    carol = await r.client("operator/carol")
    fact = clone.write("user/shared", {"n": -1}, version=1, sequence=taken.event.sequence)
    carol.offer([fact])
    await until(lambda: _stored(r, "user/shared"))
    async with reading(bob, "user/", start=Start.LIVE) as got:
        second = alice.emit(user(1))
        await second.acknowledged()
        assert second.id.incarnation > first.id.incarnation
        await got.until(lambda g: g.arrived)
        assert numbers(got) == [1]


def _stored(r, topic):
    return next(iter(r.identities))._store.winner(topic)


@scenario
async def test_a_hole_in_a_sources_numbers_is_said_by_the_broker(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    raw, bob = await r.raw("operator/alice", identity=identity), await r.client("operator/bob")
    pen = Pen(identity)
    async with reading(bob, "broker/+/notice", start=Start.LIVE) as got:
        events = [pen.write("user/t", {"n": n}) for n in range(6)]
        raw.send(f.Publish(), events[0].raw, events[1].raw, events[5].raw)
        await got.until(lambda g: g.arrived)
        notice = got.of("broker/b1/notice")[0]
        assert (notice["kind"], notice["first"], notice["last"]) == ("gap", 3, 5)


@scenario
async def test_what_a_source_still_holds_comes_when_it_is_missing_and_nobody_is_told_of_a_hole(r: TestRealm):
    await r.broker()
    bob, session = await r.client("operator/bob"), await r.raw("operator/eve", identity=(eve := r.identity("operator/eve")))
    pen = Pen(eve)
    async with reading(bob, "/", start=Start.HISTORY) as got:
        said = [pen.write(f"user/{n}", {"n": n}) for n in range(1, 6)]
        session.send(f.Publish(), said[0].raw, said[3].raw)
        asked, _ = await session.next(f.Missing)
        assert (asked.incarnation, asked.ranges) == (pen.chain.incarnation, ((2, 3),))
        session.send(f.Publish(), said[1].raw, said[2].raw, said[4].raw)
        await got.until(lambda g: sum(one.signed.event.source == "operator/eve" for one in g.arrived) == 5)
    assert not [one for one in got.arrived if one.signed.event.type == "dsmt.notice"]


@scenario
async def test_what_a_source_has_no_more_is_told_as_a_gap_of_its_sequence(r: TestRealm):
    await r.broker()
    bob, session = await r.client("operator/bob"), await r.raw("operator/eve", identity=(eve := r.identity("operator/eve")))
    pen = Pen(eve)
    async with reading(bob, "broker/b1/notice", start=Start.HISTORY) as got:
        said = [pen.write(f"user/{n}", {"n": n}) for n in range(1, 7)]
        session.send(f.Publish(), said[0].raw, said[3].raw)
        asked, _ = await session.next(f.Missing)
        session.send(f.Gone(incarnation=asked.incarnation, ranges=((2, 2),)))
        await got.until(lambda g: g.of("broker/b1/notice"))
        await got.until(lambda g: len(g.of("broker/b1/notice")) == 2)
        told = [(one["kind"], one["unit"], one["source"], one["first"], one["last"]) for one in got.of("broker/b1/notice")]
        assert told == [("gap", "sequence", "operator/eve", 2, 2), ("gap", "sequence", "operator/eve", 3, 3)]


@scenario
async def test_an_incarnation_that_nobody_heard_of_is_told_as_a_gap_when_the_next_one_names_it(r: TestRealm):
    """Its broker acknowledged it and was lost with its disk: before, the source hid that by another restart."""
    await r.broker()
    eve = r.identity("operator/eve")
    bob, session = await r.client("operator/bob"), await r.raw("operator/eve", identity=eve)
    first, third = Pen(eve), Pen(eve, int(time.time() * 1000) + 20)
    lost = first.chain.incarnation + 10
    started = {"previous_incarnation": lost, "previous_sequence": 7, "version": "x"}
    async with reading(bob, "broker/b1/notice", start=Start.HISTORY) as got:
        session.send(f.Publish(), first.write("user/a", {"n": 1}).raw)
        session.send(f.Publish(), third.write("source/operator/eve", started).raw)
        await got.until(lambda g: g.of("broker/b1/notice"))
        (told,) = got.of("broker/b1/notice")
        assert (told["kind"], told["source"], told["first"], told["last"]) == ("gap", "operator/eve", 1, 7)


@scenario
async def test_a_heartbeat_shows_what_is_missing_at_the_end(r: TestRealm):
    """Nothing comes after it: before, only the next event on the topic could show it."""
    await r.broker()
    session = await r.raw("node/n1", identity=(node := r.identity("node/n1")))
    pen = Pen(node)
    first = pen.write("source/node/n1", {"previous_incarnation": None, "previous_sequence": None, "version": "x"})
    beat = pen.write(
        "node/n1/heartbeat", {"incarnation": pen.chain.incarnation, "sequence": 9, "lag_s": 0.0, "emit_rate_s": 1.0}
    )
    session.send(f.Publish(), first.raw, beat.raw)
    asked, _ = await session.next(f.Missing)
    assert asked.ranges == ((3, 9),)


@scenario
async def test_a_client_sends_again_what_its_outbox_holds_and_says_what_it_has_no_more(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    emissions = [alice.emit(Draft("user/t", {"n": n})) for n in range(3)]
    for one in emissions:
        await one.acknowledged()
    alice._queue = alice._publisher._queue
    alice._publisher._queue = None
    waiting = alice.emit(Draft("user/t", {"n": 3}))
    assert alice._publisher.missing(waiting.id.incarnation, [(1, waiting.id.sequence + 2)]) == (
        (1, waiting.id.sequence - 1),
        (waiting.id.sequence + 1, waiting.id.sequence + 2),
    )
    alice._publisher._queue = alice._queue
    alice.flush()
    await waiting.acknowledged()


@pytest.mark.parametrize("settled_ms", [None, 501])
def test_who_waits_for_what_another_broker_may_have_is_answered_when_that_is_none_any_more(settled_ms: int | None) -> None:
    sent: list[Any] = []
    settled: list[int | None] = [500]
    store: Any = SimpleNamespace(chain=lambda *_, **__: [], event=lambda *_: None, head=9, trimmed_between=lambda *_: 0)
    taken = SimpleNamespace(patterns=("user/",))
    fan_out: Any = SimpleNamespace(of=lambda *_: taken, introductions=SimpleNamespace(introduce=lambda *_: True))

    def send(_session: Any, frame: Any, _parts: tuple[bytes, ...]) -> bool:
        sent.append(frame)
        return True

    past = Past(store, fan_out, send, now_ms=lambda: 500, settled_ms=lambda: settled[0])
    session: Any = None
    past.repair(session, f.Repair(id=1, source="operator/a", incarnation=1, topic="user/t", after=1, before=4))
    past.tick()
    assert sent == [], "it may come from the other one"
    settled[0] = settled_ms
    past.tick()
    assert [(frame.source, frame.before, frame.closing) for frame in sent] == [("operator/a", 4, "lost")]


@pytest.mark.parametrize(
    ("settled_ms", "sizes", "closing"),
    [(500, (100,), "more"), (None, (100,), "lost"), (None, (MESSAGE_BYTES, 100), "more")],
    ids=["another may have it", "no other may", "it is here"],
)
def test_of_a_part_that_is_sent_in_part_the_rest_is_lost_only_when_neither_this_nor_another_broker_may_have_it(
    settled_ms: int | None, sizes: tuple[int, ...], closing: str
) -> None:
    sent: list[Any] = []
    rows = [SimpleNamespace(row=7 + n, size=size, sealed=append(3 + n).signed.sealed) for n, size in enumerate(sizes)]
    store: Any = SimpleNamespace(chain=lambda *_, **__: rows, event=lambda *_: None, head=9, trimmed_between=lambda *_: 0)
    fan_out: Any = SimpleNamespace(
        of=lambda *_: SimpleNamespace(patterns=("user/",)), introductions=SimpleNamespace(introduce=lambda *_: True)
    )
    past = Past(
        store, fan_out, lambda _, frame, parts: sent.append(frame) or True, now_ms=lambda: 500, settled_ms=lambda: settled_ms
    )
    session: Any = None
    past.repair(session, f.Repair(id=1, source="operator/a", incarnation=1, topic="user/t", after=1, before=5))
    assert [(frame.rows, frame.closing) for frame in sent] == [((7,), closing)]


def test_what_was_trimmed_of_a_chain_that_was_not_stored_in_order_is_trimmed(store: SqliteStore) -> None:
    """A broker had its first event alone, and was cut off."""
    store.append([append(2, arrived=1000), append(3, arrived=2000), append(1, arrived=2000)])
    while store.trim(1500 + 3600 * 1000):
        pass
    assert [row.row for row in store.rows(0, 9)] == [2, 3]
    sent: list[Any] = []
    fan_out: Any = SimpleNamespace(
        of=lambda *_: SimpleNamespace(patterns=("user/",)), introductions=SimpleNamespace(introduce=lambda *_: True)
    )
    past = Past(store, fan_out, lambda _, frame, parts: sent.append(frame), now_ms=lambda: 500, settled_ms=lambda: None)
    session: Any = None
    past.repair(session, f.Repair(id=1, source="operator/a", incarnation=1, topic="user/t", after=1, before=3))
    assert [frame.closing for frame in sent] == ["trimmed"]
