"""A store's database: statements and transactions on one SQLite file, and small named values.

Rule 1: what SQLite raises is translated here: `store.full` passes when there is room, `store.damaged` does not pass.
Rule 2: a transaction is all or nothing, whatever ends it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dsmt.errors import FailedError


class Database:
    """One SQLite file of this process; fulfils `ports.store.Meta`."""

    def __init__(self, path: str, connect: Callable[[str], sqlite3.Connection]) -> None:
        self.path = path
        try:
            self.connection = connect(path)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> FailedError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return FailedError(
                "store.damaged",
                f"the store {self.path} is damaged: {error}",
                next="move it away; sources send again what they hold",
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return FailedError(
                "store.locked", f"the store {self.path} is in use by another process", next="stop that one first"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return FailedError(
                "store.full", f"the store {self.path} cannot be written: {error}", next="free space on its disk"
            )
        return FailedError(
            "store.failed",
            f"the store {self.path} cannot be used: {error}",
            next="see that its directory exists and may be written",
        )

    def do(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement; what it found. Raises `FailedError`."""
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The first row that a statement finds, or None."""
        found = self.do(statement, values)
        return found[0] if found else None

    def changed(self, statement: str, values: Sequence[Any]) -> int:
        """Run a statement; how many rows it changed."""
        try:
            return self.connection.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error

    @contextmanager
    def transaction(self, *, begin: bool = True) -> Iterator[sqlite3.Connection]:
        """All that is done within is one commit; not `begin`: one statement alone is. Raises `FailedError`."""
        try:
            if begin:
                self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            if begin:
                self.connection.execute("COMMIT")
        except (sqlite3.Error, FailedError) as error:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            if isinstance(error, FailedError):
                raise
            raise self._translated(error) from error

    def sync(self, *, always: bool) -> None:
        """Whether each commit is on the disk when it returns."""
        self.do(f"PRAGMA synchronous={'FULL' if always else 'NORMAL'}")

    def get(self, key: str) -> bytes | None:
        """A small named value."""
        found = self.one("SELECT value FROM meta WHERE name = ?", (key,))
        return None if found is None else bytes(found[0])

    def put(self, key: str, value: bytes) -> None:
        """Keep a small named value."""
        self.do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
