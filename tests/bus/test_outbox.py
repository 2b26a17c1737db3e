"""The outbox: bounded, in order, and evidence is never lost (rule D2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.outbox import WINDOW_BYTES, WINDOW_EVENTS, Outbox
from dsmt.event.envelope import Event, Link, SignedEvent

LIMIT = 10_000


def event(sequence: int, topic: str, number: int, size: int) -> SignedEvent:
    made = Event(
        source="operator/a",
        incarnation=1,
        sequence=sequence,
        chain=Link(number, bytes(32)),
        type="t",
        topic=topic,
        subject=topic,
        time=sequence,
        data={},
    )
    return SignedEvent(made, bytes(size), bytes(32), b"k")


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
            for identity in box.waiting("operator/a", 1, 1, one):
                box.settled(identity)
                settled.add(identity)
        else:
            box.again()
        flying, flying_bytes = box.flying
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
    declared = {topic: box.declare(topic) for topic in newest}
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
    assert box.declare("user/t") == (1, 1)
    assert box.declare("user/t") is None


def test_superseded_facts_go_before_signals():
    box = Outbox(1000)
    for n in range(1, 4):
        box.add(event(n, "user/fact", n, 300), fact=True, evidence=True)
    dropped = box.add(event(4, "user/signal", 1, 300), fact=False, evidence=False)
    assert [i.sequence for i in dropped] == [1]
    assert len(box.add(event(5, "user/signal", 2, 300), fact=False, evidence=False)) == 1
    assert len(box) == 3
