"""What a gate hears of what is said, over each link that its bus has; and what it did not hear, for it was away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Never

from nats.aio.msg import Msg

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import NOT_NOW
from dsmt.errors import TransportError

BEFORE_MS: Final = 10_000
"""What was stored so long before a gate had ended it may have been handed, and not have looked at."""
RETRY_S: Final = 0.2


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

    async def look_back(self, stream: str, filters: Sequence[str], call: Callable[[str], Awaitable[object]]) -> None:
        """Call with each subject on which something came to stand since this gate has ended: nobody heard it, perhaps."""
        await self.begun.wait()
        if not self._bus.ended_ms:
            return
        since_ms, found = self._bus.ended_ms - BEFORE_MS, dict[str, None]()
        while True:
            try:
                async for one in all_of(await self._bus.held(), stream, filters, sizes=True):
                    if one.stored_ms >= since_ms:
                        found[one.subject] = None
            except NOT_NOW:
                await asyncio.sleep(RETRY_S)
            else:
                break
        for subject in found:
            await call(subject)
