"""Re-offers: facts of anybody that this source holds and acts on, for a stream that has lost them (rule R5).

Rule 1: a server knows nothing of facts, so the stream is asked first: what is there, or was followed by its own source,
    is not published again. What is goes under the name of who offers it, with the certificates of who signed it.
Rule 2: what is ahead of realm time waits, and is offered when it is in time (`early`).
Rule 3: nobody waits for an answer; while a server does not answer, or says that it cannot, it is asked again. The end of
    the link ends it, for who offers does so again at the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus.nats.door import NatsDoor
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import MSG_ID, id_of, last_on, next_on
from dsmt.bus.rules.early import CODES, PROBE_S, Early
from dsmt.errors import DsmtError, TransportError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.order import newer

RETRY_S: Final = 0.1


class NatsOffers:
    """What one source re-offers. `now_ms` gives realm time."""

    def __init__(self, publisher: str, opener: NatsOpener, door: NatsDoor, now_ms: Callable[[], int]) -> None:
        self._publisher, self._opener, self._door, self._now_ms = publisher, opener, door, now_ms
        self._subjects = opener.subjects
        self._early, self._waiting = Early(), dict[EventId, SignedEvent]()
        self._work = asyncio.Event()

    @property
    def early_s(self) -> float:
        """By how much what waits is ahead of realm time; else 0."""
        return self._early.ahead_s

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer these."""
        self._waiting.update((one.id, one) for one in signed)
        self._work.set()

    async def run(self, link: NatsLink) -> None:
        """Offer what is to be offered, until cancelled."""
        try:
            while True:
                self.offer(self._early.due(self._now_ms()))
                while self._waiting:
                    await self._offer(link, self._waiting.pop(next(iter(self._waiting))))
                self._work.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S if self._early else None):
                        await self._work.wait()
        finally:
            self._waiting.clear()
            self._early.clear()

    async def _offer(self, link: NatsLink, signed: SignedEvent) -> None:
        try:
            self._door.check_offer(signed, publisher=self._publisher, now_ms=self._now_ms())
        except UnusableEventError as error:
            if error.code in CODES:
                self._early.wait(signed)
            return
        with suppress(DsmtError):
            while not link.lost.done():
                try:
                    await self._bring(link, signed)
                except (ApiError, TransportError):
                    await asyncio.sleep(RETRY_S)
                else:
                    return

    async def _bring(self, link: NatsLink, signed: SignedEvent) -> None:
        """Publish it, unless it is there."""
        if not await self._is_there(link, signed):
            await self._opener.vouch(link, self._publisher, signed)
            subject = self._subjects.offered(self._publisher, signed.event.source, signed.event.topic)
            entry = Publication(subject, signed.raw, {MSG_ID: id_of(signed.raw)})
            told = await link.publish(entry)
            if told.get("duplicate") and not await self._stands(link, signed, told["seq"]):
                await link.publish(entry._replace(headers={}))

    async def _stands(self, link: NatsLink, signed: SignedEvent, row: int) -> bool:
        """Whether it is what is in a row: whoever knows it may have had something else stored under its id."""
        event = signed.event
        subjects = self._subjects.retained_of(event.source, event.topic)
        found = [await next_on(link, self._subjects.history, one, row) for one in subjects]
        return any(one is not None and (one.row, one.raw) == (row, signed.raw) for one in found)

    async def _is_there(self, link: NatsLink, signed: SignedEvent) -> bool:
        event = signed.event
        own = self._subjects.event(event.source, event.topic, fact=True)
        for subject in (own, self._subjects.offered(self._publisher, event.source, event.topic)):
            stored = await last_on(link, self._subjects.facts, subject)
            with suppress(UnusableEventError):
                if stored is not None and not newer(event, (await self._opener.open(link, stored)).event):
                    return True
        return False
