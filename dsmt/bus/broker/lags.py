"""Lags: what of all that is here another broker had at a time; its readers, who go on here, have not had the rest (rule D3).

Rule 1: a broker that keeps a copy says now and then up to which row it has everything. That is remembered with its time,
    once in `EACH_MS`, of each the last `POINTS` times.
Rule 2: the last of these is kept with the store: who was cut off before this broker's start had no more.
Rule 3: of a time before the first that is known nothing can be said. But when another one said nothing for longer than
    readers are given again anyway, it was cut off: of the last `GAPS` such times what it had is kept, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Final, NamedTuple

from dsmt.bus.rules.routing import OVERLAP_MS
from dsmt.ports.store import Meta, StoreFullError

EACH_MS: Final = 10_000
POINTS: Final = 4096
GAPS: Final = 64
ALL: Final = 1 << 63
"""Behind every row."""
_PARTS: Final = 2


class _Gap(NamedTuple):
    """From when until when another one said nothing (realm ms), and up to which row it had everything until then."""

    since_ms: int
    until_ms: int
    row: int


class Lags:
    """Of one broker; others are known by their keys."""

    def __init__(self, meta: Meta, *, now_ms: Callable[[], int]) -> None:
        self._meta, self._now_ms = meta, now_ms
        self._all: dict[bytes, list[tuple[int, int]]] = {}
        self._gaps: dict[bytes, list[_Gap]] = {}

    def stored(self, public: bytes, row: int) -> None:
        """Another has everything up to a row (rule 1)."""
        points, now_ms = self._points(public), self._now_ms()
        if points and now_ms < points[-1][0] + EACH_MS:
            return
        gaps = self._gaps[public]
        if points and now_ms > points[-1][0] + OVERLAP_MS:
            gaps.append(_Gap(points[-1][0], now_ms, points[-1][1]))
            del gaps[:-GAPS]
        points.append((now_ms, row))
        del points[:-POINTS]
        with suppress(StoreFullError):
            self._meta.put(_key(public), " ".join(map(str, (now_ms, row, *chain.from_iterable(gaps)))).encode())

    def had(self, public: bytes, time_ms: int) -> int:
        """Up to which row another had everything at a time (realm ms); `ALL` where nothing can be said."""
        points = self._points(public)
        place = bisect_right(points, (time_ms, ALL))
        cut_off = (one.row for one in self._gaps[public] if one.since_ms <= time_ms < one.until_ms)
        return points[place - 1][1] if place else next(cut_off, ALL)

    def _points(self, public: bytes) -> list[tuple[int, int]]:
        if public not in self._all:
            kept = self._meta.get(_key(public))
            parts = [] if kept is None else [int(part) for part in kept.decode().split()]
            self._all[public] = [(parts[0], parts[1])] if parts else []
            self._gaps[public] = [_Gap(*parts[at : at + 3]) for at in range(_PARTS, len(parts), 3)]
        return self._all[public]


def _key(public: bytes) -> str:
    return f"had {public.hex()}"
