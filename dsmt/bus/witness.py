"""The witness: what a broker says itself, of its sessions, of its store and of its own life.

Rule 1: session facts follow `presence`; a heartbeat goes out each second, the stats with the signed head each 30 s (J3).
Rule 2: the head is a chain over all rows: SHA-256(head before || raw event), kept with the row that it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from dsmt.bus.delivery import Session
from dsmt.bus.ingest import Ingest
from dsmt.bus.presence import How, Presence
from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.records import BrokerStats, Heartbeat, Started, from_data
from dsmt.event.records import Session as SessionFact
from dsmt.ports.store import Row, Store

STATS_S: Final = 30.0
HEARTBEAT_S: Final = 1.0
PASSED_TTL_MS: Final = 600_000
"""How long the session of a command line is remembered after its end; each is a source of its own."""


@dataclass(frozen=True, slots=True)
class Self:
    """What a broker says of its process."""

    name: str
    pid: int | None
    version: str


class Witness:
    """A broker's own statements. `now` is boot-time seconds, `now_ms` realm ms."""

    def __init__(self, about: Self, store: Store, ingest: Ingest, now: float) -> None:
        self._about, self._store, self._ingest = about, store, ingest
        self.presence = Presence(now)
        self._stats_at = self._beat_at = now
        self._head_row, self._head_hash = _restored_head(store)

    # --- the beginning -------------------------------------------------------------------------------------------

    def restore(self, row: Row, now: float, now_ms: int) -> None:
        """Take in a retained fact of this broker's past, if it is one of a session."""
        prefix = f"{self._about.name}/session/"
        if not row.topic.startswith(prefix):
            return
        source = row.topic.removeprefix(prefix)
        try:
            record = from_data(SessionFact, decode(row.raw)[0].event.data)
        except UnusableEventError:
            return  # damaged, or of another version: the next attachment says it anew
        again = self.presence.restore(source, record, now, now_ms)
        if again is not None:
            self._say(source, again)

    def started(self) -> None:
        """Say that this incarnation has begun."""
        mark = self._store.high_mark(self._about.name)
        self._ingest.own(
            f"source/{self._about.name}",
            Started(
                previous_incarnation=None if mark is None else mark[0],
                previous_sequence=None if mark is None else mark[1],
                version=self._about.version,
            ),
        )

    # --- sessions ------------------------------------------------------------------------------------------------

    def opened(self, session: Session, now: float, now_ms: int) -> None:
        """A session has attached."""
        opened = self.presence.opened(
            session.name,
            attachment=session.attachment,
            issued=0 if session.certificate is None else session.certificate.issued,
            incarnation=session.incarnation,
            claimed=session.claimed,
            pid=session.pid,
            version=session.version,
            address=session.address,
            now=now,
            now_ms=now_ms,
        )
        self._say(session.name, opened)

    def heard(self, session: Session, now: float, now_ms: int) -> bool:
        """A session has said something; whether it had been silent."""
        record = self.presence.heard(session.name, now, now_ms)
        if record is not None:
            self._say(session.name, record)
        return record is not None

    def closed(self, session: Session, how: How, now: float, now_ms: int) -> None:
        """A session's connection has ended."""
        record = self.presence.closed(session.name, session.attachment, how, now, now_ms)
        if record is not None:
            self._say(session.name, record)

    def _say(self, source: str, record: SessionFact) -> None:
        passed = record.state == "closed" and source.startswith("operator/")
        ttl_ms = PASSED_TTL_MS if passed else None
        self._ingest.own(f"{self._about.name}/session/{source}", record, subject=source, ttl_ms=ttl_ms)

    # --- time passes ---------------------------------------------------------------------------------------------

    def stored(self, rows: Sequence[Row]) -> None:
        """Note what was stored."""
        for row in rows:
            self._head_hash = sha256(self._head_hash + row.raw).digest()
        if rows:
            self._head_row = rows[-1].row

    def tick(self, now: float, now_ms: int, *, expected: float, lag: float, sessions: int, address: str) -> bool:
        """Say what is due, `expected` seconds after the last time; whether a heartbeat was."""
        for source, record in self.presence.tick(now, now_ms, expected):
            self._say(source, record)
        if now >= self._stats_at:
            self._stats_at = now + STATS_S
            self.stats(lag=lag, sessions=sessions, address=address)
        beats = now >= self._beat_at
        if beats:
            self._beat_at = now + HEARTBEAT_S
            chain = self._ingest.chain
            self._ingest.own(
                f"{self._about.name}/heartbeat",
                Heartbeat(sequence=chain.sequence, digest=chain.digest, lag_s=round(lag, 4), emit_rate_s=HEARTBEAT_S),
            )
        return beats

    def stats(self, *, lag: float, sessions: int, address: str) -> None:
        """Say how the broker is, with the head of its store."""
        counts = self._store.counts()
        if self._ingest.full is None:
            self._store.put_meta("head", f"{self._head_row} {self._head_hash.hex()}".encode())
        self._ingest.own(
            f"{self._about.name}/stats",
            BrokerStats(
                store=self._store.identity,
                head=self._head_row,
                head_hash=self._head_hash,
                sessions=sessions,
                events=counts["events"],
                facts=counts["facts"],
                disk_bytes=counts["bytes"],
                history_from_ms=counts["first_ms"],
                dropped=self._ingest.dropped,
                lag_s=round(lag, 4),
                pid=self._about.pid,
                version=self._about.version,
                address=address,
            ),
        )


def _restored_head(store: Store) -> tuple[int, bytes]:
    """The head as it was last kept, brought up to the last row of the store."""
    kept = store.get_meta("head")
    row, digest = 0, bytes(32)
    if kept is not None:
        number, _, text = kept.partition(b" ")
        row, digest = int(number), bytes.fromhex(text.decode())
    while rows := store.rows(row, 1000):
        for one in rows:
            digest = sha256(digest + one.raw).digest()
        row = rows[-1].row
    return row, digest
