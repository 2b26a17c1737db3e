"""The fold that readers, nodes and views share: a join, epochs and all (rules A1, A6, E3)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.fold import Fold, WinnerChange
from dsmt.event.payload import payload

THING = "service/web"
TOPICS = ["service/web/spec", "service/web/slot/app/0", "nodeset/good", f"tombstone/{THING}"]


def said(topic, *, epoch=1, version=1, at=5, sequence=1):
    event = Event(
        source="operator/a",
        incarnation=1,
        sequence=sequence,
        chain=ChainLink(1, NO_LEAF),
        type="t",
        topic=topic,
        subject="",
        time=at,
        data={},
        epoch=epoch,
        version=version,
    )
    return SignedEvent(event, payload(event), NO_LEAF, b"")


small = st.integers(1, 4)
facts = st.lists(st.builds(said, st.sampled_from(TOPICS), epoch=small, version=small, at=small, sequence=small), max_size=12)


def folded(signed):
    fold = Fold()
    for one in signed:
        fold.take(one)
    return fold


def all_of(fold):
    return (
        {one.event.topic: one for one in fold},
        {topic: fold.epoch(topic) for topic in TOPICS},
        fold.ended(THING),
    )


@given(facts, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_winners_ends_and_epochs_are_the_same_in_any_order_and_with_duplicates(signed, random):
    other = [*signed, *signed[: len(signed) // 2]]
    random.shuffle(other)
    assert all_of(folded(other)) == all_of(folded(signed))


def test_a_late_fact_of_an_earlier_epoch_does_not_take_the_thing_back_to_it():
    fold = folded([said("service/web/spec", epoch=3), said("service/web/slot/app/0", epoch=2)])
    assert fold.epoch("service/web/hold") == 3


def test_after_a_tombstone_the_next_epoch_is_meant():
    fold = folded([said("service/web/spec", epoch=3), said(f"tombstone/{THING}", epoch=3, sequence=2)])
    assert (fold.ended(THING), fold.epoch("service/web/spec"), fold.get("service/web/spec")) == (3, 4, None)


def test_the_winner_of_a_topic_is_given_and_a_change_names_the_one_before_it():
    first, second = said("service/web/spec"), said("service/web/spec", version=2)
    fold = folded([first])
    assert fold.get("service/web/spec") == first
    assert fold.take(second) == [WinnerChange("service/web/spec", first, second)]
    assert fold.take(first) == []
    assert (fold.get("service/web/spec"), len(fold)) == (second, 1)


def test_a_tombstone_of_an_epoch_that_has_ended_changes_nothing():
    fold = folded([said(f"tombstone/{THING}", epoch=3)])
    assert fold.take(said(f"tombstone/{THING}", epoch=3)) == []
    assert fold.take(said(f"tombstone/{THING}", epoch=2)) == []
    assert fold.ended(THING) == 3


def test_what_was_heard_of_a_thing_goes_with_the_last_of_its_facts_unless_it_has_ended():
    facts = [said("service/web/spec", epoch=3), said("service/web/slot/app/0", epoch=2)]
    fold = folded(facts)
    for fact in facts:
        assert fold.epoch("service/web/spec") == 3
        assert fold.drop(fact.event.topic) == fact
    assert (fold.epoch("service/web/spec"), len(fold)) == (1, 0)
    ended = folded([said(f"tombstone/{THING}", epoch=2), said("service/web/spec", epoch=4)])
    ended.drop("service/web/spec")
    assert (ended.ended(THING), ended.epoch("service/web/spec")) == (2, 4)


def test_what_a_tombstone_hides_is_told_before_the_tombstone_in_order_of_the_topics():
    fold = folded([said("service/web/spec"), said("service/web/slot/app/0", sequence=2)])
    changes = fold.take(said(f"tombstone/{THING}", sequence=3))
    assert [(one.topic, one.after is None) for one in changes] == [
        ("service/web/slot/app/0", True),
        ("service/web/spec", True),
        (f"tombstone/{THING}", False),
    ]
