"""Limits: in force before a program's first instruction, however soon it changes its user (setrlimit(2)).

Rule 1: a limit never goes above what holds here already.
Rule 2: open files and processes within reason are held by the agent itself, which runs this one program only: what it
    starts inherits them, at no cost. So a start is still vfork and exec, with nothing of ours run between.
Rule 3: what the agent could not live with itself (memory, or very few files or processes) is set by prlimit(1), which then
    becomes the program: 0.9 ms more. What would prevent the exec is looked for first, since prlimit could not tell us.
Rule 4: who lowered its own hard limit cannot raise it again unless it is privileged. An agent that is to hold more than it
    has left ends at once; its manager starts another, which has what this one was born with.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Mapping
from typing import Final

from dsmt.event.reason import failed
from dsmt.ports.driver import Launch

LIMITS: Final[Mapping[str, int]] = {
    "pids": resource.RLIMIT_NPROC,
    "files": resource.RLIMIT_NOFILE,
    "memory": resource.RLIMIT_AS,
}
"""The resource limit that stands for each limit of a launch."""

_HELD_FROM: Final[Mapping[str, int]] = {"pids": 1024, "files": 256}
"""From which number on an agent can hold a limit itself; one that is not here it never can."""
_OPTIONS: Final[Mapping[str, str]] = {"pids": "nproc", "files": "nofile", "memory": "as"}


class ProgramLimits:
    """The limits of the programs that one agent starts."""

    def __init__(self) -> None:
        self._born = {name: resource.getrlimit(kind)[1] for name, kind in LIMITS.items()}

    def prepare(self, launch: Launch) -> tuple[str, ...]:
        """See to it that the launch's limits will hold; the words to put before its command line. Raises `FailedError`."""
        set_later = {}
        for name, kind in LIMITS.items():
            number = launch.limits.get(name)
            if number is None:
                continue
            wanted = _least(number, self._born[name])
            if name in _HELD_FROM and number >= _HELD_FROM[name]:
                self._hold(kind, wanted)
            elif resource.getrlimit(kind) != (wanted, wanted):
                set_later[name] = wanted
        if not set_later:
            return ()
        tool = shutil.which("prlimit")
        if tool is None:
            said = "its limits cannot be set: prlimit(1) is missing here"
            raise failed("start.driver", driver="process", error=said, advice="install util-linux on <node>")
        check_program(launch)
        return (tool, *(f"--{_OPTIONS[name]}={number}:{number}" for name, number in set_later.items()), "--")

    @staticmethod
    def _hold(kind: int, wanted: int) -> None:
        """Have this process, and so what it starts, hold a limit (rules 2, 4)."""
        if resource.getrlimit(kind) == (wanted, wanted):
            return
        try:
            resource.setrlimit(kind, (wanted, wanted))
        except (ValueError, PermissionError):
            os.kill(os.getpid(), signal.SIGKILL)


def _least(number: int, hard: int) -> int:
    return number if hard == resource.RLIM_INFINITY else min(number, hard)


def check_program(launch: Launch) -> None:
    """Raise the OSError that an exec of the program would end with, as far as that can be told without one."""
    if not os.path.isdir(launch.directory):
        raise OSError(errno.ENOENT, "", launch.directory)
    program = launch.argv[0]
    places = [program] if "/" in program else [os.path.join(one, program) for one in os.get_exec_path(dict(launch.env))]
    found = [place for place in (os.path.join(launch.directory, one) for one in places) if os.path.exists(place)]
    if not found:
        raise OSError(errno.ENOENT, "", program)
    place = next((one for one in found if os.path.isfile(one) and os.access(one, os.X_OK)), None)
    if place is None:
        raise OSError(errno.EACCES, "", program)
    with open(place, "rb") as file:
        head = file.readline(256)
    if not head.startswith((b"#!", b"\x7fELF")):
        raise OSError(errno.ENOEXEC, "", program)
    words = head[2:].split()
    if head.startswith(b"#!") and words and not os.path.exists(words[0]):
        raise OSError(errno.ENOENT, "", program)
