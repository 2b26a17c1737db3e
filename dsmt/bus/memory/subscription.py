"""A subscription to a realm in memory: a place in its log, from where its reader takes what comes.

Rule 1: nothing is kept for a reader but its place and its retained facts: one that does not read holds up nobody.
Rule 2: chains are followed (`follower`), as they are for a broker's readers; what is missing is looked for at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.memory.realm import PAGE, LogEntry, MemoryRealm
from dsmt.bus.rules.follower import ChainFollower, Closing
from dsmt.event.topic import matches
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Delivery, Interest, Notice, Start

BOOKMARK_S: Final = 0.25


class MemorySubscription:
    """A place in the realm's log; an async iterator of batches of deliveries."""

    def __init__(self, source: str, interest: Interest, realm: MemoryRealm, attached: Callable[[], bool]) -> None:
        self._source, self._interest, self._realm, self._attached = source, interest, realm, attached
        self._follower = None if interest.conflate else ChainFollower()
        self._began = self._after = realm.head
        self._snapshot = [one for one in realm.winners() if self._takes(one)] if interest.start is Start.FACTS else []
        if interest.start is Start.HISTORY:
            self._after = realm.place(interest.since)
        self._told: list[Delivery] = []
        if not interest.conflate and self._after < realm.trimmed:
            said = f"the history before row {realm.trimmed + 1} is not whole any more: parts of it were trimmed"
            self.tell(Notice("dsmt.notice.trimmed", said, {"from": self._after + 1, "to": realm.trimmed}))
        self._token: int | None = None
        self._completed = self._ended = False

    def mark(self, token: int) -> None:
        """Have a bookmark carry this token when all that is held now was delivered."""
        self._token = token
        self._realm.wake()

    def stored(self, row: int) -> None:
        """Nobody asks it: of what is in one memory nobody keeps a copy (`COPY` is not declared)."""
        raise AssertionError(row)

    def tell(self, told: Delivery) -> None:
        """Tell the reader of what is no event."""
        self._told.append(told)

    def __aiter__(self) -> MemorySubscription:
        return self

    async def __anext__(self) -> Sequence[Delivery]:
        while not self._ended:
            changed, attached = self._realm.changed, self._attached()
            if attached and (found := self._read()):
                return found
            try:
                async with asyncio.timeout(BOOKMARK_S if attached and self._interest.bookmarks else None):
                    await changed.wait()
            except TimeoutError:
                return [Bookmark(self._cursor(), whole=True)]
        raise StopAsyncIteration

    def _read(self) -> list[Delivery]:
        """What comes next; empty when there is nothing new."""
        found, self._told = self._told, []
        snapshot, self._snapshot = self._snapshot, []
        for held in snapshot:
            found += self._judged(held)
        while self._after < self._realm.head and len(found) < PAGE:
            rows = self._realm.rows(self._after)
            self._after = rows[-1].row if rows else self._realm.head
            for held in rows:
                if self._takes(held) and (not self._interest.conflate or not held.fact or self._realm.wins(held)):
                    found += self._judged(held)
        if self._after == self._realm.head:
            found += self._reached(anything=bool(found))
        return found

    def _reached(self, *, anything: bool) -> list[Delivery]:
        """Everything there is was delivered."""
        found: list[Delivery] = []
        if not self._completed:
            self._completed, self._ended = True, not self._interest.follow
            found.append(Complete(self._cursor(), whole=True))
        if not self._ended and (self._token is not None or (self._interest.bookmarks and anything)):
            found.append(Bookmark(self._cursor(), whole=True, token=self._token))
            self._token = None
        return found

    def _cursor(self) -> Cursor:
        return Cursor(self._realm.store, self._after, self._realm.now_ms())

    def _takes(self, held: LogEntry) -> bool:
        return (self._interest.signals or held.fact) and (self._matches(held) or self._is_addressed(held))

    def _matches(self, held: LogEntry) -> bool:
        return any(matches(pattern, held.signed.event.topic) for pattern in self._interest.patterns)

    def _is_addressed(self, held: LogEntry) -> bool:
        return self._interest.inbox and self._source in held.signed.event.to

    def _judged(self, held: LogEntry) -> list[Delivery]:
        """What to deliver for an event; what its chain misses is looked for at once."""
        arrived = Arrived(held.signed, held.row, held.row > self._began)
        if self._follower is None or not self._matches(held):
            return [arrived]
        now = self._realm.clock.boottime()
        found = self._follower.arrived(arrived, now)
        for wanted in self._follower.wanted():
            parts = [Arrived(one.signed, one.row, one.row > self._began) for one in self._realm.part(wanted)]
            closing = "trimmed" if self._realm.trimmed else "lost"
            repair = Closing(wanted.source, wanted.incarnation, wanted.topic, wanted.before, closing)
            found += self._follower.repaired(repair, parts, now)
        return found
