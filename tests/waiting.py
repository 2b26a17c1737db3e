"""Waiting in real time for what a test expects: with a deadline, and never longer than it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

TICK_S = 0.01
REST_S = 0.02, 1.0
"""How long is rested between two looks, at least and at most."""


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a condition gives as soon as it gives something; it is looked at 200 times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)
    return found


def seen(look: Callable[[], Any], what: str, seconds: float) -> Any:
    """What a look gives as soon as it gives something. One that starts processes takes no core from what it waits for."""
    deadline = time.monotonic() + seconds
    began = time.monotonic()
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(rest(began))
        began = time.monotonic()
    return found


async def told(look: Callable[[], Awaitable[Any]], what: str, seconds: float) -> Any:
    """The same, of what is awaited."""
    deadline = time.monotonic() + seconds
    began = time.monotonic()
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(rest(began))
        began = time.monotonic()
    return found


def rest(began: float) -> float:
    """How long is rested after a look that began then: twice as long as it took."""
    least, most = REST_S
    return min(most, max(least, 2 * (time.monotonic() - began)))


@asynccontextmanager
async def timed() -> AsyncIterator[Callable[[], float]]:
    """How many seconds have passed since on the clock of the loop, without those in which this process stood still.

    It stood still where a turn of the loop came late and did not compute for so long: the machine did not let it.
    """
    now = asyncio.get_running_loop().time
    began = at = now()
    computed, before = time.process_time(), 0.0

    def stood() -> float:
        return before + max(0.0, now() - at - TICK_S - (time.process_time() - computed))

    async def watch() -> None:
        nonlocal at, computed, before
        while True:
            await asyncio.sleep(TICK_S)
            before = stood()
            at, computed = now(), time.process_time()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: now() - began - stood()
    finally:
        watching.cancel()
        await asyncio.wait({watching})
