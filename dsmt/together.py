"""Together: what runs beside each other: each has its turn, and all end together, before what they use does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def until_one_fails(*parts: Coroutine[Any, Any, None]) -> None:
    """Run these until one of them raises; the others are cancelled.

    No task group: that of Python 3.11 forgets that its own task was cancelled when a child fails in the same moment.
    """
    tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end_all(*tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in errors:
        if error is not None:
            raise error


async def unless(watch: Coroutine[Any, Any, None], work: Awaitable[Result]) -> Result:
    """What some work comes to. Raises what a watch over it raises first; one that ends otherwise lets it go on."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            watching.result()
        return await working
    finally:
        await end_all(working, watching)


async def whenever(wanted: asyncio.Event, act: Callable[[], bool]) -> None:
    """Act when that is wanted, as long as `act` says that there is more to do; between, others have their turn."""
    while True:
        await wanted.wait()
        wanted.clear()
        if act():
            wanted.set()
            await asyncio.sleep(0)


async def end_all(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended, also when who waits is cancelled meanwhile, which it is after that.

    A deadline may pass just as they end: what they use is closed behind this, and a link of theirs must not be open then.
    """
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
