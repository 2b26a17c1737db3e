"""Upkeep: what is due in a broker as time passes: what it says of itself, and what is forgotten, trimmed and let go.

Rule 1: it is looked after four times a second, and what grows once a minute; as long as there is more to trim, each time.
Rule 2: how late a look comes is the broker's lag, which it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.keyring import Keyring
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.broker.reporter import Condition
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.rules.quota import Rates

TICK_S: Final = 0.25
EXPIRE_S: Final = 60.0


class Upkeep:
    """Looks after one broker; times are boot-time seconds."""

    def __init__(
        self,
        recorder: Recorder,
        sessions: Sessions,
        rates: Iterable[Rates],
        depot: Depot,
        keyring: Keyring,
    ) -> None:
        self._recorder, self._sessions, self._rates = recorder, sessions, rates
        self._depot, self._keyring = depot, keyring
        self._expire_at = self._before = self.lag = 0.0

    def begin(self, now: float) -> None:
        """From now on it is looked after."""
        self._expire_at, self._before = now + EXPIRE_S, now

    def look(self, now: float, others_ms: Sequence[int]) -> None:
        """Note how late this look comes, and look at the machine's clock and the other brokers' time."""
        self.lag = max(0.0, now - self._before - TICK_S)
        self._before = now
        self._recorder.time.look(others_ms)

    def tick(self, now: float, address: str) -> None:
        """Do what is due. Raises `FailedError` when the disk is full."""
        recorder = self._recorder
        recorder.say_anew()
        recorder.go_on()
        self._say_due(now, address)
        recorder.ingest.holes.overdue()
        recorder.ingest.let_go()
        if now >= self._expire_at:
            recorder.ingest.expire()
            for rates in self._rates:
                rates.forget(now)
            self._sessions.forgive(now)
            self._depot.expire()
            self._expire_at = now + (0.0 if recorder.trim() else EXPIRE_S)
        self._keyring.let_go(self._sessions.signers, now)
        recorder.wholeness.note(now)

    def condition(self, address: str) -> Condition:
        """How the broker is now."""
        recorder = self._recorder
        sessions, time = len(self._sessions.by_name), recorder.time
        return Condition(self.lag, sessions, recorder.dropped, address, time.ahead_s, time.early_s)

    def _say_due(self, now: float, address: str) -> None:
        time = self._recorder.time
        self._recorder.sessions.tick(now, time.now_ms(), TICK_S)
        self._recorder.reporter.tick(now, self.condition(address))
        if self._recorder.full is None:
            time.keep()
        for session in self._sessions.ask(now):
            if session.is_told:
                self._recorder.sessions.presence.asked(session.name, now)
