"""Anew: how a spawner begins anew in its own process, with what is installed now (rule C18).

Rule 1: it executes the next one in its place (execve(2)): whom it forked stay its children, and orphans still come to it.
    Only a parent is told how a process ended: who ends, and lets another spawner follow, loses that.
Rule 2: what it knows goes along in memory (memfd_create(2)): a disk may be full. What the next one cannot read it does
    without, for it may be of another version.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

import msgspec

from dsmt.errors import FailedError
from dsmt.ports.processes import Exit, ProcessIdentity

ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""What tells a spawner to end."""


class Forked(msgspec.Struct, frozen=True):
    """Which program a child runs, for which directory, and where its record is."""

    name: str
    directory: str
    record: str


class SpawnerState(msgspec.Struct, frozen=True):
    """What goes along: who was forked and lives, and how others ended, the oldest first."""

    children: tuple[tuple[ProcessIdentity, Forked], ...] = ()
    exits: tuple[tuple[ProcessIdentity, Exit], ...] = ()


NOTHING: Final = SpawnerState()


def begin_anew(command: Sequence[str], lock: int, past: SpawnerState) -> NoReturn:
    """Execute the next spawner in this process: `command`, the lock's descriptor, that of its past.

    Raises `FailedError`: then this one ends, and is followed as one that was killed.
    """
    try:
        memory = os.memfd_create("past", 0)
        os.write(memory, msgspec.json.encode(past))
        os.set_inheritable(lock, True)
        argv = [*command, str(lock), str(memory)]
        os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise FailedError("start.cannot_exec", f"{command[0]} cannot go on in the place of the spawner: {error}") from error


def past_of(memory: int) -> SpawnerState:
    """What the spawner before us in this process knew. The descriptor is closed."""
    with suppress(OSError, msgspec.DecodeError), open(memory, "rb") as file:
        file.seek(0)
        return msgspec.json.decode(file.read(), type=SpawnerState)
    return NOTHING
