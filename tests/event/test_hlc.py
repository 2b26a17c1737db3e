"""The hybrid clock: never back, close to realm time, deaf to clocks that ran away."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.event.hlc import BOUND_MS, LAST_MS, HybridClock, hlc, instant, milliseconds, rfc3339

NOW = 1_700_000_000_000
steps = st.lists(
    st.tuples(st.integers(NOW - 50_000, NOW + 50_000), st.none() | st.integers(NOW - 100_000, NOW + 100_000)),
    max_size=60,
)


@pytest.fixture
def elsewhere(monkeypatch):
    """The machine's clock is told in Tokyo's time."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@given(steps)
def test_each_tick_is_greater_than_all_that_was_ticked_or_merged_before(steps):
    clock, greatest = HybridClock(), 0
    for now_ms, seen_ms in steps:
        if seen_ms is None:
            ticked = clock.tick(now_ms)
            assert ticked > greatest
            assert milliseconds(ticked) >= now_ms
            greatest = ticked
        else:
            clock.merge(hlc(seen_ms, 9), now_ms)
            assert clock.last >= greatest
            greatest = clock.last


@given(steps)
def test_no_merge_takes_the_clock_further_ahead_than_the_bound(steps):
    clock, latest = HybridClock(), 0
    for now_ms, seen_ms in steps:
        latest = max(latest, now_ms)
        if seen_ms is None:
            clock.tick(now_ms)
        else:
            clock.merge(hlc(seen_ms), now_ms)
        assert milliseconds(clock.last) <= latest + BOUND_MS


def test_a_value_at_the_bound_is_merged_and_one_beyond_is_not():
    clock = HybridClock()
    clock.merge(hlc(NOW + BOUND_MS + 1), NOW)
    assert clock.last == 0
    clock.merge(hlc(NOW + BOUND_MS, 5), NOW)
    assert clock.last == hlc(NOW + BOUND_MS, 5)


def test_more_ticks_in_one_millisecond_than_the_counter_holds_go_on_in_the_next():
    clock = HybridClock(hlc(NOW, 0xFFFF))
    assert clock.tick(NOW) == hlc(NOW + 1)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (7, "1970-01-01T00:00:00.007Z"),
        (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_704_067_199_999, "2023-12-31T23:59:59.999Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
        (LAST_MS + 1, "after 9999-12-31T23:59:59.999Z"),
        (2**63 - 1, "after 9999-12-31T23:59:59.999Z"),
        (10**400, "after 9999-12-31T23:59:59.999Z"),
        (-1, "before 1970-01-01T00:00:00.000Z"),
        (-(10**400), "before 1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_told_in_utc_with_its_milliseconds_wherever_it_is_read(ms, text, elsewhere):
    assert rfc3339(ms) == text


@pytest.mark.usefixtures("elsewhere")
def test_an_instant_is_of_utc_and_within_the_calendar():
    assert instant(NOW).isoformat() == "2023-11-14T22:13:20+00:00"
    assert instant(-1) == instant(0)
    assert instant(2**80) == instant(LAST_MS)
