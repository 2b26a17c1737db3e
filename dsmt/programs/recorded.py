"""Recorded: who runs of what a spawner forks, also where its record was lost, or could not be written (rule C7).

Rule 1: what an earlier spawner has left alive without a record is looked for once, at a spawner's birth: until then nobody
    else has forked here, and what it forks itself it knows.
Rule 2: the record of who runs is put back where it is not in its place, as soon as that can be: others look there. An
    agent's is not, for its container is its program's to change (C13).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.placed import Placed
from dsmt.system.procfs import identity_of, is_alive
from dsmt.system.records import living, record_path, write_record

LOOK_S: Final = 2.0
_AGENT: Final = "deployment_agent"


class Recorded:
    """The records of who runs below one spawner."""

    def __init__(self) -> None:
        self._left = Placed()
        self.due = 0.0
        """When `tick` looks next."""

    def find(self, directory: str, program: str, record: str = "") -> ProcessIdentity | None:
        """The living process of a program of this directory, by its record, or as one that was left without (rule 1)."""
        return living(record or record_path(directory, program)) or self._left.of(directory, program)

    def tick(self, now: float, running: Iterable[tuple[str, str, ProcessIdentity]]) -> None:
        """Put back the records that are not in their place, of programs in directories (rule 2)."""
        if now < self.due:
            return
        self.due = now + LOOK_S
        for program, directory, identity in running:
            path = record_path(directory, program)
            if program != _AGENT and os.path.isdir(directory) and living(path) is None and is_alive(identity):
                with suppress(OSError):  # it is told where it is written first
                    write_record(path, identity)
                    say(f"{path} did not name pid {identity.pid}, which runs: it does again")


def own_identity() -> ProcessIdentity:
    """Who we are."""
    identity = identity_of(os.getpid())
    if identity is None:
        raise FailedError("start.driver", "/proc is not mounted: no process can be told from another")
    return identity


def record(path: str, identity: ProcessIdentity) -> None:
    """Write a record. A full disk must not end a node: it is told, and the process runs on without its record."""
    try:
        write_record(path, identity)
    except OSError as error:
        say(f"{path} cannot be written, so only a spawner will find pid {identity.pid}: {error}")


def say(sentence: str) -> None:
    """One line into the spawner's log, its standard error."""
    with suppress(OSError):
        sys.stderr.write(f"spawner: {sentence}\n")
        sys.stderr.flush()
