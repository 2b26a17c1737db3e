"""Running a program: one asyncio loop, ended by SIGTERM or SIGINT, logs to stderr, one exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from dsmt.errors import DsmtError
from dsmt.logs import Logger, to_stderr

CONFIG_EXIT = 2


def run_until_signalled(serve: Callable[[], Awaitable[None]]) -> int:
    """Run `serve` until it ends or the process is asked to end; the exit code.

    A `DsmtError` becomes one line on stderr and its exit code; anything else is a bug and crashes.
    """
    to_stderr()
    code = 0
    try:
        asyncio.run(_serve(serve))
    except* DsmtError as group:
        for error in _leaves(group):
            Logger().error("cannot go on", code=getattr(error, "code", ""), reason=str(error))
            sys.stderr.flush()
        code = CONFIG_EXIT
    return code


async def _serve(serve: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


def _leaves(group: BaseExceptionGroup[DsmtError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
