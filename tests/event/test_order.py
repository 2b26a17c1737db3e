"""Fact order: total, and the fold over it a join (rule A1, A3, A6, E3)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.event.envelope import NO_LEAF, ChainLink, Event, thing_of
from dsmt.event.order import is_over, newer


def fact(topic="service/web/spec", *, source="operator/a", at=5, version=1, epoch=1, incarnation=1, sequence=1, data=None):
    return Event(
        source=source,
        incarnation=incarnation,
        sequence=sequence,
        chain=ChainLink(1, NO_LEAF),
        type="t",
        topic=topic,
        subject="",
        time=at,
        data=data or {},
        epoch=None if version is None else epoch,
        version=version,
    )


small = st.integers(1, 3)
sources = st.sampled_from(["operator/a", "operator/b"])
contents = st.sampled_from([{}, {"x": 1}])
TOPICS = ["service/web/spec", "service/web/slot/app/0", "service/webs/spec", "nodeset/good"]
shared = st.builds(
    fact,
    st.sampled_from([*TOPICS, "tombstone/service/web"]),
    source=sources,
    at=st.integers(1, 4),
    version=small,
    epoch=small,
    incarnation=small,
    sequence=small,
    data=contents,
)
owned = st.builds(
    fact,
    st.just("node/n1/attributes"),
    source=st.just("monitor/n1"),
    version=st.none(),
    at=small,
    incarnation=small,
    sequence=small,
    data=contents,
)
facts = st.lists(shared | owned, max_size=14)


def of_one_topic(count):
    return st.sampled_from([*TOPICS, "tombstone/service/web"]).flatmap(
        lambda topic: st.tuples(*[shared.map(lambda f: msgspec.structs.replace(f, topic=topic))] * count)
    ) | st.tuples(*[owned] * count)


@given(of_one_topic(2))
@settings(max_examples=200)
def test_of_two_different_facts_exactly_one_wins(pair):
    a, b = pair
    assert newer(a, b) + newer(b, a) == (a != b)


@given(of_one_topic(3))
@settings(max_examples=200)
def test_what_wins_over_a_winner_wins(three):
    a, b, c = three
    if newer(a, b) and newer(b, c):
        assert newer(a, c)


def fold(events, held=None):
    """The smallest fold there is: the winner of each topic, tombstones among them."""
    held = dict(held or {})
    for event in events:
        before = held.get(event.topic)
        if before is None or newer(event, before):
            held[event.topic] = event
    return held


def hides(tombstone, event):
    return thing_of(event.topic) == tombstone.ends and is_over(event, tombstone.epoch)


def seen(held):
    """What is left to see: no fact that a tombstone hides."""
    return {topic: event for topic, event in held.items() if not any(hides(other, event) for other in held.values())}


@given(facts, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_fold_in_any_order_with_duplicates_is_one_state(events, random):
    shuffled = [*events, *events]
    random.shuffle(shuffled)
    assert fold(shuffled) == fold(events)
    assert seen(fold(shuffled)) == seen(fold(events))


@given(facts, facts, facts)
def test_folds_merge_in_any_grouping(a, b, c):
    together = fold([*a, *b, *c])
    assert fold(fold(b, fold(c)).values(), fold(a)) == together
    assert fold(fold(a).values(), fold(fold(c).values(), fold(b))) == together


@given(facts, facts)
def test_what_a_tombstone_hides_no_later_event_of_before_brings_back(first, then):
    """More facts of the same topics may win; nothing that a held tombstone hides is ever seen."""
    tombstones = [event for event in [*first, *then] if event.ends]
    for event in seen(fold([*first, *then])).values():
        assert not any(hides(tombstone, event) for tombstone in tombstones)


def test_a_greater_version_wins_over_a_later_clock():
    assert newer(fact(version=2, at=1), fact(version=1, at=9))


def test_a_later_epoch_wins_over_any_version_and_clock():
    assert newer(fact(epoch=2, version=1, at=9), fact(epoch=1, version=900, at=1))


def test_the_first_successor_of_a_version_wins():
    assert newer(fact(version=2, at=1, source="operator/z"), fact(version=2, at=2, source="operator/a"))


def test_the_lower_source_wins_among_siblings_of_one_time():
    assert newer(fact(source="operator/a"), fact(source="operator/b"))


def test_an_owned_fact_of_a_greater_incarnation_wins_over_any_sequence_and_clock():
    old = fact(version=None, incarnation=1, sequence=900, at=9)
    assert newer(fact(version=None, incarnation=2, sequence=1, at=1), old)


def test_an_owned_fact_of_a_greater_sequence_wins_over_any_clock():
    assert newer(fact(version=None, sequence=2, at=1), fact(version=None, sequence=1, at=9))


def test_of_two_events_with_one_id_all_readers_keep_the_same():
    a, b = fact(data={"x": 1}), fact(data={"x": 2})
    assert fold([a, b]) == fold([b, a])


def test_of_two_tombstones_that_of_the_later_epoch_wins_so_that_nothing_it_hid_comes_back():
    early, late = fact("tombstone/service/web", epoch=1, version=2, at=9), fact("tombstone/service/web", epoch=2, at=1)
    spec = fact(epoch=2)
    assert fold([early, late, spec]) == fold([late, early, spec])
    assert "service/web/spec" not in seen(fold([late, early, spec]))


@pytest.mark.parametrize(
    ("event", "hidden"),
    [
        (fact(epoch=2), True),
        (fact(epoch=1), True),
        (fact(epoch=2, at=9), True),
        (fact(epoch=3, at=1), False),
        (fact("service/web/slot/app/0", epoch=1, version=900), True),
        (fact("service/web", epoch=1), True),
        (fact("service/webs/spec", epoch=1), False),
        (fact("nodeset/web", epoch=1), False),
        (fact("tombstone/service/web", epoch=1), False),
        (fact("service/web/status/app/0/n1/agent", version=None), False),
    ],
)
def test_a_tombstone_hides_the_shared_facts_of_its_thing_up_to_its_epoch_whatever_the_clocks_say(event, hidden):
    assert hides(fact("tombstone/service/web", epoch=2, at=5), event) == hidden


def test_the_tombstone_of_a_node_set_hides_the_set_itself():
    assert hides(fact("tombstone/nodeset/good"), fact("nodeset/good"))
    assert not hides(fact("tombstone/nodeset/good"), fact("nodeset/goods"))


@given(shared, shared)
def test_what_is_no_tombstone_hides_nothing(a, b):
    if not a.topic.startswith("tombstone/"):
        assert not hides(a, b)
