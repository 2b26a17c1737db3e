"""Rereading: what a broker that was lost had given to others is read from those once more, as history (rules E1, R8).

Rule 1: when a link is lost all others are read again from a minute before the place in the lost one: what that one had given
    to some is with them. The lost one itself is not: it goes on from its place when it is back.
Rule 2: what is new goes first: nobody is read again before all that are linked have given what they had when they were asked
    last. Who gives nothing is not waited for, nor is anybody for longer than `NEW_S`.
Rule 3: it keeps nothing that is live waiting: it is read beside that, one broker after the other, none of which keeps the
    next one waiting for longer than `STILL_S`, up to the row from which on that one was asked for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from dsmt.bus.broker.others.other import STILL_S, Other
from dsmt.bus.broker.others.trimmed import Trimmed
from dsmt.bus.broker.places import again_from_ms
from dsmt.ports.bus import Arrived, BusReader, Interest, Reattached, Start
from dsmt.ports.clock import Clock

NEW_S: Final = 30.0
_LOOK_S: Final = 0.1
_EVER: Final = 1 << 63


class Rereading:
    """Of one broker. `store` takes what another has; `linked` are those that it reads now."""

    def __init__(
        self,
        clock: Clock,
        *,
        linked: Callable[[], Iterable[Other]],
        left_out: Callable[[Other], tuple[str, ...]],
        store: Callable[[Other, BusReader, Sequence[Arrived]], Awaitable[None]],
        trimmed: Trimmed,
    ) -> None:
        self._clock, self._linked, self._left_out, self._store = clock, linked, left_out, store
        self._turn, self._lost, self._trimmed = asyncio.Lock(), asyncio.Event(), trimmed
        self._changed_at = 0.0

    def changed(self, lost: Sequence[Other], others: Iterable[Other]) -> None:
        """Who is linked has changed: these are to be read again for those that were lost (rule 1)."""
        self._changed_at = self._clock.boottime()
        for other in others:
            other.caught_up = False
            places = [one.place for one in lost if one.place is not None and one is not other]
            if places and other.place is not None:
                other.again_ms = again_from_ms(other.again_ms, [*places, other.place])
                other.losses += 1
        waited, self._lost = self._lost, asyncio.Event()
        waited.set()

    async def run(self, other: Other, bus: BusReader) -> None:
        """Read one again whenever that is due, until cancelled."""
        while True:
            while other.again_ms is None:
                await self._lost.wait()
            await asyncio.sleep(_LOOK_S)
            async with asyncio.TaskGroup() as group, self._turn:
                if other.asked is not None and self._is_due(other):
                    task = group.create_task(self.read(other, bus, other.losses, other.asked.from_row))
                    await asyncio.wait({task}, timeout=STILL_S)

    def _is_due(self, other: Other) -> bool:
        """Whether one is to be read again, and was asked for all that the lost ones bring to it from now on."""
        asked, wanted = other.asked, (other.losses, self._left_out(other))
        is_asked = asked is not None and (asked.losses, asked.left_out) == wanted
        return is_asked and other.again_ms is not None and other.complete and bool(other.name) and self._is_new_here()

    def _is_new_here(self) -> bool:
        """Whether what is new with others was read (rule 2)."""
        now = self._clock.boottime()
        return now > self._changed_at + NEW_S or all(one.caught_up or one.is_stalled(now) for one in self._linked())

    async def read(self, other: Other, bus: BusReader, losses: int, until: int) -> None:
        """Read one up to the row from which on it was asked for all of that."""
        interest = Interest(("/",), Start.HISTORY, since=other.again_ms, follow=False, copies=())
        async with bus.subscribe(interest) as batches:
            async for batch in batches:
                arrived = [one for one in batch if isinstance(one, Arrived)]
                self._trimmed.told(other.address.public, "again", batch)
                await self._store(other, bus, arrived)
                if any(isinstance(one, Reattached) for one in batch):
                    until = _EVER  # its rows may have other numbers now
                if arrived and arrived[-1].row >= until:
                    break
        self._trimmed.reached(other.address.public, "again", _EVER)
        other.repaired(losses)
