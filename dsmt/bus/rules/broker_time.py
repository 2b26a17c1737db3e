"""Broker time: the realm time that a broker tells, which its wall clock may pull and never push (rule J4).

Rule 1: it is the boot-time clock plus an offset. The wall clock pulls the offset by at most `PULL` of the time that
    passes: so it never stands still, never goes back, and nothing that lives by it dies early.
Rule 2: a wall clock that is more than `FAR_MS` off does not pull at all. That is told, and taken only by an operator's word,
    which names the difference it means: said again later, or brought again to an empty store, it takes nothing else.
    Taken is a clock that is ahead at once; one that is behind pulls from then on, as rule 1 says, however far it is.
Rule 3: a broker that is started again in the same boot goes on with its offset. In another boot, or when the realm begins,
    it takes the wall clock, but never less than the last time that it has stored. Nor one at which its own certificate has
    ended: then it goes on from that last time, and the wall clock is far ahead.
Rule 4: nor less than a time that it has once said itself: what it signed and others bring back is its own word, wherever
    its store is. Nobody else's word moves it, and nobody can sign this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from math import inf
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.hlc import FAR_MS, PULL
from dsmt.event.kinds.realm import ClockWord
from dsmt.event.records import from_data
from dsmt.ports.store import Row

FOLLOWED: Final = " followed"


class BrokerTime:
    """One broker's realm time. `boot` names the machine's boot, `now` is boot-time seconds, the rest is ms.

    From `ended_ms` on no wall clock is taken for the time at a start.
    """

    def __init__(
        self, boot: str, wall_ms: int, now: float, *, kept: bytes | None = None, last_ms: int = 0, ended_ms: float = inf
    ) -> None:
        self._boot = boot
        offset, self._followed = _kept(kept, boot)
        self._offset = float((wall_ms if wall_ms < ended_ms else last_ms) - now * 1000 if offset is None else offset)
        self._offset = max(self._offset, last_ms - now * 1000)
        self._difference = self.ahead_ms(wall_ms, now)
        self._at = now

    @property
    def kept(self) -> bytes:
        """What the next start is to be given: the boot, the offset in it, and whether it follows a clock that is far."""
        return f"{self._boot} {self._offset:.3f}{FOLLOWED if self._followed else ''}".encode()

    @property
    def is_far(self) -> bool:
        """Whether the wall clock is so far off that it does not count."""
        return self.ignores(self._difference)

    @property
    def is_followed(self) -> bool:
        """Whether a clock that is far behind pulls, on an operator's word."""
        return self._followed

    def ignores(self, ahead_ms: float) -> bool:
        """Whether a clock that is so much ahead is too far off to count."""
        return abs(ahead_ms) > FAR_MS and not self._followed

    def ahead_ms(self, wall_ms: int, now: float) -> float:
        """By how much a clock is ahead of realm time."""
        return wall_ms - now * 1000 - self._offset

    def now_ms(self, now: float) -> int:
        """Realm time in ms."""
        passed = now - self._at
        if passed > 0:
            self._at = now
            if not self.is_far:
                most = passed * 1000 * PULL
                pull = max(-most, min(most, self._difference))
                self._offset += pull
                self._difference -= pull
        return int(self._at * 1000 + self._offset)

    def seen(self, wall_ms: int, now: float) -> None:
        """Look at the wall clock."""
        self.now_ms(now)
        before, self._difference = self._difference, self.ahead_ms(wall_ms, now)
        if abs(self._difference) <= FAR_MS or abs(self._difference - before) > FAR_MS:
            self._followed = False  # it is there, or it was set anew

    def was(self, ms: int, now: float) -> bool:
        """It has once said this time itself (rule 4); whether it goes ahead to it."""
        behind = ms - self.now_ms(now)
        if behind <= 0:
            return False
        self._offset += behind
        self._difference -= behind
        return True

    def accept(self, ahead_s: float) -> bool:
        """An operator says that the wall clock, which is so much ahead, is right; whether that is still so (rule 2)."""
        if not self.is_far or abs(ahead_s * 1000 - self._difference) > FAR_MS:
            return False
        if self._difference < 0:
            self._followed = True
        else:
            self._offset += self._difference
            self._difference = 0.0
        return True


def accepted(rows: Iterable[Row], broker: str) -> float | None:
    """The difference that an operator's word among stored rows accepts for this broker; None when there is none."""
    topic = f"config/clock/{broker.removeprefix('broker/')}"
    for row in rows:
        if row.topic == topic:
            with suppress(UnusableEventError):
                return from_data(ClockWord, row.read().event.data).ahead_s
    return None


def _kept(kept: bytes | None, boot: str) -> tuple[float | None, bool]:
    """The offset of this boot, if it is known, and whether it follows a clock that is far."""
    told = "" if kept is None else kept.decode()
    of, _, offset = told.removesuffix(FOLLOWED).rpartition(" ")
    return (float(offset), told.endswith(FOLLOWED)) if boot and of == boot else (None, False)
