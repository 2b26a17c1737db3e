"""Store: what a broker keeps, as a port.

Contract:
1. Rows are numbered 1, 2, 3... in the order of `append`; a row never changes its event.
2. `append` is all or nothing for its batch, and what it returned survives a crash of the process.
3. The winner of a topic (SEMANTICS A1) is marked by the caller's decision and is never trimmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dsmt.event.envelope import SignedEvent


@dataclass(frozen=True, slots=True)
class Row:
    """One stored event: its row number, when it arrived (realm ms), and its signed bytes."""

    row: int
    arrived_ms: int
    topic: str
    to: tuple[str, ...]
    fact: bool
    key_id: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """One event to store. `winner` says that it becomes its topic's retained fact."""

    signed: SignedEvent
    arrived_ms: int
    budget: str
    """`evidence`, `signal` or `log`: the class of SEMANTICS B6 that pays for it."""
    fact: bool
    winner: bool
    expires_ms: int | None
    """Realm time after which a retained fact is dead, or None for a durable one."""


class Store(Protocol):
    """A broker's disk."""

    @property
    def identity(self) -> str:
        """The store id: made once with the store, part of every cursor (SEMANTICS D3)."""
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
    def trimmed(self) -> int:
        """The greatest row number that was trimmed; 0 when nothing ever was."""
        ...

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each. A tombstone that wins hides what it buries in the same commit.

        Raises `FailedError` with code `store.full` when the disk is full: nothing of the batch is stored.
        """
        ...

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None: this is the de-duplication key of SEMANTICS D2."""
        ...

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        ...

    def chain(self, source: str, incarnation: int, topic: str, *, after: int, before: int, limit: int) -> list[Row]:
        """What a source said on a topic between two of its sequence numbers, in order."""
        ...

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        ...

    def rows(self, after: int, limit: int, *, winners_only: bool = False, signals: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order: all, retained facts only, or those and the signals between."""
        ...

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time: a cursor to read from that time on."""
        ...

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        ...

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has (SEMANTICS A14)."""
        ...

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        ...

    def trim(self, now_ms: int, limit: int = 5000) -> bool:
        """Keep within the budgets of SEMANTICS B6, winners excepted; whether there is more to do at once.

        It looks at no more than `limit` rows for each class, so that nobody waits long for it.
        """
        ...

    def counts(self) -> dict[str, int]:
        """`events`, `facts`, `bytes`, `first_row`, `first_ms`."""
        ...

    def put_certificate(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate under the id of the key it names."""
        ...

    def certificates(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate: (key id, raw)."""
        ...

    def get_meta(self, key: str) -> bytes | None:
        """A small named value: the broker's incarnation, its attachment numbers."""
        ...

    def put_meta(self, key: str, value: bytes) -> None:
        """Keep a small named value, durably."""
        ...

    def put_chunk(self, digest: bytes, number: int, chunk: bytes) -> None:
        """Keep a chunk of a blob that is being put into the depot."""
        ...

    def get_chunk(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a complete blob; None beyond its end or when it is unknown."""
        ...

    def finish_blob(self, digest: bytes, chunks: int) -> bool:
        """Check the sha256 of all chunks; keep the blob when it is right, drop it when it is not."""
        ...

    def blob_size(self, digest: bytes) -> int | None:
        """Bytes of a complete blob, or None."""
        ...

    def close(self) -> None:
        """Commit and close."""
        ...
