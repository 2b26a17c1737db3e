"""Who reads the history of a part of the topics: the store looks for that part, in stretches, and gives no row less."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.broker.fan_out import PAGE_ROWS
from dsmt.bus.rules import routing
from dsmt.bus.rules.routing import STRETCH
from tests.bus.stored import append
from tests.bus.test_routing import Wire

ROWS = 5 * STRETCH


@pytest.fixture
def wire() -> Wire:
    """A broker that has stored much of others, and of one topic a little here and there."""
    made = Wire()
    for number in range(ROWS):
        made.shelf.put("user/c" if number % 7000 == 3 else "user/a/x", fact=False)
    return made


def _count(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each look at the store has given."""
    given_rows = []
    for name in ("rows", "among"):
        read = getattr(wire.shelf, name)

        def counted(*args, _read=read, **about):
            given_rows.append(len(found := _read(*args, **about)))
            return found

        monkeypatch.setattr(wire.shelf, name, counted)
    return given_rows


def test_who_reads_the_history_of_a_topic_is_not_given_what_others_have_said(wire, monkeypatch):
    looks = _count(wire, monkeypatch)
    wire.subscribe(patterns=("user/c",), start="history")
    wire.pump()
    assert [row for row, _ in wire.got] == [row.row for row in wire.shelf.kept if row.topic == "user/c"]
    assert wire.marks == [(len(wire.got), ROWS)]
    assert sum(looks) <= STRETCH + len(wire.got)
    assert len(looks) <= 5 + STRETCH // PAGE_ROWS + 1


def test_nor_is_who_folds_and_reads_signals_given_it_and_it_has_all_while_as_much_is_stored_as_it_reads(wire, monkeypatch):
    """As a command does that reads what brokers said of themselves, at one that reads all that another has."""
    looks = _count(wire, monkeypatch)
    wire.shelf.put("user/c/fact", fact=True)
    wire.shelf.put("user/c/fact", fact=True)
    wire.subscribe(patterns=("user/c/", "user/c"), start="history", conflate=True)
    pumps = 0
    while not wire.marks and pumps < 20:
        for _ in range(PAGE_ROWS // 2):
            wire.shelf.put("user/a/x", fact=False)
        wire.deliveries.pump()
        pumps += 1
    told = [row.row for row in wire.shelf.kept if row.topic == "user/c"]
    assert [row for row, _ in wire.got] == [*told, ROWS + 2]
    assert wire.marks
    assert sum(looks) <= 2 * PAGE_ROWS + len(wire.got)


def test_many_ranges_with_little_in_each_are_one_turn(wire):
    topics = [f"user/{letter}/x" for letter in "bdefghijkl"]
    for topic in topics:
        wire.shelf.put(topic, fact=True)
    wire.subscribe(patterns=tuple(topics), start="facts")
    wire.deliveries.pump()
    assert [row for row, _ in wire.got] == list(range(ROWS + 1, ROWS + 1 + len(topics)))


def test_who_reads_all_topics_reads_the_pages_that_all_do(wire, monkeypatch):
    monkeypatch.delattr(type(wire.shelf), "among")
    wire.subscribe(patterns=("user/", "/"), start="history", credit=2**22)
    wire.pump()
    assert wire.got


def test_one_stretch_is_all_that_is_looked_at_before_others_have_their_turn(wire):
    wire.subscribe(patterns=("user/c",), start="history")
    assert wire.deliveries.pump()
    assert wire.deliveries.given(wire.session, 1) == STRETCH


@given(
    st.lists(st.tuples(st.sampled_from(["user/c", "user/a/x", "user/b/b", "user/d"]), st.booleans()), max_size=60),
    st.integers(1, 700),
    st.booleans(),
)
def test_in_stretches_or_not_a_reader_gets_the_same_rows_in_the_same_order(topics, credit, conflate):
    patterns, got = ("user/c", "user/+/b"), []
    for stretch, near in ((2, 1), (10_000, 10_000)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(routing, "STRETCH", stretch)
            patched.setattr(routing, "NEAR", near)
            wire = Wire()
            for topic, fact in topics:
                wire.shelf.put(topic, fact=fact)
            wire.subscribe(patterns=patterns, start="history", credit=credit, conflate=conflate)
            for _ in range(3 * len(topics) + 2):
                wire.pump()
                wire.consume()
            got.append(([row for row, _ in wire.got], wire.marks))
    assert got[0] == got[1]
    assert all(before < after for before, after in pairwise(got[0][0]))


def test_a_store_finds_what_is_in_ranges_of_topics_or_addressed_to_anybody_between_two_rows(store):
    topics = ["user/a", "user/b/x", "user/c", "user/b/y", "user/a", "user/b"]
    store.append([append(n, topic=topic) for n, topic in enumerate(topics, 1)])
    ranges = [("user/a", "user/a/"), ("user/b/", "user/b0")]
    assert [row.row for row in store.among(ranges, 0, 6, 10)] == [1, 2, 4, 5]
    assert [row.row for row in store.among(ranges, 1, 4, 10)] == [2, 4]
    assert [row.row for row in store.among(ranges, 0, 6, 3)] == [1, 2, 4]
    store.append([append(7, topic="user/b/x", winner=True)])
    store.append([append(8, topic="user/b/x", winner=True)])
    assert [row.row for row in store.among(ranges, 0, 8, 10, winners_only=True)] == [1, 2, 4, 5, 8]
