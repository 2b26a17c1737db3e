"""Listening: take what a subscription delivers: all that there is now, or for as long as a process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dsmt.errors import DsmtError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Arrived, BusReader, Delivery, Interest, Reattached

AGAIN_S: Final = 5.0
"""How long after a subscription was refused the next one is tried."""


def _nothing() -> None:
    pass


async def arrivals(bus: BusReader, interest: Interest) -> list[SignedEvent]:
    """All events that an interest delivers which does not follow, in their order. Raises `TransportError`."""
    async with bus.subscribe(interest) as batches:
        return [one.signed async for batch in batches for one in batch if isinstance(one, Arrived)]


async def listen(
    bus: BusReader,
    interest: Interest,
    take: Callable[[Delivery], None],
    *,
    after: Callable[[], None] = _nothing,
    anew: Callable[[], None] | None = None,
) -> None:
    """Hand each delivery to `take`, and call `after` at the end of each batch, for ever, whatever happens to the bus.

    With `anew` the subscription does not go on after a lost link: that is called, and all is read again.
    """
    while True:
        try:
            async with bus.subscribe(interest) as batches:
                async for batch in batches:
                    if anew is not None and any(isinstance(one, Reattached) for one in batch):
                        anew()
                        break
                    for delivery in batch:
                        take(delivery)
                    after()
        except DsmtError:
            await asyncio.sleep(AGAIN_S)
