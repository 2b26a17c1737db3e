"""A client's way to its broker: what is said first goes first, also where there was no room for it."""

from __future__ import annotations

import asyncio
from typing import Any

from dsmt.bus.client.send_queue import SendQueue
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from tests.loops import in_real_time


class Narrow:
    """A link on which there is room, or not."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.room = asyncio.Event()

    def send(self, message: Any) -> bool:
        if self.room.is_set():
            self.sent.append(message)
        return self.room.is_set()

    async def writable(self) -> None:
        await self.room.wait()


@in_real_time
async def test_what_is_said_when_there_is_room_again_goes_behind_what_waits() -> None:
    link, clear = Narrow(), asyncio.Event()
    queue = SendQueue(link, clear.set)  # type: ignore[arg-type]
    said = [f.Time(sent=float(n)) for n in range(3)]
    queue.post(said[0])
    assert not queue.clear
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    link.room.set()
    queue.post(said[1])
    assert link.sent == []
    await asyncio.wait_for(clear.wait(), 5)
    queue.post(said[2])
    assert link.sent == [pack(one) for one in said]
    running.cancel()
