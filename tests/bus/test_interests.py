"""Interests: who takes a topic is who has a pattern that matches it, whatever else is there."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsmt.bus.rules.interests import Interests, behind, next_topic, ranges_of
from dsmt.event.topic import matches

levels = st.sampled_from(["a", "b", "a-b", "a.b", "0", "z_"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join)
wild = st.lists(levels | st.just("+"), min_size=1, max_size=4).map("/".join)
patterns = wild | wild.map(lambda one: f"{one}/") | st.just("/")


@given(st.lists(st.tuples(st.integers(0, 3), patterns), max_size=12, unique=True), st.data())
def test_who_takes_a_topic_is_who_has_a_pattern_that_matches_it(added, data):
    interests = Interests()
    for who, pattern in added:
        interests.add(who, pattern)
    gone = data.draw(st.lists(st.sampled_from(added), unique=True)) if added else []
    for who, pattern in gone:
        interests.remove(who, pattern)
    left = [one for one in added if one not in gone]
    for topic in data.draw(st.lists(topics, min_size=1, max_size=8)):
        assert set(interests.takers(topic)) == {who for who, pattern in left if matches(pattern, topic)}


def test_whose_pattern_names_a_level_and_whose_leaves_it_open_both_take_what_is_below():
    interests = Interests()
    for pattern in ("a/b/c", "+/b/c", "a/+/c", "+/+/", "a/", "b/b/c"):
        interests.add(pattern, pattern)
    assert set(interests.takers("a/b/c")) == {"a/b/c", "+/b/c", "a/+/c", "+/+/", "a/"}


@given(st.lists(st.tuples(st.integers(0, 3), patterns), max_size=12, unique=True))
def test_what_is_forgotten_leaves_nothing(added):
    interests = Interests()
    for who, pattern in added:
        interests.add(who, pattern)
    for who, pattern in added:
        interests.remove(who, pattern)
    assert interests._root.is_empty()


@given(st.lists(patterns, max_size=6), topics)
def test_the_ranges_of_patterns_hold_what_they_take_and_do_not_overlap(some, topic):
    ranges = ranges_of(some)
    held = sum(low <= topic < high for low, high in ranges)
    assert held <= 1
    assert held == 1 or not any(matches(pattern, topic) for pattern in some)
    assert ranges == sorted(ranges)


@given(topics, topics)
def test_nothing_is_between_a_topic_and_what_is_behind_it(one, other):
    assert one < behind(one)
    assert not one < other < behind(one)


def test_a_subtree_is_a_range_without_its_neighbours():
    ((low, high),) = ranges_of(["service/web/"])
    assert [
        t for t in ("service/web", "service/web-2", "service/web.x", "service/web0", "service/wf/a") if low <= t < high
    ] == []
    assert low <= "service/web/a" < high


def read(some, store, page):
    """What of some topics is read for patterns, page by page as a broker reads it; and how many topics were looked at."""
    found, looked = [], 0
    for start, high in ranges_of(some):
        low = start
        while low is not None and low < high:
            rows = [topic for topic in store if low <= topic < high][:page]
            looked += len(rows)
            found += [topic for topic in rows if any(matches(pattern, topic) for pattern in some)]
            if len(rows) < page:
                break
            taken = any(matches(pattern, rows[-1]) for pattern in some)
            low = behind(rows[-1]) if taken else next_topic(some, rows[-1])
    return found, looked


@example(["+/a.b/0"], ["a/a", "a/a.b/0", "a/a/b"], 1)
@example(["+/a/"], ["a/a-b", "a/a/b"], 1)
@example(["+/a/b"], ["a/a-b", "a/a/b"], 1)
@settings(max_examples=400)
@given(st.lists(patterns, max_size=4), st.lists(topics, unique=True, max_size=60), st.integers(1, 4))
def test_what_is_passed_over_is_taken_by_nobody(some, store, page):
    store = sorted(store)
    taken = [topic for topic in store if any(matches(pattern, topic) for pattern in some)]
    assert read(some, store, page)[0] == taken


def test_behind_the_last_topic_of_some_patterns_there_is_none():
    assert next_topic(["a", "a/b/"], "b") is None
    assert next_topic(["a", "c"], "b") == "c"


def test_what_stands_behind_a_plus_costs_what_it_holds_and_not_what_is_between():
    def looked(nodes: int) -> int:
        store = sorted(
            f"broker/b{b}/session/{role}/n{n:04}" for b in (1, 2) for role in ("agent", "node") for n in range(nodes)
        )
        some = ("broker/+/session/node/n0001", "broker/+/session/agent/n0001")
        found, looked = read(some, store, 8)
        assert len(found) == 4
        return looked

    assert looked(2000) == looked(200) <= 12 * 8
