"""Runs: signals that are judged at once become what they would one by one, and nothing passes that is refused (B8)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.bus.rules.validator import EventValidator
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.event.burst import parts_of
from dsmt.event.chain import SourceChain
from dsmt.event.codec import prepare, protected_header, seal, sign_burst
from dsmt.event.envelope import Event
from dsmt.event.hlc import BOUND_MS, hlc
from dsmt.event.registry import lookup
from tests.bus.test_ingest import Inward

ALICE = "operator/alice"


class Pair:
    """Two ingests: one is given runs, the other each event alone."""

    def __init__(self) -> None:
        self.stores = [SqliteStore(":memory:", identity=name * 16) for name in "ab"]
        self.runs, self.alone = self.inwards = [Inward(store) for store in self.stores]
        self.alone.now_ms = self.runs.now_ms
        self.alice, _ = (inward.identity(ALICE) for inward in self.inwards)
        self.chain = SourceChain(self.runs.now_ms)

    def events(self, count: int, topic: str = "user/t", **changes: object) -> list[Event]:
        """Some that follow each other."""
        return [self.event(topic, **changes) for _ in range(count)]

    def event(self, topic: str = "user/t", **changes: object) -> Event:
        sequence, link = self.chain.next(topic)
        match = lookup(topic)
        values = {
            "source": ALICE,
            "incarnation": self.chain.incarnation,
            "sequence": sequence,
            "chain": link,
            "type": "dsmt.user" if match is None else match.row.event_type,
            "topic": topic,
            "subject": topic,
            "time": hlc(self.runs.now_ms),
            "data": {"n": sequence},
        }
        event = Event(**{**values, **changes})  # type: ignore[arg-type]
        key = self.alice.key
        self.chain.signed(event, prepare(event, protected_header(key.algorithm, key.key_id)).leaf)
        return event

    def take(self, events: list[Event], *, session: str = ALICE, again: bool = False) -> tuple[object, object]:
        """What becomes of some events that are signed together: as a run, and alone."""
        key = self.alice.key
        protected = protected_header(key.algorithm, key.key_id)
        signed = sign_burst([prepare(one, protected) for one in events], key)
        found = []
        for inward, parts in (
            (self.runs, parts_of(one.sealed for one in signed)),
            (self.alone, [one.raw for one in signed]),
        ):
            outcome = inward.ingest.offered(session, parts, again=again)
            refused = [(refusal.id, refusal.error.code, refusal.error.message) for refusal in outcome.refused]
            found.append((outcome.accepted, refused, inward.ingest.holes.wanted(session)))
        return found[0], found[1]

    def stored(self) -> tuple[object, object]:
        """What both have stored."""
        rows = [[msgspec.structs.replace(row, sealed=row.raw) for row in one.ingest.commit()] for one in self.inwards]
        kept = [
            store._db.do("SELECT row, class, winner, expires, payer, size - length(body), body FROM events ORDER BY row")
            for store in self.stores
        ]
        assert [one[:5] for one in kept[0]] == [one[:5] for one in kept[1]]
        return rows[0], rows[1]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for store in made.stores:
        store.close()


def once(calls: list[int]) -> int:
    return sum(calls)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events were judged at once, run by run."""
    found: list[int] = []
    check_run = EventValidator.check_run

    def counted(self: EventValidator, run: list, **named: object) -> object:
        match = check_run(self, run, **named)  # type: ignore[arg-type]
        found.append(0 if match is None else len(run))
        return match

    monkeypatch.setattr(EventValidator, "check_run", counted)
    return found


def same(pair: Pair, events: list[Event], **how: object) -> tuple[object, ...]:
    ours, theirs = pair.take(events, **how)  # type: ignore[arg-type]
    assert ours == theirs
    rows, others = pair.stored()
    assert rows == others
    return ours  # type: ignore[return-value]


def test_signals_that_follow_each_other_are_judged_at_once(pair, at_once):
    same(pair, pair.events(2))  # before, nothing is known of the source
    accepted, refused, wanted = same(pair, pair.events(64))
    assert once(at_once) == 64
    assert (accepted, refused, wanted) == ([(ALICE, pair.chain.incarnation, 3, 66)], [], None)


def test_what_is_missing_before_a_run_is_asked_for(pair, at_once):
    same(pair, pair.events(2))
    pair.events(5)
    _, _, wanted = same(pair, pair.events(10))
    assert once(at_once) == 10
    assert wanted == (pair.chain.incarnation, ((3, 7),))


def test_a_run_that_comes_again_is_acknowledged_and_not_stored_again(pair):
    same(pair, pair.events(2))
    events = pair.events(10)
    same(pair, events)
    head = pair.stores[0].head
    accepted, _, _ = same(pair, events)
    assert accepted == [(ALICE, pair.chain.incarnation, 3, 12)]
    assert pair.stores[0].head == head


