"""A client's subscription: what a broker sends for it, checked and handed to its reader in order.

Rule 1: it survives reconnections: asked again from where it stands, or from the start where that cannot be.
Rule 2: an unconflated one follows chains, asks for what is missing and reports gaps (`ordered`). A conflated one does not:
    it is for readers that fold; nor does one that copies for a broker, whose own readers follow them.
Rule 3: what the reader has taken is told to the broker each quarter of its credit.
Rule 4: the last token that the reader sent is sent again with each new asking: what is lost with a link is not awaited
    for ever, and an answer that comes late is not taken for fresher than it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from dsmt.bus.rules.follower import CREDIT, Closing, MissingPart
from dsmt.bus.rules.ordered import Ordered
from dsmt.bus.rules.routing import OVERLAP_MS
from dsmt.bus.wire.frames import Consumed, Frame, Mark, Repaired, Stored, Subscribe
from dsmt.event.hlc import BOUND_MS
from dsmt.event.topic import PATTERNS_MOST, matches
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Delivery, Interest, Notice, Reattached, Start


class ClientSubscription:
    """One subscription of a client; an async iterator of batches of deliveries. `post` sends a frame, or drops it."""

    def __init__(self, number: int, interest: Interest, post: Callable[[Frame], None]) -> None:
        if len(interest.patterns) > PATTERNS_MOST:
            raise ValueError(f"{len(interest.patterns)} patterns of one subscription, and {PATTERNS_MOST} are the most")
        self.number, self.interest, self._post = number, interest, post
        self._queue: deque[tuple[list[Delivery], int]] = deque()
        self._here = asyncio.Event()
        self._follows = not interest.conflate and interest.copies is None
        self._ordered = Ordered(follows=self._follows)
        self.cursor: Cursor | None = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._complete_in = ""
        """The store in which it was complete last; empty while it never was."""
        self._began_ms = interest.since if isinstance(interest.since, int) else 0
        """When it began (realm ms), as far as it matters to another broker: what had come to all by then is none of it."""
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
        then it begins anew. Another store is not asked for what came long before it began: for `BOUND_MS` of that, for so
        much earlier a broker whose clock is behind may have stored what came since (A2).
        """
        self._taken = sum(-size for _, size in self._queue)  # a new subscription's credit is whole
        self._ordered.again()
        interest, cursor = self.interest, self.cursor
        start, row, time_ms, of_store = interest.start, None, None, None
        begun = self._complete_in or interest.start is Start.HISTORY
        if begun and cursor is not None and (cursor.store == store or not interest.conflate):
            start, row, time_ms, of_store = Start.HISTORY, cursor.row, cursor.time_ms, cursor.store
            if cursor.store != store and interest.copies is None and time_ms - OVERLAP_MS < self._began_ms - BOUND_MS:
                row, time_ms = None, self._began_ms - BOUND_MS
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
        if not self._follows:
            self._put(list(arrived), size)
            return
        found: list[Delivery] = []
        for one in arrived:
            is_mail = self.interest.inbox and self._is_mail(one)
            found += self._ordered.mail(one) if is_mail else self._ordered.event(one, now)
        self._put(found, size)
        self._arm(now)

    def _marked_ms(self, store: str) -> int:
        """The time that it has reached in a store: what comes after a mark came after its time, however old it is."""
        return self.cursor.time_ms if self.cursor is not None and self.cursor.store == store else 0

    def _is_mail(self, one: Arrived) -> bool:
        return not any(matches(pattern, one.signed.event.topic) for pattern in self.interest.patterns)

    def wanted(self) -> list[MissingPart]:
        """Missing parts of chains that are to be asked for now."""
        return self._ordered.wanted()

    def repaired(self, repair: Repaired, arrived: Sequence[Arrived], now: float) -> None:
        """Take in the answer to what was wanted."""
        closing = Closing(repair.source, repair.incarnation, repair.topic, repair.before, repair.closing)
        self._put(self._ordered.repaired(closing, arrived, now), 0)
        self._arm(now)

    def reached(self, mark: Complete | Bookmark) -> None:
        """Take in a completion or a bookmark; of completions in one store the first is told as such."""
        self.cursor = mark.cursor
        if isinstance(mark, Complete):
            if self._complete_in == mark.cursor.store:
                mark = Bookmark(mark.cursor, mark.whole)
            else:
                if not self._complete_in and self.interest.start is not Start.HISTORY:
                    self._began_ms = mark.cursor.time_ms
                self._complete_in = mark.cursor.store
        self._put(self._ordered.mark(mark), 0)

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
        deadline = self._ordered.deadline if self._timer is None else None
        if deadline is not None:
            delay = max(0.0, deadline - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire, now + delay)

    def _fire(self, now: float) -> None:
        self._timer = None
        self._put(self._ordered.timer(now + 1e-6), 0)
        self._arm(now)

    def _put(self, deliveries: list[Delivery], size: int) -> None:
        if deliveries or size:
            self._queue.append((deliveries, size))
            self._here.set()
        if not self.interest.follow and any(isinstance(one, Complete) for one in deliveries):
            self.end()

    def __aiter__(self) -> ClientSubscription:
        return self

    async def __anext__(self) -> Sequence[Delivery]:
        batch: list[Delivery] = []
        while not batch:  # what was read before is passed over, however much of it comes
            while not self._queue:
                if self._ended:
                    raise StopAsyncIteration
                self._here.clear()
                await self._here.wait()
            batch = self._taken_out()
        return batch

    def _taken_out(self) -> list[Delivery]:
        """What waits for the reader; the broker hears how much that was (rule 3)."""
        batch: list[Delivery] = []
        while self._queue:
            deliveries, size = self._queue.popleft()
            batch.extend(deliveries)
            self._taken += size
        if self._taken >= CREDIT // 4:
            self._post(Consumed(id=self.number, count=self._taken))
            self._taken = 0
        return batch
