"""The bursts of a store on SQLite: what the events that were signed together have in common, once (rule B8).

Rule 1: rows that stand side by side and are of one burst share what proves them. One that stands apart is kept alone.
Rule 2: a burst is known by its first row, and goes with the last of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from dsmt.bus.store.database import Database
from dsmt.bus.store.sums import damaged, sum_of
from dsmt.bus.store.tables import BURST, DROP_BURSTS
from dsmt.event.burst import RUN_EVENTS, Burst, burst_of
from dsmt.newest import Newest
from dsmt.ports.store import Append

_REMEMBERED: Final = 64


class SqliteBursts:
    """Gives bursts by their first rows."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._remembered: Newest[int, Burst] = Newest(_REMEMBERED)

    def get(self, first: int) -> Burst:
        """A burst. Raises `FailedError` (`store.damaged`) when it is lost."""
        found = self._remembered.get(first)
        if found is None:
            row = self._db.one(BURST, (first,))
            if row is None or sum_of(*row[:-1]) != row[-1]:
                raise damaged(self._db.path, f"it lacks what proves row {first}")
            found = self._remembered[first] = Burst(*row[2:5])
        return found

    def stored(self, bursts: Sequence[tuple[int, int, Burst]]) -> None:
        """These (first row, last row, burst) are in the store now."""
        for first, _, burst in bursts[-_REMEMBERED:]:
            self._remembered[first] = burst

    def trimmed(self, first: int, last: int) -> None:
        """Drop what stood for rows between two only that were trimmed, both included."""
        self._db.do(DROP_BURSTS, (first - RUN_EVENTS, last))


def bursts_of(first: int, batch: Sequence[Append]) -> Iterator[tuple[int, int, Burst]]:
    """(First row, last row, burst) of what stands side by side in a batch that begins at a row (rule 1)."""
    row = first
    for burst, group in groupby(batch, key=lambda one: burst_of(one.signed.sealed)):
        count = sum(1 for _ in group)
        if burst is not None and count > 1:
            yield row, row + count - 1, burst
        row += count
