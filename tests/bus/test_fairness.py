"""Whose messages a broker looks at next, and what it sends to who does not read (rule D2)."""

from __future__ import annotations

import asyncio

import pytest

from dsmt.bus.broker import sessions
from dsmt.bus.broker.outgoing import MOST_UNREAD_BYTES, TALLY_BYTES, UNREAD_BYTES, Outgoing
from dsmt.bus.rules.quota import BURST, RATE, UNIT_BYTES, Rates
from dsmt.bus.rules.turns import CERTIFICATE_WEIGHT, FEW_PARTS, LARGEST_PART, TURN, WINDOW, Turns, cost
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import MAX_PARTS, pack, unpack
from dsmt.errors import RefusedError, TransportError
from dsmt.event.burst import RUN
from dsmt.ports.bus import Draft
from dsmt.ports.network import Closed, How, Peer
from dsmt.trust.keys import link_key
from tests.bus.realm import TestClock, TestRealm, scenario
from tests.waiting import until

PUBLISH = pack(f.Publish())[0]


class Sessions:
    """Turns of sessions that pay for themselves."""

    def __init__(self, turn: int = TURN) -> None:
        self.held: set[str] = set()
        self.turns: Turns[str] = Turns(Rates(), turn=turn, payer=lambda who: who, held=lambda who: who in self.held)

    def taken(self, now: float = 0.0) -> list[str]:
        return [who for who, _ in self.turns.take(now)]


def test_who_comes_with_one_event_is_in_the_next_turn_whatever_another_has_sent():
    sessions = Sessions()
    for _ in range(10):
        sessions.turns.add("flood", (PUBLISH, *([b"e"] * 64)))
    sessions.turns.add("alice", (PUBLISH, b"e"))
    turn = sessions.turns.take(0.0)
    assert ("alice", (PUBLISH, b"e")) in turn
    turn = sessions.turns.take(0.0)
    assert sum(len(message) - 1 for _, message in turn) <= TURN


def test_who_comes_with_one_event_does_not_wait_for_anothers_and_who_has_much_is_next():
    sessions = Sessions()
    sessions.turns.add("flood", (PUBLISH, *([b"e"] * 64)))
    found = []
    for _ in range(4):
        sessions.turns.add("alice", (PUBLISH, b"e", b"e"))
        found.append(sorted(set(sessions.taken())))
    assert found == [["alice"], ["alice", "flood"], ["alice"], ["alice", "flood"]]


def test_who_has_little_and_may_not_is_waited_for_by_nobody():
    sessions = Sessions()
    sessions.held.add("deaf")
    sessions.turns.add("flood", (PUBLISH, *([b"e"] * 64)))
    sessions.turns.add("deaf", (PUBLISH, b"e"))
    assert set(sessions.taken()) == set(sessions.taken()) == {"flood"}


def test_who_waits_for_little_is_alone_in_a_turn_only_where_another_waits_for_much():
    sessions = Sessions()
    for who in ("alice", "bob"):
        for _ in range(2):
            sessions.turns.add(who, (PUBLISH, b"e"))
    assert sessions.taken() == ["alice", "alice", "bob", "bob"]
    assert not sessions.turns
    for who in ("eve", "mallory", "oscar", "trudy"):
        sessions.turns.add(who, (PUBLISH, *([b"e"] * 64)))
    assert [sessions.taken(), sessions.taken()] == [["eve", "mallory", "oscar"], ["trudy", "eve", "mallory"]]


def test_of_a_turn_that_is_nearly_full_a_session_gets_what_is_left():
    sessions = Sessions(turn=3)
    for who in ("eve", "mallory"):
        for _ in range(6):
            sessions.turns.add(who, (PUBLISH, b"e"))
    assert [sessions.taken(), sessions.taken()] == [["eve", "eve", "mallory"]] * 2


CERTIFICATES = pack(f.Certificates())[0]


