"""Bus: publish and subscribe with proof, as a port; every transport fulfils it and one conformance suite says so.

Contract (DESIGN.md 4):
1. At least once, de-duplicated, in order per source.
2. A gap is reported and closed as filled, declared, trimmed or lost; never hidden.
3. A subscription's retained facts and its live tail meet without a hole; `Complete` marks where.
4. An acknowledgement is a record of at least what was asked for.
5. No reader can block a publisher, no publisher another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from dsmt.event.envelope import EventId, SignedEvent


class Level(StrEnum):
    """What an acknowledgement promises (SEMANTICS D1)."""

    SPOOLED = "spooled"
    STORED = "stored"
    SAFE = "safe"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a store's history (SEMANTICS D3): store id, row, and the realm time there in ms."""

    store: str
    row: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement record: which level was reached, by how many brokers, and where it stands."""

    level: Level
    copies: int
    synced: bool
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be said, before it is numbered, chained and signed.

    `ttl_ms` None takes the topic's default from the registry. A shared fact names in `replaces` the fact it follows.
    `cause` holds event ids or earlier emissions of this very source.
    """

    topic: str
    data: Mapping[str, Any]
    subject: str = ""
    cause: tuple[EventId | Emission, ...] = ()
    ttl_ms: int | None = None
    to: tuple[str, ...] = ()
    replaces: SignedEvent | None = None
    version: int | None = None
    """For a shared fact with nothing to replace that is still known: defaults to 1 + that of `replaces`."""


class Emission(Protocol):
    """An event on its way: signed at once or, before the first attachment, as soon as the incarnation is confirmed."""

    @property
    def id(self) -> EventId | None:
        """Its id, once it is signed."""
        ...

    @property
    def signed(self) -> SignedEvent | None:
        """The event, once it is signed."""
        ...

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError` when the door said no."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event whose signature, certificate and chain this reader has checked."""

    signed: SignedEvent
    row: int
    live: bool
    """False for a retained fact or history, True for what was published after the subscription began."""


@dataclass(frozen=True, slots=True)
class Complete:
    """All retained facts (or all history asked for) up to `cursor` have been delivered.

    `whole` is the broker's word that its own view is complete (SEMANTICS A4); False from a broker that came up empty.
    """

    cursor: Cursor
    whole: bool


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything stored up to `cursor` that this subscription takes has been delivered."""

    cursor: Cursor
    whole: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a reader must know that is no event: a gap, its closing, a bad signature, a lost connection.

    `type` is one of INTERFACE 2's `dsmt.notice.` words.
    """

    type: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Delivery = Arrived | Complete | Bookmark | Notice


class Start(StrEnum):
    """Where a subscription begins."""

    FACTS = "facts"
    """Retained facts first, then live."""
    LIVE = "live"
    """Only what comes from now on."""
    HISTORY = "history"
    """From a cursor or a time in the history, then live."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What a subscription takes. A pattern that ends in `/` takes the subtree; `+` stands for one level.

    `inbox` adds events whose `to` names this source. `conflate` lets the broker skip facts that have been superseded
    (readers that fold need no more); without it every event is delivered and its chain is checked.
    `signals` False leaves out signals. `bookmarks` asks for a bookmark after each batch and each 250 ms.
    """

    patterns: tuple[str, ...]
    start: Start = Start.FACTS
    since: Cursor | int | None = None
    """With `HISTORY`: a cursor, or a realm time in ms."""
    inbox: bool = False
    conflate: bool = False
    signals: bool = True
    bookmarks: bool = False
    follow: bool = True
    """False ends the subscription at `Complete`."""


class Bus(Protocol):
    """One source's connection to the realm."""

    @property
    def source(self) -> str:
        """The name this connection publishes under, as in its certificate."""
        ...

    @property
    def attached(self) -> bool:
        """Whether a broker holds our attachment now."""
        ...

    @property
    def broker(self) -> str:
        """The name of the broker we are, or were last, attached to; empty before the first time."""
        ...

    def now_ms(self) -> int:
        """Realm time in ms (SEMANTICS J4): slewed, never back."""
        ...

    def emit(self, draft: Draft, *, level: Level | None = None) -> Emission:
        """Sign and send, without waiting. `level` None takes the topic's own (SEMANTICS D1).

        Raises `InputError` when the draft is not valid for its topic (schema, size over 64 KiB).
        """
        ...

    def flush(self) -> None:
        """Sign and send now what was emitted in this turn: a process that is stopped before says it late, with old times."""
        ...

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        ...

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody that this process holds and acts on (SEMANTICS R5)."""
        ...

    def subscribe(self, interest: Interest) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Delivery]]]:
        """Deliveries in batches, in store order, over reconnections, until the block is left."""
        ...

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id; those that are not there are missing from the answer."""
        ...

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot; nothing is sent when it is there already."""
        ...

    def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        ...

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source (SEMANTICS B2, F3)."""
        ...

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment (for R5's re-offers)."""
        ...
