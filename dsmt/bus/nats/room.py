"""History gives way before a server's disk is full: then nobody would be let in, to read neither (rule D6).

Rule 1: while the disk of a gate's own server is low the oldest tenth of stream H goes, and it is looked again. What is
    retained stands in stream F, too; who reads the history is told what was trimmed. Blobs that nothing names go before
    it, and none is put (`blobs`).
Rule 2: what is left below `LEAST_BYTES` stays: something else has filled that disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Never

from dsmt.bus.nats.blobs import NatsBlobs
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import NOT_NOW
from dsmt.bus.nats.streams import head, purge
from dsmt.logs import Logger

LOOK_S: Final = 2.0
LEAST_BYTES: Final = 16 * 1024 * 1024
TENTH: Final = 10


class NatsRoom:
    """That of one server. `low` says whether little is left of its disk."""

    def __init__(self, bus: NatsBus, blobs: NatsBlobs, low: Callable[[], bool]) -> None:
        self._bus, self._subjects, self._blobs, self._low = bus, bus.subjects, blobs, low
        self._log = Logger(gate=bus.source)

    async def run(self) -> Never:
        """Make room whenever there is little, until cancelled."""
        while True:
            low = self._low()
            with suppress(*NOT_NOW):
                await self._blobs.say(low=low)
                if low and not await self._blobs.give_way():
                    await self._give_way()
            await asyncio.sleep(LOOK_S)

    async def _give_way(self) -> None:
        link = await self._bus.held()
        at = await head(link, self._subjects.history)
        if at.size <= LEAST_BYTES:
            return
        first = at.first + max(1, (at.last - at.first) // TENTH)
        await purge(link, self._subjects.history, {"seq": first})
        self._log.warning("the disk is nearly full: the oldest of the history gives way", rows=first - at.first)
