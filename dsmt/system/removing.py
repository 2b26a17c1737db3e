"""Removing: a directory with all that programs have left in it, and having our rights in what is ours.

Rule 1: nothing is removed of what something is mounted in: what is mounted may be anybody's.
Rule 2: a program may have taken away our right to write, or to look, in what it has made (Go's module cache is so): we take
    it back, by descriptors, and follow no link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from typing import Final

_HERE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def remove_tree(place: str) -> None:
    """Remove a directory with all in it. Raises OSError that names what cannot be removed; EBUSY where it is a mount."""
    mounted = mounted_in(place)
    if mounted is not None:
        raise OSError(errno.EBUSY, "something is mounted there", mounted)
    try:
        try:
            shutil.rmtree(place)
        except PermissionError:
            _take_back(place)
            shutil.rmtree(place)
    except OSError as error:
        error.filename = place  # what is below it was named by its last part alone
        raise


def mounted_in(place: str) -> str | None:
    """The first place at or below a directory where something is mounted, in this process's namespace (proc(5))."""
    top = os.fsencode(os.path.realpath(place))
    with open("/proc/self/mountinfo", "rb") as file:
        points = (_OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), line.split(b" ", 5)[4]) for line in file)
        found = next((point for point in points if point == top or point.startswith(top + b"/")), None)
    return None if found is None else os.fsdecode(found)


def take_back_way(top: str, place: str) -> bool:
    """Have our rights in each directory from `top` to a place, and in it, if they are ours; whether one lacked them."""
    lacked, here = False, top
    for part in ("", *os.path.relpath(place, top).split("/")):
        here = os.path.join(here, part) if part else top
        with contextlib.suppress(OSError):
            mode = os.stat(here, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                lacked = True
                _open_up(here, None)
    return lacked


def _take_back(place: str) -> None:
    """Have the right to look and to write in a directory and in all below it that are ours (rule 2)."""
    _open_up(place, None)
    for _, directories, _, here in os.fwalk(place, follow_symlinks=False):
        for name in directories:
            _open_up(name, here)


def _open_up(name: str, above: int | None) -> None:
    try:
        descriptor = os.open(name, _HERE, dir_fd=above)
    except NotADirectoryError:  # a link to one
        return
    try:
        with contextlib.suppress(PermissionError):  # somebody else's: that is told of what cannot be removed
            os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(os.fstat(descriptor).st_mode) | stat.S_IRWXU)
    finally:
        os.close(descriptor)
