"""The reporter of a gate: how its NATS server is; there is no head that would prove what it holds (`EXPORT`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

import msgspec

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.streams import head
from dsmt.bus.rules.session_words import HEARTBEAT_S, STATS_S
from dsmt.errors import RefusedError, TransportError
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.clock import Clock
from dsmt.ports.realm import About


class NatsReporter:
    """That of one gate. `sessions` says how many are attached to its server, and `full` whose disk is (`NatsGate`)."""

    def __init__(
        self, bus: NatsBus, clock: Clock, about: About, *, sessions: Callable[[], int], full: Callable[[], str]
    ) -> None:
        self._bus, self._subjects, self._clock, self._about = bus, bus.subjects, clock, about
        self._sessions, self._full = sessions, full

    async def run(self, begins: asyncio.Event) -> Never:
        """Tell it each `STATS_S`, and when its disk is full or has room again; from when that begins."""
        await begins.wait()
        while True:
            try:
                link = await self._bus.held()
                history, facts = [await head(link, one) for one in (self._subjects.history, self._subjects.facts)]
            except (TransportError, RefusedError):
                await asyncio.sleep(HEARTBEAT_S)
                continue
            full = self._full()
            stats = BrokerStats(
                store=history.store,
                head=history.last,
                head_hash=b"",
                sessions=self._sessions(),
                events=history.messages,
                facts=facts.messages,
                disk_bytes=history.size + facts.size,
                history_from_ms=history.first_ms,
                dropped=0,
                lag_s=0.0,
                pid=self._about.pid,
                version=self._about.version,
                address=self._about.address,
                full=full or msgspec.UNSET,
            )
            self._bus.emit(Draft(f"{self._bus.source}/stats", to_data(stats), subject=self._bus.source))
            due = self._clock.boottime() + STATS_S
            while self._full() == full and self._clock.boottime() < due:  # noqa: ASYNC110 - no event
                await asyncio.sleep(HEARTBEAT_S)
