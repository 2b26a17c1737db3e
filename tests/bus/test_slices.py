"""What comes over a link is taken in by slices, between which what else the loop has to do has its turn."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dsmt.bus.client.slices import SLICE_S, in_slices
from dsmt.ports.clock import Clock


class Worked:
    """A clock that goes on by what is done."""

    def __init__(self, each_s: float, *, others_s: float = 0.0) -> None:
        self.now, self.each_s, self.others_s = 0.0, each_s, others_s
        self.handled: list[bytes] = []
        self.heard: list[float] = []

    def boottime(self) -> float:
        return self.now

    def handle(self, message: Any) -> None:
        self.handled.append(message)
        self.now += self.each_s

    async def others(self, number: int) -> list[int]:
        """How much was handled each time that another task of the loop had its turn."""
        turns: list[int] = []

        async def other() -> None:
            while True:
                turns.append(len(self.handled))
                self.now += self.others_s
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        messages = [(b"%d" % n,) for n in range(number)]
        await in_slices(cast("Any", messages), self.handle, cast("Clock", self), self.heard.append)
        task.cancel()
        assert self.handled == messages
        return turns


def test_what_takes_long_lets_others_have_their_turn_between_and_is_known_to_have_come() -> None:
    worked = Worked(SLICE_S / 2)
    assert asyncio.run(worked.others(7)) == [2, 4, 6]
    assert worked.heard == pytest.approx([SLICE_S, 2 * SLICE_S, 3 * SLICE_S, 3.5 * SLICE_S])


def test_the_time_that_others_take_between_is_no_part_of_a_slice() -> None:
    worked = Worked(0.75 * SLICE_S, others_s=5 * SLICE_S)
    assert asyncio.run(worked.others(7)) == [2, 4, 6]


def test_what_is_done_at_once_is_done_in_one_turn() -> None:
    worked = Worked(SLICE_S / 1000)
    assert asyncio.run(worked.others(100)) == []
    assert len(worked.heard) == 1
