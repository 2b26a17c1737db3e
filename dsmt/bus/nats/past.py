"""The past of a realm on NATS: all that its streams hold, from a place on, in order, for who takes it over.

Rule 1: stream H is read from the row behind a place. What has left it before it was read, and is retained, comes first, from
    stream F: of each source and topic the last fact.
Rule 2: an event is believed as any reader believes it (`opener`), or passed over; with it is when it was stored.
Rule 3: a server that has just come back may lack the last rows, and is waited for (rule 4 of `consumer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from dsmt.bus.nats import depot
from dsmt.bus.nats.consumer import BEHIND_S, LOOK_S, PullConsumer, all_of, end_of
from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import Head, StreamMessage, head
from dsmt.errors import TransportError, UnusableEventError
from dsmt.logs import Logger
from dsmt.ports.store import PastEvent

_NUMBER = tuple[int, int]


class PastPage(NamedTuple):
    """What was read: all up to a row of stream H; `left` is how much more of it there was then."""

    events: list[PastEvent]
    upto: int
    left: int


class NatsPast:
    """Reads behind a place over one link, until one of them fails."""

    def __init__(self, link: NatsLink, opener: NatsOpener, log: Logger) -> None:
        self._link, self._subjects, self._opener, self._log = link, opener.subjects, opener, log
        self._consumer: PullConsumer | None = None
        self._place, self._left = 0, 1

    async def head(self) -> Head:
        """Where stream H stands. Raises `TransportError`, `RefusedError` where there is none."""
        return await head(self._link, self._subjects.history)

    async def begin(self, place: int) -> None:
        """Read on behind a row. Raises `TransportError`."""
        await self.end()
        self._place = place
        self._consumer = PullConsumer(self._link, self._subjects.history, self._subjects.taken_by(["/"], signals=True))
        self._left = await self._consumer.begin(after=place)

    async def end(self) -> None:
        """Read no more."""
        if self._consumer is not None:
            await self._consumer.end()
            self._consumer = None

    async def page(self, within_s: float) -> PastPage:
        """What comes next; nothing when nothing does in time. Raises `TransportError`."""
        assert self._consumer is not None  # noqa: S101 - it was begun
        found = await self._consumer.next(within_s)
        events: list[PastEvent] = []
        if found or not self._place:
            at = await self.head()
            before = min(at.first, found[0].row) if found else at.first
            if before > self._place + 1:
                events += await self._retained(before, at.first_ms)
                self._place = before - 1
        for stored in found:
            self._place, self._left = stored.row, stored.left
            events += await self._opened(stored)
        return PastPage(events, self._place, self._left)

    async def rest(self) -> AsyncIterator[PastPage]:
        """All that there is, where nobody says anything more (rule 3). Raises `TransportError`."""
        end = await end_of(self._link, self._subjects.history, self._subjects.taken_by(["/"], signals=True))
        late = asyncio.get_running_loop().time() + BEHIND_S
        while True:
            before, page = self._place, await self.page(LOOK_S)
            yield page
            if self._place >= end:
                return
            now = asyncio.get_running_loop().time()
            late = now + BEHIND_S if self._place > before else late
            if now > late:
                raise TransportError("nats.behind", f"row {end} of stream {self._subjects.history} does not come")

    async def _retained(self, before: int, first_ms: int) -> list[PastEvent]:
        """What only stream F holds of the rows between the place and another one (rule 1)."""
        held: dict[tuple[str, str], tuple[_NUMBER, int, PastEvent]] = {}
        facts = all_of(self._link, self._subjects.facts, self._subjects.taken_by(["/"], signals=False))
        async for stored in facts:
            for one in await self._opened(stored):
                event = one.signed.event
                number, key = (event.incarnation, event.sequence), (event.source, event.topic)
                if key not in held or held[key][0] < number:
                    held[key] = number, stored.row, PastEvent(min(one.stored_ms, first_ms or one.stored_ms), one.signed)
        only = [(row, one) for _, row, one in held.values() if self._place < row < before]
        return [one for _, one in sorted(only, key=lambda each: each[0])]

    async def _opened(self, stored: StreamMessage) -> list[PastEvent]:
        try:
            return [PastEvent(stored.stored_ms, await self._opener.open(self._link, stored))]
        except UnusableEventError as error:
            self._log.warning("not taken over", row=stored.row, code=error.code, reason=error.message)
            return []

    # --- blobs ---------------------------------------------------------------------------------------------------

    async def blobs(self) -> Sequence[bytes]:
        """The digests of all that was put into the depot. Raises `TransportError`."""
        return await depot.digests(self._link, self._subjects)

    def blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The pieces of a blob, checked at the end. Raises `NotFoundError`, `FailedError`, `TransportError`."""
        return depot.get(depot.over(self._link), self._subjects, digest)
