"""Strays: what still runs of a slot of which no container is here, ended before the slot is said to be gone (rule A5).

Rule 1: a program with our uid may remove its container while it runs. Then no record names it, nor its agent, but both bear
    the container's mark.
Rule 2: each look for marks is at every process of the machine: one serves all slots that are to be said to be gone.
Rule 3: while it is looked no container is made of these slots, for what begins there bears the same mark. What was asked for
    meanwhile is done after it.
Rule 4: a look that fails has shown nothing: nothing is said until another one has not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, Never

from dsmt.agents.shared.unforeseen import as_failed
from dsmt.event.envelope import EventId
from dsmt.event.slots import SlotKey

GATHER_S: Final = 0.05
"""How long the first slot waits for others: 200 looks of one slot each would take 2 s of CPU."""
AGAIN_S: Final = 5.0


class Strays:
    """The slots that are to be said to be gone. `end` ends what bears the marks of slots' containers.

    `wanted` are those of some slots that are still to be said to be gone; `done` is told of each that was looked at, with
    what it is said to be gone for; None when the look has failed.
    """

    def __init__(
        self,
        end: Callable[[Collection[SlotKey]], Awaitable[object]],
        wanted: Callable[[Iterable[SlotKey]], list[SlotKey]],
        done: Callable[[SlotKey, EventId | None], None],
    ) -> None:
        self._end, self._wanted, self._done = end, wanted, done
        self._waiting: dict[SlotKey, EventId] = {}
        self._looked_at: frozenset[SlotKey] = frozenset()
        self._some = asyncio.Event()

    def __contains__(self, slot: SlotKey) -> bool:
        """Whether it is looked at now: no container may be made of it (rule 3)."""
        return slot in self._looked_at

    def add(self, slot: SlotKey, cause: EventId) -> None:
        """Have a slot said to be gone, once nothing of it runs."""
        self._waiting[slot] = cause
        self._some.set()

    async def run(self) -> Never:
        """End what is left of the slots that are added, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            slots = self._wanted(self._waiting)
            self._waiting = {slot: self._waiting[slot] for slot in slots}
            if slots and not await self._looked(slots):
                await asyncio.sleep(AGAIN_S)
                self._some.set()

    async def _looked(self, slots: list[SlotKey]) -> bool:
        """Look once for all of these; whether that succeeded."""
        self._looked_at, ended = frozenset(slots), False
        try:
            await self._end(slots)
            ended = True
        except Exception as error:  # noqa: BLE001 - what keeps one from looking ends no manager
            as_failed(error)
        finally:
            self._looked_at = frozenset()
        for slot in slots:
            self._done(slot, self._waiting.pop(slot) if ended else None)
        return ended
