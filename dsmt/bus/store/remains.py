"""Remains: what is sound in a damaged store on SQLite that was set aside (rule B11).

Rule 1: it is read row by row; what cannot be read, or is not what was written, is passed over. Any value may be anything.
Rule 2: nothing in it is trusted: who takes events over checks their signatures, and of blobs the digest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Final

from dsmt.bus.store.database import RAISED, Database
from dsmt.bus.store.sums import sum_of
from dsmt.bus.store.tables import BURST, ROW, row_of
from dsmt.errors import FailedError
from dsmt.event.burst import Burst, parts_of
from dsmt.ports.store import Row

_ROWS: Final = 200
_MISSED: Final = 100_000
"""After so many rows that cannot be read one behind the other there are no more."""


class StoreRemains:
    """Of the store of this path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def certificates(self) -> list[bytes]:
        """The certificates that can be read."""
        with closing(self._opened()) as db:
            kept, shelved = (list(_each(db, asked)) for asked in ("SELECT raw FROM certificates", "SELECT raw FROM shelf"))
        return [raw for (raw,) in (*kept, *shelved) if isinstance(raw, bytes)]

    def parts(self) -> Iterator[list[bytes]]:
        """The events that are what was written, some at a time or none, as parts of a message."""
        with closing(self._opened()) as db:
            after, missed = 0, 0
            while missed < _MISSED:
                rows, last, ended = self._rows(db, after)
                yield parts_of(row.sealed for row in rows)
                if ended:
                    return
                missed = 0 if last > after else missed + 1
                after = max(last, after + 1)

    def _rows(self, db: sqlite3.Connection, after: int) -> tuple[list[Row], int, bool]:
        """The rows behind one that are sound, the last that was looked at, and whether there is none behind it."""
        found: list[Row] = []
        last, count = after, 0
        try:
            for one in db.execute(f"{ROW} WHERE row > ? ORDER BY row LIMIT ?", (after, _ROWS)):
                count += 1
                last = max(last, one[3]) if isinstance(one[3], int) else last
                with suppress(FailedError, sqlite3.Error, TypeError, ValueError):
                    found.append(row_of(one, lambda first: self._burst(db, first), self._path))
        except RAISED:
            return found, last, False
        return found, last, count < _ROWS

    def _burst(self, db: sqlite3.Connection, first: int) -> Burst:
        row: Sequence[Any] | None = db.execute(BURST, (first,)).fetchone()
        if row is None or sum_of(*row[:-1]) != row[-1]:
            raise ValueError(first)
        return Burst(*row[2:5])

    def chunks(self) -> Iterator[tuple[bytes, str, int, bytes]]:
        """The chunks of whole blobs that can be read: digest, payer, number, chunk; those of each in their order."""
        with closing(self._opened()) as db:
            for digest, payer, count in _each(db, "SELECT digest, payer, chunks FROM blobs WHERE whole = 1"):
                if isinstance(digest, bytes) and isinstance(payer, str):
                    asked = "SELECT number, chunk FROM chunks WHERE digest = ? AND number < ? ORDER BY number"
                    found = _each(db, asked, (digest, count))  # not so many as it says: that may be any number
                    yield from ((digest, payer, number, chunk) for number, chunk in found if isinstance(chunk, bytes))

    def _opened(self) -> sqlite3.Connection:
        db = Database(self._path, lambda path: sqlite3.connect(path, isolation_level=None)).connection
        with suppress(sqlite3.Error):
            db.execute("PRAGMA query_only=1")
            db.execute("PRAGMA cell_size_check=1")
        return db


def _each(db: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
    """What a statement finds, as far as it can be read."""
    with suppress(*RAISED):
        yield from db.execute(statement, values)
