"""Routing: what a reader gets does not depend on whether it was live or catching up."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.lags import ALL
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.routing import ASKS
from dsmt.bus.wire.frames import BookmarkFrame, CompleteFrame, Deliver, Subscribe
from dsmt.event.topic import matches
from dsmt.ports.network import Peer
from dsmt.ports.store import Row

TOPICS = ("user/a", "user/a/b", "user/b/b", "user/c", "note/mine", "note/ours", "note/theirs")
TO = {"note/mine": ("node/n1",), "note/ours": ("node/n2", "node/n1"), "note/theirs": ("node/n2",), "user/c": ("node/n1",)}
ME = "node/n1"


@dataclass
class Shelf:
    """A store that holds what a test puts there."""

    identity: str = "s"
    trimmed: int = 0
    kept: list[Row] = field(default_factory=list)
    winners: dict[str, int] = field(default_factory=dict)

    @property
    def head(self):
        return len(self.kept)

    def put(self, topic, *, fact, at_ms=0):
        row = Row(self.head + 1, at_ms, topic, TO.get(topic, ()), fact, b"k", b"x" * 100)
        self.kept.append(row)
        if fact:
            self.winners[topic] = row.row
        return row

    def rows(self, after, limit, *, winners_only=False, signals=False):
        winning = {*self.winners.values(), *(row.row for row in self.kept if signals and not row.fact)}
        return [row for row in self.kept[after:] if not winners_only or row.row in winning][: min(limit, 512)]

    def among(self, ranges, after, last, limit, *, winners_only=False):
        found = [row for row in self.kept[after:last] if row.to or any(a <= row.topic < b for a, b in ranges)]
        return [row for row in found if not (winners_only and row.fact and self.winners[row.topic] > row.row)][:limit]

    def signals(self, topics, after, limit):
        return [row for row in self.kept[after:] if not row.fact and row.topic in topics][:limit]

    def facts(self, low, high, limit):
        found = [self.kept[row - 1] for topic, row in sorted(self.winners.items()) if low <= topic < high]
        return found[:limit]

    def mail(self, name, after, limit):
        winning = set(self.winners.values())
        return [row for row in self.kept[after:] if row.row in winning and name in row.to][:limit]

    def row_at(self, ms):
        return sum(row.arrived_ms < ms for row in self.kept)


class Nobody:
    def sole_name(self, _key_id):
        return ""

    def proof(self, _key_id, _name):
        return ()


@dataclass
class Certified:
    read: tuple[str, ...] = ("/",)


class Wire:
    """What goes to one reader; `room` messages may be under way."""

    def __init__(self):
        self.shelf, self.room, self.got, self.marks, self.echoes, self.places = Shelf(), 10**9, [], [], [], []
        self.deliveries = FanOut(
            self.shelf, Nobody(), send=self.send, now_ms=lambda: 200_000, whole=lambda: True, had=lambda *_: ALL
        )
        self.session = Session(Peer(b"p"), b"k")
        self.session.certificate = Certified()
        self.unread = 0

    def send(self, _session, frame, parts):
        if isinstance(frame, Deliver | CompleteFrame | BookmarkFrame):
            if self.room <= 0:
                return False
            self.room -= 1
        if isinstance(frame, Deliver):
            self.got.extend(zip(frame.rows, [frame.live] * len(frame.rows), strict=True))
            self.unread += sum(map(len, parts))
        elif isinstance(frame, CompleteFrame):
            self.marks.append((len(self.got), frame.row))
        elif isinstance(frame, BookmarkFrame):
            self.places.append((len(self.got), frame.row))
            if frame.token is not None:
                self.echoes.append((len(self.got), frame.token))
        return True

    def subscribe(self, **interest):
        self.deliveries.subscribe(self.session, Subscribe(**{"id": 1, "patterns": ("user/",), "start": "facts", **interest}))

    def pump(self):
        while self.deliveries.pump():
            pass

    def consume(self):
        self.deliveries.consumed(self.session, 1, self.unread)
        self.unread = 0


script = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(TOPICS), st.booleans()),
        st.tuples(st.sampled_from(["pump", "consume", "block", "unblock"]), st.none(), st.none()),
    ),
    max_size=60,
)


@given(
    script,
    script,
    st.sampled_from(["facts", "live", "history"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 900),
)
def test_live_or_behind_a_reader_gets_the_same(  # noqa: PLR0917 - hypothesis gives them
    before, after, start, conflate, signals, inbox, credit
):
    wire, patterns = Wire(), ("user/a/", "user/+/b", "user/c")
    wire.session.name = ME
    for what, topic, fact in before:
        if what == "put":
            wire.shelf.put(topic, fact=fact)
    began, winners = wire.shelf.head, dict(wire.shelf.winners)
    wire.subscribe(start=start, conflate=conflate, signals=signals, credit=credit, patterns=patterns, inbox=inbox)
    for what, topic, fact in after:
        if what == "put":
            wire.deliveries.routed([wire.shelf.put(topic, fact=fact)])
        elif what == "pump":
            wire.deliveries.pump()
        elif what == "consume":
            wire.consume()
        else:
            wire.room = 0 if what == "block" else 10**9
    wire.room = 10**9
    for _ in range(3 * wire.shelf.head + 10):
        wire.consume()
        wire.pump()
    rows = [row for row, _ in wire.got]
    assert len(rows) == len(set(rows)), "once each"
    first = {"history": 0, "live": began, "facts": began}[start]
    behind = [row for row in rows if row > first]
    assert behind == sorted(behind) == rows[len(rows) - len(behind) :], "in store order, behind the facts of the beginning"

    def takes(row):
        mine = any(matches(p, row.topic) for p in patterns) or (inbox and ME in row.to)
        return mine and (signals or row.fact)

    taken = [row.row for row in wire.shelf.kept if takes(row)]
    retained = {row for topic, row in winners.items() if takes(wire.shelf.kept[row - 1])}
    due = [row for row in taken if row > first or (start == "facts" and row in retained)]
    final = {row for topic, row in wire.shelf.winners.items() if row in due}
    if conflate:
        assert set(rows) <= set(due)
        assert set(rows) >= final | {row for row in due if row > first and not wire.shelf.kept[row - 1].fact}
    else:
        still = {row for row in due if row > first}
        assert set(rows) >= still | (final & set(due))
        assert set(rows) <= set(due)
    assert all(live == (row > began) for row, live in wire.got)
    assert len(wire.marks) == 1
    at, head = wire.marks[0]
    known = {wire.shelf.kept[row - 1].topic for row in rows[:at]}
    assert start != "facts" or {wire.shelf.kept[row - 1].topic for row in retained} <= known, "complete is complete"
    assert all(row <= head for row in rows[:at])


def test_without_credit_nothing_is_sent_and_nothing_is_read_from_the_store():
    wire = Wire()
    wire.subscribe(start="live", credit=100)
    wire.pump()
    for n in range(50):
        wire.deliveries.routed([wire.shelf.put(f"user/t{n}", fact=False)])
    assert len(wire.got) == 1
    read = wire.shelf.rows
    wire.shelf.rows = None
    assert wire.deliveries.pump() is False
    wire.shelf.rows = read
    wire.consume()
    wire.pump()
    assert len(wire.got) > 1


def test_a_token_comes_back_when_its_reader_has_everything_and_not_before():
    wire = Wire()
    for _ in range(3):
        wire.shelf.put("user/c", fact=True)
    wire.subscribe(start="history")
    wire.deliveries.mark(wire.session, 1, 7)
    assert wire.echoes == []
    wire.room = 0
    wire.pump()
    assert wire.echoes == []
    wire.room = 10**9
    wire.pump()
    assert wire.echoes == [(3, 7)]
    wire.deliveries.mark(wire.session, 1, 8)
    assert wire.echoes == [(3, 7), (3, 8)], "a live reader hears it at once"


def test_a_token_that_could_not_be_told_is_told_with_the_next_bookmark():
    wire = Wire()
    wire.subscribe(start="live")
    wire.pump()
    wire.room = 0
    wire.deliveries.mark(wire.session, 1, 7)
    wire.room = 1
    wire.deliveries.bookmark_all()
    wire.deliveries.bookmark_all()
    assert wire.echoes == [(0, 7)]


def test_who_was_told_where_it_stands_is_not_told_again_at_once() -> None:
    """A controller asks twice a second: bookmarks beside the answers would only wake it."""
    wire = Wire()
    wire.subscribe(start="live", bookmarks=True)
    wire.pump()
    for token in range(1, 4):
        wire.deliveries.mark(wire.session, 1, token)
        wire.deliveries.bookmark_all()
        wire.deliveries.bookmark_all()
    assert [token for _, token in wire.echoes] == [1, 2, 3]
    assert len(wire.places) == 3
    for _ in range(ASKS - 2):
        wire.deliveries.bookmark_all()
    assert len(wire.places) == 3
    wire.deliveries.bookmark_all()
    assert len(wire.places) == 4, "who asks no more is told by itself"


def test_a_row_that_arrived_after_a_cursor_s_time_is_another_one_of_its_number_and_is_read() -> None:
    """An old copy of a store has come back: it numbers anew from row 4."""
    wire = Wire()
    for at_ms in (100_000, 101_000, 102_000, 180_000, 181_000, 182_000):
        wire.shelf.put("user/a", fact=False, at_ms=at_ms)
    for row, told in ((3, []), (5, [(0, 3)]), (9, [(0, 3)])):
        wire.got, wire.places = [], []
        wire.subscribe(id=row, start="history", store="s", row=row, time_ms=162_500, bookmarks=True, credit=10**6)
        wire.pump()
        assert [number for number, _ in wire.got] == [4, 5, 6]
        assert [place for place in wire.places if place[0] == 0] == told, "it is told where it stands in this store"


def test_a_row_that_arrived_a_moment_after_its_event_was_made_is_had() -> None:
    wire = Wire()
    for at_ms in (100_000, 100_400, 103_000):
        wire.shelf.put("user/a", fact=False, at_ms=at_ms)
    wire.subscribe(start="history", store="s", row=2, time_ms=100_000, bookmarks=True, credit=10**6)
    wire.pump()
    assert [number for number, _ in wire.got] == [3]
