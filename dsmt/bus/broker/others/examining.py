"""Examining: a broker asks another for the last moments of its history, and compares them with what must be in it (E4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.broker.withheld import COMPARED, Withholding
from dsmt.event.envelope import EventId
from dsmt.ports.bus import Arrived, BusReader, Interest, Start

SETTLE_S: Final = 3.0
"""After how long it is asked again for what it did not give."""
LAST_MS: Final = 15_000
"""How much of its history it is asked for."""


async def examine(bus: BusReader, withholding: Withholding, take: Callable[[Sequence[Arrived]], object]) -> None:
    """Ask one broker; what it has and this one lacks is taken."""
    owed = withholding.owed(bus.broker)
    lacks, missed = await _last(bus, withholding, owed)
    if lacks or missed:
        seen_ms = withholding.now_ms()
        await asyncio.sleep(SETTLE_S)
        lacks = (await _last(bus, withholding, lacks))[0] if lacks else lacks
        found = withholding.found(bus.broker, missed, seen_ms)
        if found:
            take(found)
    if owed:
        withholding.judged(bus.broker, lacks)


async def _last(bus: BusReader, withholding: Withholding, owed: Sequence[EventId]) -> tuple[list[EventId], list[Arrived]]:
    """Read the last moments of its history, also what others brought to it: what it lacks of `owed`, and what we lack."""
    had, missed = set[EventId](), list[Arrived]()
    since = bus.now_ms() - LAST_MS
    async with bus.subscribe(Interest(("/",), Start.HISTORY, since=since, follow=False, copies=())) as batches:
        async for batch in batches:
            arrived = [one for one in batch if isinstance(one, Arrived)]
            had.update({one.signed.id for one in arrived}.intersection(owed))
            missed += withholding.missed(arrived)[: COMPARED - len(missed)]
    return [one for one in owed if one not in had], missed
