"""The NATS servers that a process knows: those that it was given, and those of which operators have said so since (R8).

Rule 1: the words are read at each attachment, heard while the link lasts, and looked at each minute: a message that is only
    heard may be lost between servers.
Rule 2: they are kept on the disk for the next process, as those on brokers are. What was given is never forgotten, but for a
    server that was removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from nats.aio.msg import Msg

from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.page import Page
from dsmt.bus.nats.streams import StreamMessage, last_of_each
from dsmt.bus.rules.brokers import BROKERS_FILE, BrokerWords
from dsmt.errors import FailedError, TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS
from dsmt.ports.files import Files
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.store import TrustStore


class KnownServers:
    """Of one process."""

    def __init__(self, seeds: Sequence[BrokerAddress], trust: TrustStore, files: Files | None = None) -> None:
        self.words, self._files, self._news = BrokerWords(seeds, trust, on_nats=True), files, asyncio.Event()
        kept = None if files is None else files.read(BROKERS_FILE)
        if kept is not None:
            with suppress(UnusableEventError):  # what cannot be used is said again
                self.words.recall(kept)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where one may be tried, each once; those that were given, where all were removed."""
        return tuple(dict.fromkeys(one.address for one in self.words.all or self.words.seeds))

    def told(self, said: Iterable[SignedEvent]) -> None:
        """Take in words that were checked."""
        if not sum(self.words.take(one) for one in said):
            return
        if self._files is not None:
            with suppress(FailedError):  # a disk that is full: they are said again
                self._files.write(BROKERS_FILE, self.words.kept())
        self._news.set()

    async def news(self) -> None:
        """Wait until something was said since this was asked last."""
        await self._news.wait()
        self._news.clear()

    async def hear(self, link: NatsLink, opener: NatsOpener, now_ms: Callable[[], int], page: Page) -> None:
        """Take in the words of a page, and each that is said while a link lasts. Raises `TransportError`."""
        self.told(signed for _, signed in page.facts)

        async def came(message: Msg) -> None:
            stored = StreamMessage(message.subject, 0, now_ms(), message.data)
            with suppress(UnusableEventError, TransportError):
                self.told([await opener.open(link, stored)])

        for subject in opener.subjects.taken_by([BROKERS], signals=False):
            await link.hear(subject, came)

    async def look(self, link: NatsLink, opener: NatsOpener) -> None:
        """Take in the words that are retained. Raises `TransportError`."""
        subjects = opener.subjects
        for stored in await last_of_each(link, subjects.facts, subjects.taken_by([BROKERS], signals=False)):
            with suppress(UnusableEventError):
                self.told([await opener.open(link, stored)])
