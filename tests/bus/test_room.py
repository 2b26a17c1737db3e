"""A broker whose disk is full sends away to others as long as one of them has room, and no longer (rule D6)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from dsmt.bus.broker.others.room import ANSWER_S, LOOK_S, Room
from dsmt.ports.bus import Complete, Cursor
from dsmt.together import end_all
from tests.loops import in_virtual_time


class Other:
    """Another broker, which says whether it is whole, after a while."""

    def __init__(self, *, whole: bool, after_s: float = 0.0) -> None:
        self._whole, self._after_s = whole, after_s

    @asynccontextmanager
    async def subscribe(self, _interest: Any) -> AsyncIterator[AsyncIterator[list[Complete]]]:
        async def batches() -> AsyncGenerator[list[Complete], None]:
            await asyncio.sleep(self._after_s)
            yield [Complete(Cursor("s", 1, 0), whole=self._whole)]

        async with aclosing(batches()) as found:
            yield found


@asynccontextmanager
async def asking(*others: Any) -> AsyncIterator[Room]:
    room = Room(lambda: others)
    task = asyncio.create_task(room.run())
    room.tick(full=True)
    try:
        yield room
    finally:
        await end_all(task)


@pytest.mark.parametrize("late_s", [0.0, 1.0, 2 * ANSWER_S])
@in_virtual_time
async def test_there_is_room_elsewhere_where_one_says_in_time_that_it_is_whole(late_s: float) -> None:
    async with asking(Other(whole=False), Other(whole=True, after_s=late_s)) as room:
        await asyncio.sleep(ANSWER_S + LOOK_S)
        assert room.elsewhere == (late_s < ANSWER_S)


@in_virtual_time
async def test_who_has_room_again_sends_nobody_away() -> None:
    async with asking(Other(whole=True)) as room:
        await asyncio.sleep(LOOK_S)
        assert room.elsewhere
        room.tick(full=False)
        assert not room.elsewhere


@in_virtual_time
async def test_an_answer_that_comes_once_there_is_room_again_sends_nobody_away() -> None:
    async with asking(Other(whole=True, after_s=1.0)) as room:
        await asyncio.sleep(0.5)
        room.tick(full=False)
        await asyncio.sleep(ANSWER_S)
        assert not room.elsewhere
