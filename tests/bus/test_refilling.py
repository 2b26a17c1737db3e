"""When readers of streams that were made anew take what is there for all that there is."""

from __future__ import annotations

import pytest

from dsmt.bus.rules.refilling import AFTER_S, MOST_S, QUIET_S, Refilling

LET_IN_MS = 1_000_000


def begun(since_ms: int | None, *, after_s: float = 0.0) -> Refilling:
    """One that begins at second 100 of its clock, so long after anybody was let in."""
    refilling = Refilling()
    refilling.begins(since_ms, LET_IN_MS + int(after_s * 1000), 100.0)
    return refilling


def test_streams_in_which_the_realm_was_born_are_whole_at_once():
    assert begun(None).is_over(100.0)


@pytest.mark.parametrize("after_s", [0.0, 3.0])
def test_any_others_are_when_those_who_were_attached_lately_have_had_the_time_to_come_back(after_s):
    refilling = begun(LET_IN_MS, after_s=after_s)
    assert not refilling.is_over(100.0 + AFTER_S - after_s - 0.01)
    assert refilling.is_over(100.0 + AFTER_S - after_s)


def test_who_begins_later_waits_no_more():
    assert begun(LET_IN_MS, after_s=AFTER_S).is_over(100.0)


@pytest.mark.parametrize(("since_ms", "after_s"), [(0, 0.0), (LET_IN_MS, -3600.0)])
def test_while_nobody_is_let_in_or_the_clock_went_back_it_counts_from_its_own_beginning(since_ms, after_s):
    refilling = begun(since_ms, after_s=after_s)
    assert not refilling.is_over(100.0 + AFTER_S - 0.01)
    assert refilling.is_over(100.0 + AFTER_S)


def test_what_is_offered_holds_it_up_but_not_for_ever():
    refilling, now = begun(LET_IN_MS), 100.0
    while not refilling.is_over(now):
        refilling.offered(now)
        now += QUIET_S / 2
    assert 100.0 + MOST_S <= now < 100.0 + MOST_S + QUIET_S


def test_once_whole_it_stays_so():
    refilling = begun(LET_IN_MS)
    refilling.offered(100.0 + AFTER_S)
    assert refilling.is_over(100.0 + AFTER_S)


def test_what_is_offered_early_shortens_nothing():
    refilling = begun(LET_IN_MS)
    refilling.offered(100.0)
    assert not refilling.is_over(100.0 + AFTER_S - 0.01)
