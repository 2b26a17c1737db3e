"""When the output of a program that writes is looked at again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsmt.agents.rules.output_trimming import LATEST_S, SOONEST_S, look_again_s

SIZES = st.integers(4096, 2**40)


@given(st.floats(0, 60), st.integers(1, 2**50), SIZES)
def test_at_the_rate_of_late_at_most_one_size_is_written_until_the_next_look(over_s: float, written: int, size: int) -> None:
    rest_s = look_again_s(over_s, written, size)
    assert rest_s is not None
    assert SOONEST_S <= rest_s <= LATEST_S
    assert rest_s == SOONEST_S or written * rest_s <= over_s * size * 1.000001


@given(st.floats(0, 60), SIZES)
def test_what_is_not_written_to_is_looked_at_less_and_less_often_and_soon_not_at_all(over_s: float, size: int) -> None:
    looks = 0
    while (rest_s := look_again_s(over_s, 0, size)) is not None:
        assert rest_s >= 2 * over_s
        over_s, looks = rest_s, looks + 1
    assert looks <= 5


def test_what_is_written_in_portions_is_not_taken_for_idle_between_two_of_them() -> None:
    assert look_again_s(SOONEST_S, 0, 4096) == 2 * SOONEST_S


def test_what_is_idle_is_looked_at_for_its_own_sake_as_long_as_that_is_soon() -> None:
    assert look_again_s(0.0, 0, 4096) == SOONEST_S
    assert look_again_s(LATEST_S / 2 - 0.1, 0, 4096) == LATEST_S - 0.2
    assert look_again_s(LATEST_S / 2, 0, 4096) is None


def test_half_a_size_in_a_second_is_looked_at_after_two() -> None:
    assert look_again_s(1.0, 4096, 8192) == 2.0
