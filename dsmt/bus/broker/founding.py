"""Founding: the store of a broker is written before the broker starts, of all that the realm holds elsewhere.

Rule 1: events are merged as what another broker brings (E1), in the order in which they were stored there, with the time at
    which they were. What this broker's name has said there stays its word, too: to all readers it is restarted (F1).
Rule 2: it begins with the broker's own `started` and its head over nothing, in an incarnation above all before: so a history
    that is exported from it is this store's, and older heads among its rows are of other rows (B9).
Rule 3: the place up to which all was taken is kept after what was taken. What comes again is known by its id, so each event
    stands there once, whenever its writer is killed.
Rule 4: what was stored at a time that has not come is not taken, nor what is behind it: the broker's realm time would begin
    there, and never goes back (J4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dsmt.bus.broker.config import DEPOT_BYTES
from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.ingest import Ingest
from dsmt.bus.broker.keyring import Keyring, Proofs
from dsmt.bus.broker.passed import ROUND_S, STEP
from dsmt.bus.broker.places import keep_place
from dsmt.bus.broker.recorder import next_incarnation
from dsmt.bus.broker.reporter import BrokerReporter, Condition, Self
from dsmt.bus.broker.words import Words
from dsmt.errors import RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import BOUND_MS, rfc3339
from dsmt.ports.bus import Cursor
from dsmt.ports.store import PastEvent, Row, Store
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore

_PLACE: Final = "founded"
_FIRST: Final = 2
"""So many rows are the broker's own, before anything was taken."""


class Founding:
    """Of the store of the broker of this identity. `trust` is this store's own; `now` is boot-time seconds."""

    def __init__(
        self,
        identity: Identity,
        trust: TrustStore,
        store: Store,
        version: str,
        *,
        now_ms: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self.identity, self._store, self._version, self._now = identity, store, version, now
        self._words = Words(identity, next_incarnation(store.meta, now_ms()), now_ms)
        self._keyring = Keyring(identity, trust, store)
        self._now_ms = now_ms
        self._at_ms = max((row.arrived_ms for row in store.rows(max(0, store.head - 1), 1)), default=0)
        self._ingest = Ingest(identity, trust, store, self._words, now_ms=lambda: self._at_ms, founds=True)
        self._depot = Depot(store.blobs, self._words, limit=DEPOT_BYTES, now_ms=now_ms, due=lambda: None)
        self._round_s = 0.0
        """Nobody is attached: who has signed goes onto the shelf as soon as a batch was taken in which it has not."""
        self._keyring.revoked(self.revocations)

    # --- events --------------------------------------------------------------------------------------------------

    @property
    def place(self) -> tuple[str, int]:
        """The stream of which all was taken up to a row, and that row; none, and 0, at the beginning."""
        kept = self._store.meta.get(_PLACE)
        stream, _, row = "  0".rpartition(" ") if kept is None else kept.decode().rpartition(" ")
        return stream.strip(), int(row)

    @property
    def revocations(self) -> list[Row]:
        """Those that were taken."""
        return self._store.facts(REVOKED, f"{REVOKED}~", 2**31)

    def begin(self, first_ms: int) -> None:
        """Say what stands before all that is taken, which begins at a time (rule 2); nothing where that was said."""
        if self._store.head:
            return
        self._at_ms = first_ms
        about = Self(self.identity.name, None, self._version)
        reporter = BrokerReporter(about, self._store, self._words, self._now(), whole=lambda: False)
        reporter.started()
        reporter.stats(Condition(0.0, 0, 0, "", 0.0, 0.0))
        self._ingest.commit()

    @property
    def begun(self) -> list[PastEvent]:
        """What it said at its beginning: what another store of the realm must hold, too."""
        return [PastEvent(row.arrived_ms, row.read()) for row in self._store.rows(0, _FIRST)]

    def proof(self, _: SignedEvent) -> tuple[bytes, ...]:
        """Its certificates, issuers last."""
        return tuple(signed.raw for signed in self.identity.chain)

    def take(self, taken: Sequence[PastEvent], proofs: Proofs) -> None:
        """Take in events, in one commit. Raises `RefusedError` (rule 4)."""
        latest_ms = max((stored_ms for stored_ms, _ in taken), default=0)
        if latest_ms > self._now_ms() + BOUND_MS:
            said = f"events were stored at {rfc3339(latest_ms)}, which has not come: a server's clock was ahead"
            raise RefusedError("bridge.time", said, next="dsmt bus migrate --abort, and begin again after that")
        self._keyring.brought([one.signed for one in taken], proofs)
        for stored_ms, signed in taken:
            self._at_ms = max(self._at_ms, stored_ms)
            self._ingest.brought("", signed)
        self._ingest.commit()
        for _ in range(2 + 2 * len(taken) // STEP):
            self._round_s += ROUND_S
            self._keyring.let_go(frozenset, self._round_s)

    def reached(self, stream: str, row: int) -> None:
        """All of a stream was taken up to a row (rule 3)."""
        if self.place != (stream, row):
            self._store.meta.put(_PLACE, f"{stream} {row}".encode())

    # --- blobs ---------------------------------------------------------------------------------------------------

    def wants(self, digest: bytes) -> bool:
        """Whether a blob is not here, and may be put; what was put of it before is put again."""
        return self._depot.begin(digest)

    def put(self, digest: bytes, number: int, chunk: bytes) -> None:
        """Keep a chunk of it. Raises `FailedError` where there is no room."""
        self._depot.take(digest, number, chunk, self.identity.name)

    def ended(self, digest: bytes, chunks: int | None) -> None:
        """All chunks of it were put, and it has its sha256; None: it is not to be had, and what was put goes."""
        if chunks is not None:
            self._depot.taken(digest, chunks)
        self._depot.ended(digest)
        while self._depot.step():
            pass

    # --- the end -------------------------------------------------------------------------------------------------

    @property
    def end(self) -> Cursor:
        """Where it ends."""
        return Cursor(self._store.identity, self._store.head, self._at_ms)

    def complete(self, others: Iterable[tuple[bytes, Cursor]]) -> None:
        """All was taken; so it was into the stores of others, by key, up to their ends: the broker reads on from there."""
        mark = self._store.high_mark(self.identity.name)
        if mark is not None:
            next_incarnation(self._store.meta, mark[0])
        for public, end in others:
            keep_place(self._store.meta, public, end, end.time_ms)
