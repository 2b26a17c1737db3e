"""Signed facts, made quickly: by a hash, at a time of choice."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from dsmt.event.codec import seal
from dsmt.event.envelope import ChainLink, Event, EventId, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.trust.keys import key_id_of

START_MS = 1_700_000_000_000
DAY_MS = 24 * 3_600_000


class HashSigner:
    """Signs with a hash: quick, worthless, and the same in every run."""

    algorithm = -65537
    public = b"p" * 32
    key_id = key_id_of(public)

    def sign(self, message: bytes) -> bytes:
        return sha256(message).digest()


def check(_algorithm: int, _public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether it is the hash that `HashSigner` makes."""
    return signature == sha256(message).digest()


def signed(
    source: str,
    topic: str,
    record: msgspec.Struct | dict[str, Any],
    *,
    sequence: int = 1,
    time_ms: int = START_MS,
    counter: int = 0,
    version: int | None = None,
    epoch: int = 1,
    incarnation: int = START_MS,
    cause: tuple[EventId, ...] = (),
    replaces: EventId | None = None,
    ttl: int | None = None,
    to: tuple[str, ...] = (),
) -> SignedEvent:
    """One signed event."""
    match = lookup(topic)
    event = Event(
        source=source,
        incarnation=incarnation,
        sequence=sequence,
        chain=ChainLink(sequence, bytes(32)),
        type=match.row.event_type if match is not None else "dsmt.user",
        topic=topic,
        subject=topic,
        time=hlc(time_ms, counter),
        data=record if isinstance(record, dict) else to_data(record),
        cause=cause,
        ttl=ttl,
        to=to,
        epoch=None if version is None else epoch,
        version=version,
        replaces=replaces,
    )
    return seal([event], HashSigner())[0]
