"""Logs: the output files of one instance, bounded while its program writes to them, as a port.

Contract:
1. The program holds the file open for appending, whoever of dsmt lives or dies; nothing is taken from it, no pipe.
2. Rotation loses nothing that is younger than what the bound keeps, also while the program writes.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

STREAMS = ("stdout", "stderr")
MOST_ANSWERED: Final = 1024 * 1024
"""The most bytes of one log that are told at once to who asks."""


class Begun(msgspec.Struct, frozen=True):
    """Where a run's output begins in its file; `rotated` says that what was there before is now in the `.1` file."""

    offset: int
    rotated: bool


class Logs(Protocol):
    """The output of one instance. A log is named by its stream (`stdout`, `stderr`) or step (`install`)."""

    def path(self, name: str) -> str:
        """The file to append to."""
        ...

    def begin(self, name: str, *, size_bytes: int, keep: int) -> Begun:
        """A run is about to start and nobody writes: rotate by renaming when the file is over its size."""
        ...

    def end(self, name: str) -> int:
        """The file's end now: the offset of the next byte."""
        ...

    def trim(self, name: str, *, size_bytes: int, keep: int) -> None:
        """Free the oldest bytes over the bound, also while the program writes."""
        ...

    def read(self, name: str, start: int, end: int | None, *, back: int = 0, most: int = 65536) -> bytes:
        """The last `most` bytes between two offsets (None: the end), of the file that was put aside `back` times ago."""
        ...
