"""How long to wait before the next try."""

import pytest

from dsmt.backoff import Backoff


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff(0.1, 1.0), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (Backoff(2.0, 100.0, factor=3.0), [2.0, 6.0, 18.0, 54.0, 100.0]),
        (Backoff(0.5, 0.5), [0.5, 0.5]),
    ],
)
def test_each_wait_is_a_factor_longer_up_to_the_most(backoff: Backoff, waits: list[float]) -> None:
    assert [backoff.failed() for _ in waits] == pytest.approx(waits)
    assert backoff.last_s == waits[-1]


def test_what_has_succeeded_begins_anew() -> None:
    backoff = Backoff(0.1, 1.0)
    backoff.failed()
    backoff.failed()
    backoff.reset()
    assert (backoff.last_s, backoff.failed()) == (0.0, 0.1)
