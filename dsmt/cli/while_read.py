"""While read: work whose output is for somebody who reads it while it comes."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable
from typing import TypeVar

from dsmt.together import unless

Result = TypeVar("Result")


async def while_read(work: Awaitable[Result]) -> Result:
    """What some work comes to, which may take as long as it likes.

    Raises `BrokenPipeError` as soon as nobody reads the pipe any more to which standard output goes, though nothing is
    written.
    """
    pipe = _pipe()
    return await (work if pipe is None else unless(_hung_up(pipe), work))


async def _hung_up(pipe: int) -> None:
    """Raise `BrokenPipeError` when nobody reads a pipe any more."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe, gone.set)  # there is nothing to read: it tells the end alone
    try:
        await gone.wait()
    finally:
        loop.remove_reader(pipe)
    raise BrokenPipeError


def _pipe() -> int | None:
    """The descriptor of standard output, if it is a pipe."""
    try:
        number = sys.stdout.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    except (OSError, ValueError):
        return None
