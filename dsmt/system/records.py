"""Process records: small files that say which process is which, so that a successor finds it again.

Rule 1: a record is an `Identity` as JSON, `{"pid", "started", "boot"}`, written atomically to
    `<directory>/run/<program>.json`.
Rule 2: one spawner for a directory: the holder of its lock. Who starts one takes the lock first and hands it down, so that
    there is no moment at which a spawner is on its way and nobody can know.
"""

from __future__ import annotations

import fcntl
import os

import msgspec

from dsmt.ports.processes import Identity
from dsmt.system.files import write_atomically
from dsmt.system.procfs import is_alive


def record_path(directory: str, program: str) -> str:
    """Where the record of a program of this directory is."""
    return os.path.join(directory, "run", f"{program}.json")


def write_record(path: str, identity: Identity) -> None:
    """Write a record atomically. It is worthless after a power cut, so it is not synced."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_atomically(path, msgspec.json.encode(identity), durable=False)


def read_record(path: str) -> Identity | None:
    """Which process a record names, alive or not; None when there is no record or it cannot be read."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Identity)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def living(path: str) -> Identity | None:
    """The process a record names if it still lives, never another one with its pid."""
    identity = read_record(path)
    return identity if identity is not None and is_alive(identity) else None


def take_lock(directory: str) -> int | None:
    """The descriptor of the directory's lock (flock(2)), held while it is open; None when another spawner has it."""
    descriptor = os.open(_lock_path(directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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


def _lock_path(directory: str) -> str:
    return os.path.join(directory, "spawner.lock")
