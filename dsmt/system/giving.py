"""Giving: directories of ours that belong to a service's user, and how we write there although that user may lay traps.

Rule 1: a directory is given once, with all in it, while nobody but us could enter it. What was given is never walked again
    to change owners: its user may have put a hard link there to somebody else's file.
Rule 2: the directories above stay ours, and let everybody through and nobody look (0711); what else is in them is closed.
Rule 3: below a given directory every step is taken from the descriptor of the one before, and follows no link; a file is
    written anew beside its place, given by its descriptor, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from itertools import count
from typing import Final

from dsmt.errors import InputError
from dsmt.event.reason import failed
from dsmt.system.users import Account

_WAY: Final = 0o711
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_numbers = count()


def open_way(place: str, top: str) -> None:
    """Let everybody through from `top`, a directory of ours, to what holds `place` (rule 2)."""
    above = os.path.dirname(place)
    while above.startswith(top.rstrip("/") + "/") or above == top:
        os.chmod(above, _WAY)
        above = os.path.dirname(above)


def give(place: str, account: Account) -> None:
    """Give a directory with all in it to a user (rule 1). Raises OSError for what is no directory."""
    top = os.open(place, _OPEN)
    try:
        if os.fstat(top).st_uid == os.geteuid():
            for _, directories, files, here in os.fwalk(dir_fd=top, follow_symlinks=False):
                for name in (*directories, *files):
                    os.chown(name, account.uid, account.gid, dir_fd=here, follow_symlinks=False)
        os.fchown(top, account.uid, account.gid)
        os.fchmod(top, 0o700)
    finally:
        os.close(top)


def write(place: str, name: str, content: bytes, account: Account, mode: int) -> None:
    """Write a file below a given directory (rule 3).

    Raises `FailedError` (`start.driver`) when its way leads over a link or over what is another's.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or not parts or ".." in parts or "\0" in name:
        raise InputError("files.path", f"{name!r} leaves the directory {place}", path=name)
    *way, last = parts
    try:
        with _enter(place, way, account) as here:
            _write(here, last, content, account, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            raise
        told = f"{name} cannot be written in {place}: the service has put something else in its way"
        raise failed("start.driver", driver="process", error=told) from error


@contextlib.contextmanager
def _enter(place: str, way: list[str], account: Account) -> Iterator[int]:
    """The descriptor of the directory at the end of a way, whose missing parts are made and given."""
    here = os.open(place, _OPEN)
    try:
        for part in way:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=here)
                made = True
            below = os.open(part, _OPEN, dir_fd=here)
            os.close(here)
            here = below
            if made and os.fstat(here).st_uid == os.geteuid():
                os.fchown(here, account.uid, account.gid)
            if os.fstat(here).st_uid != account.uid:
                raise OSError(errno.ENOTDIR, "a directory of another user")
        yield here
    finally:
        os.close(here)


def _write(here: int, name: str, content: bytes, account: Account, mode: int) -> None:
    beside = f".{name[:40]}.{os.getpid()}.{next(_numbers)}.new"
    made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here)
    try:
        with open(made, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(made, account.uid, account.gid)
            os.fchmod(made, mode)
            os.fsync(made)
        os.replace(beside, name, src_dir_fd=here, dst_dir_fd=here)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=here)
        raise
