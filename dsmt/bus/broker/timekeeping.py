"""Timekeeping: a broker's realm time over its life: what is told of it, and what its next start is given (rule J4).

Rule 1: the wall clock is looked at in each tick, or the median of it and of the time that other brokers tell; it alone where
    an operator has said so of one that is behind. That it is far off itself, whatever the others tell, is followed slowly,
    or is right again is told once.
Rule 2: an operator's word is obeyed when it is stored.
Rule 3: what others bring back of what was decided may be ahead of it: then this broker's store began anew, and its machine's
    clock is behind. What it signed itself once takes it there (`broker_time`); else it is told what to do, in its stats too.
Rule 4: where no other broker tells the time, it is not before the certificate of this one begins: with a clock before that,
    as of a machine that has just booted and knows no time, and an empty store nobody could attach, nor say that it is right.
    Nor is it one at which that has ended, where something is stored of before: the machine's clock may be years ahead at its
    boot, all would have ended, and realm time never goes back.
Rule 5: the time is kept each `KEEP_S`, and when an operator has changed it: a broker that is killed goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from statistics import median
from typing import Final

from dsmt.bus.broker.wholeness import EARLY_S
from dsmt.bus.rules.broker_time import BrokerTime, accepted
from dsmt.event.hlc import FAR_MS
from dsmt.ports.clock import Clock
from dsmt.ports.store import Log, Meta, Row, StoreFullError

KEEP_S: Final = 5.0
KEPT: Final = "time"
"""Under it the store keeps the time."""


class Timekeeper:
    """Keeps the time of the broker of this name on a machine in this boot; `tell` says a sentence to everybody."""

    def __init__(
        self,
        name: str,
        boot: str,
        log: Log,
        meta: Meta,
        clock: Clock,
        *,
        tell: Callable[[str], None],
        told_ms: int | None = None,
        certified_ms: tuple[int, float],
    ) -> None:
        self._name, self._meta, self._clock, self._tell = name, meta, clock, tell
        now = clock.boottime()
        wall_ms = clock.wall_ms() if told_ms is None else told_ms
        begins_ms, ends_ms = certified_ms if told_ms is None else (0, inf)
        stored_ms = _last_arrival_ms(log)
        ended_ms = ends_ms if 0 < stored_ms < ends_ms else inf
        last_ms = max(stored_ms, begins_ms)
        self._time = BrokerTime(boot, wall_ms, now, kept=meta.get(KEPT), last_ms=last_ms, ended_ms=ended_ms)
        self._told_far, self._keep_at = False, now
        self._early_ms, self._early_until, self._told_early = 0, now, False

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms(self._clock.boottime())

    @property
    def ahead_s(self) -> float:
        """By how much the machine's clock is ahead of realm time, in seconds."""
        return self._time.ahead_ms(self._clock.wall_ms(), self._clock.boottime()) / 1000

    @property
    def early_s(self) -> float:
        """By how much the latest of what was decided and is refused for its time is ahead; 0 when nothing is (rule 3)."""
        late = self._clock.boottime() >= self._early_until
        return 0.0 if late else max(0.0, (self._early_ms - self.now_ms()) / 1000)

    def early(self, ms: int) -> None:
        """What was decided at this time is refused, for it is ahead (rule 3)."""
        self._early_ms = max(ms, self._early_ms if self.early_s else 0)
        self._early_until = self._clock.boottime() + EARLY_S

    def was(self, ms: int) -> bool:
        """The broker has once said this time itself; whether realm time goes ahead to it."""
        return self._time.was(ms, self._clock.boottime())

    def look(self, others_ms: Sequence[int] = ()) -> None:
        """Look at the machine's clock, and at what other brokers say (rule 1)."""
        wall_ms = self._clock.wall_ms()
        pulls_ms = wall_ms if self._time.is_followed else round(median((wall_ms, *others_ms)))
        self._time.seen(pulls_ms, self._clock.boottime())
        is_far = self._time.ignores(self.ahead_s * 1000)
        if is_far != self._told_far:
            self._told_far = is_far
            self._tell(self._said())
        if bool(self.early_s) != self._told_early:
            self._told_early = bool(self.early_s)
            self._tell(self._said_early())

    def _said_early(self) -> str:
        if not self._told_early:
            return f"nothing that was decided before is ahead of the time of {self._name} any more"
        accept = f"dsmt clock accept {self._name.removeprefix('broker/')}"
        return (
            f"what was decided before is {self.early_s:.0f} s ahead of the time of {self._name} and is refused until then: "
            f"its store began anew with a clock that is behind. Set the clock of its machine right, then say {accept}"
        )

    def _said(self) -> str:
        ahead_s = self.ahead_s
        if abs(ahead_s) * 1000 <= FAR_MS:
            return "it is right again"
        what = "and is not followed" if self._told_far else "which goes slower until it is there"
        off = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} realm time"
        return f"the clock of {self._name}'s machine is {off}, {what}"

    def obey(self, rows: Iterable[Row]) -> bool:
        """Take the machine's clock for realm time, if an operator says so in one of these (rule 2); whether it is."""
        ahead_s = accepted(rows, self._name)
        if ahead_s is None:
            return False
        self._time.seen(self._clock.wall_ms(), self._clock.boottime())
        taken = self._time.accept(ahead_s)
        try:
            self._keep()
        except StoreFullError:  # the word was stored, and the next tick that has room for it keeps the time
            self._keep_at = self._clock.boottime()
        return taken

    def keep(self) -> None:
        """Have the store keep it, now and then (rule 5)."""
        now = self._clock.boottime()
        if now >= self._keep_at:
            self._keep_at = now + KEEP_S
            self._keep()

    def _keep(self) -> None:
        self._meta.put(KEPT, self._time.kept)


def _last_arrival_ms(log: Log) -> int:
    """When the last row was stored (realm ms)."""
    rows = log.rows(max(0, log.head - 1), 1)
    return rows[-1].arrived_ms if rows else 0
