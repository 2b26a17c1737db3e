"""Clock and entropy of a simulated machine: virtual time that may run fast, a wall clock that may be wrong."""

from __future__ import annotations

from typing import Final

from dsmt.simulator.loop import SimLoop
from dsmt.simulator.rng import Stream

EPOCH_MS: Final = 1_700_000_000_000
"""The true realm time, in ms since 1970, at virtual time 0."""
FIRST_S: Final = 10.0
"""What the boot-time clock shows when the first program starts after a boot."""


class SimClock:
    """Fulfils `ports.clock.Clock`. `rate` is how fast it runs (1.0 is true), `offset_s` what its wall clock is ahead."""

    __slots__ = ("_booted", "_loop", "_rate", "offset_s")

    def __init__(self, loop: SimLoop, *, rate: float = 1.0, offset_s: float = 0.0) -> None:
        self._loop, self._rate, self.offset_s = loop, rate, offset_s
        self._booted = loop.time()

    def boottime(self) -> float:
        """Seconds since this boot."""
        return FIRST_S + (self._loop.time() - self._booted) * self._rate

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by this machine's wall clock."""
        return EPOCH_MS + int((self._loop.time() * self._rate + self.offset_s) * 1000)

    def reboot(self) -> None:
        """The machine starts anew."""
        self._booted = self._loop.time()


class SimEntropy:
    """Fulfils `ports.entropy.Entropy` from a stream of its own."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        return self._stream.bytes(count)

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return self._stream.uniform(low, high)
