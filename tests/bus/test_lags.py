"""Lags: what another broker had at a time, by what is remembered of it."""

from __future__ import annotations

import pytest

from dsmt.bus.broker.lags import ALL, EACH_MS, GAPS, OVERLAP_MS, POINTS, Lags
from dsmt.ports.store import StoreFullError

OTHER = b"\x01" * 32


class Kept:
    """What a store keeps, unless its disk is full."""

    def __init__(self) -> None:
        self.values, self.full = dict[str, bytes](), False

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        if self.full:
            raise StoreFullError("full", "full")
        self.values[key] = value


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_it_is_remembered_once_in_a_while_and_of_before_the_first_time_nothing_can_be_said(kept: Kept) -> None:
    now = [1_000_000]
    lags = Lags(kept, now_ms=lambda: now[0])
    for row in range(25):
        lags.stored(OTHER, row)
        now[0] += EACH_MS // 10
    had = [lags.had(OTHER, 1_000_000 + at) for at in (-1, 0, EACH_MS - 1, EACH_MS, 2 * EACH_MS, 99 * EACH_MS)]
    assert had == [ALL, 0, 0, 10, 20, 20]
    assert lags.had(b"\x02" * 32, now[0]) == ALL


def test_a_broker_that_begins_knows_the_last_time_and_a_full_disk_costs_only_that(kept: Kept) -> None:
    now = [1_000_000]
    lags = Lags(kept, now_ms=lambda: now[0])
    lags.stored(OTHER, 7)
    kept.full, now[0] = True, now[0] + EACH_MS
    lags.stored(OTHER, 9)
    assert lags.had(OTHER, now[0]) == 9
    anew = Lags(kept, now_ms=lambda: now[0])
    assert [anew.had(OTHER, 1_000_000 + at) for at in (-1, 0, EACH_MS)] == [ALL, 7, 7]


def test_only_so_many_times_are_remembered(kept: Kept) -> None:
    now = [0]
    lags = Lags(kept, now_ms=lambda: now[0])
    for row in range(POINTS + 5):
        lags.stored(OTHER, row)
        now[0] += EACH_MS
    assert [lags.had(OTHER, EACH_MS * at) for at in (4, 5, POINTS + 4)] == [ALL, 5, POINTS + 4]


def test_what_another_one_had_while_it_was_cut_off_is_remembered_for_long_and_over_a_start(kept: Kept) -> None:
    now = [1_000_000]
    lags = Lags(kept, now_ms=lambda: now[0])
    for row, passes_ms in ((7, OVERLAP_MS), (8, OVERLAP_MS + 1), (20, 3 * OVERLAP_MS), (30, EACH_MS), (40, EACH_MS)):
        lags.stored(OTHER, row)
        now[0] += passes_ms
    cut = 1_000_000 + OVERLAP_MS
    healed, again = cut + OVERLAP_MS + 1, cut + 4 * OVERLAP_MS + 1
    anew = Lags(kept, now_ms=lambda: now[0])
    had = [anew.had(OTHER, at) for at in (cut - 1, cut, healed - 1, healed, again - 1, again, now[0])]
    assert had == [ALL, 8, 8, 20, 20, ALL, 40]
    assert [lags.had(OTHER, at) for at in (cut, again)] == [8, 30]
    for _ in range(GAPS):
        now[0] += OVERLAP_MS + 1
        anew.stored(OTHER, 50)
    assert Lags(kept, now_ms=lambda: now[0]).had(OTHER, healed) == ALL
