"""What a subscription hands to its reader, in order (`ordered`).

Rule 1: what is missing was not stored before what came behind it: it is closed after `LATE_S`, in which who said it may
    still be trying.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from dsmt.bus.rules.follower import CREDIT, Closing, MissingPart
from dsmt.bus.rules.ordered import Ordered
from dsmt.ports.bus import Arrived, Bookmark, Complete, Delivery

LATE_S: Final = 2.0


class Deliveries:
    """The batches of one subscription. `now` is boot-time seconds."""

    def __init__(self, *, conflate: bool) -> None:
        self._ordered = Ordered(follows=not conflate)
        self._queue: deque[tuple[list[Delivery], int]] = deque()
        self._found: list[Delivery] = []
        self._size = self._bytes = 0
        self._missing: deque[tuple[float, MissingPart]] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    # --- filling -------------------------------------------------------------------------------------------------

    def event(self, one: Arrived, now: float) -> None:
        """Take in an event that was read in its place."""
        self._size += one.signed.size
        self._found += self._ordered.event(one, now)
        self._missing.extend((now + LATE_S, wanted) for wanted in self._ordered.wanted())

    def mail(self, one: Arrived) -> None:
        """Take in what is addressed to this source."""
        for mail in self._ordered.mail(one):
            self._found.append(mail)
            self._size += one.signed.size

    def mark(self, mark: Complete | Bookmark) -> None:
        """Everything before this was read."""
        self._found += self._ordered.mark(mark)

    def tell(self, told: Delivery) -> None:
        """Tell the reader of what is no event."""
        self._found.append(told)
        self.hand_on()

    def due(self, now: float) -> float:
        """In how many seconds `tick` is next needed."""
        deadlines = (self._ordered.deadline, self._missing[0][0] if self._missing else None)
        return max(0.0, min((one for one in deadlines if one is not None), default=float("inf")) - now)

    def tick(self, now: float) -> None:
        """Let go of what was held back long enough."""
        self._found += self._ordered.timer(now)

    def overdue(self, now: float) -> MissingPart | None:
        """What has been missing for long enough: it is to be closed."""
        return self._missing[0][1] if self._missing and self._missing[0][0] <= now else None

    def close(self, missing: MissingPart, word: str, now: float) -> None:
        """Close what was overdue, as `trimmed` or `lost`."""
        self._missing.popleft()
        closing = Closing(missing.source, missing.incarnation, missing.topic, missing.before, word)
        self._found += self._ordered.repaired(closing, (), now)

    def hand_on(self) -> bool:
        """Give the reader what was taken in; whether there was anything."""
        if not self._found:
            return False
        self._queue.append((self._found, self._size))
        self._bytes += self._size
        self._found, self._size = [], 0
        self._wake()
        return True

    async def room(self) -> None:
        """Wait until the reader has taken enough."""
        while self._bytes > CREDIT:
            await self._changed.wait()

    def end(self, error: BaseException | None = None) -> None:
        """No more will come."""
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- reading -------------------------------------------------------------------------------------------------

    async def next(self) -> Sequence[Delivery]:
        """All that has come. Raises `StopAsyncIteration` at the end."""
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._changed.wait()
        batch: list[Delivery] = []
        while self._queue:
            found, size = self._queue.popleft()
            batch += found
            self._bytes -= size
        self._wake()
        return batch
