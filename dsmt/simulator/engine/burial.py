"""How a coroutine of a killed process ends: its frames unwind, but it cannot wait any more.

SIGKILL runs no code; Python's frames must be unwound nevertheless, or the locks of the simulator stay taken.
`ProcessKilled` unwinds them without the goodbye that `except CancelledError` would say. (`close` would not do: when
an inner coroutine waits in spite of it, CPython goes on to unwind the outer one first.)
"""

# ruff: noqa: SLF001 - asyncio has no public way to say which task and loop run

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from dsmt.simulator.engine.errors import ProcessKilled
from dsmt.simulator.engine.handles import SimTask

_TRIES: Final = 100
"""Waits in nested `finally` blocks that are cut short before the coroutine counts as refusing to end."""


def bury_tasks(loop: asyncio.BaseEventLoop, tasks: list[SimTask], buried: Callable[[SimTask, bool], object]) -> None:
    """End all tasks but the running one, each as the current task and in its context; all are done afterwards.

    `buried` is called after each, with whether its coroutine ended.
    """
    running = asyncio.current_task(loop)
    if running is not None:
        asyncio.tasks._leave_task(loop, running)
    asyncio._set_running_loop(loop)  # it is not after the run, and `finally` blocks ask for it
    try:
        for task in tasks:
            if task is not running and not task.done():
                buried(task, _bury(loop, task))
    finally:
        asyncio._set_running_loop(loop if loop.is_running() else None)
        if running is not None:
            asyncio.tasks._enter_task(loop, running)


def _bury(loop: asyncio.BaseEventLoop, task: SimTask) -> bool:
    asyncio.tasks._enter_task(loop, task)
    try:
        closed = _close_in(task.context, task.get_coro())
    finally:
        asyncio.tasks._leave_task(loop, task)
    if not task.done():
        asyncio.Future.set_exception(task, ProcessKilled("killed"))
        forget_exception(task)
    return closed


def _close_in(context: Context, coro: object) -> bool:
    """Unwind a suspended coroutine in its context, and say whether it ended.

    Each wait in a `finally` block ends that block; what the blocks raise goes nowhere.
    """
    try:
        return context.run(_close, coro)
    except RuntimeError:  # the context is in use: the caller runs in it
        return context.copy().run(_close, coro)


def _close(coro: Any) -> bool:
    for _ in range(_TRIES):
        try:
            coro.throw(ProcessKilled("killed"))
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a dead process cannot complain
            return True
    frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
    if frame is not None:
        # or it would swallow its end once more when it is finalized, with no loop to wait on; Python 3.13 lets no frame go
        with suppress(RuntimeError):
            frame.clear()
    return False


def close_generator(agen: AsyncGenerator[Any, Any]) -> None:
    """Unwind an asynchronous generator as far as it does not wait."""
    try:
        agen.aclose().__await__().send(None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - StopIteration is the good end; the others have no reader
        pass


def forget_exception(future: asyncio.Future[Any]) -> None:
    """Retrieve a future's exception, so that it is not reported as never retrieved."""
    if future.done() and not future.cancelled():
        future.exception()
