"""Isolation: a broker that is linked with no other one says so to its clients; who reaches another goes there (rule R8)."""

from __future__ import annotations

from typing import Final

ISOLATED_S: Final = 10.0
"""Longer than others take to be back, or to be started."""


class Isolation:
    """Of one broker since it began, at `now` (boot-time s)."""

    def __init__(self, now: float) -> None:
        self._linked_at = now
        self.stands = False
        """Whether it has been linked with none for `ISOLATED_S`."""

    def look(self, now: float, *, linked: bool) -> bool:
        """It is linked now with another one, or not; whether clients are to be told."""
        if linked:
            self._linked_at = now
        before, self.stands = self.stands, now >= self._linked_at + ISOLATED_S
        return self.stands != before
