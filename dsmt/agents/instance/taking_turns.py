"""Taking turns: one instance that is not live waits, by the bus alone, for its turn to be restarted (rule A22)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Final

from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.taking_turns import Turn, turn
from dsmt.errors import DsmtError
from dsmt.event.kinds.instance import Health
from dsmt.event.records import readable
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery, Interest

LOOK_S: Final = 2.0
"""How long what its siblings say may take to begin to come, and each further part of it after the one before."""
SETTLE_S: Final = 0.3
"""How long nobody must have been before it: twice as long as what another says at the same moment takes to come."""


async def its_turn(
    config: AgentConfig, bus: Bus, *, check: str, start_s: float, try_s: float, waits: Callable[[Turn], object]
) -> None:
    """Return when an instance that fails this check may be restarted.

    Where it has to wait `waits` hears that; then it is tried once more, which takes `try_s`, and it looks again.
    """
    queue = _Queue(config, bus, check, start_s, waits)
    if not await queue.passed():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout_at((queue.latest or 0.0) + try_s):
            has_waited = True
            while has_waited:
                await asyncio.sleep(try_s)
                has_waited = await queue.passed()


class _Queue:
    """Those that fail the same check, as one of them sees it."""

    def __init__(self, config: AgentConfig, bus: Bus, check: str, start_s: float, waits: Callable[[Turn], object]) -> None:
        self._slot, self._bus, self._check, self._start_s, self._waits = config.slot, bus, check, start_s, waits
        self.latest: float | None = None
        """When it is restarted whoever is before it (loop time, seconds); None while nobody ever was."""

    async def passed(self) -> bool:
        """Return when nobody is before it any more, or at the latest; whether anybody was."""
        had_to_wait, settled = False, None
        if not self._bus.attached:
            return False
        with suppress(DsmtError, TimeoutError):  # nobody tells, or nobody was before it for so long, or its turn comes
            async with asyncio.timeout(LOOK_S) as limit, aclosing(self._turns()) as turns:
                async for now in turns:
                    if now is None:
                        limit.reschedule(_in(LOOK_S))
                    elif now.known == 1:
                        break
                    elif not now.ahead:
                        settled = settled or _in(SETTLE_S)
                        limit.reschedule(settled)
                    else:
                        if not had_to_wait:
                            self._wait(now)
                        had_to_wait, settled = True, None
                        limit.reschedule(self.latest)
        return had_to_wait

    def _wait(self, now: Turn) -> None:
        self.latest = self.latest or _in(LOOK_S + now.ahead * self._start_s)
        self._waits(now)

    async def _turns(self) -> AsyncGenerator[Turn | None, None]:
        """Its turn, whenever its siblings say something; None until all has come that they had said."""
        told: dict[str, Health] = {}
        below, whole = f"service/{self._slot.service}/health/{self._slot.component}/", False
        async with self._bus.subscribe(Interest((below,), conflate=True)) as subscription:
            async for batch in subscription:
                whole = _are_all(told, batch, below) or whole
                now_ms = self._bus.now_ms()
                yield turn(str(self._slot.index), self._check, told, now_ms=now_ms, start_s=self._start_s) if whole else None


def _in(seconds: float) -> float | None:
    """The loop's time in so many seconds."""
    return asyncio.timeout(seconds).when()


def _are_all(told: dict[str, Health], batch: Sequence[Delivery], below: str) -> bool:
    """Take in what siblings say, by index; whether that is what all of them had said."""
    for one in batch:
        if isinstance(one, Arrived):
            _take(told, one, below)
    return any(isinstance(one, Complete) for one in batch)


def _take(told: dict[str, Health], arrived: Arrived, below: str) -> None:
    event = arrived.signed.event
    if event.topic.startswith(below):
        health = readable(Health, event.data)
        if health is None:
            return
        index = event.topic[len(below) :].split("/", 1)[0]
        if index not in told or told[index].generation <= health.generation:
            told[index] = health
