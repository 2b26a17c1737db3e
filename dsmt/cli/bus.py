"""`bus migrate`."""

from __future__ import annotations

import asyncio

import click

from dsmt.cli.command import CliContext, command
from dsmt.cli.machine import attached
from dsmt.cli.printing import document
from dsmt.errors import InputError
from dsmt.operations.local import migrating
from dsmt.operations.local.brokers import of_home
from dsmt.operations.local.connection import connect, reading
from dsmt.operations.local.home import Home
from dsmt.operations.local.keeping import is_up
from dsmt.operations.local.machine import Started
from dsmt.operations.write.brokers import announce
from dsmt.programs.configuration import CopiedFile

ATTACHED_S = 120.0
"""Servers that are started together may take long to find their leaders."""


@command()
@click.argument("engine", required=False, type=click.Choice(["dsmt", "nats"]))
@click.option("--cut", is_flag=True, help="Move the realm to what was copied; its services run on.")
@click.option("--abort", is_flag=True, help="Stay with the brokers, and remove what was copied.")
def migrate(ctx: CliContext, engine: str | None, *, cut: bool, abort: bool) -> None:
    """Move a realm that runs from dsmt's brokers to NATS: copy beside it with `nats`, look, then --cut or --abort."""
    if (engine is not None) + cut + abort != 1:
        raise InputError("migrate.what", "say one of: nats, --cut, --abort", next="dsmt bus migrate --help")
    home = ctx.home()
    home.realm()
    if engine is not None:
        _begin(ctx, home, engine)
    elif cut:
        asyncio.run(_cut(ctx, home))
    else:
        asyncio.run(_abort(ctx, home))


def _begin(ctx: CliContext, home: Home, engine: str) -> None:
    migrating.check_home(home, engine)

    async def work() -> CopiedFile:
        await _look(home)
        await migrating.begin(home, waits=ctx.waits)
        with ctx.progress() as tell:
            return await migrating.level(home, tell or _silent)

    told = asyncio.run(work())
    if ctx.json:
        document({"engine": engine, "rows": told.row, "level": told.level})
        return
    print(f"NATS runs beside the brokers and has all {told.row} rows; what comes is copied; nobody has moved")
    print("next: dsmt bus migrate --cut moves the realm; dsmt bus migrate --abort removes NATS again")


def _silent(_: str) -> None:
    pass


async def _cut(ctx: CliContext, home: Home) -> None:
    going_on = migrating.is_cut(home)
    serves = migrating.serves(home)
    if not going_on:
        await _look(home)
    with ctx.progress() as shown:
        tell = shown or _silent
        if not going_on:
            await migrating.level(home, tell)
        started = await migrating.cut(home, tell=tell, waits=ctx.waits)
    await _attached(home, started)
    aside = await migrating.finish(home, waits=ctx.waits)
    if ctx.json:
        document({"engine": "nats", "brokers": started.brokers, "aside": aside})
        return
    services = "no service was restarted" if serves else "it is up, and its services are started"
    print(f"realm {started.realm} is on NATS: {', '.join(started.brokers)}; {services}")
    print(f"what the brokers had stays in {aside} until you remove it; nothing reads it any more")


async def _look(home: Home) -> None:
    """See that the realm can be moved, where it is up and can be asked."""
    if is_up(home):
        async with reading(home.operator(), home.realm()) as connection:
            await migrating.check_realm(connection.bus, home)


async def _abort(ctx: CliContext, home: Home) -> None:
    started = await migrating.abort(home, waits=ctx.waits)
    if started is not None:
        await _attached(home, started)
    if ctx.json:
        document({"engine": "dsmt", "started": started is not None})
    else:
        again = "; the realm was started again, and no service was" if started is not None else ""
        print(f"the realm stays on its brokers, and what was copied to NATS is removed{again}")


async def _attached(home: Home, started: Started) -> None:
    """Wait until all nodes are alive, and say where the servers are."""
    await attached(home, started, limit_s=ATTACHED_S)
    known = of_home(home)
    if len(known) > 1:
        async with connect(home.operator(), home.realm()) as connection:
            await announce(connection.bus, known, by=connection.by)
