"""Timekeeping: a broker's realm time over its life: what is told of it, and what its next start is given (rule J4).

Rule 1: the wall clock is looked at in each tick. That it is far off, is followed slowly, or is right again is told once.
Rule 2: an operator's word is obeyed when it is stored.
Rule 3: the time is kept each `KEEP_S`, and when an operator has changed it: a broker that is killed goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dsmt.bus.broker_time import FAR_MS, BrokerTime, accepted
from dsmt.ports.clock import Clock
from dsmt.ports.store import Row, Store

KEEP_S: Final = 5.0
KEPT: Final = "time"
"""Under it the store keeps the time."""


class Timekeeper:
    """Keeps the time of the broker of this name on a machine in this boot; `tell` says a sentence to everybody."""

    def __init__(self, name: str, boot: str, store: Store, clock: Clock, tell: Callable[[str], None]) -> None:
        self._name, self._store, self._clock, self._tell = name, store, clock, tell
        now = clock.boottime()
        self._time = BrokerTime(boot, clock.wall_ms(), now, kept=store.get_meta(KEPT), last_ms=_last_arrival_ms(store))
        self._told_far, self._keep_at = False, now

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms(self._clock.boottime())

    @property
    def ahead_s(self) -> float:
        """By how much the machine's clock is ahead of realm time, in seconds."""
        return self._time.ahead_s

    def look(self) -> None:
        """Look at the machine's clock (rule 1)."""
        self._time.seen(self._clock.wall_ms(), self._clock.boottime())
        if self._time.is_far != self._told_far:
            self._told_far = self._time.is_far
            self._tell(self._said())

    def _said(self) -> str:
        ahead_s = self.ahead_s
        if abs(ahead_s) * 1000 <= FAR_MS:
            return "it is right again"
        what = "and is not followed" if self._told_far else "which goes slower until it is there"
        off = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} realm time"
        return f"the clock of {self._name}'s machine is {off}, {what}"

    def obey(self, rows: Iterable[Row]) -> None:
        """Take the machine's clock for realm time, if an operator says so in one of these rows (rule 2)."""
        ahead_s = accepted(rows, self._name)
        if ahead_s is not None:
            self._time.seen(self._clock.wall_ms(), self._clock.boottime())
            self._time.accept(ahead_s)
            self._keep()

    def keep(self) -> None:
        """Have the store keep it, now and then (rule 3)."""
        now = self._clock.boottime()
        if now >= self._keep_at:
            self._keep_at = now + KEEP_S
            self._keep()

    def _keep(self) -> None:
        self._store.put_meta(KEPT, self._time.kept)


def _last_arrival_ms(store: Store) -> int:
    """When the last row was stored (realm ms)."""
    rows = store.rows(max(0, store.head - 1), 1)
    return rows[-1].arrived_ms if rows else 0
