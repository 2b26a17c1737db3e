"""Descriptors: those that a program is given, as sd_listen_fds(3) says, from 3 on.

Rule 1: `LISTEN_PID` is the program's own: a shell that becomes the program names itself. What would prevent the exec is
    looked for first, since a shell could not tell us.
Rule 2: who is given none pays nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from typing import Any, Final

FIRST: Final = 3
_SAYS_WHO: Final = ("/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh")


def prefix_of(descriptors: Mapping[str, int]) -> tuple[str, ...]:
    """The words to put before the command line."""
    return _SAYS_WHO if descriptors else ()


def environment_with(descriptors: Mapping[str, int]) -> dict[str, str]:
    """What tells the program how many it has, and their names."""
    return {"LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": ":".join(descriptors)} if descriptors else {}


def giving(descriptors: Mapping[str, int]) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` that have the child hold them."""
    if not descriptors:
        return {}
    numbers = tuple(range(FIRST, FIRST + len(descriptors)))

    def place() -> None:
        above = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, FIRST + len(numbers)) for one in descriptors.values()]
        for number, one in zip(numbers, above, strict=True):
            os.dup2(one, number)

    return {"preexec_fn": place, "pass_fds": numbers}
