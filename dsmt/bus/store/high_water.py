"""The high-water mark: how far a store has come, in a small file beside it: one that lost its last rows knows it by that.

SQLite takes the end of a log that is cut, or of which a byte was flipped, for one that was never written: it is the same to
it as a process that died in a commit (rule B11).

Rule 1: it is written after each commit of rows, so it is never ahead of what was stored; it is not waited for on the disk.
Rule 2: it is of one store, by its id: where the id is new, or the file is not there, nothing is known.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from dsmt.bus.store.sums import damaged

SUFFIX: Final = "-head"
_LENGTH: Final = 64


class HighWater:
    """Of the store of this path; one in memory has none."""

    def __init__(self, path: str, identity: str) -> None:
        self._path, self._identity = path, identity
        self._file: int | None = None
        if path != ":memory:":
            with suppress(OSError):  # on a full disk nothing is known of how far it came
                self._file = os.open(path + SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def check(self, head: int) -> None:
        """Raises `FailedError` when the store had more rows than these once, or may have had: how many cannot be read."""
        try:
            kept = b"" if self._file is None else os.pread(self._file, _LENGTH, 0)
        except OSError as error:
            raise damaged(self._path, f"how many rows it had cannot be read: {error.strerror}") from error
        parts = kept.decode("ascii", "replace").split()
        if len(parts) == 2 and parts[0] == self._identity and parts[1].isdecimal() and int(parts[1]) > head:
            raise damaged(self._path, f"its rows {head + 1} to {int(parts[1])} are lost")

    def reached(self, head: int) -> None:
        """All rows up to this one are stored."""
        if self._file is not None:
            with suppress(OSError):
                os.pwrite(self._file, f"{self._identity} {head}".encode().ljust(_LENGTH), 0)

    def close(self) -> None:
        """Write it no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
