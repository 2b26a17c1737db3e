"""Store: what a broker keeps, as a port.

Contract:
1. Rows are numbered 1, 2, 3... in the order of `append`; a row never changes its event.
2. `append` is all or nothing for its batch, and what it returned survives a crash of the process.
3. The winner of a topic (rule A1) is marked by the caller's decision and is never trimmed; neither is its winner as of
   the horizon of trimming (rule H3), nor a spec that the fact of a slot names (rule A12).
4. What is not what was written is given to nobody: `FailedError` with code `store.damaged` (rule B11).
5. Each row stands under the head (`event.rowtree`), also after it was trimmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from dsmt.errors import FailedError
from dsmt.event.burst import Carried, Sealed
from dsmt.event.codec import read
from dsmt.event.envelope import EventRange, SignedEvent
from dsmt.event.kinds.row import Budget
from dsmt.event.rowtree import Node
from dsmt.ports.blobs import Blobs

ROW_BYTES: Final = 300
"""What a row costs in the store beside its event's bytes: columns and indexes."""


class StoreFullError(FailedError):
    """`store.full`: the disk of a store is full, or cannot be written; it takes more when there is room again."""


class Row(Carried, msgspec.Struct, frozen=True, gc=False):
    """One stored event: its row number, when it arrived (realm ms), and what was signed."""

    row: int
    arrived_ms: int
    topic: str
    to: tuple[str, ...]
    fact: bool
    key_id: bytes
    sealed: Sealed
    brought: str = ""
    """Of a row that has just been stored: the broker that brought it; empty when it came over a session."""

    def read(self) -> SignedEvent:
        """The event."""
        return read(self.sealed)


class Append(msgspec.Struct, frozen=True):
    """One event to store. `winner` says that it becomes its topic's retained fact."""

    signed: SignedEvent
    arrived_ms: int
    budget: Budget
    """`evidence`, `signal` or `log`: the class of rule B6 that pays for it."""
    fact: bool
    winner: bool
    expires_ms: int | None
    """Realm time after which a retained fact is dead, or None for a durable one."""
    payer: str = ""
    """The ancestor to whose account it goes (rule D2)."""
    brought: str = ""
    """The broker that brought it; empty when it came over a session. It is not kept."""


class Shelved(msgspec.Struct, frozen=True):
    """A certificate that only stored events need: of a key under a name, by an issuer's key, on a payer's account."""

    raw: bytes
    key_id: bytes
    name: str
    issuer_key_id: bytes
    payer: str


class Lost(msgspec.Struct, frozen=True):
    """Rows that are gone, both included, and that were not trimmed: the store was damaged."""

    first: int
    last: int


class Trim(msgspec.Struct, frozen=True):
    """Rows that went, as a `RowSet` that lies between two rows; to be said by a signed record (rule B6).

    They are of one class, or of all, which `evidence` stands for.
    """

    number: int
    budget: Budget
    first: int
    last: int
    rows: bytes


class PastEvent(NamedTuple):
    """An event that another store holds, and when it was stored there (realm ms)."""

    stored_ms: int
    signed: SignedEvent


