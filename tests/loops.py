"""Tests that are coroutines: each runs in a loop of its own, in the simulator's time or in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from dsmt.simulator.engine.run import run

Test = Callable[..., Coroutine[Any, Any, None]]


def in_virtual_time(test: Test) -> Callable[..., None]:
    """Run a test in the simulator, which passes over all time in which nothing happens."""

    @wraps(test)
    def runs(*given: Any, **named: Any) -> None:
        run(test(*given, **named))

    return runs


def in_real_time(test: Test) -> Callable[..., None]:
    """Run a test in a loop on real descriptors and clocks."""

    @wraps(test)
    def runs(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return runs
