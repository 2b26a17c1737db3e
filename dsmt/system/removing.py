"""Removing: a directory with all that programs have left in it, and having our rights in what is ours.

Rule 1: nothing is removed of what something is mounted in: what is mounted may be anybody's.
Rule 2: a program may have taken away our rights in what it has made (Go's module cache is so): we take them back, by
    descriptors, and follow no link.
Rule 3: a tree may be deeper than any stack, and than there are descriptors: one directory of it is open at a time. Who goes
    back up comes out where he went in, or goes no further: a program may move a directory while it is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import Final

LOST_FOUND: Final = "lost+found"
"""What belongs to a file system that is mounted, and not to who has mounted it."""
_NAMED: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_WRITE: Final = stat.S_IRUSR | stat.S_IWUSR
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def remove(place: str) -> None:
    """Remove a file, a link, or a directory with all in it. Raises OSError (`remove_tree`)."""
    try:
        os.unlink(place)
    except IsADirectoryError:
        remove_tree(place)


def remove_or_empty(place: str) -> None:
    """Remove a directory; of one that is a disk of its own only what is in it. Raises OSError (`remove_tree`)."""
    if mounted_in(place) != os.path.realpath(place):
        remove_tree(place)
        return
    for name in set(os.listdir(place)) - {LOST_FOUND}:
        remove(os.path.join(place, name))


def remove_tree(place: str) -> None:
    """Remove a directory with all in it. Raises OSError that names what cannot be removed; EBUSY where it is a mount."""
    mounted = mounted_in(place)
    if mounted is not None:
        raise OSError(errno.EBUSY, "something is mounted there", mounted)
    try:
        _empty(place)
        os.rmdir(place)
    except OSError as error:
        error.filename = place  # what is below it was named by its last part alone
        raise


def _empty(place: str) -> None:
    """Remove all that is in a directory (rule 3)."""
    way: list[tuple[str, tuple[int, int]]] = []
    here = _enter(place, None)
    try:
        while (below := _emptied(here)) is not None or way:
            if below is not None:
                way.append((below, _identity(here)))
                _go(here, _enter(below, here))
                continue
            name, above = way.pop()
            _go(here, os.open("..", _OPENED, dir_fd=here))
            if _identity(here) != above:
                raise OSError(errno.ESTALE, "it was moved while it was removed")
            os.rmdir(name, dir_fd=here)
    finally:
        os.close(here)


def _emptied(here: int) -> str | None:
    """Remove what is no directory, up to the first that is one: its name; None where nothing is left."""
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name, dir_fd=here)
    return None


def _enter(name: str, above: int | None) -> int:
    """Open a directory to remove what is in it, with all our rights there (rule 2)."""
    named = os.open(name, _NAMED | os.O_DIRECTORY, dir_fd=above)
    try:
        _take_back(named, stat.S_IRWXU)
        return os.open(".", _OPENED, dir_fd=named)
    finally:
        os.close(named)


def _go(here: int, there: int) -> None:
    """Be in another directory from now on, by the descriptor that there was."""
    os.dup2(there, here, inheritable=False)
    os.close(there)


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def make_way(path: str) -> None:
    """Remove what is in the place of a file and is none: a directory, a link or, since who opens one waits, a pipe.

    Raises OSError where it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            remove_tree(path)
        elif not stat.S_ISREG(mode):
            os.unlink(path)


def mounted_in(place: str) -> str | None:
    """The first place at or below a directory where something is mounted, in this process's namespace (proc(5))."""
    top = os.fsencode(os.path.realpath(place))
    with open("/proc/self/mountinfo", "rb") as file:
        points = (_OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), line.split(b" ", 5)[4]) for line in file)
        found = next((point for point in points if point == top or point.startswith(top + b"/")), None)
    return None if found is None else os.fsdecode(found)


def take_back_way(top: str, place: str) -> bool:
    """Have our rights in each directory from `top` to a place, and in what is there, if it is ours; whether one lacked."""
    lacked = False
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        here: int | None = None
        for part in (os.path.realpath(top), *os.path.relpath(place, top).split("/")):
            here = os.open(part, _NAMED, dir_fd=here)
            opened.callback(os.close, here)
            kind = stat.S_IFMT(os.fstat(here).st_mode)
            wanted = {stat.S_IFDIR: stat.S_IRWXU, stat.S_IFREG: _READ_WRITE}.get(kind, 0)
            lacked |= _take_back(here, wanted)
    return lacked


def _take_back(named: int, wanted: int) -> bool:
    """Have rights in what a descriptor names, if it is ours; whether one lacked."""
    mode = stat.S_IMODE(os.fstat(named).st_mode)
    if mode & wanted == wanted:
        return False
    with contextlib.suppress(PermissionError):  # somebody else's: that is told of what cannot be removed
        os.chmod(f"/proc/self/fd/{named}", mode | wanted)
    return True
