"""A store's database: statements and transactions on one SQLite file, and small named values.

Rule 1: what SQLite raises is translated here: `StoreFullError` passes when there is room, `store.damaged` does not pass.
Rule 2: a transaction is all or nothing, whatever ends it.
Rule 3: SQLite brings its log into the file by itself, and tells nobody where it cannot, for a disk that fails in the file or
    in a sync: the log grows, and nothing in it may ever come to the disk. A log that grows is looked at (`check_log`).
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dsmt.bus.store.sums import damaged, of_event, sum_of
from dsmt.errors import FailedError
from dsmt.ports.store import StoreFullError

RAISED: Final = (sqlite3.Error, UnicodeDecodeError)
"""What is raised for a statement; the second where a damaged page is put into words."""
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES: Final = "tables"
"""The small value that is the sum of the tables as they were made: a store in which one has another name is damaged."""
_UNREADABLE: Final = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
_NO_TEXT: Final = ("Could not decode to UTF-8", "unsupported file format")


class Database:
    """One SQLite file of this process; fulfils `ports.store.Meta`."""

    def __init__(self, path: str, connect: Callable[[str], sqlite3.Connection]) -> None:
        self.path, self._log = path, Path(f"{path}-wal")
        try:
            self.connection = connect(path)
            self.connection.create_function("sum_of", -1, sum_of, deterministic=True)
            self.connection.create_function("sum_of_event", -1, lambda *values: of_event(values), deterministic=True)
        except RAISED as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> FailedError:
        extended = getattr(error, "sqlite_errorcode", 0)
        code = extended & 0xFF
        is_no_text = isinstance(error, UnicodeDecodeError) or str(error).startswith(_NO_TEXT)
        if code in _DAMAGED or extended in _UNREADABLE or is_no_text:
            return damaged(self.path, str(error))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return FailedError(
                "store.locked", f"the store {self.path} is in use by another process", next="stop that one first"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            is_full = code == sqlite3.SQLITE_FULL
            return StoreFullError(
                "store.full",
                f"the store {self.path} cannot be written: {error}",
                next="free space on its disk" if is_full else "see whether its disk is read-only, broken, or over its quota",
                what="is full" if is_full else f"cannot be written: {error}",
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
        except RAISED as error:
            raise self._translated(error) from error

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The first row that a statement finds, or None."""
        found = self.do(statement, values)
        return found[0] if found else None

    def changed(self, statement: str, values: Sequence[Any]) -> int:
        """Run a statement; how many rows it changed."""
        try:
            return self.connection.execute(statement, values).rowcount
        except RAISED as error:
            raise self._translated(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done within is one commit. Raises `FailedError`."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except (*RAISED, FailedError) as error:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            if isinstance(error, FailedError):
                raise
            raise self._translated(error) from error

    def check_log(self, most: int) -> None:
        """Bring the log into the file where it has more bytes than it ever needs. Raises `FailedError` where it cannot."""
        with suppress(FileNotFoundError):  # none where all is in memory
            if self._log.stat().st_size > most:
                self.do("PRAGMA wal_checkpoint(TRUNCATE)")

    def sync(self, *, always: bool) -> None:
        """Whether each commit is on the disk when it returns."""
        self.do(f"PRAGMA synchronous={'FULL' if always else 'NORMAL'}")

    def get(self, key: str) -> bytes | None:
        """A small named value."""
        found = self.one("SELECT value, sum FROM meta WHERE name = ?", (key,))
        if found is not None and sum_of(key, found[0]) != found[1]:
            raise damaged(self.path, f"its {key!r} is not what was written")
        return None if found is None else bytes(found[0])

    def put(self, key: str, value: bytes) -> None:
        """Keep a small named value."""
        self.do("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, sum_of(key, value)))

    def surely(self, key: str, value: bytes | None, *, synced: bool) -> None:
        """Keep a small value, or none, in a commit that is on the disk when this returns, with all before it.

        `synced`: so is each commit that follows.
        """
        self.sync(always=True)
        try:
            if value is None:
                self.do("DELETE FROM meta WHERE name = ?", (key,))
            else:
                self.put(key, value)
        finally:
            self.sync(always=synced)

    def disk(self) -> tuple[int, int]:
        """Bytes of its disk, and of those that it may still fill; without end where it is in memory."""
        if self.path == ":memory:":
            return sys.maxsize, sys.maxsize
        told = shutil.disk_usage(self.path)
        pages, size = (self.one(f"PRAGMA {name}")[0] for name in ("freelist_count", "page_size"))
        return told.total, told.free + pages * size

    def check_pages(self) -> None:
        """See that its pages and indexes fit together. Raises `FailedError` where they do not."""
        (found,) = self.do("PRAGMA integrity_check(1)")
        if found[0] != "ok":
            raise damaged(self.path, found[0].replace("\n", " "))

    def check_values(self) -> None:
        """See that its tables and its small values are what was written. Raises `FailedError` where they are not."""
        try:
            for (name,) in self.do("SELECT name FROM meta"):
                self.get(name)
            as_made = self.get(_TABLES) == self._tables()
        except FailedError as error:
            raise (damaged(self.path, error.message) if error.code == "store.failed" else error) from error
        if not as_made:
            raise damaged(self.path, "its tables are not those that were made")

    def made(self, form: int) -> None:
        """Its tables are made, in a form."""
        self.put(_TABLES, self._tables())
        self.do(f"PRAGMA user_version={form}")

    def _tables(self) -> bytes:
        made = self.do("SELECT sql FROM sqlite_master WHERE sql <> '' ORDER BY name")
        return str(sum_of(*(one for (one,) in made))).encode()
