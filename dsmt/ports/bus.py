"""Bus: publish and subscribe with proof, as a port; every transport fulfils it and one conformance suite says so.

Contract:
1. At least once, de-duplicated, in order per source.
2. A gap is reported and closed as filled, declared, trimmed or lost; never hidden.
3. A subscription's retained facts and its live tail meet without a hole; `Complete` marks where.
   What was acknowledged before it was asked for is in it, and in what `fetch` finds.
4. An acknowledgement is a record of at least what was asked for; what a bus cannot give it refuses when it is asked.
5. No reader can block a publisher, no publisher another.
6. What a bus cannot do stands in its `Capabilities`; asked for it all the same, it says so: `bus.unable`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from dsmt.errors import RefusedError
from dsmt.event.envelope import EventId, SignedEvent


class Level(StrEnum):
    """What an acknowledgement promises, the least first (rule D1)."""

    HELD = "held"
    """In memory, of which nothing is left when its process ends."""
    STORED = "stored"
    """By one broker, so that the death of its process loses nothing."""
    SAFE = "safe"
    """By several brokers, so that the loss of one loses nothing."""


_LEVELS: Final = tuple(Level)


class Ability(StrEnum):
    """What one bus can do and another cannot; the words complete "cannot ..."."""

    HISTORY = "read the history"
    """Subscriptions that start in the history, from a cursor or a time."""
    MARKS = "echo marks"
    """Bookmarks, and the tokens that they carry: what a controller needs to know how old its view is (rule A4)."""
    FETCH = "fetch events by id"
    BLOBS = "keep blobs"
    COPY = "be copied"
    """`Interest.copies`: subscriptions by which another broker keeps a copy of everything (rule E1)."""
    EXPORT = "prove its history"
    """`history` and `head`: what an export can be verified by (rule J3)."""
    PRESENCE = "tell who is attached"
    """The sessions of all sources, as facts: without them nobody finds a node dead (rule F3)."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a bus declares: the highest level of acknowledgement it gives, and what it can do beside the contract."""

    level: Level
    abilities: frozenset[Ability]

    def check_level(self, asked: Level | None) -> None:
        """Raises `RefusedError` for an acknowledgement that is never given; None asks for what there is."""
        if asked is not None and _LEVELS.index(asked) > _LEVELS.index(self.level):
            said = f"this bus acknowledges {self.level.value} at most, and {asked.value} was asked for"
            raise RefusedError("bus.level", said, next=f"ask for {self.level.value}")

    def check(self, ability: Ability) -> None:
        """Raises `RefusedError` for what the bus cannot do."""
        if ability not in self.abilities:
            raise RefusedError("bus.unable", f"this bus cannot {ability.value}", next="use a realm that has a broker")

    def check_interest(self, interest: Interest) -> None:
        """Raises `RefusedError` for a subscription that asks for what the bus cannot do."""
        if interest.start is Start.HISTORY:
            self.check(Ability.HISTORY)
        if interest.bookmarks:
            self.check(Ability.MARKS)
        if interest.copies is not None:
            self.check(Ability.COPY)


class Cursor(msgspec.Struct, frozen=True):
    """A place in a store's history (rule D3): store id, row, and the realm time there in ms."""

    store: str
    row: int
    time_ms: int


class Ack(msgspec.Struct, frozen=True):
    """An acknowledgement record: which level was reached, by how many brokers, and where it stands."""

    level: Level
    copies: int
    synced: bool
    cursor: Cursor


TOLERATED_MS: Final = 50
"""By how much the times of what is said before realm time is known may be wrong: no two clocks agree better."""


