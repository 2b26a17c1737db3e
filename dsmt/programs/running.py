"""Running a program: one loop on the boot-time clock, its signals, logs to stderr, one exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dsmt.errors import DsmtError, leaves
from dsmt.logs import Logger, to_stderr
from dsmt.programs.configuration import ATTACHED
from dsmt.system.clock import BootTimeLoop
from dsmt.system.garbage import leave_all
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path, write_record
from dsmt.together import end_all

CONFIG_EXIT: Final = 2
NOTE_AGAIN_S: Final = 2.0


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
        with suppress(OSError):  # the disk of the log may be why
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


async def until_over(running: asyncio.Future[None], *beside: asyncio.Future[Any]) -> None:
    """Wait until something is over. What is done beside it and fails is a crash: else nobody would see that it is not done.

    Who cancels `running` has it end in order; so has who cancels one of the others it alone.
    """
    left: set[asyncio.Future[Any]] = {running, *beside}
    while running in left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            if not one.cancelled():
                one.result()


async def run_beside(work: Coroutine[Any, Any, None], *beside: Coroutine[Any, Any, Any]) -> None:
    """Do something until it is over, and others beside it for as long (`until_over`); none of it goes on behind this."""
    tasks = [asyncio.ensure_future(one) for one in (work, *beside)]
    try:
        await until_over(*tasks)
    finally:
        await end_all(*tasks)


class Attached:
    """Tells who begins a program of a directory anew that the next one does its work (C18)."""

    def __init__(self, directory: Path) -> None:
        self._record, self._own = record_path(str(directory), ATTACHED), identity_of(os.getpid())
        self._again: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Write it; where a full disk, or one that is read-only, does not let us, again and again."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._own is None:
            return
        try:
            write_record(self._record, self._own)
        except OSError:
            self._again = asyncio.get_running_loop().call_later(NOTE_AGAIN_S, self.note)


def on_signals(calls: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """Have signals call functions on the running loop."""
    loop = asyncio.get_running_loop()
    for number, call in calls.items():
        loop.add_signal_handler(number, call)
