"""Pings: which of those that a spawner keeps has ceased to ask, and hangs (rule C15).

Rule 1: only who has asked once is expected to ask again, each 10 s: one that is still starting is never said to hang.
Rule 2: who has not for `SILENT_S` is given `AGAIN_S` more, in which the spawner runs: both may have stood still. A spawner
    that looks `LATE_S` after that has stood still itself, and gives as much once more.
"""

from __future__ import annotations

from typing import Final

from dsmt.ports.processes import ProcessIdentity

SILENT_S: Final = 60.0
AGAIN_S: Final = 10.0
LATE_S: Final = 1.0


class Pings:
    """Who was heard, until when each may be silent, and whether that was put off. Times are boot-time seconds."""

    def __init__(self, silent_s: float = SILENT_S, again_s: float = AGAIN_S) -> None:
        self._silent_s, self._again_s = silent_s, again_s
        self._until: dict[ProcessIdentity, tuple[float, bool]] = {}

    @property
    def due(self) -> float | None:
        """When `hung` has something to say."""
        return min((until for until, _ in self._until.values()), default=None)

    def heard(self, who: ProcessIdentity, now: float) -> None:
        """Somebody asks."""
        self._until[who] = now + self._silent_s, False

    def hung(self, now: float) -> list[ProcessIdentity]:
        """Who hangs now (rule 2), or has ended since it was heard, which no signal reaches; each is told once."""
        found = []
        for who, (until, again) in list(self._until.items()):
            if until <= now < until + LATE_S and again:
                found.append(who)
                del self._until[who]
            elif until <= now:
                self._until[who] = now + self._again_s, True
        return found
