"""Stores: simulated brokers' disks, which can be copied as they are, come back later, and lose their last rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from dsmt.bus.store.elections import Elections
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.event.fold import Fold
from dsmt.event.registry import lookup
from dsmt.ports.store import Append, Row, Store, StoreFullError

PAGE: Final = 1000
KEPT_META: Final = ("incarnation",)
"""Small values that were on the disk long before."""


class _SimElections(Elections):
    """Elections of a disk that may have no room for them."""

    has_room = True

    def elect(self, rows: Sequence[Row]) -> None:
        """Let each of these stand on its topic. Raises `StoreFullError` where there is no room."""
        if not self.has_room:
            raise StoreFullError("store.full", "the disk is full", what="is full")
        super().elect(rows)


class SimStore(SqliteStore):
    """The real store in memory, of which copies can be made, as of a file."""

    def __init__(self, *, identity: str, boot: str, limit_bytes: int, content: sqlite3.Connection | None = None) -> None:
        self._content = content
        super().__init__(":memory:", identity=identity, boot=boot, limit_bytes=limit_bytes)
        self._content = None
        self.elections: _SimElections = _SimElections(self._db, self._rows, lambda: self.head)

    def _open(self, path: str) -> sqlite3.Connection:
        db = super()._open(path)
        if self._content is not None:
            self._content.backup(db)
        return db

    @property
    def gone(self) -> int:
        """How many of its rows were trimmed."""
        return self.head - self.counts()["events"]

    def sync(self) -> None:
        """Have all of it on the disk, as at its end in order: it keeps its id then."""
        self._all_synced()

    def copy(self, *, identity: str, boot: str) -> SimStore:
        """The same content now, opened in a boot; `identity` is its id if it takes a new one."""
        return SimStore(identity=identity, boot=boot, limit_bytes=self.limit_bytes, content=self._db.connection)


def copy_rows(old: Store, new: Store, *, up_to: int) -> None:
    """Store what one store has up to a row in another, empty one, with the winners of then."""
    for key_id, raw in old.certificates.all():
        new.certificates.put(key_id, raw)
    for name in KEPT_META:
        value = old.meta.get(name)
        if value is not None:
            new.meta.put(name, value)
    fold, after = Fold(), 0
    while rows := [row for row in old.rows(after, PAGE) if row.row <= up_to]:
        after = rows[-1].row
        for key_id in sorted({row.key_id for row in rows}):
            for raw in old.certificates.shelved(key_id):
                new.certificates.put(key_id, raw)
        new.append([_appended(fold, row) for row in rows])


def _appended(fold: Fold, row: Row) -> Append:
    signed = row.read()
    event, match = signed.event, lookup(row.topic)
    wins = row.fact and not event.is_dead(row.arrived_ms) and any(change.after is signed for change in fold.take(signed))
    budget = "evidence" if match is None else match.row.budget
    return Append(signed, row.arrived_ms, budget, row.fact, wins, event.expires_ms)
