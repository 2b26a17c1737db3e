"""The filler: what brokers have stored, into the streams of a realm that is about to move to NATS.

Rule 1: each event stands where its own source would have put it: on its own subject, with its copies for addressees and the
    certificates that prove it, byte for byte as it was signed. A fact that its source has replaced on that topic already
    stands as one that was re-offered, for stream F keeps the last on a subject.
Rule 2: events come in the order in which a store has them, in atomic batches; the last of an event's batches ends with the
    place up to which each store was taken. So each stands there once, whenever the filler is killed.
Rule 3: a place is put on the condition that it follows the one that was read: of two fillers only one gets on.
Rule 4: one that has failed knows no more what stands in the streams: another one takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

import cbor2

from dsmt.bus.nats import depot
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.door import PublishTerms
from dsmt.bus.nats.link import ApiError, NatsLink, Publication, any_server
from dsmt.bus.nats.sender import BATCH, BATCH_BYTES, Due, entries_of
from dsmt.bus.nats.streams import EXPECTED_LAST, MSG_ID, NOT_LAST_CODES, last_on, make_streams
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, TransportError
from dsmt.event.codec import decode
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.payload import canonical
from dsmt.event.registry import is_fact
from dsmt.trust.keys import Key

Proof = Callable[[SignedEvent], Sequence[bytes]]
"""The certificates of who signed an event, issuers first."""
_PLACE: Final = "copied"


class Taken(NamedTuple):
    """A row of a store: its number, and the event as it was signed."""

    row: int
    raw: bytes


class NatsFiller:
    """Fills the streams of one realm over one link. `publisher` is the broker in whose name it brings certificates."""

    def __init__(self, link: NatsLink, realm: str, publisher: str, wall_ms: Callable[[], int]) -> None:
        self._link, self._publisher, self._wall_ms = link, publisher, wall_ms
        self._subjects = Subjects(realm)
        self._places: dict[str, int] = {}
        self._at = 0
        self._begun_before = False
        self._latest: dict[tuple[str, str], tuple[int, int]] = {}
        self._brought: dict[tuple[bytes, str], bytes] = {}

    @classmethod
    async def connect(
        cls, realm: NatsRealm, name: str, *, key: Key, publisher: str, wall_ms: Callable[[], int]
    ) -> NatsFiller:
        """A filler at the place where the one before it stopped; the streams are made where there are none.

        Raises `TransportError`, `RefusedError`.
        """
        link = await any_server(realm.servers, 0, realm, key=key, name="bridge")
        filler = cls(link, name, publisher, wall_ms)
        try:
            await make_streams(link, filler._subjects, replicas=realm.replicas)
            await filler._read_places()
        except ApiError as error:
            await link.close()
            raise TransportError("nats.stream", f"NATS has no streams yet: {error}") from error
        except BaseException:
            await link.close()
            raise
        return filler

    async def close(self) -> None:
        """End its link."""
        await self._link.close()

    async def _read_places(self) -> None:
        found = await last_on(self._link, self._subjects.history, self._place)
        if found is not None:
            self._at, self._begun_before = found.row, True
            self._places = dict(cbor2.loads(found.raw))

    @property
    def _place(self) -> str:
        return self._subjects.mark(self._publisher, _PLACE, begins=False)

    def place(self, store: str) -> int:
        """The row up to which all of a store was taken."""
        return self._places.get(store, 0)

    @property
    def stores(self) -> frozenset[str]:
        """The stores of which anything was taken."""
        return frozenset(self._places)

    async def take(self, store: str, rows: Sequence[Taken], upto: int, proof: Proof) -> list[SignedEvent]:
        """Take in rows of a store, which are all that it has up to one; what they are.

        Raises `TransportError`, and `FailedError` where another filler is at work.
        """
        events = [decode(one.raw) for one in rows]
        waiting: list[Publication] = []
        before = self.place(store)
        for one, signed in zip(rows, events, strict=True):
            await self._in_time(signed)
            group = [*self._certificates(signed, proof), *await self._entries(signed, one.raw)]
            if waiting and _batch_of([*waiting, *group]) < len(waiting) + len(group):
                await self._publish(waiting, store, before)
                waiting = []
            waiting += group
            before = one.row
        await self._publish(waiting, store, upto)
        return events

    async def _in_time(self, signed: SignedEvent) -> None:
        """Wait until it is not ahead of the servers' clock: no reader would believe it (J4)."""
        early_ms = max(signed.event.time_ms, signed.event.incarnation) - self._wall_ms() - BOUND_MS // 2
        await asyncio.sleep(max(0, early_ms) / 1000)

    def _certificates(self, signed: SignedEvent, proof: Proof) -> list[Publication]:
        signer, raws = (signed.key_id, signed.event.source), list(proof(signed))
        shown = canonical(raws)
        if not raws or self._brought.get(signer) == shown:
            return []
        self._brought[signer] = shown
        return [Publication(self._subjects.certificate(self._publisher, signed.event.source, signed.key_id), shown, {})]

    async def _entries(self, signed: SignedEvent, raw: bytes) -> list[Publication]:
        """Where an event is to stand (rule 1)."""
        event = signed.event
        if is_fact(event):
            now, before = (event.incarnation, event.sequence), await self._before(event.source, event.topic)
            if before is not None and now <= before:
                return [Publication(self._subjects.offered(self._publisher, event.source, event.topic), raw, {})]
            self._latest[event.source, event.topic] = now
        entries = entries_of(self._subjects, Due(signed, raw), PublishTerms())
        return [one._replace(headers={k: v for k, v in one.headers.items() if k != MSG_ID}) for one in entries]

    async def _before(self, source: str, topic: str) -> tuple[int, int] | None:
        """The number of the last fact of a source on a topic that was taken."""
        if (source, topic) not in self._latest and self._begun_before:
            subject = self._subjects.event(source, topic, fact=True)
            found = await last_on(self._link, self._subjects.history, subject)
            if found is not None:
                event = decode(found.raw).event
                self._latest[source, topic] = (event.incarnation, event.sequence)
        return self._latest.get((source, topic))

    async def _publish(self, entries: list[Publication], store: str, upto: int) -> None:
        """Publish, and keep the place in the same batch (rules 2, 3); what is too much for one goes before it."""
        while (count := _batch_of(entries)) < len(entries):
            await self._stored(entries[:count])
            entries = entries[count:]
        places = {**self._places, store: upto}
        mark = Publication(self._place, canonical(places), {EXPECTED_LAST: str(self._at)})
        self._at = await self._stored([*entries, mark])
        self._places = places

    async def _stored(self, entries: Sequence[Publication]) -> int:
        try:
            return int((await self._link.publish(*entries))["seq"])
        except ApiError as error:
            if error.code in NOT_LAST_CODES:
                said = "another bridge fills these servers"
                raise FailedError("bridge.other", said, next="wait until it has ended") from error
            raise TransportError("nats.stream", f"NATS took nothing: {error}") from error

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob into the depot, unless it is there. Raises `FailedError`, `TransportError`."""
        await depot.put(depot.over(self._link), self._subjects, self._publisher, chunks, digest)


def _batch_of(entries: Sequence[Publication]) -> int:
    """How many of them go into one batch, in which there is still room for a place."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.payload)
        if count and (count >= BATCH - 1 or size > BATCH_BYTES):
            return count
    return len(entries)
