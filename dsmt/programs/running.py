"""Running a program: one loop on the boot-time clock, its signals, logs to stderr, one exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from dsmt.errors import DsmtError, leaves
from dsmt.logs import Logger, to_stderr
from dsmt.system.clock import BootTimeLoop
from dsmt.system.garbage import leave_all

CONFIG_EXIT: Final = 2


def run(serve: Callable[[], Awaitable[int]]) -> int:
    """Run a program's coroutine; its exit code.

    A `DsmtError` is told in one line, and the code is 2; anything else is a bug: it crashes, and is restarted.
    """
    to_stderr()
    code = CONFIG_EXIT

    async def outermost() -> int:
        return await serve()

    try:
        with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
            code = runner.run(outermost())
    except* DsmtError as group:
        for error in leaves(group):
            Logger().error("cannot go on", code=error.code, reason=str(error))
        sys.stderr.flush()
    leave_all()
    return code


def run_until_signalled(serve: Callable[[], Awaitable[None]]) -> int:
    """`run` a program that ends well by SIGTERM or SIGINT."""

    async def main() -> int:
        task = asyncio.ensure_future(serve())
        on_signals({signal.SIGTERM: task.cancel, signal.SIGINT: task.cancel})
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()
        return 0

    return run(main)


def on_signals(calls: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """Have signals call functions on the running loop."""
    loop = asyncio.get_running_loop()
    for number, call in calls.items():
        loop.add_signal_handler(number, call)
