"""Steadiness: whether what was begun anew stays, or ends again and again, as an installation that is broken does.

Rule 1: who has ended `ENDS` times before it does what it is there for, or is not there when patience ends, does not stay.
Rule 2: who is only slow, or reaches nobody, stays: that is no fault of what is installed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.processes import ProcessIdentity
from dsmt.version import __version__

ENDS: Final = 3
LOOK_S: Final = 0.02


async def stays(
    look: Callable[[], ProcessIdentity | None], there: Callable[[], Awaitable[bool]], *, patience_s: float
) -> bool:
    """Wait, at most so long, until a process does what it is `there` for; False where it does not stay (rule 1)."""
    seen = set[ProcessIdentity]()
    deadline = time.monotonic() + patience_s
    while not await there():
        found = look()
        seen.update([] if found is None else [found])
        if len(seen) > ENDS:
            return False
        if time.monotonic() > deadline:
            return found is not None
        await asyncio.sleep(LOOK_S)
    return True


def broken(what: str, log: Path, then: str) -> FailedError:
    """Why what is installed does not run: `what` ends again and again, and `then` is what was left as it is."""
    lines = [line for line in _tail(log).splitlines() if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    said = f"{what} ends again and again with dsmt {__version__}{last}; {then}"
    return FailedError("upgrade.broken", said, next=f"see {log}; or install the dsmt that ran before, and type it again")


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-4096:].decode("utf-8", "replace")
    except OSError:
        return ""
