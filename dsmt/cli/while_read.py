"""While read: work whose output is for somebody who reads it while it comes."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable
from typing import TypeVar

from dsmt.together import end_all

Result = TypeVar("Result")


async def while_read(work: Awaitable[Result]) -> Result:
    """What some work comes to, which may take as long as it likes.

    Raises `BrokenPipeError` as soon as nobody reads the pipe any more to which standard output goes, though nothing is
    written.
    """
    loop = asyncio.get_running_loop()
    task, gone, pipe = asyncio.ensure_future(work), asyncio.Event(), _pipe()
    hangs_up = asyncio.ensure_future(gone.wait())
    if pipe is not None:
        loop.add_reader(pipe, gone.set)  # there is nothing to read: it tells the end alone
    try:
        await asyncio.wait({task, hangs_up}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise BrokenPipeError
        return task.result()
    finally:
        if pipe is not None:
            loop.remove_reader(pipe)
        await end_all(task, hangs_up)


def _pipe() -> int | None:
    """The descriptor of standard output, if it is a pipe."""
    try:
        number = sys.stdout.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    except (OSError, ValueError):
        return None
