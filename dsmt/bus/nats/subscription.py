"""A subscription to a realm on NATS: a mark in the stream, the retained facts before it, then all that comes behind it.

Rule 1: it begins with a mark that it publishes itself. What was acknowledged before it was asked for stands before the
    mark, in both streams (`page`).
Rule 2: a token of its reader is published, too, and comes back in its place in the order of the stream: an echo that no
    server can give that has lost the majority (A4).
Rule 3: it goes on behind its last row, over lost links, but in a store that ends before that it begins anew (R5); so does
    one that was overtaken by the trimming, unless it
    reads the history: that is told what was trimmed.
Rule 4: its marks say whether the streams are whole (`rules.refilling`).
Rule 5: its reader is told when a key has ended since it began: what that said may be void (J3).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from dsmt.bus.nats.consumer import PullConsumer
from dsmt.bus.nats.deliveries import Deliveries
from dsmt.bus.nats.fetch import is_there
from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.page import Page, read_page, set_mark
from dsmt.bus.nats.streams import Head, StreamMessage, head
from dsmt.bus.rules.ended_keys import KEY_HAS_ENDED
from dsmt.bus.rules.follower import MissingPart
from dsmt.bus.rules.nats_config import ALL
from dsmt.bus.rules.refilling import Refilling
from dsmt.bus.rules.routing import OVERLAP_MS
from dsmt.errors import DsmtError, UnusableEventError
from dsmt.event.envelope import TOMBSTONE, EventId
from dsmt.event.fold import Fold
from dsmt.event.topic import matches
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Delivery, Interest, Notice, Reattached, Start
from dsmt.together import end_all
from dsmt.trust.grants import may
from dsmt.trust.revocations import REVOKED

BOOKMARK_S: Final = 0.25
IDLE_S: Final = 5.0
"""How long it waits for anything; then it looks whether its mark is still to come."""
RETRY_S: Final = 0.1
_TOKEN: Final = re.compile(rb"[0-9]{1,18}")

Held = Callable[[], Awaitable[NatsLink]]


class NatsSubscription:
    """One subscription; an async iterator of batches of deliveries.

    `held` waits for the link of the present attachment; `now` is boot-time seconds, `now_ms` realm time.
    """

    def __init__(
        self,
        source: str,
        interest: Interest,
        *,
        opener: NatsOpener,
        held: Held,
        now: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._source, self._interest, self._subjects, self._opener = source, interest, opener.subjects, opener
        self._held, self._now, self._now_ms = held, now, now_ms
        self._deliveries = Deliveries(conflate=interest.conflate)
        self._number = os.urandom(9).hex()
        self._store, self._refilling, self._revocations = "", Refilling(), 0
        self._began = self._after = self._covered = 0
        self._since_ms: int | None = None
        self._older_ms = 0
        self._completed = False
        self._token = self._echoed = 0
        self._asked, self._begun = asyncio.Event(), asyncio.Event()
        self._bookmarked = 0.0

    # --- the port ------------------------------------------------------------------------------------------------

    def mark(self, token: int) -> None:
        """Have a bookmark carry this token when all that is stored now was delivered."""
        self._token = token
        self._asked.set()

    def stored(self, row: int) -> None:
        """Nobody asks it: no broker keeps a copy of what NATS holds (`COPY` is not declared)."""
        raise AssertionError(row)

    def tell(self, told: Reattached) -> None:
        """There is a new attachment: what was asked over the last one may be lost."""
        self._deliveries.tell(told)
        if self._token > self._echoed:
            self._asked.set()

    def __aiter__(self) -> NatsSubscription:
        return self

    async def __anext__(self) -> Sequence[Delivery]:
        return await self._deliveries.next()

    # --- being read ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read ahead of the reader, until cancelled."""
        echo = asyncio.create_task(self._ask_echoes())
        try:
            while True:
                if await self._read():
                    return
                await asyncio.sleep(RETRY_S)
        except Exception as error:
            self._deliveries.end(error)
            raise
        finally:
            await end_all(echo)

    async def _read(self) -> bool:
        """Read over one link; whether it has ended for good."""
        link = await self._held()
        try:
            await self._begin(link)
            return await self._follow(link)
        except DsmtError:
            return False

    async def _ask_echoes(self) -> None:
        while True:
            await self._asked.wait()
            await self._begun.wait()
            self._asked.clear()
            link = await self._held()
            subject = self._subjects.mark(self._source, self._number, begins=False)
            try:
                await set_mark(link, subject, str(self._token))
            except DsmtError:
                self._asked.set()
                await asyncio.sleep(RETRY_S)

    # --- where it begins -----------------------------------------------------------------------------------------

    async def _begin(self, link: NatsLink) -> None:
        at = await head(link, self._subjects.history)
        overtaken = self._after + 1 < at.first and self._since_ms is None
        behind = at.last < self._after  # an older copy, perhaps: what is numbered now is none of what was read
        if at.store == self._store and not (overtaken or behind):
            return
        if at.store == self._store and self._interest.start is Start.HISTORY and not behind:
            await self._set_mark(link)  # that of its beginning is gone after a minute
            await self._trimmed(link, at)
            return
        self._begun.clear()
        anew, self._completed = self._store == at.store, False
        self._refilling.begins(at.anew_ms, at.now_ms, self._now())
        self._covered = 0
        await self._mark(link)
        if self._interest.start is Start.HISTORY:
            await self._place(link, at)
        else:
            if self._interest.start is Start.FACTS:
                self._snapshot(await self._page(link))
            self._after = self._began
        self._revocations = self._revocations if self._store else self._opener.revocations
        self._store = at.store
        if self._interest.start is not Start.HISTORY:
            self._complete(again=anew)
        self._deliveries.hand_on()
        self._begun.set()
        if self._token > self._echoed:
            self._asked.set()

    async def _mark(self, link: NatsLink) -> None:
        self._began = await self._set_mark(link)

    async def _set_mark(self, link: NatsLink) -> int:
        return await set_mark(link, self._subjects.mark(self._source, self._number, begins=True), self._number)

    async def _page(self, link: NatsLink) -> Page:
        mark = self._subjects.mark(self._source, self._number, begins=True)
        patterns = [*self._interest.patterns, TOMBSTONE, REVOKED]
        addressee = self._source if self._interest.inbox else ""
        page = await read_page(link, self._opener, patterns, mark=mark, text=self._number, addressee=addressee)
        topics = {one.event.topic for _, one in page.facts if not any(matches(p, one.event.topic) for p in patterns)}
        noted = {one for one in topics if may(link.reads, one)}  # elsewhere the copy is all that it may read
        if noted:
            others = await read_page(link, self._opener, sorted(noted), mark=mark, text=self._number)
            own = [(row, one) for row, one in page.facts if one.event.topic not in noted]
            page = page._replace(facts=[*own, *others.facts])
        for row, error in page.refused:  # told once, though what is read may be read again
            self._refused(row, error)
        return page

    def _snapshot(self, page: Page) -> None:
        """Deliver the winners of what is retained."""
        fold, now, now_ms = Fold(), self._now(), self._now_ms()
        rows: dict[EventId, int] = {}
        for row, signed in page.facts:
            rows.setdefault(signed.id, row)
            fold.take(signed)
        for row, signed in sorted(((rows[one.id], one) for one in fold), key=lambda found: found[0]):
            if signed.event.is_dead(now_ms):
                continue
            arrived = Arrived(signed, row, live=False)
            if self._takes(signed.event.topic):
                self._deliveries.event(arrived, now)
            elif self._interest.inbox and self._source in signed.event.to:
                self._deliveries.mail(arrived)
        self._covered = page.covered

    async def _place(self, link: NatsLink, at: Head) -> None:
        """Where a history is read from."""
        since, self._since_ms = self._interest.since, None
        if self._store:
            since = Cursor(self._store, self._after, self._now_ms())
        known = since is None or (isinstance(since, Cursor) and since.store == at.store and since.row <= at.last)
        self._after = since.row if known and isinstance(since, Cursor) else 0
        if since is not None and not known:
            self._since_ms = max(0, since.time_ms - OVERLAP_MS) if isinstance(since, Cursor) else since
            self._older_ms = self._since_ms if link.reads != ALL else 0  # it is given all that there is (`consumer`)
        elif self._after + 1 < at.first:
            await self._trimmed(link, at)

    async def _trimmed(self, link: NatsLink, at: Head) -> None:
        """Tell once that rows were trimmed before they were read, and deliver those of their facts that are retained."""
        facts = sorted((await self._page(link)).facts, key=lambda found: found[0])
        fields = {"from": self._after + 1, "to": at.first - 1}
        said = f"the history before row {at.first} is not whole any more: parts of it were trimmed"
        if not self._interest.conflate:
            self._deliveries.tell(Notice("dsmt.notice.trimmed", said, fields))
        for row, signed in facts:
            if self._after < row < at.first and self._takes(signed.event.topic):
                self._deliveries.event(Arrived(signed, row, live=False), self._now())
        self._after = at.first - 1

    # --- what comes behind it ------------------------------------------------------------------------------------

    async def _follow(self, link: NatsLink) -> bool:
        """Deliver what comes; whether that was all."""
        if self._completed and not self._interest.follow:
            self._deliveries.end()
            return True
        wanted = [*self._interest.patterns, REVOKED]
        filters = self._subjects.taken_by(wanted, signals=self._interest.signals)
        filters += [self._subjects.mark(self._source, self._number, begins=begins) for begins in (True, False)]
        if self._interest.inbox:
            filters += self._subjects.mailbox(self._source)
        consumer = PullConsumer(link, self._subjects.history, filters)
        try:
            await consumer.begin(after=self._after, since_ms=self._since_ms)
            while self._interest.follow or not self._completed:
                await self._deliveries.room()
                await self._take(link, await consumer.next(self._wait_s()))
        finally:
            await consumer.end()
        self._deliveries.end()
        return True

    def _wait_s(self) -> float:
        pause = BOOKMARK_S if self._interest.bookmarks else IDLE_S
        return min(pause, self._deliveries.due(self._now()))

    async def _take(self, link: NatsLink, batch: Sequence[StreamMessage]) -> None:
        if not batch and not self._completed and self._now() - self._bookmarked > IDLE_S:
            self._bookmarked = self._now()
            await self._mark(link)
        for stored in _conflated(batch) if self._interest.conflate else batch:
            await self._one(link, stored)
            self._after, self._since_ms = stored.row, None
        if self._opener.revocations > self._revocations:
            self._revocations = self._opener.revocations
            self._deliveries.tell(KEY_HAS_ENDED)
        now = self._now()
        self._deliveries.tick(now)
        while (missing := self._deliveries.overdue(now)) is not None:
            self._deliveries.close(missing, await self._fate(link, missing), now)
        handed = self._deliveries.hand_on()
        if self._interest.bookmarks and self._completed and (handed or now - self._bookmarked >= BOOKMARK_S):
            self._bookmarked = now
            self._deliveries.mark(Bookmark(self._cursor(self._after), self._is_whole))
            self._deliveries.hand_on()

    async def _fate(self, link: NatsLink, missing: MissingPart) -> str:
        """`lost` or `trimmed`: the oldest are trimmed first, so where the event before it is still there, it was lost."""
        before = EventId(missing.source, missing.incarnation, missing.after)
        return "lost" if await is_there(link, self._subjects, before, missing.topic) else "trimmed"

    async def _one(self, link: NatsLink, stored: StreamMessage) -> None:
        kind = stored.subject.split(".", 3)[2]
        if stored.row > self._began and not self._completed:
            self._complete()
        if kind == "o":
            self._refilling.offered(self._now())
        if kind in "mt":
            self._marked(kind, stored)
            return
        if (kind in "fon" and stored.row <= self._covered) or stored.stored_ms < self._older_ms:
            return
        try:
            signed = await self._opener.open(link, stored)
        except UnusableEventError as error:
            self._refused(stored.row, error)
            return
        arrived = Arrived(signed, stored.row, live=stored.row > self._began)
        if self._takes(signed.event.topic):
            if kind not in "in":
                self._deliveries.event(arrived, self._now())
        elif self._interest.inbox and self._source in signed.event.to:
            self._deliveries.mail(arrived)

    def _marked(self, kind: str, stored: StreamMessage) -> None:
        if kind == "m":
            if stored.row >= self._began and not self._completed:
                self._complete()
            return
        token = int(stored.raw) if _TOKEN.fullmatch(stored.raw) else 0  # a server answers on whatever subject it is told
        if self._echoed < token <= self._token:
            self._echoed = token
            self._deliveries.mark(Bookmark(self._cursor(stored.row), self._is_whole, token))

    def _complete(self, *, again: bool = False) -> None:
        """Of completions in one store the first is told as such."""
        self._completed = True
        cursor, whole = self._cursor(self._began), self._is_whole
        self._deliveries.mark(Bookmark(cursor, whole) if again else Complete(cursor, whole))

    @property
    def _is_whole(self) -> bool:
        return self._refilling.is_over(self._now())

    def _cursor(self, row: int) -> Cursor:
        return Cursor(self._store, row, self._now_ms())

    def _takes(self, topic: str) -> bool:
        return any(matches(pattern, topic) for pattern in self._interest.patterns)

    def _refused(self, row: int, error: UnusableEventError) -> None:
        self._deliveries.tell(Notice("dsmt.notice.badsignature", error.message, {"code": error.code, "row": row}))


def _conflated(batch: Sequence[StreamMessage]) -> list[StreamMessage]:
    """A page in which of each source's facts on a topic only the last is left."""
    last = {stored.subject: stored.row for stored in batch}
    return [one for one in batch if one.subject.split(".", 3)[2] not in "fo" or last[one.subject] == one.row]
