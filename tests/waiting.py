"""Waiting in real time for what a test expects: with a deadline, and never longer than it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a condition gives as soon as it gives something; it is looked at 200 times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)
    return found
