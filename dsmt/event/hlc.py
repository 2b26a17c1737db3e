"""Hybrid logical clock: one integer that follows realm time and never goes back (Kulkarni et al. 2014).

Rule 1: a value is 48 bits of milliseconds since 1970 and 16 bits of counter: `ms << 16 | counter`.
Rule 2: `tick` is greater than every value ticked or merged before.
Rule 3: a value more than `BOUND_MS` ahead of one's own realm time is not merged (rule A2); the reader
    still takes the event, for time is judged once, by the first broker that has it.
Rule 4: it orders nothing but the siblings of one version (rule A1, A3), and a node's removal among what gives its name (J2).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

COUNTER_BITS: Final = 16
BOUND_MS: Final = 10_000
"""How far ahead of a broker's realm time an event may be, in ms."""
FAR_MS: Final = BOUND_MS
"""How far a broker's wall clock may be from realm time and still pull it (rule J4)."""
LAST_MS: Final = 253_402_300_799_999
"""The last time that RFC 3339 can write, in ms: the end of the year 9999."""
PULL: Final = 0.01
"""How fast a broker's realm time may leave its boot time, as a share of the time that passes."""


def hlc(ms: int, counter: int = 0) -> int:
    """The value for a time in ms."""
    return ms << COUNTER_BITS | counter


def milliseconds(value: int) -> int:
    """The milliseconds of a value."""
    return value >> COUNTER_BITS


def rfc3339(ms: int) -> str:
    """A realm time in ms as text for people and JSON: RFC 3339, UTC, with milliseconds.

    Any number has a text: what is outside of the calendar is `before` its first time, or `after` its last.
    """
    if not 0 <= ms <= LAST_MS:
        return f"before {rfc3339(0)}" if ms < 0 else f"after {rfc3339(LAST_MS)}"
    return f"{instant(ms):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def instant(ms: int) -> datetime:
    """A realm time in ms as an instant; what is outside of the calendar as its nearest end."""
    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, UTC)


class HybridClock:
    """One process's clock. `now_ms` is realm time in ms, given by the caller."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def tick(self, now_ms: int) -> int:
        """A new value for an event of our own."""
        self.last = max(self.last + 1, hlc(now_ms))
        return self.last

    def go_back(self) -> None:
        """What comes next may be below what was, for realm time is."""
        self.last = 0

    def merge(self, seen: int, now_ms: int) -> None:
        """Take note of a value that was received."""
        if seen > self.last and milliseconds(seen) - now_ms <= BOUND_MS:
            self.last = seen
