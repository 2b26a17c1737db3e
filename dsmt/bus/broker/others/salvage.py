"""Salvage: what is sound in a damaged store of this broker is taken over, as what another broker has (rules B11, E1).

Rule 1: an event is taken over when it is what was written and its signature is good; a blob when it has its digest. What
    this broker has said itself is its past, as if others had brought it: it says anew who was attached (R8).
Rule 2: it is said, signed, that a store was damaged; and until all of it was looked at this broker is not whole.
Rule 3: where the disk has no room, which may be since the damaged store fills it, it waits; the broker goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import groupby
from typing import Final

from dsmt.bus.broker.keyring import Proofs
from dsmt.bus.broker.words import Words
from dsmt.bus.rules.proofs import proof
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.logs import Logger
from dsmt.ports.blobs import Blobs
from dsmt.ports.store import Remains, StoreFullError
from dsmt.trust.store import TrustStore

_AGAIN_S: Final = 1.0


class Salvage:
    """Of the broker of this name. `take` stores events with their proofs; in how many ms to try again, 0 when it has."""

    def __init__(
        self,
        all_remains: Sequence[Remains],
        broker: str,
        trust: TrustStore,
        blobs: Blobs,
        *,
        words: Words,
        take: Callable[[str, Sequence[SignedEvent], Proofs], int],
        now_ms: Callable[[], int],
    ) -> None:
        self._remains, self._name, self._trust, self._blobs = all_remains, broker, trust, blobs
        self._words, self._take, self._now_ms, self._log = words, take, now_ms, Logger(broker=broker)
        self.reads = bool(all_remains)
        """Whether there is more to take over."""

    async def run(self) -> None:
        """Take over what is sound in all that is left."""
        for remains in self._remains:
            self._words.damaged(remains.said)
            self._log.error("a store was damaged", reason=remains.said)
            events = await self._events(remains)
            blobs = await self._chunks(remains)
            remains.taken()
            self._log.info("what was sound in it is taken over", events=events, blobs=blobs)
        self.reads = False

    async def _events(self, remains: Remains) -> int:
        known, count = self._trust.fresh(), 0
        with suppress(UnusableEventError):  # those without an issuer
            known.add_all(remains.certificates())
        for parts in remains.parts():
            events = [one for part in parts for one in _good(known, part)]
            while ahead_ms := self._take(self._name, events, partial(proof, known)):
                self._log.warning("what was in a damaged store waits", ahead_ms=ahead_ms)
                await asyncio.sleep(_AGAIN_S)
            count += len(events)
            await asyncio.sleep(0)
        return count

    async def _chunks(self, remains: Remains) -> int:
        count = 0
        for digest, some in groupby(remains.chunks(), key=lambda one: one[0]):
            hashed, chunks, put = sha256(), 0, self._blobs.get(digest) is None
            for _, payer, number, chunk in some:
                if put and number == chunks:
                    putting = partial(self._blobs.put_chunk, digest, number, chunk, payer=payer, now_ms=self._now_ms())
                    await self._done(digest, putting)
                    hashed.update(chunk)
                    chunks += 1
                    await asyncio.sleep(0)
            if put and hashed.digest() == digest:
                await self._done(digest, partial(self._blobs.keep, digest, chunks, now_ms=self._now_ms()))
                count += 1
            elif put:
                await self._done(digest, partial(self._blobs.forget, digest))
        return count

    async def _done(self, digest: bytes, act: Callable[[], object]) -> None:
        """Do something about a blob, as soon as the disk has room for that (rule 3)."""
        while True:
            try:
                act()
            except StoreFullError:
                self._log.warning("a blob of a damaged store waits for room", digest=digest.hex())
                await asyncio.sleep(_AGAIN_S)
            else:
                return


def _good(known: TrustStore, part: bytes) -> list[SignedEvent]:
    """The events of a part that are by whom they say."""
    try:
        return [signed for signed, denied in known.open_part(part) if denied is None]
    except UnusableEventError:
        return []
