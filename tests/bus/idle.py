"""A loop for tests that wait for nothing outside of this process: where it would only wait for a timer it does not wait.

Rule 1: what is computed takes the time that it takes; the clocks of this process go ahead by what was not waited for.
Rule 2: where anything outside is awaited, as a socket or a thread, it waits as any loop does.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class _Idle(selectors.DefaultSelector):
    """Passes over the time in which nothing can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self._threads = threading.active_count()

    def select(self, timeout: float | None = None) -> list[Any]:
        alone = len(self.get_map()) <= 1 and threading.active_count() <= self._threads  # it holds its own wakeup always
        found = super().select(0 if alone and timeout is not None else timeout)
        if alone and not found and timeout:
            self.passed_s += timeout
        return found


def run_alone(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on such a loop."""
    with _clocks_of_its_own() as made, asyncio.Runner(loop_factory=made) as runner:
        runner.run(main)


@contextmanager
def _clocks_of_its_own() -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """What makes such a loop, for as long as the clocks of this process are its own."""
    selector = _Idle()
    real = {name: getattr(time, name) for name in ("time", "monotonic", "clock_gettime")}

    def later(name: str) -> Callable[..., float]:
        return lambda *which: real[name](*which) + selector.passed_s

    with pytest.MonkeyPatch.context() as patched:
        for name in real:
            patched.setattr(time, name, later(name))
        yield lambda: asyncio.SelectorEventLoop(selector)
