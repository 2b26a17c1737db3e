"""A reader of chains: every event once, in order, and no hole that is not said (rule B1, B4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.follower import HOLD_BACK, ChainFollower, Closing, MissingPart
from dsmt.event.chain import MAX_MISSING, ChainReader
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.merkle import leaf_hash
from dsmt.ports.bus import Arrived, Notice

TOPIC = "user/t"


def chain(length: int, *, incarnation: int = 1, topic: str = TOPIC, declares=None) -> list[Arrived]:
    made, previous = [], NO_LEAF
    for n in range(1, length + 1):
        event = Event(
            source="operator/a",
            incarnation=incarnation,
            sequence=10 * n,
            chain=ChainLink(n, previous),
            type="t",
            topic=topic,
            subject=topic,
            time=n,
            data={"n": n},
            declares=(declares or {}).get(n),
        )
        leaf = leaf_hash(topic.encode(), f"{incarnation}-{n}".encode())
        made.append(Arrived(SignedEvent(event, b"", leaf, b"k"), n, live=True))
        previous = leaf
    return made


def shown(deliveries) -> list[object]:
    return [
        one.signed.event.data["n"]
        if isinstance(one, Arrived)
        else (one.type.removeprefix("dsmt.notice."), *[one.fields[k] for k in ("from", "to", "number") if k in one.fields])
        for one in deliveries
    ]


def feed(reader, arrivals, now=0.0):
    return shown([d for one in arrivals for d in reader.arrived(one, now)])


def test_what_is_in_order_is_delivered_as_it_comes():
    assert feed(ChainFollower(), chain(4)) == [1, 2, 3, 4]


def test_a_duplicate_is_dropped():
    events = chain(3)
    assert feed(ChainFollower(), [*events, *events]) == [1, 2, 3]


def test_what_is_missing_is_wanted_and_repaired_in_order_without_a_word():
    reader, events = ChainFollower(), chain(5)
    assert feed(reader, [events[0], events[3], events[4]]) == [1]
    assert reader.deadline == HOLD_BACK
    assert reader.wanted() == [MissingPart("operator/a", 1, TOPIC, 10, 40)]
    assert reader.wanted() == []
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), events[1:3], 0.01)
    assert shown(found) == [2, 3, 4, 5]
    assert reader.deadline is None
    reader.again()
    assert reader.wanted() == [], "what was answered is missing no more"


def test_what_nobody_has_is_said_to_be_lost_where_it_is_missing():
    reader, events = ChainFollower(), chain(5)
    feed(reader, [events[0], events[3]])
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), [], 0.01)
    assert shown(found) == [("gap", 2, 3), ("lost", 2, 3), 4]
    assert feed(reader, [events[4], events[1]]) == [5, 2, ("filled", 2)], "it comes late all the same, and is told"


def test_a_gap_that_is_not_answered_in_time_is_told_and_filled_later():
    reader, events = ChainFollower(), chain(5)
    feed(reader, [events[0], events[3]])
    assert reader.timer(HOLD_BACK - 0.01) == []
    assert shown(reader.timer(HOLD_BACK)) == [("gap", 2, 3), 4]
    assert feed(reader, [events[1]]) == [2, ("filled", 2)]
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "trimmed"), [events[2]], 1.0)
    assert shown(found) == [3, ("filled", 3)]
    assert feed(reader, [events[4]]) == [5]


def test_what_a_source_declares_is_closed_at_once():
    reader, events = ChainFollower(), chain(5, declares={4: (2, 3)})
    assert feed(reader, [events[0], events[3], events[4]]) == [1, ("declared", 2, 3), 4, 5]
    assert reader.wanted() == []


def test_a_single_event_that_a_source_declares_is_not_asked_for():
    reader, events = ChainFollower(), chain(3, declares={3: (2, 2)})
    assert feed(reader, [events[0], events[2]]) == [1, ("declared", 2, 2), 3]
    assert reader.wanted() == []


def test_a_later_event_may_declare_an_older_gap():
    reader, events = ChainFollower(), chain(6, declares={6: (2, 3)})
    feed(reader, [events[0], events[3]])
    assert shown(reader.timer(1.0)) == [("gap", 2, 3), 4]
    assert feed(reader, events[4:]) == [5, ("declared", 2, 3), 6]


@pytest.mark.parametrize("word", ["declared", "trimmed"])
def test_what_is_missing_before_a_gap_that_is_closed_comes_or_is_told_all_the_same(word):
    """The answer to the later gap, or its source's own word on it, is here first."""

    def ahead():
        reader, events = ChainFollower(), chain(8, declares={7: (5, 6)} if word == "declared" else {})
        assert feed(reader, [events[0], events[3], events[6]]) == [1]
        if word == "trimmed":
            assert reader.repaired(Closing("operator/a", 1, TOPIC, 70, "trimmed"), [], 0.01) == []
        return reader, events

    closed = [("declared", 5, 6)] if word == "declared" else [("gap", 5, 6), ("trimmed", 5, 6)]
    answer = Closing("operator/a", 1, TOPIC, 40, "lost")
    reader, events = ahead()
    assert shown(reader.repaired(answer, events[1:3], 0.01)) == [2, 3, 4, *closed, 7]
    reader, events = ahead()
    assert shown(reader.repaired(answer, events[1:2], 0.01)) == [("gap", 3, 3), ("lost", 3, 3), 2, 4, *closed, 7]
    reader, events = ahead()
    assert shown(reader.timer(HOLD_BACK)) == [("gap", 2, 3), 4, *closed, 7]
    assert feed(reader, [events[2], events[7], events[4]]) == [3, ("filled", 3), 8, 5, ("filled", 5)]


