"""What a gate hears on subjects that no stream has, over each link that its bus has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Never

from nats.aio.msg import Msg

from dsmt.bus.nats.bus import NatsBus
from dsmt.errors import TransportError


class Hearing:
    """`calls` are called with each message on their subject. `begun` is set when its server has first heard of all."""

    def __init__(self, bus: NatsBus, calls: Mapping[str, Callable[[Msg], Awaitable[None]]], *, queue: str = "") -> None:
        self._bus, self._calls, self._queue = bus, calls, queue
        self.begun = asyncio.Event()

    async def run(self) -> Never:
        """Hear, until cancelled."""
        attached = asyncio.Event()
        self._bus.on_attached(attached.set)
        while True:
            with suppress(TransportError):  # then there will be another link
                link = await self._bus.held()
                for subject, call in self._calls.items():
                    await link.hear(subject, call, queue=self._queue)
                await link.heard()
                self.begun.set()
            await attached.wait()
            attached.clear()
