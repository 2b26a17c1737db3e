"""Room: whether another broker that is linked takes what comes, while the store of this one is full (rule D6).

Rule 1: they are asked as long as it is full: one that is full itself says that it is not whole (A4).
Rule 2: until one says that it is, who only reads stays here: of several that are full each would send it to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.errors import DsmtError
from dsmt.event.kinds.realm import BROKERS
from dsmt.ports.bus import BusReader, Complete, Interest

LOOK_S: Final = 0.25
ANSWER_S: Final = 2.0


class Room:
    """Of one broker; `readers` are those of the others that are linked."""

    def __init__(self, readers: Callable[[], Sequence[BusReader]]) -> None:
        self._readers, self._full = readers, asyncio.Event()
        self.elsewhere = False
        """Whether this one is full, and another one that is linked is not."""

    def tick(self, *, full: bool) -> None:
        """Whether the store of this one is full now."""
        if full:
            self._full.set()
        else:
            self._full.clear()
            self.elsewhere = False

    async def run(self) -> None:
        """Ask them when the store of this one is full, each `LOOK_S`, until cancelled."""
        while True:
            await self._full.wait()
            found = await asyncio.gather(*map(_is_whole, self._readers()))
            self.elsewhere = self._full.is_set() and any(found)
            await asyncio.sleep(LOOK_S)


async def _is_whole(bus: BusReader) -> bool:
    """Whether a broker says that all is there; one that does not answer says nothing, nor one whose link ends."""
    asked = Interest((f"{BROKERS}+",), signals=False, follow=False)
    with suppress(DsmtError, TimeoutError):
        async with asyncio.timeout(ANSWER_S), bus.subscribe(asked) as batches:
            async for batch in batches:
                for one in batch:
                    if isinstance(one, Complete):
                        return one.whole
    return False
