"""Parts of one connection end together, before what they use does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dsmt.errors import TransportError
from dsmt.programs.bus import running
from dsmt.programs.running import run_beside
from dsmt.together import end_all, unless, until_one_fails
from tests.waiting import until


class Part:
    """Takes a few turns of the loop to end."""

    def __init__(self) -> None:
        self.runs = False

    async def run(self) -> None:
        self.runs = True
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            self.runs = False


async def within(kind: str, part: Part) -> None:
    """Run a part until cancelled; it has to be over then."""
    try:
        if kind == "one of several":
            await until_one_fails(part.run(), Part().run())
        elif kind == "a bus":
            bus: Any = part
            async with running(bus):
                await asyncio.Event().wait()
        elif kind == "a program":
            await run_beside(part.run(), Part().run())
        else:
            task = asyncio.create_task(part.run())
            try:
                await asyncio.Event().wait()
            finally:
                await end_all(task)
    finally:
        assert not part.runs, "what it uses is closed now"


class Failing:
    """A bus that cannot go on, some turns after it was begun."""

    async def run(self) -> None:
        await asyncio.sleep(0.01)
        raise TransportError("link.begun_ahead", "time went back")


async def on_failing(wait: Callable[[], Awaitable[object]]) -> None:
    bus: Any = Failing()
    async with running(bus):
        await wait()


def test_a_command_ends_with_the_error_of_its_bus_that_cannot_go_on() -> None:
    async def forever() -> None:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    async def play() -> None:
        with pytest.raises(TransportError, match="time went back"):
            await on_failing(forever)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "who goes on is not cancelled"

    asyncio.run(play())


def test_who_is_cancelled_as_its_bus_fails_is_cancelled() -> None:
    async def play() -> None:
        waiting = asyncio.Event()

        async def cut_off() -> None:
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                outer.cancel()

        outer = asyncio.create_task(on_failing(cut_off))
        await asyncio.wait({outer})
        assert outer.cancelled()

    asyncio.run(play())


@pytest.mark.parametrize("kind", ["one of several", "a bus", "a program", "a task"])
@pytest.mark.parametrize("again", [0, 1, 5])
def test_who_is_cancelled_again_while_it_ends_waits_for_the_end_all_the_same(kind: str, again: int) -> None:
    async def play() -> None:
        part = Part()
        outer = asyncio.create_task(within(kind, part))
        await until(lambda: part.runs)
        outer.cancel()
        for _ in range(again):
            await asyncio.sleep(0)
            outer.cancel()
        await asyncio.wait({outer})
        assert outer.cancelled()

    asyncio.run(play())


def test_a_deadline_that_passes_while_it_ends_is_told_as_such() -> None:
    async def in_no_time(task: asyncio.Task[None]) -> None:
        async with asyncio.timeout(0):
            await end_all(task)

    async def play() -> None:
        part = Part()
        task = asyncio.create_task(part.run())
        await until(lambda: part.runs)
        with pytest.raises(TimeoutError):
            await in_no_time(task)
        assert not part.runs

    asyncio.run(play())


def test_what_some_work_came_to_is_told_also_where_the_watch_over_it_fails_in_the_same_turn() -> None:
    async def fails() -> None:
        raise TransportError("bus.unreachable", "no broker answers")

    async def answers() -> str:
        return "an answer"

    assert asyncio.run(unless(fails(), answers())) == "an answer"
