"""The store on SQLite (WAL): rows, retained facts, certificates and the depot in one file; fulfils `ports.store.Store`.

Rule 1: one transaction for each batch. With `synced` it is on the disk when it returns (`synchronous=FULL`), else a crash
    of the process loses nothing but a power failure may lose the last moments.
Rule 2: `winner` marks the retained fact of a topic; at most one row of a topic has it.
Rule 3: a class is trimmed oldest first, by rows; retained facts stay (SEMANTICS B6, H3). Each class has a place up to which
    it was trimmed, so that a step reads only what is behind it; an index for this would cost every append a page.
Rule 4: the file is one process's: who opens it second is told so.
Rule 5: what SQLite raises is translated here: `store.full` passes when there is room, `store.damaged` does not pass.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from dsmt.errors import FailedError
from dsmt.ports.store import Append, Row

GIB: Final = 1024**3
DAY_MS: Final = 24 * 3600 * 1000
BUDGETS: Final = {"evidence": (0.70, 7 * DAY_MS), "signal": (0.20, 3600 * 1000), "log": (0.10, 7 * DAY_MS)}
"""Share of the size, and age in ms, of each class of SEMANTICS B6."""
ROW_BYTES: Final = 300
"""What a row costs beside its event's bytes: columns and indexes."""
PASS_MS: Final = 3600 * 1000
"""How often trimming begins at the first row again, for what has ceased to be a retained fact since it passed."""
_CLASSES: Final = {name: number for number, name in enumerate(BUDGETS)}

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    row INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL,
    topic TEXT NOT NULL, time INTEGER NOT NULL, arrived INTEGER NOT NULL, class INTEGER NOT NULL, size INTEGER NOT NULL,
    addressed TEXT NOT NULL, fact INTEGER NOT NULL, shared INTEGER NOT NULL, winner INTEGER NOT NULL, expires INTEGER,
    key_id BLOB NOT NULL, leaf BLOB NOT NULL, raw BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS events_id ON events (source, incarnation, sequence);
