"""Threads: blocking work beside the event loop that a cancelled caller does not leave behind.

Rule 1: the work is given a `Stop` and looks at it between its steps; cancelling the caller sets it.
Rule 2: with `patient` the cancelled caller waits for the work's end, so nothing of it goes on behind its back;
        without, the work ends by itself, at its next step, and must not touch what anybody else may touch then.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from dsmt.errors import FailedError

T = TypeVar("T")


class StoppedError(Exception):
    """Raised inside the work when its caller was cancelled; nobody outside sees it."""


class Stop:
    """Whether the caller still wants the work."""

    def __init__(self) -> None:
        self._set = threading.Event()

    def set(self) -> None:
        """Ask the work to end."""
        self._set.set()

    def check(self) -> None:
        """Raise `StoppedError` when the work is not wanted any more."""
        if self._set.is_set():
            raise StoppedError


def check_threads(number: int) -> None:
    """Raise `FailedError` where this machine does not let us start so many threads at once: none of them stays."""
    over, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(number):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        said = f"this machine starts no more processes for this user, and {number} threads are needed to reach a broker"
        raise FailedError("link.threads", said, next="raise the limit (ulimit -u), or end some, then try again") from error
    finally:
        over.set()
        for thread in started:
            thread.join()


async def in_thread(work: Callable[[Stop], T], *, patient: bool) -> T:
    """Run blocking work in a daemon thread of its own: neither the loop's end nor the process's waits for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    stop = Stop()

    def run() -> None:
        try:
            result = work(stop)
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            _hand_over(loop, done, error=error)
        else:
            _hand_over(loop, done, result=result)

    threading.Thread(target=run, daemon=True, name="dsmt-work").start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        stop.set()
        if patient:
            await _end_of(done)
        else:
            done.add_done_callback(_forget)
        raise


def _hand_over(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[T],
    *,
    result: T | None = None,
    error: BaseException | None = None,
) -> None:
    """Tell the loop how the work ended; a loop that is closed does not care."""

    def tell() -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # None only when the work returns None

    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)


async def _end_of(done: asyncio.Future[T]) -> None:
    """Wait for the work's end, however often the caller is cancelled meanwhile."""
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({done})
    _forget(done)


def _forget(done: asyncio.Future[T]) -> None:
    """Take note of an exception nobody wants."""
    if not done.cancelled():
        done.exception()