@pytest.mark.parametrize(
    ("message", "units"),
    [
        ((PUBLISH,), 1),
        ((PUBLISH, b"e"), 1),
        ((PUBLISH, b"e", b"e", b"e"), 3),
        ((PUBLISH, bytes(UNIT_BYTES - len(PUBLISH) - 1)), 1),
        ((PUBLISH, bytes(UNIT_BYTES - len(PUBLISH))), 2),
        ((PUBLISH, RUN + bytes(UNIT_BYTES // 2)), 2),
        ((PUBLISH, RUN, bytes(UNIT_BYTES)), 3),
        ((PUBLISH, bytes(UNIT_BYTES), RUN), 3),
        ((CERTIFICATES, b"c"), CERTIFICATE_WEIGHT),
        ((CERTIFICATES, b"c", b"c"), 2 * CERTIFICATE_WEIGHT),
        ((pack(f.Keepalive())[0],), 1),
    ],
)
def test_a_message_costs_a_unit_for_each_part_and_for_its_bytes_and_a_run_twice_that(message, units):
    assert cost(message) == units


@pytest.mark.parametrize(
    ("message", "pieces"),
    [
        ((PUBLISH, b"1"), [1]),
        ((PUBLISH, b"1", b"2"), [2]),
        ((PUBLISH, b"1", b"2", b"3"), [2, 1]),
        ((PUBLISH, bytes(2 * UNIT_BYTES), bytes(2 * UNIT_BYTES)), [1, 1]),
        ((PUBLISH, bytes(2 * UNIT_BYTES), b"2", b"3"), [1, 2]),
        ((PUBLISH, b"1", bytes(2 * UNIT_BYTES), b"3"), [1, 1, 1]),
        ((PUBLISH, *[b"e"] * MAX_PARTS), [2] * (MAX_PARTS // 2)),
        ((CERTIFICATES, *[b"c"] * f.MAX_CERTIFICATES), [1] * f.MAX_CERTIFICATES),
        ((b"hello", *[b"c"] * FEW_PARTS), [FEW_PARTS]),
        ((PUBLISH, bytes(LARGEST_PART)), [1]),
        ((b"hello", bytes(LARGEST_PART + 1)), [1]),
    ],
)  # fmt: skip
def test_what_has_many_parts_is_cut_into_pieces_of_a_slice_and_none_is_lost(message, pieces):
    turns = Turns(Rates(rate=1e9, burst=1e9), turn=10**6, payer=str, held=lambda _: False)
    turns.add("a", message)
    found = [piece for _, piece in turns.take(0.0)]
    assert [len(piece) - 1 for piece in found] == pieces
    assert {piece[0] for piece in found} == {message[0]}
    assert tuple(part for piece in found for part in piece[1:]) == message[1:]


def test_what_is_done_for_a_session_is_paid_by_who_pays_for_it():
    rates = Rates(rate=1.0, burst=10.0)
    turns: Turns[str] = Turns(rates, turn=6, payer=lambda who: who[:2], held=lambda _: False)
    turns.add("n1-agent", (PUBLISH, *[b"e"] * 10))
    turns.take(0.0)
    turns.take(0.0)
    assert not rates.may("n1", 0.0)
    assert rates.may("n1", 0.1)
    turns.add("n1-other", (PUBLISH, b"e"))
    assert turns.take(0.0) == []


def test_that_a_refused_session_is_closed_is_kept_and_what_it_had_sent_is_not():
    sessions = Sessions()
    closed = Closed(Peer(b"a"), b"", How.PEER)
    for one in ((PUBLISH, b"1"), (PUBLISH, b"2"), closed):
        sessions.turns.add("a", one)
    sessions.turns.drop("a")
    assert sessions.turns.take(0.0) == [("a", closed)]
    assert not sessions.turns
    sessions.turns.drop("a")


def test_who_waits_alone_has_the_whole_turn_and_no_more():
    sessions = Sessions()
    sessions.turns.add("flood", (PUBLISH, *([b"e"] * 64)))
    assert sum(len(message) - 1 for _, message in sessions.turns.take(0.0)) == TURN


@pytest.mark.parametrize(("others", "runs"), [((), 2), (("alice",), 1)])
def test_who_waits_alone_has_one_run_more_in_a_turn(others, runs):
    sessions, run = Sessions(), RUN + bytes(16 * 1024)
    for _ in range(6):
        sessions.turns.add("flood", (PUBLISH, run))
    for who in others:
        sessions.turns.add(who, (PUBLISH, run))
    turn = sessions.turns.take(0.0)
    assert [message for who, message in turn if who == "flood"] == [(PUBLISH, run)] * runs


def test_everything_is_looked_at_in_the_order_in_which_it_came():
    sessions = Sessions()
    sent = [str(n).encode() for n in range(40)]
    sessions.turns.add("a", (PUBLISH, *sent[:30]))
    sessions.turns.add("a", (PUBLISH, *sent[30:]))
    sessions.turns.add("a", Closed(Peer(b"a"), b"", How.PEER))
    found = []
    while sessions.turns:
        found += [message for _, message in sessions.turns.take(0.0)]
    assert isinstance(found.pop(), Closed)
    assert [part for message in found for part in message[1:]] == sent


def test_who_sends_more_than_its_window_without_an_answer_is_refused():
    sessions = Sessions()
    for _ in range(WINDOW[1] // 60_010):
        sessions.turns.add("flood", (PUBLISH, bytes(60_000)))
    with pytest.raises(RefusedError) as refused:
        sessions.turns.add("flood", (PUBLISH, bytes(60_000)))
    assert refused.value.code == "quota"
    assert f"the window is {WINDOW[1]}" in refused.value.message
    assert refused.value.next
    sessions.turns.drop("flood")
    assert not sessions.turns


def test_what_was_looked_at_counts_against_nobodys_window():
    turns = Turns(Rates(rate=1e9, burst=1e9), turn=1, payer=str, held=lambda _: False)
    message = (PUBLISH, bytes(60_000))
    turns.add("busy", message)
    for _ in range(2 * WINDOW[1] // 60_000):
        turns.add("busy", message)
        assert turns.take(0.0) == [("busy", message)]


def test_our_own_window_is_never_over_the_brokers():
    sessions = Sessions()
    for _ in range(2 * 1024 // 64):  # an incarnation, and all of it again under the next one
        sessions.turns.add("ours", (PUBLISH, *([bytes(1000)] * 64)))


@pytest.mark.parametrize(
    "message",
    [
        (PUBLISH, *([b""] * 1025)),
        (pack(f.Certificates())[0], *([b""] * 65)),
        (b"\xbf" + PUBLISH[1:] + b"\xff", *([b""] * (FEW_PARTS + 1))),
        (PUBLISH, bytes(200_000)),
    ],
)
def test_parts_that_are_too_many_or_too_large_are_refused_before_they_are_looked_at(message):
    with pytest.raises(RefusedError) as refused:
        Sessions().turns.add("eve", message)
    assert refused.value.code == "bus.frame"
    assert str(len(message) - 1 if len(message) > 2 else len(message[1])) in refused.value.message
    assert refused.value.next


def test_a_session_is_over_its_window_by_units_or_bytes_and_not_at_it():
    units, size = WINDOW
    sessions, left = Sessions(), units + size // UNIT_BYTES
    while left:
        parts = min(left, 512)
        sessions.turns.add("many", (PUBLISH, *([b""] * parts)))
        left -= parts
    with pytest.raises(RefusedError):
        sessions.turns.add("many", (PUBLISH, b""))
    left = size
    while left:
        part = min(left, 100_000) - len(PUBLISH)
        sessions.turns.add("large", (PUBLISH, bytes(part)))
        left -= part + len(PUBLISH)
    with pytest.raises(RefusedError):
        sessions.turns.add("large", (PUBLISH,))


def test_who_has_spent_its_tokens_waits_and_others_do_not():
    sessions = Sessions()
    sessions.turns._rates.spend("flood", BURST, 0.0)
    sessions.turns.add("flood", (PUBLISH, b"e"))
    sessions.turns.add("alice", (PUBLISH, b"e"))
    assert sessions.taken() == ["alice"]
    assert sessions.taken() == []
    assert sessions.taken(1.0) == ["flood"]


def test_who_reads_no_answers_is_passed_over_until_it_is_gone():
    sessions = Sessions()
    sessions.held.add("deaf")
    sessions.turns.add("deaf", (PUBLISH, b"e"))
    assert sessions.taken() == []
    sessions.turns.add("deaf", Closed(Peer(b"a"), b"", How.PEER))
    assert sessions.taken() == ["deaf", "deaf"]
    assert not sessions.turns


class Wire:
    """A listener whose network takes as many messages as it has `room` for."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, ...]] = []
        self.room = 2**31

    def send(self, _peer, message) -> bool:
        if self.room > 0:
            self.sent.append(message)
        self.room -= 1
        return self.room >= 0


def outgoing() -> tuple[Outgoing, Wire, list[Peer]]:
    cut: list[Peer] = []
    numbers = iter(range(10_000))
    made, wire = Outgoing(cut.append, lambda: next(numbers).to_bytes(8, "big")), Wire()
    made.listener = wire
    return made, wire, cut


def test_nothing_more_is_delivered_to_who_has_not_shown_to_have_read():
    made, wire, cut = outgoing()
    peer, sent = Peer(b"p"), 0
    while made.send(peer, f.Deliver(id=1, rows=(1,), live=True), (bytes(50_000),)):
        sent += 50_000
        assert sent <= UNREAD_BYTES + 50_000
    assert made.is_full(peer)
    assert not cut
    tallies = [frame for frame, _ in map(unpack, wire.sent) if isinstance(frame, f.Tally)]
    assert abs(len(tallies) - UNREAD_BYTES // TALLY_BYTES) <= 2
    made.tallied(peer, b"made up!")
    assert made.is_full(peer)
    made.tallied(peer, tallies[3].token)
    assert not made.is_full(peer)
    made.tallied(peer, tallies[-1].token)
    assert made._ways[peer].unread < TALLY_BYTES + 60_000


def test_what_must_not_be_lost_waits_for_room_and_goes_in_its_order_however_little_there_is_at_a_time():
    made, wire, _ = outgoing()
    peer = Peer(b"p")
    wire.room = 1
    for number in range(5):
        assert made.send(peer, f.Fetched(id=number))
    assert not made.send(peer, f.Deliver(id=1, rows=(1,), live=True), (b"event",)), "it would overtake what waits"
    for room in (1, 0, 2, 9):
        wire.room = room
        made.writable(peer)
    assert [unpack(message)[0].id for message in wire.sent] == [0, 1, 2, 3, 4]


def test_who_stays_deaf_to_what_must_not_be_lost_is_cut_off():
    made, _, cut = outgoing()
    for _ in range(MOST_UNREAD_BYTES // 50_000 + 1):
        assert made.send(Peer(b"p"), f.Fetched(id=1), (bytes(50_000),))
    assert cut == [Peer(b"p")]


@scenario
async def test_who_offended_is_not_admitted_for_a_while(r: TestRealm):
    broker = await r.broker()
    identity = r.identity("node/n1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "OFFENDED_S", (0.5, 5.0))
        raw = await r.raw(identity.name, identity=identity)
        raw.send(f.Publish(), bytes(200_000))
        refused, _ = await raw.next(f.Refused)
    assert refused.code == "bus.frame"
    await raw.closed()
    with pytest.raises(TransportError):
        await asyncio.wait_for(r.raw(identity.name, identity=identity), 4.0)
    others = await r.client("node/n2")
    assert others.attached
    await until(lambda: broker._admit(link_key(identity.key.public)))
    assert await r.raw(identity.name, identity=identity)


@scenario
async def test_whatever_is_answered_is_paid_for_by_who_asks(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.raw("operator/bob")
    for one in [alice.emit(Draft("user/t", {"pad": "x" * 4000})) for _ in range(50)]:
        await one.acknowledged()
    bob.send(f.Subscribe(id=1, patterns=("user/",), start="live"))
    await bob.next(f.CompleteFrame)
    spent: list[float] = []
    broker._rates.spend = lambda payer, units, now: spent.append(units)  # type: ignore[method-assign]
    about = {"source": alice.source, "incarnation": alice._publisher.signer.incarnation, "topic": "user/t"}
    for asked, kind in (
        (f.HistoryAsked(id=1, after=0), f.HistoryIs),
        (f.Repair(id=1, **about, after=0, before=99), f.Repaired),
    ):
        spent.clear()
        bob.send(asked)
        _, parts = await bob.next(kind)
        assert sum(map(len, parts)) > 100_000
        assert sum(spent) > sum(map(len, parts)) / UNIT_BYTES


class _Slow(TestClock):
    late_s = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.late_s


@scenario
async def test_who_has_a_broker_look_for_room_pays_for_the_time_that_takes(r: TestRealm):
    clock = _Slow()
    broker, eve = await r.broker(clock=clock), await r.raw("operator/eve")
    named = broker._store.blobs.named

    def look() -> set[bytes]:
        clock.late_s += 0.1
        return named()

    broker._store.blobs.named = look  # type: ignore[method-assign]
    broker._depot._limit = 2
    spent: list[float] = []
    broker._rates.spend = lambda payer, units, now: spent.append(units)  # type: ignore[method-assign]
    eve.send(f.ChunkPut(id=1, digest=bytes(32), number=0), b"xxx")
    answer, _ = await eve.next(f.BlobIs)
    assert not answer.ok
    assert sum(spent) > 0.1 * RATE
