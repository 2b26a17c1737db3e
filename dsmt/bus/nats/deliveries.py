"""What a subscription hands to its reader: in order, gaps told where they are, marks behind all that comes before them.

Rule 1: chains are followed as for any reader (`follower`). What is missing was not stored before what came behind it: it
    is closed after `LATE_S`, in which who said it may still be trying.
Rule 2: a completion or a bookmark waits until nothing before it is held back.
Rule 3: what came only because it is addressed to this source is in no chain that can be followed; it is known by its id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from dsmt.bus.rules.follower import CREDIT, MAIL, ChainFollower, Closing, MissingPart
from dsmt.event.envelope import EventId
from dsmt.newest import Newest
from dsmt.ports.bus import Arrived, Bookmark, Complete, Delivery

LATE_S: Final = 2.0


class Deliveries:
    """The batches of one subscription. `now` is boot-time seconds."""

    def __init__(self, *, conflate: bool) -> None:
        self._follower = None if conflate else ChainFollower()
        self._queue: deque[tuple[list[Delivery], int]] = deque()
        self._found: list[Delivery] = []
        self._size = self._bytes = 0
        self._marks: list[Complete | Bookmark] = []
        self._missing: deque[tuple[float, MissingPart]] = deque()
        self._mail: Newest[EventId, None] = Newest(MAIL)
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    # --- filling -------------------------------------------------------------------------------------------------

    def event(self, one: Arrived, now: float) -> None:
        """Take in an event that was read in its place."""
        self._size += one.signed.size
        if self._follower is None:
            self._found.append(one)
            return
        self._found += self._follower.arrived(one, now)
        for wanted in self._follower.wanted():
            self._missing.append((now + LATE_S, wanted))

    def mail(self, one: Arrived) -> None:
        """Take in what is addressed to this source."""
        if one.signed.id not in self._mail:
            self._mail[one.signed.id] = None
            self._found.append(one)
            self._size += one.signed.size

    def mark(self, mark: Complete | Bookmark) -> None:
        """Everything before this was read."""
        if not self._holds_back():
            self._found.append(mark)
            return
        last = self._marks[-1] if self._marks else None
        if isinstance(mark, Bookmark) and isinstance(last, Bookmark) and (mark.token is None or last.token is None):
            self._marks[-1] = mark if last.token is None else Bookmark(mark.cursor, mark.whole, last.token)
        else:
            self._marks.append(mark)

    def tell(self, told: Delivery) -> None:
        """Tell the reader of what is no event."""
        self._found.append(told)
        self.hand_on()

    def due(self, now: float) -> float:
        """In how many seconds `tick` is next needed."""
        deadlines = [self._missing[0][0]] if self._missing else []
        if self._follower is not None and self._follower.deadline is not None:
            deadlines.append(self._follower.deadline)
        return max(0.0, min(deadlines) - now) if deadlines else float("inf")

    def tick(self, now: float) -> None:
        """Let go of what was held back long enough."""
        if self._follower is not None:
            self._found += self._follower.timer(now)

    def overdue(self, now: float) -> MissingPart | None:
        """What has been missing for long enough: it is to be closed."""
        return self._missing[0][1] if self._missing and self._missing[0][0] <= now else None

    def close(self, missing: MissingPart, word: str, now: float) -> None:
        """Close what was overdue, as `trimmed` or `lost`."""
        self._missing.popleft()
        if self._follower is not None:
            answer = Closing(missing.source, missing.topic, missing.before, word)
            self._found += self._follower.repaired(answer, (), now)

    def _holds_back(self) -> bool:
        return self._follower is not None and self._follower.deadline is not None

    def hand_on(self) -> bool:
        """Give the reader what was taken in; whether there was anything."""
        if self._marks and not self._holds_back():
            self._found += self._marks
            self._marks = []
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
