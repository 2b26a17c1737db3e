"""Linux clock: the machine's boot-time and wall clocks, and an event loop that waits on the former."""

from __future__ import annotations

import asyncio
import time


class LinuxClock:
    """The `Clock` port over clock_gettime(2)."""

    def boottime(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> int:
        """Milliseconds since 1970 of CLOCK_REALTIME."""
        return time.time_ns() // 1_000_000


class BootTimeLoop(asyncio.SelectorEventLoop):
    """The loop of every dsmt process. Its `time()` is CLOCK_BOOTTIME: a timer that fell due in a suspend fires after it."""

    def time(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
