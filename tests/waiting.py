"""Waiting in real time for what a test expects: with a deadline, and never longer than it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

TICK_S = 0.01


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a condition gives as soon as it gives something; it is looked at 200 times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def timed() -> AsyncIterator[Callable[[], float]]:
    """How many seconds have passed since, without those in which the machine let this process stand still.

    It stood still where a turn of the loop came late and did not compute for so long.
    """
    began = at = time.monotonic()
    computed, before = time.process_time(), 0.0

    def stood() -> float:
        return before + max(0.0, time.monotonic() - at - TICK_S - (time.process_time() - computed))

    async def watch() -> None:
        nonlocal at, computed, before
        while True:
            await asyncio.sleep(TICK_S)
            before = stood()
            at, computed = time.monotonic(), time.process_time()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: time.monotonic() - began - stood()
    finally:
        watching.cancel()
        await asyncio.wait({watching})
