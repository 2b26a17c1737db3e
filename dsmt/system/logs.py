"""Disk logs: output files that stay bounded while programs append to them, without a pipe and without a copy.

Rule 1: a program's file is renamed only at its next start, when nobody writes: `NAME.log` becomes `NAME.log.1`, and so on.
Rule 2: while the program writes, the oldest bytes of its file are freed by punching a hole (fallocate(2)): the file
    keeps its offsets, the program its descriptor, and no byte that is younger is touched. `du` tells the truth, `ls -l` the
    offset. A file system that cannot do it keeps the bytes until the next start.
Rule 3: what is kept of one log, old files and all, is at most `size` x (`keep` + 1) and what is written between two trims
    (when these come: `dsmt.agents.rules.output_trimming`).
Rule 4: a program that has our uid may put anything in the place of a log. That goes before the next start, and until then
    nothing can be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from dsmt.ports.logs import Begun
from dsmt.system.libc import call
from dsmt.system.removing import make_way, take_back_way

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_BLOCK = 4096
_STAT_BLOCK = 512


class DiskLogs:
    """The `Logs` port over a directory, made when missing."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)
        if os.path.islink(self._directory) or not os.path.isdir(self._directory):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._directory)  # what a program has put there (rule 4)
        os.makedirs(self._directory, mode=0o750, exist_ok=True)
        take_back_way(self._directory, self._directory)

    def path(self, name: str) -> str:
        """The file to append to."""
        return os.path.join(self._directory, f"{name}.log")

    def begin(self, name: str, *, size_bytes: int, keep: int) -> Begun:
        """A run is about to start: put the file aside when it is over its size, and may be renamed."""
        path = self.path(name)
        with contextlib.suppress(OSError):  # a read-only disk: who opens the file is told
            make_way(path)  # rule 4
            if self.end(name) > size_bytes:
                self._turn(path, keep)
                return Begun(0, rotated=keep > 0)
        return Begun(self.end(name), rotated=False)

    def _turn(self, path: str, keep: int) -> None:
        """Put a file aside, and the older ones. Raises OSError."""
        if keep == 0:
            self._drop_from(path, 1)
            os.unlink(path)
            return
        self._drop_from(path, keep)
        for number in range(keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        os.replace(path, f"{path}.1")

    def end(self, name: str) -> int:
        """The file's end now."""
        try:
            return os.stat(self.path(name)).st_size
        except OSError:
            return 0

    def trim(self, name: str, *, size_bytes: int, keep: int) -> None:
        """Free the oldest bytes over the bound (rules 2, 3). What does not let itself be freed keeps them (rule 4)."""
        path, allowed = self.path(name), max(size_bytes, _BLOCK) * (keep + 1)
        taken = _taken(path)
        if taken > allowed:
            _punch(path, self.end(name) - allowed)
            taken = allowed
        for number in range(1, keep + 1):
            taken += _taken(f"{path}.{number}")
            if taken > allowed:
                with contextlib.suppress(OSError):
                    self._drop_from(path, number)
                return

    def read(self, name: str, start: int, end: int | None, *, back: int = 0, most: int = 65536) -> bytes:
        """The last `most` bytes between two offsets; what was freed is left out."""
        with contextlib.suppress(OSError):  # it is not there, or nothing that can be read (rule 4)
            place = self.path(name) + (f".{back}" if back else "")
            with open(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                last = size if end is None else min(end, size)
                first = max(start, last - most, 0)
                file.seek(first)
                return file.read(max(0, last - first)).lstrip(b"\0")
        return b""

    @staticmethod
    def _drop_from(path: str, number: int) -> None:
        """Remove the old files from a number on."""
        while os.path.lexists(old := f"{path}.{number}"):
            make_way(old)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old)
            number += 1


def _taken(path: str) -> int:
    """Bytes that a file takes on the disk."""
    try:
        return os.stat(path).st_blocks * _STAT_BLOCK
    except OSError:
        return 0


def _punch(path: str, length: int) -> None:
    """Free the first `length` bytes of a file, in whole blocks. What is no file, or cannot be freed, is left alone."""
    whole = length // _BLOCK * _BLOCK
    if whole <= 0:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            call("fallocate", descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(whole))
        finally:
            os.close(descriptor)