def test_of_two_gaps_each_is_told_where_it_is():
    reader, events = ChainFollower(), chain(7)
    feed(reader, [events[0], events[3], events[6]])
    assert shown(reader.timer(HOLD_BACK)) == [("gap", 2, 3), 4, ("gap", 5, 6), 7]


def test_the_oldest_of_more_holes_than_are_remembered_is_lost_whether_it_was_told_or_is_held_back():
    events = chain(2 * MAX_MISSING + 5)
    odd = events[: 2 * MAX_MISSING + 3 : 2]
    reader = ChainFollower()
    assert feed(reader, odd) == [1, ("lost", 2, 2)]
    reader.wanted()
    reader.again()
    assert [wanted.before for wanted in reader.wanted()][:1] == [50], "of what is lost nothing is wanted"
    reader = ChainFollower()
    feed(reader, [events[0], events[-1]])
    reader.timer(HOLD_BACK)
    assert ("lost", 2, 2) in feed(reader, odd[1:])
    assert feed(reader, [events[1], events[-2]]) == [len(events) - 1, ("filled", len(events) - 1)]


def test_a_broker_that_has_more_and_sends_nothing_has_lost_it():
    reader, events = ChainFollower(), chain(4)
    feed(reader, [events[0], events[3]])
    reader.wanted()
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "more"), [], 0.01)
    assert shown(found) == [("gap", 2, 3), ("lost", 2, 3), 4]
    assert reader.wanted() == []


def test_what_is_missing_of_a_topic_is_wanted_from_the_last_that_was_read_of_it_on():
    reader, first, second, third = ChainFollower(), chain(6), chain(4, topic="user/b"), chain(3, topic="user/c")
    feed(reader, [first[0], second[0], first[1], first[3], third[0], first[4], third[2], second[3]])
    assert [(wanted.topic, wanted.after) for wanted in reader.wanted()] == [(TOPIC, 20), ("user/c", 10), ("user/b", 10)]


def test_a_notice_names_whose_word_it_is_about_and_where_that_stands():
    reader, events = ChainFollower(), chain(5)
    forged = Arrived(SignedEvent(events[3].signed.event, b"", b"x" * 32, b"k"), 9, live=True)
    found = [one for arrived in (events[0], events[3], forged) for one in reader.arrived(arrived, 0.0)]
    found += reader.timer(1.0) + reader.arrived(events[1], 1.0)
    found += reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), [], 1.0)
    notices = [one for one in found if isinstance(one, Notice)]
    assert [one.type.rpartition(".")[2] for one in notices] == ["equivocation", "gap", "filled", "lost"]
    for notice in notices:
        assert (notice.fields["source"], notice.fields["topic"]) == ("operator/a", TOPIC)
        assert TOPIC in notice.message
        assert f"#{notice.fields.get('number', notice.fields.get('from'))}" in notice.message
    assert all("operator/a" in one.message for one in notices if one.type != "dsmt.notice.filled")


@pytest.mark.parametrize("word", ["lost", "trimmed", "declared"])
def test_what_was_closed_and_comes_all_the_same_is_delivered_once_and_told(word):
    """A broker had it alone, and was away for longer than others wait for it."""
    reader, events = ChainFollower(), chain(6, declares={5: (2, 3)} if word == "declared" else {})
    feed(reader, [events[0], events[3]])
    assert shown(reader.timer(1.0)) == [("gap", 2, 3), 4]
    closed = reader.repaired(Closing("operator/a", 1, TOPIC, 40, word), [], 2.0) if word != "declared" else []
    assert [*shown(closed), *feed(reader, [events[4]])][0] == (word, 2, 3)
    assert feed(reader, [events[2], events[1], *events]) == [3, ("filled", 3), 2, ("filled", 2), 6]
    assert reader.wanted()[1:] == [], "it is asked for once"
    reader.again()
    assert reader.wanted() == []


