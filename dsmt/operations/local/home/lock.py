"""The lock of a home: who makes, starts or ends what is in it does so alone (rule C16).

Rule 1: it is flock(2) on `home.lock`: who dies with it holds it no more, and there is nothing to clean up.
Rule 2: who waits for it longer than a moment is told for whom, once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from dsmt.backoff import Backoff
from dsmt.errors import RefusedError
from dsmt.operations.local.home.home import WHERE, Home
from dsmt.operations.words.telling import Tell, silent
from dsmt.system.users import name_of

LOCK_FILE: Final = "home.lock"
TOLD_S: Final = 1.0


def has_lock(home: Home) -> bool:
    """Whether somebody makes, starts or ends, or ever did, what is in a home."""
    return (home.root / LOCK_FILE).exists()


def is_held(home: Home) -> bool:
    """Whether somebody is at work on a home now."""
    try:
        descriptor = os.open(home.root / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@asynccontextmanager
async def alone(home: Home, waits: Tell = silent) -> AsyncIterator[None]:
    """Be the one who works on a home for the length of a block; its directory is made when missing.

    Raises `RefusedError` for another user's, and OSError.
    """
    path = home.root / LOCK_FILE
    while True:
        descriptor = _opened(home, path)
        try:
            await _taken(descriptor, partial(_tell, waits, home, descriptor))
            if _is_still(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _tell(waits: Tell, home: Home, descriptor: int) -> None:
    waits(f"{_holder(descriptor)} is at work on {home.root}")


def _opened(home: Home, path: Path) -> int:
    """The lock's file; one that is made now belongs to whom the home belongs to. Raises `RefusedError`, OSError."""
    if not home.exists:
        try:
            home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except FileNotFoundError as error:  # as in /proc
            raise RefusedError("home.place", f"no directory can be made at {home.root}", next=WHERE) from error
    new = not path.exists()
    try:  # only to be read, for nothing may be writable here any more; at once, for it may be a pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    except PermissionError as error:
        owner = name_of((path if path.exists() else home.root).stat().st_uid)
        said = f"the home {home.root} is of user {owner}, who alone makes, starts or ends what is in it"
        raise RefusedError("home.owner", said, next=f"do this as {owner}, or name another home: --home DIR") from error
    owned = home.root.stat()
    if new and os.fstat(descriptor).st_uid != owned.st_uid:
        os.fchown(descriptor, owned.st_uid, owned.st_gid)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether an open file is still what stands at a path: it may have been removed while somebody waited for it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


async def _taken(descriptor: int, told: Callable[[], object]) -> None:
    loop, backoff = asyncio.get_running_loop(), Backoff(0.005, 0.1, factor=1.5)
    telling = loop.call_later(TOLD_S, told)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(backoff.failed())
            else:
                return
    finally:
        telling.cancel()


def _holder(descriptor: int) -> str:
    """Who has the lock of an open file now, as far as the kernel tells it."""
    inode = str(os.fstat(descriptor).st_ino)
    held = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    found = [one[4] for one in held if one[1] == "FLOCK" and one[5].rpartition(":")[2] == inode]
    return f"another dsmt, pid {found[0]}," if found and found[0].isdigit() else "another dsmt"
