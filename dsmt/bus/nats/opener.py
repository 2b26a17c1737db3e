"""What of a stream may be believed: no server has judged it, so each reader does, from the stream alone.

Rule 1: the subject says who sent it; it must be the event's source and topic. What is re-offered names both, and a copy
    its addressee: one to whom the event is addressed.
Rule 2: signature, certificate, grant and record are asked as everywhere. The certificates stand in the stream, on a
    subject for each key of a source, and are asked for when they are first needed, and where those that are known hold not
    at the time of an event. A renewal is put beside what it renews (J1).
Rule 3: time is judged by when the stream stored it, which is the same for all readers: what was more than 10 s ahead of
    that nobody takes (J4).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import cbor2

from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import StreamMessage, held_on
from dsmt.bus.rules.authority import check_revocation
from dsmt.bus.wire.subjects import SubjectParts, Subjects
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.payload import canonical
from dsmt.event.registry import is_fact
from dsmt.trust.identity import Identity
from dsmt.trust.keys import verify
from dsmt.trust.opening import opened
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore

UNKNOWN: Final = frozenset({"trust.stranger", "trust.name", "trust.expired"})
ENDED: Final = "trust.revoked"
"""Why nobody believes what a key says that was revoked."""
STAYS: Final = frozenset({ENDED, "trust.expired", "clock_ahead"})
"""Why what is not believed stays, and counts: its source has said it, and it was believed, or may be yet."""
ASK_AGAIN_S: Final = 1.0
CERTIFICATES_MOST: Final = 64
"""How many stand on one subject: of more the oldest go."""
_REMEMBERED: Final = 4096


class NatsOpener:
    """Opens what a stream holds, by the realm's `subjects`. `now` is boot-time seconds."""

    def __init__(self, trust: TrustStore, subjects: Subjects, now: Callable[[], float]) -> None:
        self._trust, self.subjects, self._now = trust, subjects, now
        self._missed: dict[tuple[str, bytes], float] = {}

    @property
    def revocations(self) -> int:
        """How many revocations are known."""
        return self._trust.revocations

    async def open(self, link: NatsLink, stored: StreamMessage) -> SignedEvent:
        """The event of a message. Raises `UnusableEventError` that says why it is none, `TransportError`."""
        said = self.subjects.said(stored.subject)
        try:
            signed, match = opened(self._trust, stored.raw)
        except UnusableEventError as error:
            if error.code not in UNKNOWN or not await self.learn(link, said.author, decode_part(stored.raw).key_id):
                raise
            signed, match = opened(self._trust, stored.raw)
        event = signed.event
        _check_place(said, event, fact=match.row.takes_as_fact(event.version), subject=stored.subject)
        ahead_ms = max(event.time_ms, event.incarnation) - stored.stored_ms
        if ahead_ms > BOUND_MS:
            raise UnusableEventError("clock_ahead", f"{signed.id} was stored {ahead_ms / 1000:.1f} s before it was said")
        if event.topic.startswith(REVOKED):
            check_revocation(self._trust, signed)
            self._trust.revoke(signed)
        return signed

    def is_signed(self, stored: StreamMessage) -> bool:
        """Whether a known key of the source on whose subject a fact stands has signed it, whatever its words are worth."""
        try:
            read = decode_part(stored.raw)
            event = read.events[0].event
            _check_place(self.said(stored), event, fact=is_fact(event), subject=stored.subject)
        except (UnusableEventError, IndexError):
            return False
        own = self._trust.certificate(read.key_id, event.source)
        return own is not None and verify(read.algorithm, own.certificate.public, read.message, read.signature)

    def said(self, stored: StreamMessage) -> SubjectParts:
        """What a message's subject says. Raises `UnusableEventError`."""
        return self.subjects.said(stored.subject)

    async def learn(self, link: NatsLink, source: str, key_id: bytes) -> bool:
        """Ask for the certificates of a source's key; whether any came that were not known. Raises `TransportError`."""
        now, known = self._now(), self._trust.proof(key_id, source)
        if now - self._missed.get((source, key_id), -ASK_AGAIN_S) < ASK_AGAIN_S:
            return False
        filters = [self.subjects.certificates(source, key_id)]
        for stream in (self.subjects.facts, self.subjects.history):  # the first may be behind the second
            self._take(await held_on(link, stream, filters))
            if self._trust.proof(key_id, source) != known:
                return True
        if len(self._missed) >= _REMEMBERED:
            self._missed.clear()
        self._missed[source, key_id] = now
        return False

    def _take(self, found: list[StreamMessage]) -> None:
        for stored in found:
            with suppress(UnusableEventError, TypeError, ValueError):
                self._trust.add_all(_certificates(stored))

    def check_certificates(self, stored: StreamMessage) -> frozenset[bytes]:
        """The certificates that a message holds, of the key and source that its subject names, up to the root's.

        Raises `UnusableEventError`.
        """
        apart, key_id = TrustStore(self._trust.realm), stored.subject.rpartition(".")[2]
        found = _certificates(stored)
        apart.add_all(found)
        if not any(one.key_id.hex() == key_id and one.subject == self.said(stored).author for one in apart.certificates()):
            raise UnusableEventError("event.subject", f"no certificate of the key on {stored.subject} stands there")
        return frozenset(found)

    async def introduce(self, link: NatsLink, publisher: Identity) -> None:
        """Put a source's own certificates where readers look for them, unless they are there. Raises `TransportError`."""
        try:
            await self._put(link, publisher.name, publisher.name, publisher.key.key_id, [one.raw for one in publisher.chain])
        except ApiError as error:  # a disk is full, perhaps
            raise TransportError("nats.stream", f"the certificates of {publisher.name} were not stored: {error}") from error

    async def vouch(self, link: NatsLink, publisher: str, signed: SignedEvent) -> None:
        """Put the certificates of who signed a re-offered fact beside it."""
        proof = list(self._trust.proof(signed.key_id, signed.event.source))
        await self._put(link, publisher, signed.event.source, signed.key_id, proof)

    async def _put(self, link: NatsLink, publisher: str, source: str, key_id: bytes, raws: list[bytes]) -> None:
        subject, before = self.subjects.certificate(publisher, source, key_id), list[bytes]()
        for stored in await held_on(link, self.subjects.facts, [subject]):
            with suppress(UnusableEventError):  # whatever else stands there goes
                self.check_certificates(stored)
                before = _certificates(stored)
        if not set(raws).issubset(before):
            await link.publish(Publication(subject, _beside(raws, before), {}))

    @staticmethod
    def beside(stored: StreamMessage, before: bytes) -> bytes:
        """What is to stand on a subject of certificates: those of a message that was checked, then those of before."""
        return _beside(_certificates(stored), cbor2.loads(before) if before else [])


def _check_place(said: SubjectParts, event: Event, *, fact: bool, subject: str) -> None:
    """Raises `UnusableEventError` for an event that does not belong on a subject."""
    kinds, whose = "fon" if fact else "si", (event.source, event.topic)
    if said.kind not in kinds or whose != (said.author, said.topic) or (said.addressee and said.addressee not in event.to):
        raise UnusableEventError("event.subject", f"{event.source} on {event.topic} stands on the subject {subject}")


def _beside(newer: list[bytes], older: list[bytes]) -> bytes:
    return canonical(list(dict.fromkeys([*newer, *older]))[:CERTIFICATES_MOST])


def _certificates(stored: StreamMessage) -> list[bytes]:
    """What a message on a subject of certificates holds. Raises `UnusableEventError`."""
    try:
        found = cbor2.loads(stored.raw)
    except (cbor2.CBORDecodeError, TypeError, ValueError) as error:
        raise UnusableEventError("event.subject", f"no certificates stand on {stored.subject}") from error
    if not isinstance(found, list) or not all(isinstance(one, bytes) for one in found):  # a number would be taken for a size
        raise UnusableEventError("event.subject", f"no certificates stand on {stored.subject}")
    return found
