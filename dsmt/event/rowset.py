"""Sets of rows, as runs: which rows of a store went, told exactly in few bytes (rule B6).

Rule 1: a set is runs (first, last), ascending, disjoint, and not adjacent.
Rule 2: its bytes are, for each run, the rows left out before it and its length less one, as LEB128, all of it deflated.
Rule 3: what comes from elsewhere is bounded: at most `MAX_RUNS` runs, and nothing beyond 2^62.
Rule 4: one set has one encoding before it is deflated; any other is refused.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from dsmt.errors import UnusableEventError

Run = tuple[int, int]
MAX_RUNS: Final = 1_000_000
_MAX_ROW: Final = 2**62
_MAX_BYTES: Final = 16 * 1024 * 1024


class RowSet:
    """A set of row numbers."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs: tuple[Run, ...] = tuple(_merged(sorted(runs)))
        self._firsts = [first for first, _ in self.runs]
        self._before = [0, *accumulate(last - first + 1 for first, last in self.runs)]
        """How many rows stand before each run, and in all."""

    @classmethod
    def of(cls, rows: Iterable[int]) -> RowSet:
        """The set of these rows."""
        return cls((row, row) for row in rows)

    def __len__(self) -> int:
        return self._before[-1]

    def __or__(self, other: RowSet) -> RowSet:
        return RowSet((*self.runs, *other.runs))

    def __sub__(self, other: RowSet) -> RowSet:
        return RowSet(_difference(self.runs, other.runs))

    def within(self, first: int, last: int) -> int:
        """How many of its rows lie between two, both included."""
        return max(0, self._upto(last) - self._upto(first - 1))

    def _upto(self, row: int) -> int:
        place = bisect_right(self._firsts, row) - 1
        if place < 0:
            return 0
        first, last = self.runs[place]
        return self._before[place] + min(row, last) - first + 1

    def parts(self, limit: int) -> Iterator[RowSet]:
        """Itself, in parts of at most about `limit` bytes each."""
        if len(self.runs) < 2 or len(self.dump()) <= limit:
            yield self
            return
        half = len(self.runs) // 2
        for runs in (self.runs[:half], self.runs[half:]):
            yield from RowSet(runs).parts(limit)

    def dump(self) -> bytes:
        """Rule 2."""
        return zlib.compress(self._plain())

    def _plain(self) -> bytes:
        out, before = bytearray(), 0
        for first, last in self.runs:
            _put(out, first - before - 1)
            _put(out, last - first)
            before = last
        return bytes(out)

    @classmethod
    def read(cls, raw: bytes) -> RowSet:
        """What `dump` wrote. Raises `UnusableEventError` for anything else."""
        plain = _inflated(raw)
        rows = cls(_runs(plain))
        if rows._plain() != plain:
            raise UnusableEventError("event.schema", "a set of rows is not in the one encoding that it has")
        return rows


def _merged(runs: Sequence[Run]) -> Iterator[Run]:
    held: Run | None = None
    for run in runs:
        if held is not None and run[0] <= held[1] + 1:
            held = (held[0], max(held[1], run[1]))
        else:
            if held is not None:
                yield held
            held = run
    if held is not None:
        yield held


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _inflated(raw: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(raw, _MAX_BYTES)
    except zlib.error as error:
        raise UnusableEventError("event.schema", f"a set of rows cannot be read: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise UnusableEventError("event.schema", "a set of rows is too long, or ends too soon")
    return plain


def _numbers(plain: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in plain:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
        elif shift > 63:
            break
    if shift:
        raise UnusableEventError("event.schema", "a set of rows ends within a number")


def _runs(plain: bytes) -> list[Run]:
    numbers = list(_numbers(plain))
    if len(numbers) % 2 or len(numbers) > 2 * MAX_RUNS:
        raise UnusableEventError("event.schema", "a set of rows has no whole number of runs, or too many")
    runs, before = [], 0
    for skipped, more in zip(numbers[::2], numbers[1::2], strict=True):
        first = before + skipped + 1
        before = first + more
        if before > _MAX_ROW:
            raise UnusableEventError("event.schema", "a set of rows goes beyond every store")
        runs.append((first, before))
    return runs


def _difference(runs: tuple[Run, ...], others: tuple[Run, ...]) -> Iterator[Run]:
    at = 0
    for first, last in runs:
        low = first
        while at < len(others) and others[at][1] < low:
            at += 1
        place = at
        while place < len(others) and others[place][0] <= last:
            if others[place][0] > low:
                yield low, others[place][0] - 1
            low = max(low, others[place][1] + 1)
            place += 1
        if low <= last:
            yield low, last
