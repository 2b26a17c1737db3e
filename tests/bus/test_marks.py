"""Marks: what is missing of a source's sequence is known exactly, asked for once, and told when it cannot be had."""

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.source_marks import ASK_MS, BROUGHT, MAX_MISSING, Marks
from dsmt.event.envelope import EventRange


def never_old(*_):
    return False


def marks(stored=None):
    return Marks(lambda _: stored, never_old)


def test_what_is_stored_is_the_floor_and_nothing_below_it_is_missing():
    known = marks((5, 10))
    assert known.came("a", 5, 11, 0) == []
    assert known.wanted("a") is None
    known.came("a", 5, 14, 0)
    assert known.wanted("a") == (5, ((12, 13),))
    assert known.wanted("a") is None


@given(st.permutations(range(1, 40)), st.sets(st.integers(1, 39), max_size=30))
def test_exactly_what_did_not_come_is_told_in_the_end(order, dropped):
    known, holes = marks(), []
    for sequence in order:
        if sequence not in dropped:
            holes += known.came("a", 1, sequence, 0)
    holes += known.vouched("a", 1, 39, 0)
    assert holes == []
    told = {n for hole in known.overdue(ASK_MS + 1) for n in range(hole.first, hole.last + 1)}
    assert told == (dropped if known.high("a") == (1, 39) else set())
    assert known.overdue(10 * ASK_MS) == []


def test_beyond_so_many_ranges_the_oldest_is_told():
    known = marks((1, 1))
    holes = [hole for n in range(MAX_MISSING + 1) for hole in known.came("a", 1, 3 + 2 * n, 0)]
    assert holes == [EventRange("a", 1, 2, 2)]


def test_a_newer_incarnation_ends_the_wait_for_the_older_and_tells_its_tail():
    known = marks((1, 4))
    known.came("a", 1, 7, 0)
    assert known.ended("a", 1, 9) == [EventRange("a", 1, 8, 9)]
    assert known.came("a", 2, 1, 0) == [EventRange("a", 1, 5, 6)]
    assert known.overdue(ASK_MS + 1) == []
    known.forget("a")
    assert known.high("a") is None, "nothing is waited for, so nothing is remembered"


def test_an_incarnation_of_which_nothing_came_is_told_by_the_one_after_it():
    known = marks((1, 4))
    assert known.ended("a", 2, 9) == [EventRange("a", 2, 1, 9)]
    assert known.came("a", 3, 1, 0) == []
    assert marks().ended("a", 2, 9) == [], "of a source that was never heard before nothing is missing (B1)"


def test_an_incarnation_of_which_something_was_refused_has_come():
    known = marks((1, 4))
    known.refused("a", 2, 3)
    known.refused("a", 1, 5)
    assert known.ended("a", 2, 9) == []
    assert known.ended("a", 3, 9) == [EventRange("a", 3, 1, 9)]


def test_what_was_asked_for_is_not_asked_again_when_a_part_of_it_comes():
    known = marks((1, 4))
    known.came("a", 1, 9, 0)
    assert known.wanted("a") == (1, ((5, 8),))
    known.came("a", 1, 6, 0)
    assert known.wanted("a") is None
    assert known.overdue(ASK_MS + 1) == [EventRange("a", 1, 5, 5), EventRange("a", 1, 7, 8)]


def test_only_what_was_asked_for_can_be_given_up():
    known = marks((1, 4))
    known.came("a", 1, 9, 0)
    assert known.gone("a", 1, [(1, 6)]) == [EventRange("a", 1, 5, 6)]
    assert known.gone("a", 2, [(7, 8)]) == []
    assert known.wanted("a") == (1, ((7, 8),))


def test_a_refused_event_moves_its_own_place_and_no_other():
    known = marks((1, 4))
    known.refused("a", 2**62, 1)
    known.refused("a", 1, 2**40)
    assert known.high("a") == (1, 4)
    known.refused("a", 1, 5)
    assert known.came("a", 1, 6, 0) == []
    assert known.wanted("a") is None


def test_what_another_broker_brings_is_missing_no_more_and_never_asked_for():
    known = marks((1, 4))
    known.came("a", 1, 9, 0)
    known.brought("a", 1, 6)
    known.brought("a", 2, 7)
    known.brought("b", 1, 1)
    assert known.wanted("a") == (1, ((5, 5), (7, 8)))
    assert known.high("b") is None, "who is not here has no mark"
    for sequence in (5, 7, 8):
        known.brought("a", 1, sequence)
    assert known.overdue(ASK_MS + 1) == []


