"""Taking turns: one instance that is not live waits, by the bus alone, for its turn to be restarted (`rules.liveness`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.liveness import Turn, turn
from dsmt.errors import DsmtError, UnusableEventError
from dsmt.event.kinds.instance import Health
from dsmt.event.records import from_data
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery, Interest

LOOK_S: Final = 2.0
"""How long what its siblings say may take to begin to come, and so long more for each part of it: they may be thousands."""
SETTLE_S: Final = 0.3
"""How long nobody must have been before it: twice as long as what another says at the same moment takes to come."""


async def its_turn(
    config: AgentConfig, bus: Bus, *, check: str, start_s: float, try_s: float, waits: Callable[[Turn], object]
) -> None:
    """Return when an instance that fails this check may be restarted.

    Where it has to wait `waits` hears that; then it is tried once more, which takes `try_s`, and it looks again.
    """
    latest = await _look(config, bus, check=check, start_s=start_s, latest=None, waits=waits)
    if latest is None:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout_at(latest + try_s):
            again: float | None = latest
            while again is not None:
                await asyncio.sleep(try_s)
                again = await _look(config, bus, check=check, start_s=start_s, latest=latest, waits=waits)


async def _look(
    config: AgentConfig,
    bus: Bus,
    *,
    check: str,
    start_s: float,
    latest: float | None,
    waits: Callable[[Turn], object],
) -> float | None:
    """Return when nobody is before it any more, or at the latest: which time that is, or `None` where it did not wait."""
    if not bus.attached:
        return None
    slot, told = config.slot, dict[str, Health]()
    below = f"service/{slot.service}/health/{slot.component}/"
    whole = limited = settles = False
    try:
        async with asyncio.timeout(LOOK_S) as limit, bus.subscribe(Interest((below,), conflate=True)) as subscription:
            began = limit.when() or 0.0
            async for batch in subscription:
                whole = _are_all(told, batch, below) or whole
                if not whole:
                    limit.reschedule((limit.when() or 0.0) + LOOK_S)
                    continue
                now = turn(slot.index, check, told, now_ms=bus.now_ms(), start_s=start_s)
                if now.known == 1:
                    break
                if not now.ahead:
                    if not settles:
                        limit.reschedule(asyncio.timeout(SETTLE_S).when())
                    settles = True
                    continue
                if not limited:
                    latest = max(began + now.ahead * start_s, limit.when() or 0.0) if latest is None else latest
                    waits(now)
                limit.reschedule(latest)
                limited, settles = True, False
    except (DsmtError, TimeoutError):
        pass  # nobody tells, or nobody is before it any more, or everybody who is has had the time to start
    return latest if limited else None


def _are_all(told: dict[str, Health], batch: Sequence[Delivery], below: str) -> bool:
    """Take in what siblings say, by index; whether that is what all of them had said."""
    for one in batch:
        if isinstance(one, Arrived):
            _take(told, one, below)
    return any(isinstance(one, Complete) for one in batch)


def _take(told: dict[str, Health], arrived: Arrived, below: str) -> None:
    event = arrived.signed.event
    if event.topic.startswith(below):
        try:
            health = from_data(Health, event.data)
        except UnusableEventError:
            return
        index = event.topic[len(below) :].split("/", 1)[0]
        if index not in told or told[index].generation <= health.generation:
            told[index] = health
