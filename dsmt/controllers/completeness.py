"""Completeness: when a controller may publish (SEMANTICS A4, R7).

Rule 1: (i) its broker has said that its view is whole; (ii) everything up to a bookmark has been folded, nothing
    after it, and the bookmark is no older than `BOOKMARK_S` of the controller's own boot-time clock. A bookmark says
    that all retained facts came before it.
Rule 2: (iii) what follows from silence also needs that it has watched for `dead_after` since start, since it attached
    anew, or since its own loop stood still for more than `STALL_S`.
Rule 3: after a new attachment, or a stall, it waits for the next bookmark. Times are seconds of the boot-time clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple

BOOKMARK_S: Final = 1.0
STALL_S: Final = 0.5


class Place(NamedTuple):
    """Where a view ends: a store's id, and the row up to which it was folded."""

    store: str
    row: int


class Completeness:
    """The gate of one controller."""

    def __init__(self, now: float) -> None:
        self._watching_since = now
        self._beat = now
        self._bookmark: tuple[Place, float] | None = None

    def attached(self, now: float) -> None:
        """It attached anew."""
        self._watching_since = now
        self._bookmark = None

    def beat(self, now: float, promised_s: float = 0.0) -> float:
        """The loop came round, `promised_s` at the latest after the last time; by how much it is late (s)."""
        lag = max(0.0, now - self._beat - promised_s)
        self._beat = now
        if lag > STALL_S:
            self._watching_since = now
            self._bookmark = None
        return lag

    def folded(self) -> None:
        """The view changed, and no bookmark covers that yet."""
        self._bookmark = None

    def bookmark(self, place: Place, now: float, *, whole: bool) -> None:
        """Everything up to `place` has been folded; `whole` is the broker's word on its own view."""
        self._bookmark = (place, now) if whole else None

    def place(self, now: float) -> Place | None:
        """Where the view ends, if it may be published from now (i, ii); else None."""
        if self._bookmark is None or now - self._bookmark[1] > BOOKMARK_S:
            return None
        return self._bookmark[0]

    def may_accuse(self, now: float, dead_after_s: float) -> bool:
        """Whether it has watched long enough to judge by silence (iii)."""
        return now >= self._watching_since + dead_after_s
