"""Process records: small files that say which process is which, so that a successor finds it again.

Rule 1: a record is a `ProcessIdentity` as JSON, `{"pid", "started", "boot"}`, written atomically to
    `<directory>/run/<program>.json`.
Rule 2: one spawner for a directory: the holder of its lock. Who starts one takes the lock first and hands it down, so that
    there is no moment at which a spawner is on its way and nobody can know.
Rule 3: on a full disk a record is written over the one before, in place: what is started then is found as well. Who has no
    record all the same is found by the lock that it holds open, or below who does.
Rule 4: a record in a copy of a home names a process of the home that was copied: it says of itself, in its command line,
    that it is of another directory, which is still there. Nobody finds it here, to take it over or to end it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec

from dsmt.errors import UNDECODABLE
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.failures import DISK_IS_FULL
from dsmt.system.files import is_within, write_atomically, write_over
from dsmt.system.procfs import identities, is_alive, mounts_of, pids, send_signal, words_of
from dsmt.system.reading import read_what_is_there

LOCK: Final = "spawner.lock"


def record_path(directory: str, program: str) -> str:
    """Where the record of a program of this directory is."""
    return os.path.join(directory, "run", f"{program}.json")


def write_record(path: str, identity: ProcessIdentity) -> None:
    """Write a record atomically, or in place on a full disk (rule 3). Worthless after a power cut, it is not synced."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    content = msgspec.json.encode(identity)
    try:
        write_atomically(path, content, durable=False)
    except OSError as error:
        if error.errno not in DISK_IS_FULL or not _written_over(path, content):
            raise


def _written_over(path: str, content: bytes) -> bool:
    """Write over what a record holds, which takes no room, with blanks up to its end; whether there was one."""
    with suppress(OSError):
        return write_over(path, content.ljust(os.path.getsize(path)))
    return False


def read_record(path: str) -> ProcessIdentity | None:
    """Which process a record names, alive or not; None when there is no record or it cannot be read."""
    raw = read_what_is_there(path)
    try:
        return None if raw is None else msgspec.json.decode(raw, type=ProcessIdentity)
    except UNDECODABLE:
        return None


def living(path: str) -> ProcessIdentity | None:
    """The process a record names if it still lives, never another one with its pid, nor of the home that was copied."""
    identity = read_record(path)
    return identity if identity is not None and is_alive(identity) and not _is_anothers(identity, path) else None


def process_of(directory: str | os.PathLike[str], program: str) -> ProcessIdentity | None:
    """The living process of a program of this directory, by its record."""
    return living(record_path(os.fspath(directory), program))


def ask_to_end(directory: str | os.PathLike[str], program: str) -> bool:
    """Send SIGTERM to a program of this directory; whether it lives."""
    running = process_of(directory, program)
    if running is not None:
        send_signal(running, signal.SIGTERM)
    return running is not None


def is_copy(path: str) -> bool:
    """Whether a record is in a copy of a home, and the process that it names still lives in the other one (rule 4)."""
    identity = read_record(path)
    return identity is not None and is_alive(identity) and _is_anothers(identity, path)


def _is_anothers(identity: ProcessIdentity, path: str) -> bool:
    directory = os.path.dirname(path)
    if os.path.basename(directory) == "run":
        directory = os.path.dirname(directory)
    return any(is_copied(word, directory) for word in words_of(identity.pid))


def is_copied(place: str, directory: str) -> bool:
    """Whether an absolute path names another directory than this one, of which this one is a copy."""
    if not os.path.isabs(place) or os.path.basename(place) != os.path.basename(directory):
        return False
    try:
        return not os.path.samefile(place, directory)
    except OSError:
        return False


def take_lock(directory: str) -> int | None:
    """The descriptor of the directory's lock (flock(2)), held while it is open; None when another spawner has it."""
    path = _lock_path(directory)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a disk that has become read-only keeps nobody from `down`
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def make_lock(directory: str) -> None:
    """Make the directory's lock, and take it not: who looks at it now knows that a spawner may be on its way."""
    os.close(os.open(_lock_path(directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def has_lock(directory: str) -> bool:
    """Whether there ever was a spawner, or one is on its way."""
    return os.path.exists(_lock_path(directory))


def lock_holders(*directories: str) -> set[ProcessIdentity]:
    """Who but we holds the lock of one of these directories, or of one below it, also one that was removed (rules 2, 3).

    Only who sees the same mounts as we do is meant: in another namespace the path is another file's.
    """
    roots, own = [*map(os.path.realpath, directories)], mounts_of(os.getpid())
    return identities(pid for pid in pids() if pid != os.getpid() and _holds(pid, roots) and mounts_of(pid) == own)


def _holds(pid: int, roots: Iterable[str]) -> bool:
    """Whether a process has a lock below a directory open."""
    with suppress(OSError):  # it is gone, or another user's
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                place = os.readlink(f"/proc/{pid}/fd/{descriptor}").removesuffix(" (deleted)")
                if place.endswith(f"/{LOCK}") and any(is_within(os.path.dirname(place), root) for root in roots):
                    return True
    return False


def _lock_path(directory: str) -> str:
    return os.path.join(directory, LOCK)
