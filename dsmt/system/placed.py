"""Placed: which of dsmt's programs runs in a directory, though no record tells.

Rule 1: a program that is forked opens its directory, and has it open as long as it lives: that holds on a disk which takes
    no record, where the record was lost, and when the home was moved.
Rule 2: it is found by that and by its own name. What it executes has the directory open no more.
Rule 3: only who is of our own user, and sees the same mounts as we do, is meant.
Rule 4: a look is at every process of the machine: who looks for many looks once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.files import is_within
from dsmt.system.procfs import identities, is_alive, mounts_of, name_of, name_told, pids

_PROGRAMS: Final = "dsmt-"


_held: Final[list[int]] = []


def hold(directory: str) -> None:
    """Be found in this directory from now on, and in no other (rule 1). One that cannot be opened keeps nobody waiting."""
    with suppress(OSError):
        while _held:  # the parent's, from before a fork
            os.close(_held.pop())
        _held.append(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


class Placed:
    """Who ran in which directories at one look (rule 4)."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, str], set[ProcessIdentity]] = {}
        for pid, name in _programs():
            for _, status in _directories(pid):
                self._found.setdefault((status.st_dev, status.st_ino, name), set()).update(identities({pid}))

    def of(self, directory: str, program: str) -> ProcessIdentity | None:
        """The living process of a program of this directory."""
        try:
            status = os.stat(directory)
        except OSError:
            return None
        found = self._found.get((status.st_dev, status.st_ino, name_told(f"{_PROGRAMS}{program}")), set())
        return next(filter(is_alive, found), None)


def placed_below(*roots: str) -> set[ProcessIdentity]:
    """All of dsmt's programs that run in a directory below these, also in one that was removed (rule 4)."""
    within = [os.path.realpath(root) for root in roots]
    return identities(
        pid for pid, _ in _programs() if any(is_within(place, root) for place, _ in _directories(pid) for root in within)
    )


def _programs() -> Iterator[tuple[int, str]]:
    """The pids and names of dsmt's programs but ourselves (rule 3)."""
    own, mounts, user = os.getpid(), mounts_of(os.getpid()), os.geteuid()
    for pid in pids():
        name = name_of(pid)
        with suppress(OSError):  # it is gone
            ours = name.startswith(_PROGRAMS) and pid != own and os.stat(f"/proc/{pid}").st_uid == user
            if ours and mounts_of(pid) == mounts:
                yield pid, name


def _directories(pid: int) -> Iterator[tuple[str, os.stat_result]]:
    """The directories that a process has open."""
    with suppress(OSError):  # it is gone
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{descriptor}"
            with suppress(OSError):
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode):
                    yield os.readlink(path).removesuffix(" (deleted)"), status
