"""Clock: the two clocks of a machine, as a port."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What time it is here. Waiting is done with asyncio, whose loop runs on the same boot-time clock."""

    def boottime(self) -> float:
        """Seconds of the boot-time clock (CLOCK_BOOTTIME): never back, runs on while suspended."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970 of the machine's own wall clock: may be wrong, may step."""
        ...
