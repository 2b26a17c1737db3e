"""The command line as an operator uses it: a process of its own, its exit code and what it printed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm

PATIENCE_S = 150.0


@dataclass(frozen=True)
class Said:
    """What a command has printed, and how it ended."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document of a listing command."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The objects of a streaming command."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error object of `--json`; its exit code is the process's."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        assert found["exit"] == self.code, self
        return found


def command(*arguments: str) -> list[str]:
    """The argv of a command line."""
    return [sys.executable, "-m", "dsmt", *arguments]


async def dsmt(
    home: Path,
    *arguments: str,
    code: int = 0,
    stdin: str = "",
    env: dict[str, str] | None = None,
    within: Sequence[str] = (),
) -> Said:
    """Run one command to its end, which has to be the exit code `code`. `within` goes before its argv."""
    try:
        done = await warm.run_beside(
            *arguments, env=_environment(home, env), stdin=stdin.encode(), within=within, seconds=PATIENCE_S
        )
    except TimeoutError:
        raise AssertionError(f"dsmt {' '.join(arguments)} did not end in {PATIENCE_S:.0f} s") from None
    said = Said(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert said.code == code, said
    assert "Traceback" not in said.err, said
    return said


async def start(
    home: Path, *arguments: str, env: dict[str, str] | None = None, within: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    """Start a command, in an interpreter of its own; who starts it ends it."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *within,
        *command(*arguments),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=_environment(home, env),
        start_new_session=True,
    )


def _environment(home: Path, env: dict[str, str] | None) -> dict[str, str]:
    told = {**os.environ, "DSMT_HOME": str(home), "NO_COLOR": "1", **(env or {})}
    told.pop("DSMT_BUS", None)
    return told