class Draft(msgspec.Struct, frozen=True):
    """What is to be said, before it is numbered, chained and signed.

    `ttl_ms` None takes the topic's default from the registry. A shared fact names in `replaces` the fact that it follows,
    and is refused as `stale` when another one is held. `cause` and `replaces` may hold earlier emissions of this source.
    """

    topic: str
    data: Mapping[str, Any]
    subject: str = ""
    cause: tuple[EventId | Emission, ...] = ()
    ttl_ms: int | None = None
    to: tuple[str, ...] = ()
    replaces: SignedEvent | Emission | None = None
    version: int | None = None
    """For a shared fact: 1 + that of `replaces` unless it is given; 1 with nothing to replace."""
    epoch: int | None = None
    """For a shared fact: that of `replaces` unless it is given; the first with nothing to replace."""
    own_times: tuple[str, ...] = ()
    """The times in `data` that are its source's own `now_ms` (`since_ms`, `last_exit.at_ms`): they are put right with what
    was said before realm time was known (J4)."""


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
        """Wait for the acknowledgement.

        Raises `RefusedError` when the broker said no (`stale`: another fact was first), `FailedError` (`unanswered`) for a
        shared fact of which nobody knows whether it was stored: it is not said again; look, and decide anew (A3).
        """
        ...


class Arrived(msgspec.Struct, frozen=True):
    """An event whose signature, certificate and chain this reader has checked."""

    signed: SignedEvent
    row: int
    live: bool
    """False for a retained fact or history, True for what was published after the subscription began."""


class Complete(msgspec.Struct, frozen=True):
    """All retained facts (or all history asked for) up to `cursor` have been delivered.

    `whole` is the broker's word that its own view is complete (rule A4); False from a broker that came up empty.
    """

    cursor: Cursor
    whole: bool


class Bookmark(msgspec.Struct, frozen=True):
    """Everything stored up to `cursor` that this subscription takes has been delivered.

    `token`: the newest that its reader had sent with `mark` when the broker said this; None when that was told before.
    """

    cursor: Cursor
    whole: bool
    token: int | None = None


class Reattached(msgspec.Struct, frozen=True):
    """The connection was lost, and a broker holds it again; what follows comes from this store.

    A subscription goes on where it stood; a reader that folds and is now at another store begins anew.
    """

    broker: str
    store: str


class Notice(msgspec.Struct, frozen=True):
    """Something a reader must know that is no event: a gap, its closing, a bad signature.

    `type` is a `dsmt.notice.` word.
    """

    type: str
    message: str
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)


Delivery = Arrived | Complete | Bookmark | Reattached | Notice


class Start(StrEnum):
    """Where a subscription begins."""

    FACTS = "facts"
    """Retained facts first, then live."""
    LIVE = "live"
    """Only what comes from now on."""
    HISTORY = "history"
    """From a cursor or a time in the history, then live."""


