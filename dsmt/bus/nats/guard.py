"""What a gate sees to, for no server does: that what is retained is the newest that its source has said.

Rule 1: a server answers on whatever subject was named by who asked, and needs no permission for it. So an answer may come to
    stand where somebody's fact stood: that something was stored, or an earlier event that was asked for.
Rule 2: what comes on a subject that is retained, and is not an event of its source on its topic (or certificates of its
    key) that is newer than what was heard there, is doubted: what stream H has on the subject is read, and the newest that
    may be believed is put there again, if it is not the last. So is what came to stand there while this gate was away.
    What was said in an incarnation that is ahead of what was said and stored after it is no newer: realm time went back.
Rule 3: who has a stolen key may have said something where the owner of its name has said it anew with another key. When the
    first key has ended, what an operator had said before stands again, if that may be believed (J3). Each gate sees to it,
    also when it begins. Under other names each one's words stand side by side, and readers choose.
Rule 4: of several gates one hears each message. What was overwritten after its history was trimmed is lost to those who come
    later, until who holds it offers it (R5).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final, Never

from nats.aio.msg import Msg

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.hearing import Hearing
from dsmt.bus.nats.link import NOT_NOW, NatsLink, Publication
from dsmt.bus.nats.opener import ENDED, STAYS, NatsOpener
from dsmt.bus.nats.streams import StreamMessage
from dsmt.bus.wire.subjects import SPOKEN
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.codec import decode_part
from dsmt.event.hlc import BOUND_MS
from dsmt.logs import Logger
from dsmt.newest import Newest
from dsmt.trust.revocations import is_void

NEW_MS: Final = 10_000
"""What was said longer ago, and is heard on a subject of which nothing was heard, is looked at."""
KNOWN: Final = 65_536
DOUBTED: Final = 4096
RETRY_S: Final = 0.2
LOOKS: Final = 25
"""How often a subject is looked at: what was heard is stored a moment later, or never."""
_NONE: Final = (-1, -1)
_Number = tuple[int, int]


class NatsGuard:
    """That of one gate, which shares the work with the others."""

    def __init__(self, bus: NatsBus, opener: NatsOpener) -> None:
        self._bus, self._subjects, self._opener = bus, opener.subjects, opener
        self._hearing = Hearing(bus, dict.fromkeys(self._subjects.retained(SPOKEN), self._heard), queue="guard")
        self._newest: Newest[str, _Number] = Newest(KNOWN)
        """By subject: the number of the newest that was heard."""
        self._doubted: Newest[str, tuple[bytes | None, int]] = Newest(DOUBTED)
        """By subject: what was heard there, if anything was, and how often it is still looked."""
        self._revocations, self._revoked = 0, asyncio.Event()
        self._work = asyncio.Event()
        self._log = Logger(gate=bus.source)

    async def run(self) -> Never:
        """Hear what comes, and put right what is doubted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hearing.run())
            group.create_task(self._look_back())
            group.create_task(self._hearing.look_back(self._subjects.facts, self._subjects.retained(SPOKEN), self._look_at))
            while True:
                await self._work.wait()
                self._work.clear()
                doubted, self._doubted = self._doubted, Newest(DOUBTED)
                for subject, (heard, left) in doubted.items():
                    await self._look_at(subject, heard, left)
                if self._doubted:
                    await asyncio.sleep(RETRY_S)

    async def _look_at(self, subject: str, heard: bytes | None = None, left: int = LOOKS) -> None:
        try:
            done = await self._put_right(await self._bus.held(), subject, heard)
        except NOT_NOW:
            done = False
        if not done and left and subject not in self._doubted:
            self._doubt(subject, heard, left - 1)

    def ended(self, revocations: int) -> None:
        """So many revocations are known."""
        if revocations != self._revocations:
            self._revocations = revocations
            self._revoked.set()

    async def _look_back(self) -> Never:
        """Doubt what operators have said with keys that have ended (rule 3)."""
        while True:
            await self._revoked.wait()
            self._revoked.clear()
            try:
                link = await self._bus.held()
                facts = all_of(link, self._subjects.facts, self._subjects.retained("f"), sizes=True)
                found = {self._subjects.publisher(one.subject) async for one in facts}
                for name in sorted(name for name in found if name.startswith("operator/")):
                    await self._doubt_void(link, name)
            except NOT_NOW:
                self._revoked.set()
                await asyncio.sleep(RETRY_S)

    async def _doubt_void(self, link: NatsLink, name: str) -> None:
        """Doubt the last words on their subjects that are void. Raises `TransportError`."""
        own, _ = self._subjects.of(name)
        last = {stored.subject: stored async for stored in all_of(link, self._subjects.history, [own])}
        for stored in last.values():
            try:
                await self._opener.open(link, stored)
            except UnusableEventError as error:
                if error.code == ENDED and is_void(decode_part(stored.raw).events[0], lambda _: True):
                    self._doubt(stored.subject, stored.raw)

    async def _heard(self, message: Msg) -> None:
        stored = StreamMessage(message.subject, 0, self._bus.now_ms(), message.data)
        try:
            number, said_ms = await self._read(await self._bus.held(), stored)
        except (UnusableEventError, TransportError):
            self._doubt(stored.subject, stored.raw)
            return
        before, again = self._newest.get(stored.subject, _NONE), number == _NONE and stored.subject in self._newest
        newer = _is_newer(number, before, said_ms, stored.stored_ms)
        if not newer or again or (before == _NONE and said_ms < stored.stored_ms - NEW_MS):
            self._doubt(stored.subject, stored.raw)
        self._newest[stored.subject] = number if newer else before

    async def _read(self, link: NatsLink, stored: StreamMessage) -> tuple[_Number, int]:
        """The number of an event (certificates have none), and when it was said; what is offered is old as a rule.

        Raises `UnusableEventError`, `TransportError`.
        """
        kind = self._opener.said(stored).kind
        if kind == "c":
            self._opener.check_certificates(stored)
            return _NONE, stored.stored_ms
        event = (await self._opener.open(link, stored)).event
        return (event.incarnation, event.sequence), stored.stored_ms if kind == "o" else event.time_ms

    def _doubt(self, subject: str, heard: bytes | None, left: int = LOOKS) -> None:
        self._doubted[subject] = heard, left
        self._work.set()

    async def _put_right(self, link: NatsLink, subject: str, heard: bytes | None) -> bool:
        """Have the newest be the last on a subject (rule 2); False while what was heard does not stand there yet.

        Raises `ApiError`, `TransportError`, `RefusedError`.
        """
        newest, good, last, why = _NONE, b"", b"", ""
        async with aclosing(all_of(link, self._subjects.history, [subject])) as found:
            async for stored in found:
                last, why = stored.raw, ""
                try:
                    number, said_ms = await self._read(link, stored)
                except UnusableEventError as error:
                    why = error.code
                    continue
                if _is_newer(number, newest, said_ms, stored.stored_ms):
                    newest, good = number, self._opener.beside(stored, good) if number == _NONE else stored.raw
        if heard is None and why in STAYS:
            return True
        if good and good != last:
            await link.publish(Publication(subject, good, {}))
            self._newest[subject] = newest
            self._log.warning("what stood on a subject was overwritten, and stands again", subject=subject)
            return True
        return heard in (None, last)


def _is_newer(number: _Number, than: _Number, said_ms: int, stored_ms: int) -> bool:
    """Whether what was just stored is at least as new as what was stored before it, which may be ahead of it (rule 2)."""
    return number >= than or (said_ms >= stored_ms - NEW_MS and than[0] > stored_ms + BOUND_MS)
