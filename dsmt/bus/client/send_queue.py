"""The send queue of one link to a broker: what is posted waits in order until there is room.

Rule 1: nothing that was posted is dropped while the link lives; with it everything is gone, and is asked or sent anew.
Rule 2: who has much to send asks `clear` first: while something waits here it keeps what it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.ports.network import Link, Message


class SendQueue:
    """A client's way to its broker. `on_clear` is called when nothing waits any more."""

    def __init__(self, link: Link, on_clear: Callable[[], None]) -> None:
        self._link, self._on_clear = link, on_clear
        self._waiting: deque[Message] = deque()
        self._some = asyncio.Event()

    @property
    def clear(self) -> bool:
        """Whether nothing waits for room."""
        return not self._waiting

    def post(self, frame: f.Frame, *parts: bytes) -> None:
        """Send now, or as soon as there is room. Raises `TransportError` when the link is lost."""
        message = pack(frame, *parts)
        if self._waiting or not self._link.send(message):
            self._waiting.append(message)
            self._some.set()

    async def run(self) -> None:
        """Send what waits, until cancelled. Raises `TransportError` when the link is lost."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                if self._link.send(self._waiting[0]):
                    self._waiting.popleft()
                else:
                    await self._link.writable()
            self._on_clear()
