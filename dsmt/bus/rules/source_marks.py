"""Marks: how far each source's word has come, and what of it is missing (rule B2).

Rule 1: of each source's newest incarnation: the highest sequence that came or that its heartbeat vouches for, and
    exactly what of it is missing above the floor. When a source is first heard of, the store says how far it had come:
    that is the floor. Where what came behind it may have been trimmed since, the floor is what comes first.
Rule 2: what is missing is asked of its source, once. What it has no more, what does not come within `ASK_MS`, and what
    an older incarnation still owed when a newer begins, is a hole, and told; so is the oldest beyond `MAX_MISSING` ranges.
    Of a source that was heard before, an incarnation of which nothing came is such a hole as a whole (B3).
Rule 3: what was refused has come: its source was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dsmt.event.envelope import EventRange
from dsmt.newest import Newest

MAX_MISSING: Final = 64
ASK_MS: Final = 2000
BROUGHT: Final = 16_384
"""Of how many sources it is remembered what others have brought."""

Ranges = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Missing:
    first: int
    last: int
    since_ms: int
    asked: bool = False


@dataclass(slots=True)
class _Mark:
    incarnation: int
    high: int
    is_old: bool = False
    """What came behind this may have been trimmed since."""
    refused: int = 0
    """The newest incarnation beyond of which something was refused."""
    missing: list[_Missing] = field(default_factory=list)
    """Lowest first."""


class Marks:
    """The marks of all sources that are here. `stored` says the greatest (incarnation, sequence) in the store.

    `is_old` says of that one whether what came behind it may have been trimmed.
    """

    def __init__(
        self,
        stored: Callable[[str], tuple[int, int] | None],
        is_old: Callable[[str, int, int], bool],
    ) -> None:
        self._stored, self._is_old = stored, is_old
        self._marks: dict[str, _Mark] = {}
        self._brought: Newest[str, tuple[int, int]] = Newest(BROUGHT)
        """The greatest (incarnation, sequence) of a source that another broker has brought."""
        self._open: set[str] = set()
        """Sources of which something is missing."""
        self._left: set[str] = set()
        """Those of them that are here no more."""

    def _mark(self, source: str) -> _Mark:
        mark = self._marks.get(source)
        self._left.discard(source)
        if mark is None:
            floor = self._stored(source)
            is_old = floor is not None and self._is_old(source, *floor)
            mark = self._marks[source] = _Mark(*(floor or (0, 0)), is_old)
        return mark

    def high(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) that came, if it is in memory: nothing greater is in the store."""
        mark = self._marks.get(source)
        return None if mark is None else (mark.incarnation, mark.high)

    def came(self, source: str, incarnation: int, sequence: int, now_ms: int, *, last: int = 0) -> list[EventRange]:
        """An event has come over its source's own session; what is thereby known to be a hole.

        `last`: all up to this one came with it, and none of them had come before.
        """
        mark = self._mark(source)
        if incarnation < mark.incarnation:
            return []
        if mark.is_old and (incarnation, sequence) > (mark.incarnation, mark.high):
            mark.incarnation, mark.high = incarnation, sequence - 1
        mark.is_old = False
        holes = self._begin(source, mark, incarnation)
        if sequence > mark.high:
            holes += self._lack(source, mark, mark.high + 1, sequence - 1, now_ms)
            mark.high = max(sequence, last)
        elif mark.missing:
            self._close(source, mark, sequence, sequence)
        return holes

    def refused(self, source: str, incarnation: int, sequence: int) -> None:
        """An event was refused that says to be this one; it may be forged, so only its own place moves (rule 3)."""
        mark = self._mark(source)
        if incarnation != mark.incarnation:
            mark.refused = max(mark.refused, incarnation)
            return
        if sequence == mark.high + 1:
            mark.high = sequence
        self._close(source, mark, sequence, sequence)

    def brought(self, source: str, incarnation: int, sequence: int) -> None:
        """Another broker has brought it: it is missing no more."""
        self._brought[source] = max(self._brought.get(source, (0, 0)), (incarnation, sequence))
        mark = self._marks.get(source)
        if mark is not None and mark.incarnation == incarnation:
            self._close(source, mark, sequence, sequence)

    def was_brought(self, source: str, incarnation: int, sequence: int) -> bool:
        """Whether an event of a source that is stored may have been brought by another broker, as far as is remembered."""
        return (incarnation, sequence) <= self._brought.get(source, (0, 0))

    def vouched(self, source: str, incarnation: int, sequence: int, now_ms: int) -> list[EventRange]:
        """A heartbeat says how far its source has come."""
        mark = self._mark(source)
        if incarnation != mark.incarnation or sequence <= mark.high:
            return []
        holes = self._lack(source, mark, mark.high + 1, sequence, now_ms)
        mark.high = sequence
        return holes

    def ended(self, source: str, incarnation: int, sequence: int) -> list[EventRange]:
        """The newer incarnation says that the one before had come so far; called before anything of the newer `came`."""
        mark = self._mark(source)
        if mark.is_old or not mark.incarnation or incarnation == mark.refused:
            return []
        high = mark.high if incarnation == mark.incarnation else 0
        known = incarnation < mark.incarnation or sequence <= high
        return [] if known else [EventRange(source, incarnation, high + 1, sequence)]

    def gone(self, source: str, incarnation: int, ranges: Iterable[tuple[int, int]]) -> list[EventRange]:
        """The source has these no more; only what it was asked for counts."""
        mark, holes = self._marks.get(source), []
        if mark is None or mark.incarnation != incarnation:
            return []
        for first, last in ranges:
            holes += self._close(source, mark, first, last)
        return holes

    def wanted(self, source: str) -> tuple[int, Ranges] | None:
        """What is to be asked of a source now: its incarnation and ranges."""
        if source not in self._open:
            return None
        mark = self._marks[source]
        fresh = [one for one in mark.missing if not one.asked]
        for one in fresh:
            one.asked = True
        return (mark.incarnation, tuple((one.first, one.last) for one in fresh)) if fresh else None

    def overdue(self, now_ms: int) -> list[EventRange]:
        """What was asked for and has not come."""
        holes: list[EventRange] = []
        for source in sorted(self._open):
            mark = self._marks[source]
            for one in [one for one in mark.missing if now_ms - one.since_ms > ASK_MS]:
                holes += self._close(source, mark, one.first, one.last)
        return holes

    def forget(self, source: str) -> None:
        """A source has left; what it owes is waited for all the same, and no longer remembered than that.

        What it says elsewhere comes from other brokers, and moves no mark.
        """
        if source in self._open:
            self._left.add(source)
        else:
            self._marks.pop(source, None)

    def clear(self) -> None:
        """Nothing that came was stored: the store knows best."""
        self._marks.clear()
        self._open.clear()
        self._left.clear()

    # --- ranges --------------------------------------------------------------------------------------------------

    def _begin(self, source: str, mark: _Mark, incarnation: int) -> list[EventRange]:
        """A newer incarnation: what the one before owes is not waited for any more."""
        if incarnation == mark.incarnation:
            return []
        holes = [EventRange(source, mark.incarnation, one.first, one.last) for one in mark.missing]
        mark.incarnation, mark.high, mark.missing = incarnation, 0, []
        self._open.discard(source)
        return holes

    def _lack(self, source: str, mark: _Mark, first: int, last: int, now_ms: int) -> list[EventRange]:
        if first > last:
            return []
        mark.missing.append(_Missing(first, last, now_ms))
        self._open.add(source)
        if len(mark.missing) <= MAX_MISSING:
            return []
        oldest = mark.missing[0]
        return self._close(source, mark, oldest.first, oldest.last)

    def _close(self, source: str, mark: _Mark, first: int, last: int) -> list[EventRange]:
        """Take a range out of what is missing; the parts of it that were."""
        left: list[_Missing] = []
        closed = []
        for one in mark.missing:
            low, high = max(one.first, first), min(one.last, last)
            if low > high:
                left.append(one)
                continue
            closed.append(EventRange(source, mark.incarnation, low, high))
            left += [
                _Missing(*part, one.since_ms, one.asked)
                for part in ((one.first, low - 1), (high + 1, one.last))
                if part[0] <= part[1]
            ]
        mark.missing = left
        if not left:
            self._open.discard(source)
            if source in self._left:
                self._left.discard(source)
                self._marks.pop(source, None)
        return closed
