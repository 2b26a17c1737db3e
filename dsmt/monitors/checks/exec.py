"""Exec check: a command whose exit with 0 passes; whatever it started ends with the try, and that is told.

Rule 1: what a try starts bears a mark of its owner. So what is left of a try whose process was killed can be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Mapping
from itertools import count
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.check import Result
from dsmt.ports.processes import Exit
from dsmt.system.marks import bearing, make_mark, number_of
from dsmt.system.process_tree import Tree, kill_owned
from dsmt.system.procfs import name_of
from dsmt.system.users import account_of, becoming, environment_of
from dsmt.system.watch import ProcessWatch

OUTPUT_LIMIT: Final = 4096
KILL_S: Final = 2.0
NAMES_LIMIT: Final = 100

_numbers = count(1)


class _Output:
    """The last of what a command writes, read as it comes so that it never waits for us."""

    def __init__(self) -> None:
        self._read, self.write_end = os.pipe()
        os.set_blocking(self._read, False)
        self._last = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._take)

    def close_write_end(self) -> None:
        """Close our copy of the end that the command writes to."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        """Take what is there still, and close."""
        self.close_write_end()
        self._take()
        self._loop.remove_reader(self._read)
        os.close(self._read)

    def last_line(self) -> str:
        """The last line with anything on it."""
        lines = [line for line in self._last.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else ""

    def _take(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._read, 65536)
            self._last = (self._last + chunk)[-OUTPUT_LIMIT:]
            if not chunk:
                self._loop.remove_reader(self._read)


def owner_of_tries(owner: str) -> str:
    """Whom the marks of tries name: not the owner itself, whose own mark is that of the program."""
    return f"{owner}/check"


async def clear(owner: str) -> None:
    """End what is left of the tries of an owner (rule 1)."""
    await kill_owned(owner_of_tries(owner), deadline=KILL_S)


async def try_exec(argv: tuple[str, ...], env: Mapping[str, str], directory: str, user: str = "", owner: str = "") -> Result:
    """Run the command to its end. When cancelled, by a timeout too, nothing of it is left."""
    output = _Output()
    mark = make_mark(owner_of_tries(owner), next(_numbers))
    try:
        try:
            with bearing(mark) as marked:
                watched = _start(argv, {**env, **marked}, directory, output, user)
        except (OSError, ValueError, FailedError) as error:
            return Result(passed=False, evidence=f"{argv[0]} cannot be run: {error}", took_s=0.0, broken=True)
        tree = Tree(watched.identity, number_of(mark), ours=True)
        try:
            ended = await watched.wait()
            left = _names(tree)
        finally:
            await asyncio.shield(asyncio.ensure_future(tree.kill(deadline=KILL_S, root=watched)))
    finally:
        output.close()
    also = f"; what it left running was ended: {left}" if left else ""
    return Result(passed=ended.code == 0, evidence=_told(argv[0], ended, output.last_line()) + also, took_s=0.0)


def _start(argv: tuple[str, ...], env: Mapping[str, str], directory: str, output: _Output, user: str) -> ProcessWatch:
    """Start the command. Raises OSError, ValueError, `FailedError` for a user that it cannot become."""
    account = account_of(user)
    child = subprocess.Popen(
        argv,
        cwd=directory,
        env={**environment_of(user), **env},
        stdin=subprocess.DEVNULL,
        stdout=output.write_end,
        stderr=output.write_end,
        start_new_session=True,
        **becoming(account),
    )
    output.close_write_end()
    try:
        watched = ProcessWatch(child.pid, os.pidfd_open(child.pid))
    except OSError:  # nobody would see its end
        child.kill()
        child.wait()
        raise
    child.returncode = 0  # or Popen would reap it and warn; the watch does that
    return watched


def _names(tree: Tree) -> str:
    """What of a tree lives, by its names."""
    names = sorted({name_of(one.pid) for one in tree.members()} - {""})
    return ", ".join(names).encode(errors="surrogateescape").decode(errors="replace")[:NAMES_LIMIT]


def _told(program: str, ended: Exit, last_line: str) -> str:
    """How the command ended, and the last it said."""
    how = f"exit code {ended.code}" if ended.signal is None else f"killed by signal {ended.signal}"
    return f"{program}: {how}" + (f": {last_line}" if last_line else "")
