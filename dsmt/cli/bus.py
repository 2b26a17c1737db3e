"""`bus migrate`."""

from __future__ import annotations

import asyncio

import click

from dsmt.cli.command import Engine, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.errors import InputError, TransportError
from dsmt.event.phrases import counted
from dsmt.operations.local.home.home import ENGINES, Home
from dsmt.operations.local.moving import migrating, moving
from dsmt.operations.local.moving.ways import WAYS, way_to
from dsmt.programs.configuration import CopiedFile


@command()
@click.argument("engine", required=False, type=Engine())
@click.option("--cut", is_flag=True, help="Move the realm to the copy; its services run on.")
@click.option("--abort", is_flag=True, help="Leave the realm where it is, and remove the copy.")
def migrate(ctx: CliContext, engine: str | None, *, cut: bool, abort: bool) -> None:
    """Move a running realm to NATS, or to dsmt's brokers: copy with `nats` or `dsmt`, look, then --cut or --abort."""
    if (engine is not None) + cut + abort != 1:
        raise InputError("migrate.what", "say one of: nats, dsmt, --cut, --abort", next="dsmt bus migrate --help")
    home = ctx.home()
    home.realm()
    if engine is not None:
        _begin(ctx, home, engine)
    elif cut:
        asyncio.run(_cut(ctx, home))
    else:
        asyncio.run(_abort(ctx, home))


def _begin(ctx: CliContext, home: Home, engine: str) -> None:
    way = way_to(home, engine)

    async def work() -> CopiedFile:
        await moving.check(home, way)
        await migrating.begin(home, engine, waits=ctx.tell_waits)
        with ctx.progress() as tell:
            return await migrating.level(home, tell)

    told = asyncio.run(work())
    ctx.done = True
    if ctx.json:
        document({"engine": engine, "rows": told.row, "level": told.level})
        return
    has, again = "NATS runs beside the brokers and has", "NATS"
    if engine == "dsmt":
        has, again = "the stores of brokers are beside NATS and have", "them"
    print(f"{has} all {told.row} rows; new rows are copied, too; no member has moved yet")
    print(f"next: dsmt bus migrate --cut moves the realm; dsmt bus migrate --abort removes {again} again")


async def _cut(ctx: CliContext, home: Home) -> None:
    going_on = migrating.is_cut(home)
    serves = migrating.serves(home)
    engine = migrating.under_way(home)
    if not going_on:
        await moving.check(home, WAYS[engine])
    with ctx.progress() as tell:
        members = {} if going_on else await moving.tell_where(home)
        if not going_on:
            await migrating.level(home, tell)
        started = await migrating.cut(home, tell=tell, waits=ctx.tell_waits, members=members)
        move = home.moving()
        members = {} if move is None else move.members
        away = await moving.attached(home, started, members)
    aside = await migrating.finish(home, waits=ctx.tell_waits)
    ctx.done = True
    if ctx.json:
        document({"engine": engine, "brokers": started.brokers, "aside": aside, "members": [*members], "away": away})
        return
    services = "no service was restarted" if serves else "it is up, and its services are started"
    print(f"realm {started.realm} is on {ENGINES[engine]}: {', '.join(started.brokers)}; {services}")
    before = "the brokers" if engine == "nats" else "NATS"
    if members:
        print(f"{counted(len(members) - len(away), 'member')} on other machines came along")
    for one in away:
        print(f"{one} has not come yet: dsmt nodes and dsmt controllers show when it does")
    if aside:  # else another one has finished it
        print(f"what {before} had stays in {aside} until you remove it; nothing reads it any more")


async def _abort(ctx: CliContext, home: Home) -> None:
    engine = migrating.under_way(home)
    started = await migrating.abort(home, waits=ctx.tell_waits)
    if started is not None:
        await moving.attached(home, started, {})
    try:
        await moving.stays(home, engine)
    except TransportError as error:
        said = f"what was copied is removed, and the realm stays, but members elsewhere were not told so: {error.message}"
        raise TransportError(error.code, said, next=error.next) from error
    ctx.done = True
    if ctx.json:
        document({"engine": "nats" if engine == "dsmt" else "dsmt", "started": started is not None})
        return
    again = "; the realm was started again, and no service was" if started is not None else ""
    stays, gone = ("on its brokers", "NATS") if engine == "nats" else ("on NATS", "brokers")
    print(f"the realm stays {stays}, and what was copied to {gone} is removed{again}")
