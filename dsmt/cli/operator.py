"""`operator add`: a further person with a key of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dsmt.cli.cert import date
from dsmt.cli.command import a_directory, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.errors import InputError
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.members import operators


@command()
@click.argument("name")
@click.option(
    "--into",
    "into",
    default=None,
    metavar="DIR",
    shell_complete=a_directory,
    help="The home to make; a directory called NAME, here, by default.",
)
def add(ctx: CliContext, name: str, into: str | None) -> None:
    """Make the home of a further operator, with a key of their own. Needs the root key in this home."""
    if into == "":  # a variable of a script that was not set
        raise InputError("file.none", f"{into!r} names no directory", next="name the one to make, or leave --into out")
    home, made, now = ctx.home(), Path(into or name).absolute(), date(ctx)

    async def work() -> operators.Added:
        async with alone(home, ctx.tell_waits):
            return operators.add(home, name, made, now)

    done = asyncio.run(work())
    ctx.done = True
    if ctx.json:
        document(done)
        return
    print(f"{done.name} has a key until {done.expires}; it is in {done.home}, and nowhere else")
    print("bring that directory to where it is used, so that nobody else reads it, and remove it here")
    print(f"next: there, dsmt --home DIR status; here, to end the key, dsmt cert revoke {done.name}")
