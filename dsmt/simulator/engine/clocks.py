"""Clock and entropy of a simulated machine: virtual time, and a wall clock that may be wrong."""

from __future__ import annotations

from typing import Final

from dsmt.simulator.engine.loop import SimLoop
from dsmt.simulator.engine.rng import Stream

EPOCH_MS: Final = 1_700_000_000_000
"""The true realm time, in ms since 1970, at virtual time 0."""
FIRST_S: Final = 10.0
"""What the boot-time clock shows when the first program starts after a boot."""


class SimClock:
    """Fulfils `ports.clock.Clock`. `offset_s` is by how much its wall clock is ahead."""

    __slots__ = ("_booted", "_loop", "offset_s")

    def __init__(self, loop: SimLoop) -> None:
        self._loop, self.offset_s = loop, 0.0
        self._booted = loop.time()

    def boottime(self) -> float:
        """Seconds since this boot."""
        return FIRST_S + (self._loop.time() - self._booted)

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by this machine's wall clock."""
        return EPOCH_MS + int((self._loop.time() + self.offset_s) * 1000)

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
