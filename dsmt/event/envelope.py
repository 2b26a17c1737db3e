"""The envelope: what every event says of itself, with CloudEvents 1.0 names.

Rule 1: an invalid event is neither signed nor read: `payload` checks each on both ways.
Rule 2: a fact is owned or shared by its topic (`registry`); a shared one carries `epoch`, `version` and, but for the first
    of an epoch, `replaces`.
Rule 3: a thing is what the first two levels of a topic name (`service/web`). Its shared facts carry its epoch: what is
    made anew after a removal has the next one.
Rule 4: a tombstone is a shared fact on `tombstone/<thing>`, whose own epoch is the one that it ends (rule A6).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from dsmt.errors import InputError
from dsmt.event.burst import Carried, Sealed
from dsmt.event.hlc import COUNTER_BITS

MAX_EVENT_BYTES: Final = 64 * 1024
"""The limit of a signed event, in bytes."""

NO_LEAF: Final = bytes(32)
"""What the first event of a chain links to."""

TOMBSTONE: Final = "tombstone/"
"""How the topic of a tombstone begins."""
FIRST_EPOCH: Final = 1

_ID: Final = re.compile(r"([a-z0-9._-]+(?:/[a-z0-9._-]+)*)#([1-9][0-9]{0,18})-([1-9][0-9]{0,18})")


class EventId(NamedTuple):
    """An event's name for ever: its source, that source's incarnation, and its number in it."""

    source: str
    incarnation: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.source}#{self.incarnation}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read `source#incarnation-sequence`. Raises `InputError`."""
        found = _ID.fullmatch(text)
        if found is None:
            raise InputError("event.id", f"{text!r} is not an event id", next="it looks like controller/c1#1700000000000-42")
        return cls(found[1], int(found[2]), int(found[3]))


class EventRange(NamedTuple):
    """Events of a source that follow each other in one incarnation, both ends included."""

    source: str
    incarnation: int
    first: int
    last: int

    def holds(self, identity: EventId) -> bool:
        """Whether an event is one of them."""
        source, incarnation, sequence = identity
        return self.first <= sequence <= self.last and incarnation == self.incarnation and source == self.source


class ChainLink(NamedTuple):
    """The chain: this event's number on its topic in this incarnation, and the leaf hash of the one before (B1)."""

    number: int
    previous: bytes


def thing_of(topic: str) -> str:
    """The thing that a topic is about: its first two levels."""
    return "/".join(topic.split("/", 2)[:2])


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One statement of one source. `time` is a hybrid logical clock value, `ttl` milliseconds after its time.

    `subject` is what it is about, `cause` what it reacts to, `to` who is to have it besides the topic's readers.
    `declares` is the range of its topic's chain that its source had to drop just before (rule D2).

    Like all that holds events by the thousand and nothing that could hold it in turn, it is no business of the cyclic
    garbage collector (`gc=False`), which would look at each of them time and again.
    """

    source: str
    incarnation: int
    sequence: int
    chain: ChainLink
    type: str
    topic: str
    subject: str
    time: int
    data: dict[str, Any]
    cause: tuple[EventId, ...] = ()
    ttl: int | None = None
    to: tuple[str, ...] = ()
    epoch: int | None = None
    version: int | None = None
    replaces: EventId | None = None
    declares: tuple[int, int] | None = None

    @property
    def id(self) -> EventId:
        """The event's name for ever."""
        return EventId(self.source, self.incarnation, self.sequence)

    @property
    def time_ms(self) -> int:
        """The milliseconds of its time."""
        return self.time >> COUNTER_BITS

    @property
    def expires_ms(self) -> int | None:
        """Realm time in ms at which it is dead, or None when it is durable."""
        return None if self.ttl is None else self.time_ms + self.ttl

    def is_dead(self, now_ms: int) -> bool:
        """Whether its time to live is over at a realm time in ms."""
        return self.expires_ms is not None and self.expires_ms <= now_ms

    @property
    def ends(self) -> str:
        """The thing whose epoch a tombstone ends (`service/web`); empty for any other event."""
        return self.topic[len(TOMBSTONE) :] if self.topic.startswith(TOMBSTONE) else ""


class SignedEvent(Carried, msgspec.Struct, frozen=True, eq=False, gc=False):
    """An event with the very bytes that were signed; `leaf` is its hash (B8), `key_id` names the signing key."""

    event: Event
    sealed: Sealed
    leaf: bytes
    key_id: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedEvent) and self.leaf == other.leaf and self.raw == other.raw

    def __hash__(self) -> int:
        return int.from_bytes(self.leaf[:8], "big")

    @property
    def id(self) -> EventId:
        """The event's name for ever."""
        return self.event.id
