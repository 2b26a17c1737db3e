"""Failures: foreign errors told in the sentences of the reason list (docs/reference/reasons.md)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dsmt.errors import FailedError
from dsmt.event.phrases import size_in_words

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""The errno values of a disk that takes nothing more for now: what is to be written waits, and is tried again."""
LITTLE_BYTES = 2**20
"""With less than this on its disk a store may take nothing more."""


def no_space(path: str, need: int, error: OSError) -> FailedError:
    """`fetch.no_space`, or `fetch.read_only`: `need` bytes could not be written where `path` is.

    Its fields are `need` and `free` (words) and `path`; the node's name is the caller's to add.
    """
    if error.errno == errno.EROFS:
        said = f"{path} cannot be written: its disk is read-only"
        return FailedError("fetch.read_only", said, next="see what is wrong with it, and mount it writable", path=path)
    place = path
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    _, free = _free(place or ".")
    return FailedError(
        "fetch.no_space",
        f"{size_in_words(need)} needed, {free} free at {path}",
        next="free space there",
        need=size_in_words(need),
        free=free,
        path=path,
    )


def little_left(path: str) -> str:
    """That the disk of a directory is full, or nearly so; empty where it is not."""
    left, free = _free(path)
    return f"the disk of {path} is full, or nearly so: {free} free" if left < LITTLE_BYTES else ""


def _free(path: str) -> tuple[int, str]:
    """How many bytes may still be written where a path is, and that in words."""
    told = os.statvfs(path)
    left = told.f_bavail * told.f_frsize
    return (0, "no inode") if told.f_files and not told.f_favail else (left, size_in_words(left))


@contextmanager
def full_disk_told(path: str, need: int) -> Iterator[None]:
    """A block in which a disk that takes nothing more is told as `no_space`."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise no_space(path, need, error) from error
        raise