CREATE UNIQUE INDEX IF NOT EXISTS winners ON events (topic) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_rows ON events (row) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_sources ON events (source) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS soft ON events (expires) WHERE winner = 1 AND expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS certificates (key_id BLOB PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (digest BLOB, number INTEGER, chunk BLOB NOT NULL, PRIMARY KEY (digest, number));
CREATE TABLE IF NOT EXISTS blobs (digest BLOB PRIMARY KEY, chunks INTEGER NOT NULL, size INTEGER NOT NULL);
"""
_ROW: Final = "SELECT row, arrived, topic, addressed, fact, key_id, raw FROM events"
_INSERT: Final = "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


class SqliteStore:
    """A broker's store. `path` may be `:memory:`; `identity` is used when the store is new: 16 hex digits."""

    def __init__(self, path: str, *, identity: str, synced: bool = False, limit_bytes: int = GIB) -> None:
        self._path, self._limit = path, limit_bytes
        self.synced = synced
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._do("PRAGMA locking_mode=EXCLUSIVE")
        self._do("PRAGMA journal_mode=WAL")
        self._do(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        for statement in _SCHEMA.split(";"):
            self._do(statement)
        kept = self.get_meta("identity")
        if kept is None:
            self.put_meta("identity", identity.encode())
        self.identity = identity if kept is None else kept.decode()
        self.head = int(self._one("SELECT coalesce(max(row), 0) FROM events")[0])
        trimmed = self.get_meta("trimmed")
        self.trimmed = 0 if trimmed is None else int(trimmed)
        self._places = dict.fromkeys(_CLASSES.values(), 0)
        self._passed_ms = dict.fromkeys(_CLASSES.values(), 0)
        self._events, self._sizes = self._restored_totals()

    def _restored_totals(self) -> tuple[int, dict[int, int]]:
        """How many rows there are, and the bytes of each class: as they were kept, and of the rows that came after."""
        kept = self.get_meta("totals")
        head, events, *sizes = [0, 0, *([0] * len(_CLASSES))] if kept is None else [int(one) for one in kept.split()]
        for number, count, size in self._do(
            "SELECT class, count(*), sum(size) FROM events WHERE row > ? GROUP BY class", (head,)
        ):
            events += count
            sizes[number] += size
        return events, dict(enumerate(sizes))

    # --- statements ----------------------------------------------------------------------------------------------

    def _translated(self, error: sqlite3.Error) -> FailedError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return FailedError(
                "store.damaged",
                f"the store {self._path} is damaged: {error}",
                next="move it away; sources send again what they hold",
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return FailedError(
                "store.locked", f"the store {self._path} is in use by another process", next="stop that one first"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return FailedError(
                "store.full", f"the store {self._path} cannot be written: {error}", next="free space on its disk"
            )
        return FailedError(
            "store.failed",
            f"the store {self._path} cannot be used: {error}",
            next="see that its directory exists and may be written",
        )

    def _do(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        found = self._do(statement, values)
        return found[0] if found else None

    def _changed(self, statement: str, values: Sequence[Any]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error

    # --- events --------------------------------------------------------------------------------------------------

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each."""
        numbers = list(range(self.head + 1, self.head + 1 + len(batch)))
        winning = {one.signed.event.topic: number for number, one in zip(numbers, batch, strict=True) if one.winner}
        values = [_values(number, one, winning) for number, one in zip(numbers, batch, strict=True)]
        try:
            if len(values) > 1 or winning:
                self._db.execute("BEGIN IMMEDIATE")
            if winning:
                self._db.executemany(
                    "UPDATE events SET winner = 0 WHERE topic = ? AND winner = 1", [(topic,) for topic in winning]
                )
            if len(values) == 1:
                self._db.execute(_INSERT, values[0])
            else:
                self._db.executemany(_INSERT, values)
            for one in batch:
                if one.winner and one.signed.event.buries:
                    self._hide(one.signed.event.buries, one.signed.event.time)
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._translated(error) from error
        self.head += len(batch)
        self._events += len(batch)
        for row in values:
            self._sizes[row[7]] += row[8]
        return numbers

    def _hide(self, subtree: str, until: int) -> None:
        self._db.execute(
            "UPDATE events SET winner = 0 WHERE winner = 1 AND shared = 1 AND time <= ? AND topic >= ? AND topic < ?",
            (until, subtree, subtree[:-1] + "0"),
        )

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None."""
        found = self._one(
            "SELECT leaf FROM events WHERE source = ? AND incarnation = ? AND sequence = ?",
            (source, incarnation, sequence),
        )
        return None if found is None else bytes(found[0])

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        found = self._one(f"{_ROW} WHERE source = ? AND incarnation = ? AND sequence = ?", (source, incarnation, sequence))
        return None if found is None else _row(found)

    def chain(self, source: str, incarnation: int, topic: str, *, after: int, before: int, limit: int) -> list[Row]:
        """What a source said on a topic between two of its sequence numbers, in order."""
        found = self._do(
            f"{_ROW} WHERE source = ? AND incarnation = ? AND sequence > ? AND sequence < ? AND topic = ?"
            " ORDER BY sequence LIMIT ?",
            (source, incarnation, after, before, topic, limit),
        )
        return [_row(one) for one in found]

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        found = self._one(f"{_ROW} WHERE topic = ? AND winner = 1", (topic,))
        return None if found is None else _row(found)

    def rows(self, after: int, limit: int, *, winners_only: bool = False, signals: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order."""
        only = ("AND (winner = 1 OR fact = 0)" if signals else "AND winner = 1") if winners_only else ""
        found = self._do(f"{_ROW} WHERE row > ? {only} ORDER BY row LIMIT ?", (after, limit))
        return [_row(one) for one in found]

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time."""
        low, high = 0, self.head
        while low < high:
            middle = (low + high + 1) // 2
            found = self._one("SELECT row, arrived FROM events WHERE row <= ? ORDER BY row DESC LIMIT 1", (middle,))
            if found is None or found[1] < arrived_ms:
                low = middle
            else:
                high = int(found[0]) - 1
        return low

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        found = self._one(
            "SELECT incarnation, sequence FROM events WHERE source = ? ORDER BY incarnation DESC, sequence DESC LIMIT 1",
            (source,),
        )
        return None if found is None else (found[0], found[1])

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has."""
        return int(self._one("SELECT count(*) FROM events WHERE source = ? AND winner = 1", (source,))[0])

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        return self._changed(
            "UPDATE events SET winner = 0 WHERE winner = 1 AND expires IS NOT NULL AND expires <= ?", (now_ms,)
        )

    def trim(self, now_ms: int, limit: int = 5000) -> bool:
        """Keep each class within its share of the size and its age; whether there is more to do at once."""
        more = False
        for budget, (share, age_ms) in BUDGETS.items():
            number = _CLASSES[budget]
            excess = self._sizes[number] - int(self._limit * share)
            if self._trim(number, excess, self.row_at(now_ms - age_ms), limit):
                more = True
            elif now_ms - self._passed_ms[number] > PASS_MS:
                self._passed_ms[number], self._places[number] = now_ms, 0
        totals = (self.head, self._events, *self._sizes.values())
        self.put_meta("totals", " ".join(map(str, totals)).encode())
        return more

    def _trim(self, number: int, excess: int, old: int, limit: int) -> bool:
        """Trim one class of what is `old`, and of `excess` bytes, reading `limit` rows; whether there are more to read."""
        taken, freed, place = 0, 0, self._places[number]
        rows = self._do("SELECT row, class, winner, size FROM events WHERE row > ? ORDER BY row LIMIT ?", (place, limit))
        more = len(rows) == limit
        for row, of, winner, size in rows:
            if row > old and freed >= excess:
                more = False
                break
            place = row
            if of == number and not winner:
                taken, freed = taken + 1, freed + size
        if taken:
            self._delete(number, self._places[number], place)
        self._places[number] = place
        self._sizes[number] -= freed
        self._events -= taken
        return more

    def _delete(self, number: int, after: int, last: int) -> None:
        self._do("BEGIN IMMEDIATE")
        try:
            self._do("DELETE FROM events WHERE row > ? AND row <= ? AND class = ? AND winner = 0", (after, last, number))
            self.put_meta("trimmed", str(max(self.trimmed, last)).encode())
            self._do("COMMIT")
        except FailedError:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self.trimmed = max(self.trimmed, last)

    def counts(self) -> dict[str, int]:
        """Events, facts, bytes on disk, first row and when it arrived."""
        facts = self._one("SELECT count(*) FROM events WHERE winner = 1")[0]
        first = self._one("SELECT row, arrived FROM events ORDER BY row LIMIT 1") or (0, 0)
        pages, size = (self._one(f"PRAGMA {name}")[0] for name in ("page_count", "page_size"))
        return {
            "events": self._events,
            "facts": int(facts),
            "bytes": pages * size,
            "first_row": first[0],
            "first_ms": first[1],
        }

    def put_certificate(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate."""
        self._do("INSERT OR REPLACE INTO certificates VALUES (?, ?)", (key_id, raw))

    def certificates(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate."""
        return [(bytes(k), bytes(r)) for k, r in self._do("SELECT key_id, raw FROM certificates ORDER BY key_id")]

    def get_meta(self, key: str) -> bytes | None:
        """A small named value."""
        found = self._one("SELECT value FROM meta WHERE name = ?", (key,))
        return None if found is None else bytes(found[0])

    def put_meta(self, key: str, value: bytes) -> None:
        """Keep a small named value."""
        self._do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put_chunk(self, digest: bytes, number: int, chunk: bytes) -> None:
        """Keep a chunk of a blob that is being put."""
        self._do("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (digest, number, chunk))

    def get_chunk(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a complete blob."""
        found = self._one(
            "SELECT chunk FROM chunks JOIN blobs USING (digest) WHERE digest = ? AND number = ? AND number < blobs.chunks",
            (digest, number),
        )
        return None if found is None else bytes(found[0])

    def finish_blob(self, digest: bytes, chunks: int) -> bool:
        """Check the sha256 of all chunks; keep the blob when it is right, drop it when it is not."""
        whole, size = sha256(), 0
        for number in range(chunks):
            chunk = self._one("SELECT chunk FROM chunks WHERE digest = ? AND number = ?", (digest, number))
            if chunk is None:
                break
            whole.update(chunk[0])
            size += len(chunk[0])
        if whole.digest() != digest:
            self._do("DELETE FROM chunks WHERE digest = ?", (digest,))
            return False
        self._do("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", (digest, chunks, size))
        return True

    def blob_size(self, digest: bytes) -> int | None:
        """Bytes of a complete blob, or None."""
        found = self._one("SELECT size FROM blobs WHERE digest = ?", (digest,))
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _values(number: int, one: Append, winning: dict[str, int]) -> tuple[Any, ...]:
    signed, event = one.signed, one.signed.event
    return (
        number,
        event.source,
        event.incarnation,
        event.sequence,
        event.topic,
        event.time,
        one.arrived_ms,
        _CLASSES[one.budget],
        len(signed.raw) + ROW_BYTES,
        "\n".join(event.to),
        one.fact,
        event.version is not None,
        one.winner and winning[event.topic] == number,
        one.expires_ms,
        signed.key_id,
        signed.leaf,
        signed.raw,
    )


def _row(found: tuple[int, int, str, str, int, bytes, bytes]) -> Row:
    row, arrived, topic, addressed, fact, key_id, raw = found
    to = tuple(addressed.split("\n")) if addressed else ()
    return Row(row, arrived, topic, to, bool(fact), key_id, raw)
