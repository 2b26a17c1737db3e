"""Realm time: the boot-time clock plus an offset that is slewed, so that it never goes back (rule J4).

Rule 1: the first measured offset is taken as it is, even if that is a step back; later ones are approached at `SLEW`, which
    is faster than a broker's realm time may leave its boot time (`PULL`): who measures it stays with it.
Rule 2: an offset that is more than 10 s later is taken at once (a first boot at 1970); one that is earlier never is.
Rule 3: of several measurements the one with the shortest round trip counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from dsmt.event.hlc import PULL

SLEW: Final = 2 * PULL
"""How fast a client's may: it follows its broker's, and makes up meanwhile for what it was behind."""
STEP_MS: Final = 10_000
ROUND_TRIPS: Final = 3
"""Of how many one is chosen (rule 3)."""
MEASURE_S: Final = 60.0
"""How old a measurement is when it is made anew."""


class Sample(NamedTuple):
    """One round trip: boot-time seconds when it was sent and answered, and the realm ms in the answer."""

    sent: float
    received: float
    realm_ms: float


def offset_of(samples: Iterable[Sample]) -> float:
    """Realm ms minus boot-time ms, by the sample with the shortest round trip."""
    best = min(samples, key=lambda s: s.received - s.sent)
    return best.realm_ms - (best.sent + best.received) / 2 * 1000


class RealmTime:
    """One process's realm time. `now` is boot-time seconds, offsets are ms."""

    def __init__(self, offset_ms: float) -> None:
        self._offset = offset_ms
        self._target = offset_ms
        self._at: float | None = None
        self._last = 0.0
        self._measured = False

    def measured(self, offset_ms: float, now: float) -> int:
        """Take in a measured offset; how many ms later than was guessed realm time is by the first one, 0 by others."""
        self.now_ms(now)
        by_ms = 0 if self._measured else round(offset_ms - self._offset)
        self._target = offset_ms
        if not self._measured:
            self._last = 0.0  # what was said before was the machine's own word, not realm time
        if not self._measured or offset_ms - self._offset > STEP_MS:
            self._offset = offset_ms
        self._measured = True
        return by_ms

    def now_ms(self, now: float) -> int:
        """Realm time in ms; never less than before."""
        if self._at is not None:
            step = max(0.0, now - self._at) * 1000 * SLEW
            difference = self._target - self._offset
            self._offset += max(-step, min(step, difference))
        self._at = now
        self._last = max(self._last, now * 1000 + self._offset)
        return int(self._last)
