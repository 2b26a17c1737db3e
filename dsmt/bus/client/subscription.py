"""A client's subscription: what a broker sends for it, checked and handed to its reader in order.

Rule 1: it survives reconnections: asked again from where it stands, or from the start where that cannot be.
Rule 2: an unconflated one follows chains, asks for what is missing and reports gaps (`follower`). A conflated one does not:
    it is for readers that fold; nor does one that copies for a broker, whose own readers follow them.
Rule 3: what came only because it is addressed to this source is in no chain that can be followed; it is known by its id.
Rule 4: a completion or a bookmark waits until nothing before it is held back.
Rule 5: what the reader has taken is told to the broker each quarter of its credit.
Rule 6: the last token that the reader sent is sent again with each new asking: what is lost with a link is not awaited
    for ever, and an answer that comes late is not taken for fresher than it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from dsmt.bus.rules.follower import CREDIT, MAIL, ChainFollower, Closing, MissingPart
from dsmt.bus.wire.frames import Consumed, Frame, Mark, Repaired, Stored, Subscribe
from dsmt.event.envelope import EventId
from dsmt.event.topic import PATTERNS_MOST, matches
from dsmt.newest import Newest
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Delivery, Interest, Notice, Reattached, Start


class ClientSubscription:
    """One subscription of a client; an async iterator of batches of deliveries. `post` sends a frame, or drops it."""

    def __init__(self, number: int, interest: Interest, post: Callable[[Frame], None]) -> None:
        if len(interest.patterns) > PATTERNS_MOST:
            raise ValueError(f"{len(interest.patterns)} patterns of one subscription, and {PATTERNS_MOST} are the most")
        self.number, self.interest, self._post = number, interest, post
        self._queue: deque[tuple[list[Delivery], int]] = deque()
        self._here = asyncio.Event()
        self._reader = None if interest.conflate or interest.copies is not None else ChainFollower()
        self.cursor: Cursor | None = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._mail: Newest[EventId, None] = Newest(MAIL)
        self._marks: list[Complete | Bookmark] = []
        self._taken = 0
        self._complete_in = ""
        """The store in which it was complete last; empty while it never was."""
        self._token: int | None = None
        self._stored = -1
        """Up to which row the broker was told that its reader has stored."""

    def begin(self, store: str) -> None:
        """Ask a broker, whose store is `store`, for it, now or again."""
        self._stored = -1
        self._post(self.ask(store))
        if self._token is not None:
            self.mark(self._token)

    def mark(self, token: int) -> None:
        """Have a bookmark carry this token when everything that the broker has now was delivered (A4)."""
        self._token = token
        self._post(Mark(id=self.number, token=token))

    def stored(self, row: int) -> None:
        """Say that everything up to this row is stored by who reads this, unless that was said (D1)."""
        if row == self._stored:
            return
        self._stored = row
        self._post(Stored(id=self.number, row=row))

    def ask(self, store: str) -> Subscribe:
        """The frame that asks a broker, whose store is `store`, for it, now or again.

        Again means from its cursor, unless it was still reading retained facts, or conflates and the store is another:
        then it begins anew.
        """
        self._taken = sum(-size for _, size in self._queue)  # a new subscription's credit is whole
        if self._reader is not None:
            self._reader.again()
        interest, cursor = self.interest, self.cursor
        start, row, time_ms, of_store = interest.start, None, None, None
        begun = self._complete_in or interest.start is Start.HISTORY
        if begun and cursor is not None and (cursor.store == store or not interest.conflate):
            start, row, time_ms, of_store = Start.HISTORY, cursor.row, cursor.time_ms, cursor.store
        elif isinstance(interest.since, Cursor):
            since = interest.since
            row, time_ms, of_store = since.row, since.time_ms, since.store
        elif interest.since is not None:
            time_ms = interest.since
        return Subscribe(
            id=self.number,
            patterns=interest.patterns,
            start=start.value,
            store=of_store,
            row=row,
            time_ms=time_ms,
            inbox=interest.inbox,
            conflate=interest.conflate,
            signals=interest.signals,
            bookmarks=interest.bookmarks,
            copies=interest.copies,
            credit=CREDIT,
        )

    def events(self, arrived: Sequence[Arrived], size: int, store: str, now: float) -> None:
        """Take in checked events. `now` is boot-time seconds."""
        if arrived:
            last = arrived[-1]
            self.cursor = Cursor(store, last.row, max(last.signed.event.time_ms, self._marked_ms(store)))
        if self._reader is None:
            self._put(list(arrived), size)
            return
        found: list[Delivery] = []
        for one in arrived:
            if self.interest.inbox and self._is_mail(one):
                found.extend(self._new_mail(one))
            else:
                found.extend(self._reader.arrived(one, now))
        self._read(found, size)
        self._arm(now)

    def _marked_ms(self, store: str) -> int:
        """The time that it has reached in a store: what comes after a mark came after its time, however old it is."""
        return self.cursor.time_ms if self.cursor is not None and self.cursor.store == store else 0

    def _is_mail(self, one: Arrived) -> bool:
        return not any(matches(pattern, one.signed.event.topic) for pattern in self.interest.patterns)

    def _new_mail(self, one: Arrived) -> list[Delivery]:
        if one.signed.id in self._mail:
            return []
        self._mail[one.signed.id] = None
        return [one]

    def wanted(self) -> list[MissingPart]:
        """Missing parts of chains that are to be asked for now."""
        return [] if self._reader is None else self._reader.wanted()

    def repaired(self, repair: Repaired, arrived: Sequence[Arrived], now: float) -> None:
        """Take in the answer to what was wanted."""
        if self._reader is not None:
            closing = Closing(repair.source, repair.topic, repair.before, repair.closing)
            self._read(self._reader.repaired(closing, arrived, now), 0)

    def reached(self, mark: Complete | Bookmark) -> None:
        """Take in a completion or a bookmark; of completions in one store the first is told as such."""
        self.cursor = mark.cursor
        if isinstance(mark, Complete):
            if self._complete_in == mark.cursor.store:
                mark = Bookmark(mark.cursor, mark.whole)
            else:
                self._complete_in = mark.cursor.store
        if self._reader is not None and self._reader.deadline is not None:
            last = self._marks[-1] if self._marks else None
            if isinstance(mark, Bookmark) and isinstance(last, Bookmark):
                self._marks[-1] = replace(mark, token=last.token if mark.token is None else mark.token)
            else:
                self._marks.append(mark)
            return
        self._marked(mark)

    def _marked(self, mark: Complete | Bookmark) -> None:
        self._put([mark], 0)
        if isinstance(mark, Complete) and not self.interest.follow:
            self.end()

    def tell(self, told: Notice | Reattached) -> None:
        """Tell the reader of what is no event."""
        self._put([told], 0)

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._here.set()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, now: float) -> None:
        if self._reader is None or self._timer is not None or self._reader.deadline is None:
            return
        loop = asyncio.get_running_loop()
        delay = max(0.0, self._reader.deadline - now)
        self._timer = loop.call_later(delay, self._fire, now + delay)

    def _fire(self, now: float) -> None:
        self._timer = None
        if self._reader is not None:
            self._read(self._reader.timer(now + 1e-6), 0)
            self._arm(now)

    def _read(self, found: list[Delivery], size: int) -> None:
        """Hand on what the reader of chains has let through, and the marks that waited for it."""
        self._put(found, size)
        if self._marks and self._reader is not None and self._reader.deadline is None:
            marks, self._marks = self._marks, []
            for mark in marks:
                self._marked(mark)

    def _put(self, deliveries: list[Delivery], size: int) -> None:
        if deliveries or size:
            self._queue.append((deliveries, size))
            self._here.set()

    def __aiter__(self) -> ClientSubscription:
        return self

    async def __anext__(self) -> Sequence[Delivery]:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._here.clear()
            await self._here.wait()
        batch: list[Delivery] = []
        taken = 0
        while self._queue:
            deliveries, size = self._queue.popleft()
            batch.extend(deliveries)
            taken += size
        self._taken += taken
        if self._taken >= CREDIT // 4:
            self._post(Consumed(id=self.number, count=self._taken))
            self._taken = 0
        return batch or await self.__anext__()
