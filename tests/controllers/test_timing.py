"""A controller decides at a time that is never ahead of its broker's, and never goes back within one view."""

from dsmt.controllers.loop.timing import Timing


def test_it_is_its_own_time_until_a_mark_comes() -> None:
    assert Timing().now_ms(5.0, own_ms=70_000) == 70_000


def test_it_is_that_of_the_newest_mark_and_what_has_passed_since() -> None:
    timing = Timing()
    timing.marked(60_000, 5.0)
    assert timing.now_ms(5.5, own_ms=70_000) == 60_500
    timing.marked(61_000, 5.75)
    assert timing.now_ms(5.75, own_ms=70_250) == 61_000


def test_where_its_own_is_behind_that_counts() -> None:
    timing = Timing()
    timing.marked(60_000, 5.0)
    assert timing.now_ms(5.5, own_ms=55_000) == 55_000


def test_it_does_not_go_back_for_a_mark_that_came_late() -> None:
    timing = Timing()
    timing.marked(60_000, 5.0)
    assert timing.now_ms(6.0, own_ms=90_000) == 61_000
    timing.marked(60_100, 6.0)
    assert timing.now_ms(6.25, own_ms=90_000) == 61_000
    assert timing.now_ms(7.0, own_ms=90_000) == 61_100


def test_a_view_is_left_where_its_own_time_was_put_back_by_more_than_is_forgiven() -> None:
    timing = Timing()
    timing.marked(60_000, 5.0)
    assert timing.now_ms(5.0, own_ms=60_000) == 60_000
    assert not timing.is_left(50_000)
    assert timing.is_left(49_999)
