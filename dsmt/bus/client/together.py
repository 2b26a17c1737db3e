"""Together: parts of one connection, which end with the first of them that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_one_fails(*parts: Coroutine[Any, Any, None]) -> None:
    """Run these until one of them raises; the others are cancelled.

    No task group: that of Python 3.11 forgets that its own task was cancelled when a child fails in the same moment.
    """
    tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in errors:
        if error is not None:
            raise error
