"""Steadiness: whether what was begun anew stays, or ends again and again, as an installation that is broken does.

Rule 1: who has ended `ENDS` times before it does what it is there for, or is not there when patience ends, does not stay.
Rule 2: who is only slow, or reaches nobody, stays: that is no fault of what is installed.
Rule 3: what cannot even be imported, or ends as it begins, is found before anything that runs is ended (`check_programs`).
Rule 4: of who follows somebody, its record tells that it was there, though it lived for no longer than a look: where nobody
    has followed yet, who starts them is slow.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.trial import TRIED
from dsmt.system.procfs import is_alive
from dsmt.system.records import process_of
from dsmt.version import __version__

ENDS: Final = 3
LOOK_S: Final = 0.02
TRIAL_S: Final = 60
"""How long the trial of all programs may take."""
FULL_BYTES = 2**20
"""With less room than this on its disk a broker cannot start: it opens its store, and writes."""


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


async def follows(
    look: Callable[[], set[ProcessIdentity]], there: Callable[[], bool], *, patience_s: float, lives_s: float = 0.0
) -> bool:
    """Wait, at most so long, until who followed is `there`, and lives so long; False where none stays (rules 1 and 4).

    `look` tells who is named by records as having followed, alive or not.
    """
    seen, clock = set[ProcessIdentity](), time.monotonic
    deadline, since = clock() + patience_s, clock()
    while True:
        found = look()
        if not found <= seen:
            seen, since = seen | found, clock()
        lives = any(map(is_alive, found))
        if there() and (lives or not found) and clock() >= since + (lives_s if found else 0.0):
            return True
        if len(seen) > ENDS:
            return False
        if clock() > deadline:
            return lives or not seen
        await asyncio.sleep(LOOK_S)


async def check_programs(who: str) -> None:
    """Raise `FailedError` that names the program which does not even begin, of those that a keeper or a spawner forks."""
    command = [sys.executable, "-m", "dsmt.programs.trial", who]
    pipe = asyncio.subprocess.PIPE
    where, nothing = "/", asyncio.subprocess.DEVNULL  # where spawners are: Python looks there first
    process = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=pipe, stderr=pipe, cwd=where)
    try:
        async with asyncio.timeout(TRIAL_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = b"", f"its programs have not begun within {TRIAL_S:g} s".encode()
        await process.wait()
    if not out.decode(errors="replace").endswith(TRIED):
        lines = err.decode(errors="replace").strip().splitlines() or ["a program ends by its import"]
        said = f"dsmt {__version__} cannot run: {lines[-1].strip()}; nothing was ended, and all runs on as it was"
        raise FailedError("upgrade.broken", said, next="install the dsmt that ran before, or a whole one, and type it again")


def is_full(directory: Path) -> bool:
    """Whether the disk of a directory has no room for what a program writes as it begins."""
    try:
        return shutil.disk_usage(directory).free < FULL_BYTES
    except OSError:
        return False


def broken(what: str, log: Path, then: str) -> FailedError:
    """Why what is installed does not run: `what` ends again and again, and `then` is what was left as it is.

    A disk that got full meanwhile is no fault of what is installed, and has no room for what a program says of it.
    """
    if is_full(log.parent):
        said = f"{what} cannot begin: the disk of {log.parent} is full; {then}"
        return FailedError("upgrade.full", said, next="free space there, and type it again")
    words = last_words(log)
    last = f": {words}" if words else ""
    said = f"{what} ends again and again with dsmt {__version__}{last}; {then}"
    return FailedError("upgrade.broken", said, next=f"see {log}; or install the dsmt that ran before, and type it again")


def ended(directory: Path, programs: Iterable[str]) -> tuple[str, Path] | None:
    """The last words of the first of these programs that does not run, and the log in which they stand."""
    for program in programs:
        log = directory / f"{program}.log"
        if process_of(directory, program) is None and (words := last_words(log)):
            return words, log
    return None


def last_words(log: Path) -> str:
    """What a program has said last, of a line of its own log (`dsmt.logs`) the reason; empty for nothing.

    Of a traceback that is its last line; of one that is still being written, by the next life, it is what was said before.
    """
    try:
        lines = log.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.strip()]
    whole = [line for line in said if not line[0].isspace() and not line.startswith("Traceback (")] or said
    last = whole[-1].strip() if whole else ""
    with suppress(ValueError, TypeError, AttributeError):
        last = str(json.loads(last).get("reason") or last)
    return last