def test_who_left_with_something_missing_is_remembered_until_it_is_told():
    known = marks((1, 4))
    known.came("a", 1, 6, 0)
    known.forget("a")
    assert known.overdue(ASK_MS + 1) == [EventRange("a", 1, 5, 5)]
    known.forget("a")
    assert known.high("a") is None


def test_of_who_left_nothing_is_remembered_when_another_broker_has_brought_what_was_missing():
    stored = [(1, 4)]
    known = Marks(lambda _: stored[0], never_old)
    known.came("a", 1, 6, 0)
    known.forget("a")
    known.brought("a", 1, 5)
    assert known.high("a") is None
    stored[0] = (1, 9)  # it has spoken elsewhere meanwhile
    assert known.came("a", 1, 10, 0) == []
    assert known.wanted("a") is None


def test_who_left_and_is_back_while_something_is_missing_is_remembered_on():
    known = marks((1, 4))
    known.came("a", 1, 6, 0)
    known.forget("a")
    known.came("a", 1, 7, 0)
    known.brought("a", 1, 5)
    assert known.high("a") == (1, 7)


def test_each_source_has_its_own_floor_and_one_that_was_never_heard_of_has_none():
    known = Marks({"a": (5, 10)}.get, never_old)
    assert known.came("a", 5, 11, 0) == known.came("b", 1, 1, 0) == []
    assert known.wanted("a") is known.wanted("b") is None
    known.came("b", 1, 3, 0)
    assert known.wanted("b") == (1, ((2, 2),))


def test_what_a_heartbeat_vouched_for_and_comes_is_no_hole_and_its_source_is_forgotten_when_it_leaves():
    known = marks((1, 4))
    known.vouched("a", 1, 7, 0)
    for sequence in (7, 5, 6):
        known.came("a", 1, sequence, 10)
    assert known.overdue(10 * ASK_MS) == []
    known.forget("a")
    assert known.high("a") is None


def test_a_word_on_another_incarnation_or_on_what_came_long_ago_tells_nothing():
    known = marks((2, 4))
    known.came("a", 2, 5, 0)
    for incarnation, sequence in ((1, 9), (2, 5), (2, 3), (3, 0)):
        assert known.vouched("a", incarnation, sequence, 0) == known.ended("a", incarnation, sequence) == []
    assert known.vouched("a", 3, 9, 0) == []
    assert known.wanted("a") is None
    assert known.came("a", 1, 9, 0) == []
    assert known.high("a") == (2, 5)


def test_what_is_missing_is_waited_for_from_when_it_was_missed_on():
    known = marks((1, 4))
    known.came("a", 1, 6, 1000)
    known.came("a", 1, 8, 1500)
    assert known.overdue(1000 + ASK_MS) == []
    assert known.overdue(1001 + ASK_MS) == [EventRange("a", 1, 5, 5)]
    assert known.overdue(1501 + ASK_MS) == [EventRange("a", 1, 7, 7)]


def test_all_that_a_source_gives_up_at_once_is_told():
    known = marks((1, 4))
    known.came("a", 1, 9, 0)
    assert known.gone("a", 1, [(5, 5), (7, 20)]) == [EventRange("a", 1, 5, 5), EventRange("a", 1, 7, 8)]


def test_what_was_refused_is_missing_no_more():
    known = marks((1, 4))
    known.came("a", 1, 8, 0)
    known.refused("a", 1, 6)
    assert known.wanted("a") == (1, ((5, 5), (7, 7)))
    known.refused("a", 1, 5)
    known.refused("a", 1, 7)
    known.forget("a")
    assert known.high("a") is None, "nothing is waited for"


def test_where_something_was_trimmed_since_its_last_word_what_comes_first_is_the_floor():
    known = Marks(lambda _: (5, 10), lambda *_: True)
    assert known.ended("a", 5, 20) == []
    assert known.came("a", 6, 4, 0) == []
    assert known.wanted("a") is None
    known.came("a", 6, 6, 0)
    assert known.wanted("a") == (6, ((5, 5),))


def test_what_another_has_brought_is_remembered_of_so_many_sources():
    known = marks()
    for n in range(BROUGHT + 1):
        known.brought(f"a{n}", 5, 3)
    assert [known.was_brought("a1", *one) for one in ((5, 4), (5, 3), (4, 9))] == [False, True, True]
    assert not known.was_brought("a0", 5, 3)