class Interest(msgspec.Struct, frozen=True):
    """What a subscription takes, by at most `PATTERNS_MOST` patterns. `x/` takes the subtree; `+` stands for one level.

    `inbox` adds events whose `to` names this source. `conflate` lets the broker skip facts that have been superseded
    (readers that fold need no more); without it every event is delivered and its chain is checked.
    `signals` False leaves out signals. `bookmarks` asks for one after each batch, and, who gives no tokens, each 250 ms.
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
    copies: tuple[str, ...] | None = None
    """Not None: for a broker that keeps a copy. It follows no chains, and what is live is left out where it came from one of
    these brokers, of whom it is had directly (rule E1)."""


class Subscription(Protocol):
    """What a subscription delivers, in batches."""

    def __aiter__(self) -> AsyncIterator[Sequence[Delivery]]:
        """Iterate over the batches."""
        ...

    async def __anext__(self) -> Sequence[Delivery]:
        """The next batch."""
        ...

    def mark(self, token: int) -> None:
        """Have a bookmark carry this token, in the order of the stream, when all that the broker has now was delivered.

        Tokens grow; without a broker it is asked at the next attachment. Only an echo tells how old a view is: what
        waited in a buffer while a process was stopped looks as fresh as what was just sent (rule A4).
        """
        ...

    def stored(self, row: int) -> None:
        """Who keeps a copy says that it holds everything up to this row: then there are two of it (rule D1)."""
        ...


class HistoryPage(msgspec.Struct, frozen=True):
    """A part of a broker's store as it stands, for an export: every row behind one is in exactly one of the three.

    `rows` are (row, arrived ms, signed bytes), `nodes` (first row, level, hash) stand over what was trimmed, `lost` are
    ranges that are gone without a word. None of them: there is no more.
    """

    store: str
    rows: tuple[tuple[int, int, bytes], ...]
    nodes: tuple[tuple[int, int, bytes], ...]
    lost: tuple[tuple[int, int], ...]


class BusReader(Protocol):
    """A connection to the realm that says nothing: all that who only looks is given (rule D2)."""

    @property
    def can(self) -> Capabilities:
        """What this bus can do."""
        ...

    async def run(self) -> None:
        """Attach, and attach again, until cancelled. Raises `FailedError` where this process cannot go on, and is to end."""
        ...

    @property
    def source(self) -> str:
        """The name this connection publishes under, as in its certificate."""
        ...

    @property
    def attached(self) -> bool:
        """Whether a broker holds our attachment now."""
        ...

    async def wait_attached(self) -> None:
        """Wait until a broker holds our attachment."""
        ...

    @property
    def attachment(self) -> int:
        """The number of the last attachment, greater than any before of this source (rule A11); 0 before the first."""
        ...

    @property
    def refusal(self) -> RefusedError | None:
        """Why the last attachment was refused, until one succeeds."""
        ...

    @property
    def broker(self) -> str:
        """The name of the broker we are, or were last, attached to; empty before the first time."""
        ...

    def now_ms(self) -> int:
        """Realm time in ms (rule J4): slewed, never back."""
        ...

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        """The certificates of who signed a fact, up to the root's: who keeps the fact keeps them with it (rule R5)."""
        ...

    def introduce(self, certificates: Sequence[bytes]) -> None:
        """Take in certificates that were kept with a fact; what cannot be used is left out."""
        ...

    def subscribe(self, interest: Interest) -> AbstractAsyncContextManager[Subscription]:
        """Deliveries in batches, over reconnections, until the block is left.

        Retained facts come in any order, all else in store order.

        Raises `InputError` for a pattern that is none, `RefusedError` for one that the source's certificate does not grant,
        or for what the bus cannot do.
        """
        ...

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id; those that are not there, or that nobody believes, are missing from the answer."""
        ...

    async def history(self, after: int) -> HistoryPage:
        """What of the broker's store stands behind a row."""
        ...

    async def head(self) -> SignedEvent:
        """The broker's stats with the head of its store (rule J3), signed now."""
        ...

    def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        ...

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment (for R5's re-offers)."""
        ...


class Bus(BusReader, Protocol):
    """One source's connection to the realm. `run` keeps it attached; everything else may be called at any time."""

    on_time_known: list[Callable[[int], None]]
    """Called once with how many ms later than was guessed realm time is, if that is more than `TOLERATED_MS` (J4)."""

    def emit(self, draft: Draft, *, level: Level | None = None) -> Emission:
        """Sign and send, without waiting. `level` None takes what the bus gives (rule D1).

        Raises `InputError` when the draft is not valid for its topic (schema, size over 64 KiB), `RefusedError` for a
        level that is never given.
        """
        ...

    def flush(self) -> None:
        """Sign and send now what was emitted in this turn: a process that is stopped before says it late, with old times."""
        ...

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        ...

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody that this process holds and acts on (rule R5)."""
        ...

    @property
    def early_s(self) -> float:
        """How far a re-offered event is ahead of the broker's realm time, so that the broker refuses it; 0 when none is.

        It is offered again by itself when it is in time.
        """
        ...

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot; nothing is sent when it is there already."""
        ...

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source (rule B2, F3)."""
        ...
