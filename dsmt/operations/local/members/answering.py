"""Answering: a program that does one thing in a home of this machine, for who has reached it over SSH.

What it is told is JSON on standard input, and what it answers is JSON on standard output. An error is told on standard error
as the command line tells it with `--json`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from dsmt.errors import DsmtError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import alone
from dsmt.operations.words.telling import silent

Told = TypeVar("Told")


def answer(directory: str, kind: type[Told], act: Callable[[Home, Told], object]) -> int:
    """Do what standard input tells, alone in the home of a directory, and tell what that gives; the exit code."""
    home, told = Home(Path(directory)), msgspec.json.decode(sys.stdin.read(), type=kind)

    async def done() -> object:
        async with alone(home, silent):
            return act(home, told)

    try:
        answered = asyncio.run(done())
    except DsmtError as error:
        sys.stderr.write(json.dumps({"error": error.told()}) + "\n")
        return error.exit
    sys.stdout.write(msgspec.json.encode(answered).decode() + "\n")
    return 0
