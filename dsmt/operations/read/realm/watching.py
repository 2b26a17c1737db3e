"""Watching a realm from outside: every event as it comes, folded into a view, and conditions to wait for.

Rule 1: a condition is asked again after each batch of deliveries, never by the clock.
Rule 2: a wait that ends without its condition is a `TimedOutError` that says what was waited for.
Rule 3: a view that begins anew is read anew. Where this subscription goes on it delivers nothing twice: what is said again
    to a store that had lost it would never be known again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from dsmt.errors import TimedOutError
from dsmt.event.envelope import SignedEvent
from dsmt.operations.read.realm.sight import Sight, sight_of
from dsmt.ports.bus import Arrived, BusReader, Delivery, Interest, Notice
from dsmt.together import end_all
from dsmt.view import View
from dsmt.view.following import DeliveryEffect, ViewFollower

Found = TypeVar("Found")


class SeenEvent(msgspec.Struct, frozen=True):
    """An event as it came: `at` is monotonic seconds."""

    signed: SignedEvent
    at: float


class Watch:
    """What was seen since the watch began, live events only, and the view of all facts."""

    def __init__(self, bus: BusReader) -> None:
        self.seen: list[SeenEvent] = []
        self.gaps: list[Notice] = []
        self._bus = bus
        self._following = ViewFollower()
        self._changed = asyncio.Condition()

    @property
    def view(self) -> View:
        """What is known."""
        return self._following.view

    @property
    def complete(self) -> bool:
        """Whether all retained facts are in the view."""
        return self._following.complete

    async def until(self, what: str, condition: Callable[[], Found | None], patience_s: float) -> Found:
        """Wait for a condition's first value that is not None or False. Raises `TimedOutError`."""
        try:
            async with asyncio.timeout(patience_s), self._changed:
                while not (found := condition()):
                    await self._changed.wait()
                return found
        except TimeoutError as error:
            raise TimedOutError("wait.timeout", f"waited {patience_s:.0f} s for {what}") from error

    def sight(self) -> Sight:
        """What the other operations read: the view as it is now."""
        return sight_of(self._following, self._bus)

    def first(self, since: float, matching: Callable[[SignedEvent], bool]) -> SeenEvent | None:
        """The first event that came after a time and matches."""
        return next((seen for seen in self.seen if seen.at >= since and matching(seen.signed)), None)

    async def follow(self) -> None:
        """Take in deliveries until cancelled."""
        while True:
            async with self._bus.subscribe(Interest(("/",))) as deliveries:
                async for batch in deliveries:
                    goes_on = self._took(batch, time.monotonic())
                    async with self._changed:
                        self._changed.notify_all()
                    if not goes_on:
                        break
                else:
                    return

    def _took(self, batch: Sequence[Delivery], now: float) -> bool:
        """Take in what came; False where the view begins anew (rule 3): what is left of the batch is delivered again."""
        for delivery in batch:
            if self._following.take(delivery) in (DeliveryEffect.ANEW, DeliveryEffect.BEHIND):
                return False
            match delivery:
                case Arrived(signed=signed, live=True):
                    self.seen.append(SeenEvent(signed, now))
                case Notice(type="dsmt.notice.gap"):
                    self.gaps.append(delivery)
                case _:
                    pass
        return True


@asynccontextmanager
async def watching(bus: BusReader) -> AsyncIterator[Watch]:
    """Watch the realm for the length of a block; it begins with all retained facts in the view."""
    watch = Watch(bus)
    task = asyncio.create_task(watch.follow())
    try:
        await watch.until("the retained facts", lambda: watch.complete, 10.0)
        yield watch
    finally:
        await end_all(task)
