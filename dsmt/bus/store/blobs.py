"""Blobs: the tables of the depot in a store on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dsmt.bus.store.database import Database
from dsmt.bus.store.named import Named
from dsmt.event.burst import content_of
from dsmt.event.envelope import SignedEvent
from dsmt.ports.blobs import Blob, BlobTotals, digests_in

BLOB_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS chunks (digest BLOB, number INTEGER, chunk BLOB NOT NULL, PRIMARY KEY (digest, number))""",
    """CREATE TABLE IF NOT EXISTS blobs (
    digest BLOB PRIMARY KEY, chunks INTEGER NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL, payer TEXT NOT NULL,
    whole INTEGER NOT NULL)""",
)


class SqliteBlobs:
    """Fulfils `ports.blobs.Blobs`; what slots name comes from the events beside it."""

    def __init__(self, db: Database, named: Named) -> None:
        self._db, self._named = db, named
        self._held: dict[str, BlobTotals] | None = None
        """By payer, how much is held; None where it is to be counted."""

    def put_chunk(self, digest: bytes, number: int, chunk: bytes, *, payer: str, now_ms: int) -> None:
        """Keep a chunk of a blob that is being put."""
        blob = self.get(digest)
        with self._db.transaction():
            before = self._db.one("SELECT length(chunk) FROM chunks WHERE digest = ? AND number = ?", (digest, number))
            grown = len(chunk) - (0 if before is None else before[0])
            self._db.do("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (digest, number, chunk))
            self._db.do("INSERT OR IGNORE INTO blobs VALUES (?, 0, 0, 0, ?, 0)", (digest, payer))
            self._db.do("UPDATE blobs SET size = size + ?, at = ? WHERE digest = ?", (grown, now_ms, digest))
        self._count(payer if blob is None else blob.payer, blob is None, grown)

    def so_far(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a blob that is being put."""
        found = self._db.one("SELECT chunk FROM chunks WHERE digest = ? AND number = ?", (digest, number))
        return None if found is None else bytes(found[0])

    def keep(self, digest: bytes, chunks: int, *, now_ms: int) -> None:
        """A blob was put whole, and has its sha256."""
        self._held = self._held if self.get(digest) is not None else None
        self._db.do("INSERT OR IGNORE INTO blobs VALUES (?, 0, 0, 0, '', 0)", (digest,))
        self._db.do("UPDATE blobs SET whole = 1, chunks = ?, at = ? WHERE digest = ?", (chunks, now_ms, digest))

    def chunk(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a whole blob."""
        found = self._db.one(
            "SELECT chunk FROM chunks JOIN blobs USING (digest) WHERE digest = ? AND number = ? AND number < blobs.chunks",
            (digest, number),
        )
        return None if found is None else bytes(found[0])

    def get(self, digest: bytes) -> Blob | None:
        """What is held of a blob."""
        found = self._db.one("SELECT digest, size, at, payer, whole FROM blobs WHERE digest = ?", (digest,))
        return None if found is None else _blob(found)

    def all(self) -> list[Blob]:
        """What is held of every blob."""
        return [_blob(one) for one in self._db.do("SELECT digest, size, at, payer, whole FROM blobs ORDER BY digest")]

    def held(self, payer: str | None = None) -> BlobTotals:
        """How much is held of all blobs, or of those that somebody pays for; it is counted as they come and go."""
        if self._held is None:
            found = self._db.do("SELECT payer, count(*), sum(size) FROM blobs GROUP BY payer")
            self._held = {one: BlobTotals(number, size) for one, number, size in found}
        if payer is not None:
            return self._held.get(payer, BlobTotals(0, 0))
        each = self._held.values()
        return BlobTotals(sum(one.number for one in each), sum(one.bytes for one in each))

    def _count(self, payer: str, number: int, size: int) -> None:
        if self._held is not None:
            before = self.held(payer)
            self._held[payer] = BlobTotals(before.number + number, before.bytes + size)

    def forget(self, digest: bytes) -> None:
        """A blob is not held any more; its chunks remain to be removed."""
        blob = self.get(digest)
        self._db.do("DELETE FROM blobs WHERE digest = ?", (digest,))
        if blob is not None:
            self._count(blob.payer, -1, -blob.size)

    def remove_chunks(self, digest: bytes, limit: int) -> bool:
        """Remove so many chunks of a forgotten blob; whether there may be more."""
        statement = "DELETE FROM chunks WHERE rowid IN (SELECT rowid FROM chunks WHERE digest = ? LIMIT ?)"
        return self._db.changed(statement, (digest, limit)) == limit

    def orphans(self) -> list[bytes]:
        """Digests of which chunks are left that belong to no blob."""
        found = self._db.do("SELECT DISTINCT digest FROM chunks WHERE digest NOT IN (SELECT digest FROM blobs)")
        return [bytes(one[0]) for one in found]

    def disk(self) -> tuple[int, int]:
        """Bytes of the disk, and of those that may still be filled."""
        return self._db.disk()

    def named(self) -> set[bytes]:
        """The digests that the live facts of services name, and the specs that slots name."""
        found = self._db.do("SELECT body FROM events WHERE topic >= 'service/' AND topic < 'service0' AND winner = 1")
        past = (row for service in self.services() for row in self._named.specs(service))
        return digests_in([*(body for (body,) in found), *(content_of(row.sealed) for row in past)])

    def services(self) -> Iterator[str]:
        """All services of which a fact lives; one look for each, however much is said of it."""
        statement = "SELECT topic FROM events WHERE winner = 1 AND topic > ? AND topic < 'service0' ORDER BY topic LIMIT 1"
        after = "service/"
        while (one := self._db.one(statement, (after,))) is not None:
            service = one[0].split("/")[1]
            yield service
            after = f"service/{service}0"

    def missing(self, service: str, *, past: bool) -> list[bytes]:
        """What a service's spec names, with `past` also what its slots go back to, and of which no whole blob is here."""
        found = self._db.do("SELECT body FROM events WHERE topic = ? AND winner = 1", (f"service/{service}/spec",))
        bodies = [body for (body,) in found]
        bodies += [content_of(row.sealed) for row in self._named.specs(service)] if past else []
        return [one for one in sorted(digests_in(bodies)) if (blob := self.get(one)) is None or not blob.whole]


def named_in(signed: SignedEvent) -> list[bytes]:
    """What the spec of a service names in the depot."""
    topic = signed.event.topic
    if not (topic.startswith("service/") and topic.endswith("/spec")):
        return []
    return sorted(digests_in([signed.raw]))


def _blob(found: tuple[bytes, int, int, str, int]) -> Blob:
    digest, size, at_ms, payer, whole = found
    return Blob(bytes(digest), size, at_ms, payer, bool(whole))
