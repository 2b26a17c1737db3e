"""Refilling: when readers of streams that were made anew may take what is there for all that there is (rule A4).

Rule 1: streams in which the realm was born, or into which it moved, are whole at once.
Rule 2: those that took the place of lost ones are whole `AFTER_S` after anybody was first let in: who was attached lately
    comes back in that time, and offers what it holds (R5). While facts are still being offered it is `QUIET_S` after the
    last one, and `MOST_S` at most.
Rule 3: each reader judges by itself, by what it reads: a server knows nothing of facts. Since when anybody is let in is
    told by the servers' clock, and so is the time at which it begins; from then on it counts by its own.
"""

from __future__ import annotations

from typing import Final

AFTER_S: Final = 8.0
QUIET_S: Final = 0.5
MOST_S: Final = 18.0


class Refilling:
    """As one reader sees it. Times are seconds of its boot-time clock, but those in ms."""

    def __init__(self) -> None:
        self._due = self._latest = 0.0

    def begins(self, since_ms: int | None, at_ms: int, now: float) -> None:
        """It reads streams now in which anybody is let in since then, 0 for not yet; None: the realm was born in them.

        `at_ms` is the servers' time now.
        """
        self._due = self._latest = now
        if since_ms is not None:
            ago_s = max(0.0, (at_ms - since_ms) / 1000) if since_ms else 0.0
            self._due, self._latest = now + AFTER_S - ago_s, now + MOST_S - ago_s

    def offered(self, now: float) -> None:
        """A fact came that somebody has offered."""
        if now < self._due:
            self._due = max(self._due, min(now + QUIET_S, self._latest))

    def is_over(self, now: float) -> bool:
        """Whether they are whole."""
        return now >= self._due
