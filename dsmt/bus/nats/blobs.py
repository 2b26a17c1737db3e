"""What a gate sees to of the depot, as a broker does of its own (`broker.depot`, rule D2).

Rule 1: each blob is checked when somebody says that it was put, or when a gate begins that did not hear that: what is not
    whole, or has another sha256, goes at once. So who puts it again finds nothing in its way. What is right stays so:
    nothing takes the place of a piece.
Rule 2: while little is left of a server's disk no blob is put (`streams.close_blobs`), whatever who puts it minds. That is
    said again each `SAY_S`: of a server that is given up it is forgotten.
Rule 3: meanwhile what nothing names goes, a tenth at a time, the oldest first; nothing that was put within `UNFINISHED_MS`.
    What the facts of services name is kept, and what any of their specs in the history does: slots may go back to it.
Rule 4: of several gates one checks each blob, and it remembers what was right: who says that again costs it one question.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Never

from nats.aio.msg import Msg

from dsmt.bus.nats import depot
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.hearing import Hearing
from dsmt.bus.nats.link import NOT_NOW, NatsLink
from dsmt.bus.nats.streams import close_blobs, held_on, purge
from dsmt.logs import Logger
from dsmt.newest import Newest
from dsmt.ports.blobs import UNFINISHED_MS, digests_in

SAY_S: Final = 60.0
TENTH: Final = 10
KNOWN: Final = 4096
WAITING: Final = 4096
LOOKS: Final = 5
LOOK_S: Final = 0.2
SPECS: Final = "service/+/spec"


class NatsBlobs:
    """Those of one gate."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus, self._subjects = bus, bus.subjects
        self._hearing = Hearing(bus, {bus.subjects.all_counts: self._heard}, queue="blobs")
        self._put: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._right: Newest[str, int] = Newest(KNOWN)
        """By subject, in which row it was said how many pieces there are."""
        self._said: bool | None = None
        self._said_at = 0.0
        self._log = Logger(gate=bus.source)

    # --- what was put --------------------------------------------------------------------------------------------

    async def run(self) -> Never:
        """Check what is put (rule 1), until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hearing.run())
            group.create_task(self._hearing.look_back(self._subjects.blobs, [self._subjects.all_counts], self._put.put))
            while True:
                subject = await self._put.get()
                try:
                    await self._check(await self._bus.held(), subject)
                except NOT_NOW:
                    with suppress(asyncio.QueueFull):
                        self._put.put_nowait(subject)
                    await asyncio.sleep(LOOK_S)

    async def _heard(self, message: Msg) -> None:
        with suppress(asyncio.QueueFull):
            self._put.put_nowait(message.subject)

    async def _check(self, link: NatsLink, subject: str) -> None:
        try:
            publisher, digest = self._subjects.publisher(subject), self._subjects.digest(subject)
        except ValueError:
            await self._purge(link, subject)
            return
        for _ in range(LOOKS):  # what was heard is stored a moment later, or never
            found = await held_on(link, self._subjects.blobs, [subject])
            if found:
                break
            await asyncio.sleep(LOOK_S)
        for stored in found:
            if self._right.get(subject) == stored.sequence:
                continue
            copy = depot.copy_of(publisher, stored.raw)
            if copy is not None and await depot.is_whole(depot.over(link), self._subjects, copy, digest):
                self._right[subject] = stored.sequence
            else:
                await self._purge(link, self._subjects.blob(digest, publisher))
                self._log.warning("what was put is not the blob, and is held no more", blob=digest.hex(), name=publisher)

    async def _purge(self, link: NatsLink, subject: str) -> None:
        await purge(link, self._subjects.blobs, {"filter": subject})

    # --- room ----------------------------------------------------------------------------------------------------

    async def say(self, *, low: bool) -> None:
        """Say whether little is left of the disk (rule 2). Raises `ApiError`, `TransportError`, `RefusedError`."""
        now = asyncio.get_running_loop().time()
        if low == self._said and now < self._said_at + SAY_S:
            return
        link, name = await self._bus.held(), self._bus.source.partition("/")[2]
        await close_blobs(link, self._subjects, name, low=low, now_ms=self._bus.now_ms())
        self._said, self._said_at = low, now

    async def give_way(self) -> bool:
        """Remove some of what nothing names (rule 3); whether there was any.

        Raises `ApiError`, `TransportError`, `RefusedError`.
        """
        link, late = await self._bus.held(), self._bus.now_ms() - UNFINISHED_MS
        put: dict[bytes, int] = {}
        async for one in all_of(link, self._subjects.blobs, [self._subjects.pieces], sizes=True):
            with suppress(ValueError):
                put[self._subjects.digest(one.subject)] = one.stored_ms
        spare = sorted((at, digest) for digest, at in put.items() if at < late)
        named = await self._named(link) if spare else set[bytes]()
        goes = [digest for _, digest in spare if digest not in named]
        for digest in goes[: max(1, len(goes) // TENTH)]:
            await self._purge(link, self._subjects.blob(digest))
            self._log.warning("the disk is nearly full: a blob that nothing names is removed", blob=digest.hex())
        return bool(goes)

    async def _named(self, link: NatsLink) -> set[bytes]:
        found = set[bytes]()
        for stream, pattern in ((self._subjects.facts, "service/"), (self._subjects.history, SPECS)):
            async for one in all_of(link, stream, self._subjects.taken_by([pattern], signals=False)):
                found |= digests_in([one.raw])
        return found