def test_a_run_that_comes_twice_in_one_commit_is_stored_once(pair):
    same(pair, pair.events(2))
    events = pair.events(10)
    pair.take(events)
    same(pair, events)
    assert pair.stores[0].head == pair.stores[1].head == 12


def test_another_event_of_the_same_number_in_one_commit_is_noticed(pair):
    same(pair, pair.events(2))
    events = pair.events(4)
    pair.take(events)
    other = [msgspec.structs.replace(one, data={"other": True}) for one in events]
    _, refused, _ = pair.take(other)[0]  # type: ignore[misc]
    assert [code for _, code, _ in refused] == ["event.equivocation"] * 4


@pytest.mark.parametrize("at", [0, 5, 9])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (lambda p: {"time": hlc(p.runs.now_ms + BOUND_MS + 1000)}, "clock_ahead"),
        (lambda p: {"incarnation": p.runs.now_ms + 10 * BOUND_MS}, "event.incarnation"),
        (lambda _: {"type": "dsmt.other"}, "event.schema"),
        (lambda _: {"topic": "user/other"}, None),
        (lambda _: {"topic": "nobody/knows"}, "trust.denied"),
        (lambda _: {"topic": "config/clock/b1", "type": "dsmt.user"}, "event.schema"),
        (lambda _: {"source": "operator/bob"}, "trust.name"),
        (lambda _: {"version": 3, "epoch": 1}, None),
        (lambda _: {"time": hlc(1)}, "trust.expired"),
        (lambda _: {"ttl": 5}, None),
        (lambda _: {"sequence": 900}, None),
        (lambda _: {"to": ("operator/bob",)}, None),
    ],
)
def test_one_event_of_a_run_that_is_not_like_the_others_is_judged_as_alone(pair, at, changes, code):
    same(pair, pair.events(2))
    events = pair.events(10)
    events[at] = msgspec.structs.replace(events[at], **changes(pair))
    _, refused, _ = same(pair, events)
    assert [found for _, found, _ in refused] == [code] * (code is not None)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_of_a_run_whose_data_is_bound_each_one_is_held_against_that(pair, at_once, at):
    same(pair, pair.events(2))
    topic, command = "service/web/command/app/0", {"id": "x", "verb": "START", "generation": 1, "asker": ALICE}
    events = pair.events(4, topic, data=command)
    events[at] = msgspec.structs.replace(events[at], data=command | {"verb": "ERASE"})
    _, refused, _ = same(pair, events)
    assert once(at_once) == 0
    assert [(identity.sequence, code) for identity, code, _ in refused] == [(3 + at, "event.schema")]


def test_a_run_over_the_session_of_another_is_refused(pair, at_once):
    same(pair, pair.events(2))
    _, refused, _ = same(pair, pair.events(5), session="operator/bob")
    assert once(at_once) == 0
    assert [code for _, code, _ in refused] == ["trust.relayed"] * 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user/t", "user/t", "user/u", "config/colour"]),
            st.integers(0, 2),
            st.sampled_from([0, 0, 0, 20_000]),
        ),
        min_size=2,
        max_size=12,
    ),
    st.lists(st.integers(0, 11), max_size=4),
)
def test_whatever_comes_as_a_run_becomes_what_it_does_alone(said, dropped):
    pair = Pair()
    try:
        same(pair, pair.events(2))
        events = []
        for at, (topic, more, ahead_ms) in enumerate(said):
            pair.events(more)  # which do not come
            shared = {"version": 1, "epoch": 1} if topic.startswith("config/") else {}
            event = pair.event(topic, time=hlc(pair.runs.now_ms + ahead_ms), **shared)
            if at not in dropped or at < 2:
                events.append(event)
        same(pair, events)
        same(pair, [*events, *pair.events(2)])
    finally:
        for store in pair.stores:
            store.close()


def test_an_event_alone_is_no_run(pair, at_once):
    key = pair.alice.key
    same(pair, pair.events(2))
    (alone,) = seal(pair.events(1), key)
    assert pair.runs.ingest.offered(ALICE, [alone.raw]).accepted
    assert at_once == []


def test_no_run_is_taken_of_an_agent_whose_slot_is_not_on_its_node(pair):
    agent = "agent/n1/web/app/0"
    pair.alice, _ = (inward.identity(agent) for inward in pair.inwards)
    for count in (1, 3):  # runs are taken of whom something has come before
        run, alone = pair.take(pair.events(count, "app/web/t", source=agent), session=agent)
        assert run == alone
        assert [code for _, code, _ in run[1]] == ["trust.denied"] * count
