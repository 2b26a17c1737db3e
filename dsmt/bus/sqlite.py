"""The store on SQLite (WAL): rows, retained facts, certificates and the depot in one file; fulfils `ports.store.Store`.

Rule 1: one transaction for each batch. With `synced` it is on the disk when it returns (`synchronous=FULL`), else a crash
    of the process loses nothing but a power failure may lose the last moments.
Rule 2: `winner` marks the retained fact of a topic; at most one row of a topic has it.
Rule 3: a budget is trimmed oldest first, by rows; retained facts stay (SEMANTICS B6, H3).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.store import Append, Row

GIB: Final = 1024**3
DAY_MS: Final = 24 * 3600 * 1000
BUDGETS: Final = {"evidence": (0.70, 7 * DAY_MS), "signal": (0.20, 3600 * 1000), "log": (0.10, 7 * DAY_MS)}
"""Share of the size, and age in ms, of each class of SEMANTICS B6."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    row INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL,
    topic TEXT NOT NULL, time INTEGER NOT NULL, arrived INTEGER NOT NULL, budget TEXT NOT NULL, addressed TEXT NOT NULL,
    fact INTEGER NOT NULL, shared INTEGER NOT NULL, winner INTEGER NOT NULL, expires INTEGER,
    key_id BLOB NOT NULL, leaf BLOB NOT NULL, raw BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS events_id ON events (source, incarnation, sequence);