def test_a_gap_is_closed_when_its_chain_is_forgotten_for_there_are_too_many(monkeypatch):
    reader, events = ChainFollower(), chain(5)
    monkeypatch.setattr(reader, "_chains", ChainReader(most=2))
    feed(reader, [events[0], events[3]])
    assert shown(reader.timer(1.0)) == [("gap", 2, 3), 4]
    assert feed(reader, [events[1], *chain(1, topic="user/b")]) == [2, ("filled", 2), 1]
    assert feed(reader, chain(1, topic="user/c")) == [("lost", 3, 3), 1]
    reader.again()
    assert reader.wanted() == [], "nobody waits for it"
    assert reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), [], 2.0) == []
    reader.again()
    assert feed(reader, [events[4]]) == [5]
    assert reader.wanted() == []


def test_of_a_chain_that_is_forgotten_its_own_gaps_are_closed_and_not_those_of_its_sources_next_incarnation(monkeypatch):
    reader, older, newer = ChainFollower(), chain(4), chain(4, incarnation=2)
    monkeypatch.setattr(reader, "_chains", ChainReader(most=2))
    feed(reader, [older[0], older[3], newer[0], newer[3]])
    reader.timer(1.0)
    assert feed(reader, chain(1, topic="user/c")) == [("lost", 2, 3), 1]
    assert feed(reader, newer[1:3]) == [2, ("filled", 2), 3, ("filled", 3)]


def test_an_answer_to_what_is_missing_no_more_closes_nothing_twice():
    reader, events = ChainFollower(), chain(6, declares={5: (2, 3)})
    feed(reader, [events[0], events[3]])
    assert feed(reader, [events[4]]) == [("declared", 2, 3), 4, 5]
    late = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), events[1:3], 0.01)
    assert shown(late) == [2, ("filled", 2), 3, ("filled", 3)]
    assert reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), events[1:3], 0.01) == []
    assert reader.repaired(Closing("operator/b", 1, TOPIC, 40, "lost"), [], 0.01) == []
    assert feed(reader, [events[5]]) == [6]


def test_a_long_gap_is_repaired_in_parts():
    reader, events = ChainFollower(), chain(9)
    feed(reader, [events[0], events[8]])
    reader.wanted()
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 90, "more"), events[1:4], 0.01)
    assert found == [], "it stays held back, at most as long as anything is"
    assert [(w.after, w.before) for w in reader.wanted()] == [(40, 90)]
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 90, "lost"), events[4:8], 0.02)
    assert shown(found) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_new_incarnation_is_a_baseline_and_waits_for_what_is_held_back_of_the_one_before():
    reader = ChainFollower()
    old, new = chain(4), chain(2, incarnation=2)
    feed(reader, [old[0], old[3]])
    assert feed(reader, new) == []
    assert shown(reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), old[1:3], 0.01)) == [2, 3, 4, 1, 2]


def test_what_an_incarnation_owes_is_told_though_a_newer_one_has_begun():
    reader = ChainFollower()
    old, new = chain(5), chain(2, incarnation=2)
    feed(reader, [old[0], old[3], *new])
    assert shown(reader.timer(HOLD_BACK)) == [("gap", 2, 3), 4, 1, 2]
    assert feed(reader, [old[1], old[4]]) == [2, ("filled", 2), 5]
    assert shown(reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), [], 0.3)) == [("lost", 3, 3)]


def test_what_an_incarnation_has_said_comes_though_it_was_not_heard_of_before_a_newer_one():
    """A broker had it alone, and was away."""
    reader, old = ChainFollower(), chain(4)
    assert feed(reader, chain(2, incarnation=2)) == [1, 2]
    assert feed(reader, [*old[2:], *old[:2], *old]) == [3, 4, 1, 2]
    assert reader.wanted() == []


def test_of_two_incarnations_that_miss_the_same_numbers_the_one_is_closed_that_is_answered_for():
    reader, old, new = ChainFollower(), chain(4), chain(4, incarnation=2)
    feed(reader, [old[0], old[3], new[0], new[3]])
    assert [(one.incarnation, one.after, one.before) for one in reader.wanted()] == [(1, 10, 40), (2, 10, 40)]
    assert reader.repaired(Closing("operator/a", 2, TOPIC, 40, "trimmed"), [], 0.01) == []
    found = reader.repaired(Closing("operator/a", 1, TOPIC, 40, "lost"), old[1:3], 0.02)
    assert shown(found) == [2, 3, 4, 1, ("gap", 2, 3), ("trimmed", 2, 3), 4]
    assert [one.fields["incarnation"] for one in found if isinstance(one, Notice)] == [2, 2]


