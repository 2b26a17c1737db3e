"""Abandoned: what this node holds by the word of a key that has ended, and that nobody has said again (rule J3).

Rule 1: others have some time to say it again. Then the node asks what stands on the topics of those slots: it may have been
    given that before, and have let go of it for the other word; and that no broker gives twice.
Rule 2: what stands is taken. Where nothing does nobody has ordered anything: what runs there is told as an orphan (A5).
Rule 3: so it is when a key ends, and at the start: it may have ended while no manager was here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Never

from dsmt.errors import DsmtError
from dsmt.event.envelope import SignedEvent
from dsmt.event.slots import SlotKey
from dsmt.event.topic import PATTERNS_MOST
from dsmt.ports.bus import BusReader, Interest
from dsmt.ports.listening import arrivals

ASK_S: Final = 15.0
"""How long after a key has ended: brokers have let go by then of what nobody has said again."""


class Abandoned:
    """Of one node: `held` are the slots of which it holds such a word; `left` is told of those where nothing else stands."""

    def __init__(
        self,
        bus: BusReader,
        held: Callable[[], list[SlotKey]],
        take: Callable[[SignedEvent], None],
        left: Callable[[SlotKey], None],
    ) -> None:
        self._bus, self._held, self._take, self._left = bus, held, take, left
        self._some = asyncio.Event()
        self._some.set()

    def ended(self) -> None:
        """A key has ended."""
        self._some.set()

    async def run(self) -> Never:
        """Ask when it is time, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            await asyncio.sleep(ASK_S)
            try:
                await self._ask()
            except DsmtError:
                self._some.set()

    async def _ask(self) -> None:
        slots = self._held()
        for first in range(0, len(slots), PATTERNS_MOST):
            topics = tuple(slot.topic for slot in slots[first : first + PATTERNS_MOST])
            for signed in await arrivals(self._bus, Interest(topics, conflate=True, signals=False, follow=False)):
                self._take(signed)
        for slot in self._held():
            if slot in slots:
                self._left(slot)
