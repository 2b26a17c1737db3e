"""Certificates: those that a store on SQLite keeps, and the shelf of those that only stored events need (rule D2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dsmt.bus.store.database import Database
from dsmt.bus.store.tables import SHELF
from dsmt.ports.store import ROW_BYTES, Shelved


class SqliteCertificates:
    """Fulfils `ports.store.Certificates`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate."""
        self._db.do("INSERT OR IGNORE INTO certificates VALUES (?, ?)", (raw, key_id))

    def drop(self, raw: bytes) -> None:
        """Keep a certificate no more."""
        self._db.do("DELETE FROM certificates WHERE raw = ?", (raw,))

    def all(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate that is not on the shelf."""
        return [(bytes(k), bytes(r)) for k, r in self._db.do("SELECT key_id, raw FROM certificates ORDER BY key_id, raw")]

    def has_signed(self, key_id: bytes, source: str) -> bool:
        """Whether an event of a source is stored that this key signed."""
        return self._db.one("SELECT 1 FROM signers WHERE key_id = ? AND source = ?", (key_id, source)) is not None

    def shelve(self, certificates: Sequence[Shelved]) -> None:
        """Put certificates on the shelf, in one commit."""
        with self._db.transaction():
            for one in certificates:
                self.drop(one.raw)
                if one.raw not in self.shelved(one.key_id):
                    size = len(one.raw) + ROW_BYTES
                    self._db.do(
                        "INSERT INTO shelf (key_id, name, issuer, size, payer, raw) VALUES (?, ?, ?, ?, ?, ?)",
                        (one.key_id, one.name, one.issuer_key_id, size, one.payer, one.raw),
                    )

    def shelved(self, key_id: bytes) -> list[bytes]:
        """The certificates of a key that are on the shelf."""
        return [bytes(raw) for (raw,) in self._db.do("SELECT raw FROM shelf WHERE key_id = ? ORDER BY raw", (key_id,))]

    def upholds(self, key_id: bytes) -> bool:
        """Whether a key has signed a certificate that is on the shelf."""
        return self._db.one("SELECT 1 FROM shelf WHERE issuer = ? LIMIT 1", (key_id,)) is not None

    def shelf_bytes(self, payer: str | None = None) -> int:
        """What the certificates on the shelf cost on a payer's account; None: on everybody's."""
        every = "SELECT coalesce(sum(bytes), 0) FROM accounts WHERE class = ?"
        found = self._db.one(every, (SHELF,)) if payer is None else self._db.one(every + " AND payer = ?", (SHELF, payer))
        return int(found[0])
