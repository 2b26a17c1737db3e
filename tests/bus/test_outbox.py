"""The outbox: bounded, in order, and evidence is never lost (rule D2)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.outbox import WINDOW_BYTES, WINDOW_EVENTS, Outbox
from dsmt.event.envelope import ChainLink, Event, EventRange, SignedEvent

LIMIT = 2_000


def event(
    sequence: int, topic: str, number: int, size: int, *, incarnation: int = 1, version: int | None = None
) -> SignedEvent:
    made = Event(
        source="operator/a",
        incarnation=incarnation,
        sequence=sequence,
        chain=ChainLink(number, bytes(32)),
        type="t",
        topic=topic,
        subject=topic,
        time=sequence,
        data={},
        version=version,
    )
    return SignedEvent(made, bytes(size), bytes(32), b"k")


def declare(box: Outbox, topic: str) -> tuple[int, int] | None:
    found = box.undeclared(topic)
    box.declared(topic)
    return found


KINDS = {"user/fact": (True, True), "user/signal": (False, False), "user/evidence": (False, True)}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([f"{k}{n}" for k in KINDS for n in range(3)]), st.integers(100, 900)),
        st.tuples(st.just("due"), st.none(), st.none()),
        st.tuples(st.just("ack"), st.integers(0, 50), st.none()),
        st.tuples(st.just("again"), st.none(), st.none()),
    ),
    max_size=120,
)


@given(steps)
def test_what_is_dropped_is_declared_bounded_and_never_evidence_nor_the_newest(script):
    box, numbers, added, settled, dropped = Outbox(LIMIT), {}, {}, set(), []
    sequence = 0
    for what, one, size in script:
        if what == "add":
            sequence += 1
            numbers[one] = numbers.get(one, 0) + 1
            made = event(sequence, one, numbers[one], size)
            fact, evidence = KINDS[one.rstrip("012")]
            added[made.id] = (made, fact, evidence)
            dropped.extend(box.add(made, fact=fact, evidence=evidence))
        elif what == "due":
            box.due()
        elif what == "ack":
            for identity in box.waiting(EventRange("operator/a", 1, 1, one)):
                box.settled(identity)
                settled.add(identity)
        else:
            box.again()
        flying, flying_bytes = box._flying, box._flying_bytes
        assert 0 <= flying <= WINDOW_EVENTS
        assert 0 <= flying_bytes <= WINDOW_BYTES + 64 * 1024
    newest = {}
    for identity, (made, _, _) in added.items():
        newest[made.event.topic] = identity
    for identity in dropped:
        made, fact, evidence = added[identity]
        assert fact or not evidence, "evidence that no newer fact supersedes is never dropped"
        assert newest[made.event.topic] != identity
    assert len(box) == len(added) - len(settled) - len(set(dropped) - settled)
    box.again()
    left = [i for i in added if i not in settled and i not in dropped]
    assert [s.id for s in _all_due(box)] == left, "everything left is sent again, in order"
    declared = {topic: declare(box, topic) for topic in newest}
    for identity in dropped:
        made = added[identity][0]
        first, last = declared[made.event.topic]
        assert first <= made.event.chain.number <= last
    undroppable = sum(len(added[i][0].raw) for i in left if _must_stay(added, newest, i))
    assert box.bytes <= max(LIMIT, undroppable * 1.2 + LIMIT * 0.2 + 1024 + WINDOW_BYTES * bool(settled))


def _must_stay(added, newest, identity):
    made, fact, evidence = added[identity]
    return newest[made.event.topic] == identity or (evidence and not fact)


def _all_due(box):
    found = []
    while due := box.due():
        found.extend(due)
        for one in due:
            box.settled(one.id)
        for one in due:  # put back what was only looked at
            box._kept[one.id] = None
    box._kept.clear()
    return found


def test_no_more_than_the_window_is_in_flight():
    box = Outbox()
    for n in range(1, 3 * WINDOW_EVENTS):
        box.add(event(n, "user/t", n, 100), fact=False, evidence=False)
    first = box.due()
    assert [s.event.sequence for s in first] == list(range(1, WINDOW_EVENTS + 1))
    assert box.due() == []
    for one in first[:10]:
        box.settled(one.id)
    assert [s.event.sequence for s in box.due()] == list(range(WINDOW_EVENTS + 1, WINDOW_EVENTS + 11))


def test_large_events_fill_the_window_by_bytes():
    box = Outbox()
    for n in range(1, 101):
        box.add(event(n, "user/t", n, 64_000), fact=False, evidence=False)
    assert len(box.due()) == WINDOW_BYTES // 64_000 + 1


def test_a_refused_event_is_declared_by_the_next_on_its_topic():
    box = Outbox()
    box.add(event(1, "user/t", 1, 100), fact=False, evidence=True)
    box.refused(event(1, "user/t", 1, 100).id)
    assert declare(box, "user/t") == (1, 1)
    assert declare(box, "user/t") is None


def test_what_an_event_has_declared_that_is_refused_too_is_declared_by_the_next_one():
    box = Outbox()
    for number in (1, 2, 3):  # the third one is on its way when the second is refused
        made = event(number, "user/t", number, 10)
        if number == 2:
            declares = declare(box, "user/t")
            assert declares == (1, 1)
            made = SignedEvent(msgspec.structs.replace(made.event, declares=declares), bytes(10), bytes(32), b"k")
        box.add(made, fact=True, evidence=True)
        box.refused(made.id)
    assert declare(box, "user/t") == (1, 3)


def test_superseded_facts_go_before_signals():
    box = Outbox(1000)
    for n in range(1, 4):
        box.add(event(n, "user/fact", n, 300), fact=True, evidence=True)
    dropped = box.add(event(4, "user/signal", 1, 300), fact=False, evidence=False)
    assert [i.sequence for i in dropped] == [1]
    assert len(box.add(event(5, "user/signal", 2, 300), fact=False, evidence=False)) == 1
    assert len(box) == 3


def filled(*sequences: int, incarnation: int = 1, size: int = 100) -> Outbox:
    box = Outbox()
    for n in sequences:
        box.add(event(n, "user/t", n, size, incarnation=incarnation), fact=False, evidence=True)
    return box


def sent(box: Outbox) -> list[int]:
    return [one.event.sequence for one in box.due()]


def test_up_to_the_limit_nothing_is_dropped_and_above_it_room_is_made_for_many():
    box = Outbox(1000)
    dropped = [box.add(event(n, "user/fact", n, 100), fact=True, evidence=True) for n in range(1, 11)]
    assert not any(dropped)
    assert [i.sequence for i in box.add(event(11, "user/fact", 11, 100), fact=True, evidence=True)] == [1, 2]
    assert box.bytes == 900
    assert declare(box, "user/other") is None
    assert declare(box, "user/fact") == (1, 2)


def test_a_shared_fact_is_never_dropped_for_what_replaces_it_would_be_refused():
    box = Outbox(1000)
    for n in range(1, 12):
        assert box.add(event(n, "user/fact", n, 100, version=n), fact=True, evidence=True) == []


def test_what_cannot_be_dropped_is_looked_at_again_when_a_tenth_has_come_on_top():
    box = Outbox(1000)
    for n in range(1, 13):
        assert box.add(event(n, "user/evidence", n, 100), fact=False, evidence=True) == []
    box.add(event(13, "user/fact", 1, 10), fact=True, evidence=True)
    assert box.add(event(14, "user/fact", 2, 10), fact=True, evidence=True) == [], "1220 bytes: 1200 were looked at"
    assert [i.sequence for i in box.add(event(15, "user/fact", 3, 90), fact=True, evidence=True)] == [13, 14]


def test_of_signals_the_oldest_that_are_no_evidence_are_dropped():
    box = Outbox(1000)
    box.add(event(1, "user/evidence", 1, 100), fact=False, evidence=True)
    dropped = [box.add(event(n, "user/signal", n, 100), fact=False, evidence=False) for n in range(2, 12)]
    assert [[i.sequence for i in one] for one in dropped if one] == [[2, 3]]
    box.add(event(12, "user/evidence", 2, 100), fact=False, evidence=True)
    assert [i.sequence for i in box.add(event(13, "user/evidence", 3, 100), fact=False, evidence=True)] == [4, 5]


def test_what_is_on_its_way_and_the_newest_of_each_topic_stay():
    box = Outbox(1000)
    box.add(event(1, "user/fact", 1, 300), fact=True, evidence=True)
    assert sent(box) == [1]
    for n in (2, 3):
        box.add(event(n, f"user/signal{n}", 1, 300), fact=False, evidence=False)
    assert box.add(event(4, "user/fact", 2, 300), fact=True, evidence=True) == []
    assert sent(box) == [2, 3, 4]


def test_an_answer_makes_room_for_as_many_bytes_as_it_was_about():
    box = filled(*range(1, 40), size=64_000)
    first = sent(box)
    assert (box._flying, box._flying_bytes) == (len(first), 64_000 * len(first))
    assert box.settled(event(1, "user/t", 1, 0).id) is not None
    assert box.settled(event(1, "user/t", 1, 0).id) is None
    assert (box._flying, box._flying_bytes) == (len(first) - 1, 64_000 * (len(first) - 1))
    assert sent(box) == [first[-1] + 1]
    box.again()
    assert (box._flying, box._flying_bytes) == (0, 0)


@pytest.mark.parametrize(("first", "last"), [(3, 4), (2, 4), (0, 3), (1, 1), (4, 900), (3, 2)])
def test_what_is_waited_for_of_a_range_is_exactly_what_is_kept_of_it(first: int, last: int):
    box = filled(1, 3, 4, 7)
    box.add(event(3, "user/u", 1, 100, incarnation=2), fact=False, evidence=True)
    kept = box.waiting(EventRange("operator/a", 1, first, last))
    assert [i.sequence for i in kept] == [n for n in (1, 3, 4, 7) if first <= n <= last]
    assert box.waiting(EventRange("operator/b", 1, first, last)) == []
    assert [i.sequence for i in box.waiting(EventRange("operator/a", 2, first, last))] == [3] * (first <= 3 <= last)


def test_what_is_missing_is_sent_again_before_all_else_and_in_order():
    box = filled(*range(1, 9))
    for n in (9, 10):
        assert len(sent(box)) == (8 if n == 9 else 1)
        box.add(event(n, "user/t", n, 100), fact=False, evidence=True)
    assert box.resend(EventRange("operator/a", 1, 3, 5)) == [3, 4, 5]
    assert (box._flying, box._flying_bytes) == (6, 600)
    assert box.resend(EventRange("operator/a", 1, 5, 5)) == [5], "though it waits already"
    assert (box._flying, box._flying_bytes) == (6, 600)
    assert box.resend(EventRange("operator/a", 2, 3, 5)) == box.resend(EventRange("operator/b", 1, 3, 5)) == []
    assert sent(box) == [5, 3, 4, 10]
    assert (box._flying, box._flying_bytes) == (10, 1000)


def test_up_to_where_all_of_an_incarnation_was_answered():
    box = filled(1, 2, 3)
    box.add(event(1, "user/t", 1, 100, incarnation=2), fact=False, evidence=True)
    assert (box.before(1, 9), box.before(2, 9), box.before(3, 9)) == (0, 0, 9)
    box.settled(event(1, "user/t", 1, 0).id)
    box.settled(event(2, "user/t", 2, 0).id)
    assert box.before(1, 3) == 2


def test_what_is_kept_of_one_incarnation_goes_before_that_of_others():
    box = filled(5, 6)
    for n in (1, 2):
        box.add(event(n, "user/t", n, 100, incarnation=2), fact=False, evidence=True)
    assert sent(box) == [5, 6, 1, 2]
    box.goes_first(2)
    assert sent(box) == [1, 2, 5, 6]


def test_only_shared_facts_are_given_up_with_a_link():
    box = filled(1)
    box.add(event(2, "user/f", 1, 100, version=3), fact=True, evidence=True)
    assert [i.sequence for i in box.unanswered()] == [2]


def test_what_is_dropped_is_declared_in_its_own_incarnation_only_and_once():
    box = filled(1, 2, 3)
    for n in (3, 1):
        box.refused(event(n, "user/t", n, 0).id)
    box.refused(event(9, "user/t", 9, 0).id)
    assert declare(box, "user/t") == (1, 3)
    assert declare(box, "user/t") is None
    box.refused(event(2, "user/t", 2, 0).id)
    box.declare_from(2)
    assert declare(box, "user/t") is None
    box.add(event(4, "user/t", 4, 100), fact=False, evidence=True)
    box.add(event(1, "user/t", 1, 100, incarnation=2), fact=False, evidence=True)
    box.refused(event(4, "user/t", 4, 0).id)
    assert declare(box, "user/t") is None
    box.refused(event(1, "user/t", 1, 0, incarnation=2).id)
    assert declare(box, "user/t") == (1, 1)


def test_what_was_dropped_before_it_was_sent_is_held_no_more():
    box, gone = Outbox(10_000), []
    for n in range(1, 200):
        gone += box.add(event(n, "user/t", n, 1000), fact=False, evidence=False)
    assert len(gone) > 100
    assert len(box._unsent) == len(box) < 20
