"""Measuring: a client's realm time, by round trips to its broker's clock (rules A11, J4)."""

from __future__ import annotations

from dsmt.bus.rules.realm_time import MEASURE_S, ROUND_TRIPS, RealmTime, Sample, offset_of
from dsmt.ports.clock import Clock


class MeasuredTime:
    """Realm time, guessed from the machine's own clock until it is measured."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: list[Sample] = []
        self._asked = self._measured = 0.0
        self.begin(clock.wall_ms())

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms(self._clock.boottime())

    def begin(self, realm_ms: float) -> None:
        """Begin anew, from what realm time is now."""
        self._time = RealmTime(realm_ms - self._clock.boottime() * 1000)

    def measured(self, offset_ms: float) -> tuple[int, int]:
        """Take in how far realm time is from the boot-time clock; what it is by that, and as `RealmTime.measured` (ms)."""
        self._measured = now = self._clock.boottime()
        by_ms = self._time.measured(offset_ms, now)
        return int(now * 1000 + offset_ms), by_ms

    @property
    def is_due(self) -> bool:
        """Whether it is to be measured anew."""
        return self._clock.boottime() - max(self._measured, self._asked) >= MEASURE_S

    def ask(self) -> float:
        """A measurement begins; what was asked before counts no more, for realm time may have stepped meanwhile."""
        self._asked, self._samples = self._clock.boottime(), []
        return self._asked

    def answered(self, sent: float, realm_ms: float) -> None:
        """One round trip that began then has come back; what was not asked is no answer."""
        if sent != self._asked:
            return
        self._samples.append(Sample(sent, self._clock.boottime(), realm_ms))
        if len(self._samples) >= ROUND_TRIPS:
            self.measured(offset_of(self._samples))
            self._samples = []