CREATE UNIQUE INDEX IF NOT EXISTS winners ON events (topic) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_rows ON events (row) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_sources ON events (source) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS soft ON events (expires) WHERE winner = 1 AND expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS budgets ON events (budget, row) WHERE winner = 0;
CREATE TABLE IF NOT EXISTS certificates (key_id BLOB PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (digest BLOB, number INTEGER, chunk BLOB NOT NULL, PRIMARY KEY (digest, number));
CREATE TABLE IF NOT EXISTS blobs (digest BLOB PRIMARY KEY, chunks INTEGER NOT NULL, size INTEGER NOT NULL);
"""
_ROW: Final = "SELECT row, arrived, topic, addressed, fact, key_id, raw FROM events"


class SqliteStore:
    """A broker's store. `path` may be `:memory:`; `identity` is used when the store is new: 16 hex digits."""

    def __init__(self, path: str, *, identity: str, synced: bool = False, limit_bytes: int = GIB) -> None:
        self._path, self._limit = path, limit_bytes
        self.synced = synced
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise FailedError(
                "store.damaged",
                f"the store {path} cannot be used: {error}",
                next="move it away; peers refill a new one",
            ) from error
        kept = self.get_meta("identity")
        if kept is None:
            self.put_meta("identity", identity.encode())
        self.identity = identity if kept is None else kept.decode()
        self.head = int(self._db.execute("SELECT coalesce(max(row), 0) FROM events").fetchone()[0])

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each."""
        rows: list[int] = []
        head = self.head
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for one in batch:
                head += 1
                self._insert(head, one)
                rows.append(head)
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise FailedError(
                "store.full", f"the store {self._path} cannot be written: {error}", next="free space on its disk"
            ) from error
        self.head = head
        return rows

    def _insert(self, row: int, one: Append) -> None:
        event = one.signed.event
        if one.winner:
            self._db.execute("UPDATE events SET winner = 0 WHERE topic = ? AND winner = 1", (event.topic,))
        self._db.execute(
            "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                row,
                event.source,
                event.incarnation,
                event.sequence,
                event.topic,
                event.time,
                one.arrived_ms,
                one.budget,
                "\n".join(event.to),
                one.fact,
                event.version is not None,
                one.winner,
                one.expires_ms,
                one.signed.key_id,
                one.signed.leaf,
                one.signed.raw,
            ),
        )

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None."""
        found = self._db.execute(
            "SELECT leaf FROM events WHERE source = ? AND incarnation = ? AND sequence = ?",
            (source, incarnation, sequence),
        ).fetchone()
        return None if found is None else bytes(found[0])

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        found = self._db.execute(
            f"{_ROW} WHERE source = ? AND incarnation = ? AND sequence = ?", (source, incarnation, sequence)
        ).fetchone()
        return None if found is None else _row(found)

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        found = self._db.execute(f"{_ROW} WHERE topic = ? AND winner = 1", (topic,)).fetchone()
        return None if found is None else _row(found)

    def rows(self, after: int, limit: int, *, winners_only: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order."""
        only = "AND winner = 1" if winners_only else ""
        found = self._db.execute(f"{_ROW} WHERE row > ? {only} ORDER BY row LIMIT ?", (after, limit))
        return [_row(one) for one in found]

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time."""
        low, high = 0, self.head
        while low < high:
            middle = (low + high + 1) // 2
            found = self._db.execute(
                "SELECT row, arrived FROM events WHERE row <= ? ORDER BY row DESC LIMIT 1", (middle,)
            ).fetchone()
            if found is None or found[1] < arrived_ms:
                low = middle
            else:
                high = int(found[0]) - 1
        return low

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        found = self._db.execute(
            "SELECT incarnation, sequence FROM events WHERE source = ? ORDER BY incarnation DESC, sequence DESC LIMIT 1",
            (source,),
        ).fetchone()
        return None if found is None else (found[0], found[1])

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has."""
        found = self._db.execute("SELECT count(*) FROM events WHERE source = ? AND winner = 1", (source,)).fetchone()
        return int(found[0])

    def hide(self, subtree: str, until: int) -> None:
        """Apply a tombstone to the shared facts below a subtree."""
        self._db.execute(
            "UPDATE events SET winner = 0 WHERE winner = 1 AND shared = 1 AND time <= ? AND topic >= ? AND topic < ?",
            (until, subtree, subtree[:-1] + "0"),
        )

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        return self._db.execute(
            "UPDATE events SET winner = 0 WHERE winner = 1 AND expires IS NOT NULL AND expires <= ?", (now_ms,)
        ).rowcount

    def trim(self, now_ms: int) -> int:
        """Keep each class within its share of the size and its age; how many rows went."""
        gone = 0
        for budget, (share, age_ms) in BUDGETS.items():
            gone += self._db.execute(
                "DELETE FROM events WHERE winner = 0 AND budget = ? AND arrived < ?", (budget, now_ms - age_ms)
            ).rowcount
            gone += self._trim_size(budget, int(self._limit * share))
        return gone

    def _trim_size(self, budget: str, limit: int) -> int:
        size, count = self._db.execute(
            "SELECT coalesce(sum(length(raw) + 300), 0), count(*) FROM events WHERE winner = 0 AND budget = ?",
            (budget,),
        ).fetchone()
        if size <= limit:
            return 0
        excess = max(1, int(count * (1 - limit / size)))
        return self._db.execute(
            "DELETE FROM events WHERE row IN (SELECT row FROM events WHERE winner = 0 AND budget = ? ORDER BY row LIMIT ?)",
            (budget, excess),
        ).rowcount

    def counts(self) -> dict[str, int]:
        """Events, facts, bytes on disk, first row and when it arrived."""
        events, facts = self._db.execute("SELECT count(*), coalesce(sum(winner), 0) FROM events").fetchone()
        first = self._db.execute("SELECT row, arrived FROM events ORDER BY row LIMIT 1").fetchone() or (0, 0)
        pages, size = (self._db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "page_size"))
        return {
            "events": events,
            "facts": int(facts),
            "bytes": pages * size,
            "first_row": first[0],
            "first_ms": first[1],
        }

    def put_certificate(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate."""
        self._db.execute("INSERT OR REPLACE INTO certificates VALUES (?, ?)", (key_id, raw))

    def certificates(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate."""
        return [(bytes(k), bytes(r)) for k, r in self._db.execute("SELECT key_id, raw FROM certificates ORDER BY key_id")]

    def get_meta(self, key: str) -> bytes | None:
        """A small named value."""
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (key,)).fetchone()
        return None if found is None else bytes(found[0])

    def put_meta(self, key: str, value: bytes) -> None:
        """Keep a small named value."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put_chunk(self, digest: bytes, number: int, chunk: bytes) -> None:
        """Keep a chunk of a blob that is being put."""
        try:
            self._db.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (digest, number, chunk))
        except sqlite3.OperationalError as error:
            raise FailedError(
                "store.full", f"the depot in {self._path} cannot be written: {error}", next="free space on its disk"
            ) from error

    def get_chunk(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a complete blob."""
        found = self._db.execute(
            "SELECT chunk FROM chunks JOIN blobs USING (digest) WHERE digest = ? AND number = ? AND number < blobs.chunks",
            (digest, number),
        ).fetchone()
        return None if found is None else bytes(found[0])

    def finish_blob(self, digest: bytes, chunks: int) -> bool:
        """Check the sha256 of all chunks; keep the blob when it is right, drop it when it is not."""
        whole, size = sha256(), 0
        for (chunk,) in self._db.execute(
            "SELECT chunk FROM chunks WHERE digest = ? AND number < ? ORDER BY number", (digest, chunks)
        ):
            whole.update(chunk)
            size += len(chunk)
        if whole.digest() != digest:
            self._db.execute("DELETE FROM chunks WHERE digest = ?", (digest,))
            return False
        self._db.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", (digest, chunks, size))
        return True

    def blob_size(self, digest: bytes) -> int | None:
        """Bytes of a complete blob, or None."""
        found = self._db.execute("SELECT size FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _row(found: tuple[int, int, str, str, int, bytes, bytes]) -> Row:
    row, arrived, topic, addressed, fact, key_id, raw = found
    to = tuple(addressed.split("\n")) if addressed else ()
    return Row(row, arrived, topic, to, bool(fact), key_id, raw)