class Log(Protocol):
    """The events, row by row."""

    @property
    def identity(self) -> str:
        """The store id: made once with the store, part of every cursor (rule D3)."""
        ...

    @property
    def synced(self) -> bool:
        """Whether an append is on the disk, not only in the operating system's cache, when it returns."""
        ...

    @property
    def head(self) -> int:
        """The greatest row number; 0 in an empty store."""
        ...

    @property
    def head_hash(self) -> bytes:
        """The head of the tree over all rows, the trimmed ones among them (rule J3)."""
        ...

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each. A tombstone that wins hides what it buries in the same commit.

        Raises `StoreFullError` when the disk is full: nothing of the batch is stored.
        """
        ...

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None: this is the de-duplication key of rule D2."""
        ...

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        ...

    def chain(self, source: str, incarnation: int, topic: str, *, after: int, before: int, limit: int) -> list[Row]:
        """What a source said on a topic between two of its sequence numbers, in order."""
        ...

    def rows(self, after: int, limit: int, *, winners_only: bool = False, signals: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order: all, retained facts only, or those and the signals between."""
        ...

    def among(
        self, ranges: Sequence[tuple[str, str]], after: int, last: int, limit: int, *, winners_only: bool = False
    ) -> list[Row]:
        """Up to `limit` rows behind a row number up to another, in order, in ranges of topics or addressed to anybody.

        With `winners_only` no superseded fact is. What a row costs that is not among them is a fraction of what one costs
        that is read.
        """
        ...

    def signals(self, topics: Sequence[str], after: int, limit: int) -> list[Row]:
        """Up to `limit` signals that are evidence, on some topics, after a row number, in order: none but these are read."""
        ...

    def facts(self, low: str, high: str, limit: int) -> list[Row]:
        """Up to `limit` retained facts on topics from one to another, the second not included, in the order of topics."""
        ...

    def mail(self, name: str, after: int, limit: int) -> list[Row]:
        """Up to `limit` retained facts that are addressed to a name, after a row number, in order."""
        ...

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time: a cursor to read from that time on."""
        ...

    @property
    def trimmed(self) -> int:
        """The greatest row number that was trimmed; 0 when nothing ever was."""
        ...

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        ...

    def lacking(self, wanted: EventRange) -> list[tuple[int, int]]:
        """Which sequence numbers of a range are not stored, as ranges; both ends are included."""
        ...

    def check(self, limit: int) -> None:
        """Look at the next rows, whether they are what was written. Raises `FailedError` (`store.damaged`)."""
        ...

    def counts(self) -> dict[str, int]:
        """`events`, `facts`, `bytes`, `first_row`, `first_ms`."""
        ...


class Elections(Protocol):
    """Which stored fact stands on a topic where nobody believes any more what stands there (rule J3)."""

    def standing(self, role: str, signed_by: Callable[[bytes], bool]) -> list[Row]:
        """The shared facts that stand of all sources of a role, signed by keys of which something is so."""
        ...

    def signers(self, role: str) -> list[bytes]:
        """The keys that have signed the shared facts that stand of all sources of a role: each of these is looked at."""
        ...

    def beaten(self, topics: frozenset[str]) -> list[Row]:
        """The shared facts on some topics, and below them, that are stored and do not stand."""
        ...

    def elect(self, rows: Sequence[Row]) -> None:
        """Let each of these stand on its topic, in one commit. Raises `FailedError`."""
        ...


class Facts(Protocol):
    """The retained facts, and on whose account they are."""

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        ...

    @property
    def elections(self) -> Elections:
        """Which other facts could be retained."""
        ...

    def live(self, payer: str | None = None) -> tuple[int, int]:
        """How many retained facts, and bytes of them, are on a payer's account (rule D2); None: on everybody's."""
        ...

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has (rule D2)."""
        ...

    @property
    def limit_bytes(self) -> int:
        """How large the history and the retained facts may be together."""
        ...

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        ...


class History(Protocol):
    """What is left of the log where it was trimmed, so that it can still be proven."""

    def trim(self, now_ms: int, limit: int = 5000) -> bool:
        """Keep within the budgets (rule B6), winners excepted, by a look at `limit` rows of each; whether more is due."""
        ...

    def untold(self) -> list[Trim]:
        """What was trimmed and no record says yet; it is kept until `told`."""
        ...

    def told(self, number: int, row: int) -> None:
        """A trim record that says it stands in this row."""
        ...

    def trimmed_elsewhere(self, budget: Budget, first: int, last: int) -> None:
        """Note that between two rows things of a class are missing that another had trimmed. Raises `StoreFullError`."""
        ...

    def trimmed_between(self, budget: Budget, first: int, last: int) -> int:
        """How many rows of a class were trimmed between two rows, both included; `trimmed_elsewhere` counts as one."""
        ...

    def history(self, after: int, limit: int) -> list[Row | Node | Lost]:
        """What stands behind a row, about `limit` pieces in order and without a hole.

        Its first may be a node that begins before: what was trimmed meanwhile has met what had been.
        """
        ...


class Events(Log, Facts, Protocol):
    """The events, and which of them are retained: all that a broker asks when it takes one in."""


class Kept(Log, History, Protocol):
    """The events, and what is left where they were trimmed: all that it asks when it hands on and reports."""


class Certificates(Protocol):
    """Who signed what is stored: the certificates that a broker keeps, and the shelf of those that only events need."""

    def put(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate beside the others of the key it names."""
        ...

    def drop(self, raw: bytes) -> None:
        """Keep a certificate no more."""
        ...

    def all(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate that is not on the shelf: (key id, raw)."""
        ...

    def has_signed(self, key_id: bytes, source: str) -> bool:
        """Whether an event of a source is stored that this key signed."""
        ...

    def shelve(self, certificates: Sequence[Shelved]) -> None:
        """Put certificates on the shelf, in one commit; each goes in the commit in which its key's last event goes."""
        ...

    def shelved(self, key_id: bytes) -> list[bytes]:
        """The certificates of a key that are on the shelf."""
        ...

    def upholds(self, key_id: bytes) -> bool:
        """Whether a key has signed a certificate that is on the shelf."""
        ...

    def shelf_bytes(self, payer: str | None = None) -> int:
        """What the certificates on the shelf cost on a payer's account; None: on everybody's."""
        ...


class Meta(Protocol):
    """Small named values."""

    def get(self, key: str) -> bytes | None:
        """A small named value: the broker's incarnation, its attachment numbers."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Keep a small named value, durably."""
        ...


class Remains(Protocol):
    """What is sound in a store that was damaged and set aside; nothing in it is trusted (rule B11)."""

    @property
    def said(self) -> str:
        """What became of it, in a sentence."""
        ...

    def certificates(self) -> list[bytes]:
        """The certificates that can be read."""
        ...

    def parts(self) -> Iterator[list[bytes]]:
        """The events that are what was written, some at a time or none, as parts of a message."""
        ...

    def chunks(self) -> Iterator[tuple[bytes, str, int, bytes]]:
        """The chunks of blobs that were whole: digest, payer, number, chunk; those of each in their order."""
        ...

    def taken(self) -> None:
        """All that is sound was taken over."""
        ...


class Store(Events, Kept, Protocol):
    """A broker's disk: the log with its retained facts and its trimming, and what is kept beside it."""

    @property
    def certificates(self) -> Certificates:
        """The certificates that are kept."""
        ...

    @property
    def blobs(self) -> Blobs:
        """The depot."""
        ...

    @property
    def meta(self) -> Meta:
        """Small named values: the broker's incarnation, its time."""
        ...

    def close(self) -> None:
        """Commit and close."""
        ...