def test_what_comes_late_of_one_incarnation_is_none_of_what_another_misses():
    reader, old, new = ChainFollower(), chain(5), chain(5, incarnation=2)
    feed(reader, [old[0], old[4], new[0], new[4]])
    assert feed(reader, [new[3], old[2], new[1]]) == []
    told = shown(reader.timer(HOLD_BACK))
    assert told == [("gap", 2, 2), ("gap", 4, 4), 3, 5, 1, ("gap", 3, 3), 2, 4, 5]


def test_what_one_incarnation_loses_is_no_loss_of_another():
    reader, old, new = ChainFollower(), chain(3), chain(2 * MAX_MISSING + 3, incarnation=2)
    feed(reader, [old[0], old[2], *new[::2]])
    reader.wanted()
    reader.again()
    assert [(one.incarnation, one.before) for one in reader.wanted()][:2] == [(1, 30), (2, 50)]


def test_an_answer_that_does_not_say_of_which_incarnation_closes_the_gap_that_ends_there():
    reader, events = ChainFollower(), chain(4)
    feed(reader, [events[0], events[3]])
    assert shown(reader.repaired(Closing("operator/a", 0, TOPIC, 40, "lost"), events[1:3], 0.01)) == [2, 3, 4]


def test_two_events_with_one_number_are_both_delivered_and_noticed():
    reader, events = ChainFollower(), chain(2)
    other = chain(2, topic=TOPIC)[1]
    forged = Arrived(SignedEvent(other.signed.event, b"", b"x" * 32, b"k"), 9, live=True)
    assert feed(reader, [*events, forged]) == [1, 2, 2, ("equivocation", 2)]


def test_what_is_still_open_is_wanted_again_after_a_lost_link():
    reader, events = ChainFollower(), chain(4)
    feed(reader, [events[0], events[3]])
    assert len(reader.wanted()) == 1
    reader.again()
    assert [w.before for w in reader.wanted()] == [40]


@given(st.data())
def test_any_interleaving_is_delivered_once_and_every_hole_is_said(data):
    length = data.draw(st.integers(2, 14))
    events = chain(length)
    lost = data.draw(st.sets(st.integers(2, length), max_size=6))
    late = data.draw(st.sets(st.integers(2, length), max_size=6))
    reader, found, now = ChainFollower(), [], 0.0
    live = [e for n, e in enumerate(events, 1) if n not in lost and n not in late]
    pending = []

    def answer(wanted):
        there = [
            e for n, e in enumerate(events, 1) if n not in lost and wanted.after < e.signed.event.sequence < wanted.before
        ]
        found.extend(reader.repaired(Closing("operator/a", 1, TOPIC, wanted.before, "lost"), there, now))

    for one in live:
        now += data.draw(st.sampled_from([0.0, 0.05, 0.3]))
        if reader.deadline is not None and reader.deadline <= now:
            found.extend(reader.timer(now))
        found.extend(reader.arrived(one, now))
        if data.draw(st.booleans()):
            found.extend(reader.arrived(one, now))
        pending.extend(reader.wanted())
        while pending and data.draw(st.booleans()):
            answer(pending.pop(0))
    while pending:
        answer(pending.pop(0))
        pending.extend(reader.wanted())
    found.extend(reader.timer(now + 1))
    numbers = [d.signed.event.chain.number for d in found if isinstance(d, Arrived)]
    assert len(numbers) == len(set(numbers)), "once each"
    last = live[-1].signed.event.chain.number
    there = {n for n in range(1, last + 1) if n not in lost}
    assert set(numbers) == there
    told = {
        n
        for d in found
        if not isinstance(d, Arrived) and d.type == "dsmt.notice.lost"
        for n in range(d.fields["from"], d.fields["to"] + 1)
    }
    assert told == {n for n in range(1, last + 1) if n in lost}, "what is lost is said, and nothing else"
    gaps = [
        n
        for d in found
        if not isinstance(d, Arrived) and d.type == "dsmt.notice.gap"
        for n in range(d.fields["from"], d.fields["to"] + 1)
    ]
    assert set(gaps) >= told
    seen = set()
    for one in found:
        if isinstance(one, Arrived):
            number = one.signed.event.chain.number
            holes = {n for n in range(1, number) if n not in seen}
            assert holes <= set(gaps) | lost, "nothing overtakes without a word"
            seen.add(number)
