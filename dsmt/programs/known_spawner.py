"""Known spawner: which spawner a container manager knew last, so that of one that has died with it the next one says so.

Rule 1: who ends as it was told forgets it: what has ended in order has not died.
Rule 2: one of an earlier boot ended with its machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.processes import spawner_of
from dsmt.system.procfs import boot, is_alive
from dsmt.system.records import read_record, record_path, write_record

KNOWN: Final = "known_spawner"


def forget_spawner(directory: str | os.PathLike[str]) -> None:
    """Have the next manager say nothing of the spawner that ends, or has ended, in this directory."""
    with contextlib.suppress(OSError):
        os.unlink(record_path(os.fspath(directory), KNOWN))


class KnownSpawner:
    """The spawner of a node's directory, as its managers know it; `tell` says that one has died, and who took its place."""

    def __init__(self, directory: Path, tell: Callable[[ProcessIdentity, ProcessIdentity], None]) -> None:
        self._directory, self._tell = str(directory), tell
        self._path = record_path(self._directory, KNOWN)

    def attached(self) -> None:
        """The manager can be heard: say of the one that is known whether it has died, and know the one that lives."""
        now, before = spawner_of(self._directory), read_record(self._path)
        if now is None:
            return
        if before is not None and before.boot == boot() and not is_alive(before):
            self._tell(before, now)
        self._note(now)

    def replaced(self, dead: ProcessIdentity, now: ProcessIdentity) -> None:
        """The manager has started another one."""
        self._tell(dead, now)
        self._note(now)

    def forget(self) -> None:
        """The manager ends as it was told (rule 1)."""
        forget_spawner(self._directory)

    def _note(self, now: ProcessIdentity) -> None:
        with contextlib.suppress(OSError):  # a full disk: then nobody says it
            write_record(self._path, now)
