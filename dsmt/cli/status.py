"""`status`: the realm on one screen, or one service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dsmt.cli import screens, service_screen
from dsmt.cli.command import DIFFERS, command, local_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET, remember
from dsmt.cli.printing import document, show, warn
from dsmt.errors import InputError, TransportError
from dsmt.event.phrases import some
from dsmt.operations.connection import Reading
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.members.certificates import learn
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.realm.tailing import TailQuery, tail
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.summaries import Service
from dsmt.operations.read.screens.summaries import service as of_service
from dsmt.operations.read.screens.summaries import status as of_realm
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.targets import Target, no_service
from dsmt.ports.bus import Arrived, BusReader

if TYPE_CHECKING:
    from dsmt.operations.local.moving.migrating import Move

WELL = frozenset(("ok", "held"))
"""States in which all is as it should be."""
LOOKED_AT = 60
"""Events that are looked at for the last few that say something new."""


@command()
@click.argument("target", type=TARGET, required=False)
@local_option
@click.option("--exit-code", is_flag=True, help="Exit with 6 unless all is ok; a service may also be held.")
def status(ctx: CliContext, target: str | None, *, local: bool, exit_code: bool) -> int:
    """Show the realm on one screen; or TARGET (a service, component or instance): what is wrong with it, what happened last.

    RESTARTS counts how often an instance's program was begun again on its node after a failure, whatever revision failed
    there; an installation that is tried again does not count.

    With --local: this machine, by its own files and processes: what of dsmt lives on it, which brokers it reaches, and what
    runs here.
    """
    if local:
        if exit_code:
            message = "--exit-code cannot be combined with --local: one machine does not know whether all is well"
            raise InputError("local.form", message, next="leave one of them out")
        from dsmt.cli import here  # noqa: PLC0415 - only on a machine that is cut off

        here.status(ctx, None if target is None else Target.parse(target))
        return 0
    home = ctx.home()
    if home.exists and home.is_joined and not home.operator_file.exists():
        from dsmt.operations.local.members.letting_in import check_let_in  # noqa: PLC0415 - only where no operator is

        async def let_in() -> None:
            with ctx.lasting() as waits:
                waits(f"an answer at {some([address for address, _ in home.realm().brokers])}")
                await check_let_in(home)

        asyncio.run(let_in())
    state = _realm(ctx) if target is None else _service(ctx, target)
    return DIFFERS if exit_code and state not in WELL else 0


def _realm(ctx: CliContext) -> str:
    """Show the realm; its state."""
    home = ctx.home()
    known = home.realm().addresses

    async def work(connection: Reading) -> tuple[Any, Sight]:
        sight = await look(connection.bus, passing=True)
        learn(connection.trust, home, role="issuer/")  # whom nobody has met since it was rotated, for it certified nobody
        return of_realm(sight, connection.trust, known), sight

    told, sight = ctx.ask(work)
    remember(ctx, sight)
    move = _move(home)
    if ctx.json:
        document({**msgspec.to_builtins(told), "move": move})
    else:
        show(screens.status(told, sight, move))
    return str(told.state)


def _move(home: Home) -> Move | None:
    if home.moving() is None:
        return None
    from dsmt.operations.local.moving.migrating import shown  # noqa: PLC0415 - only while a move is under way

    return shown(home)


def _service(ctx: CliContext, name: str) -> str:
    """Show a service, or a part of it; its state."""
    target = Target.parse(name)

    async def work(connection: Reading) -> tuple[Service, list[InstanceRow], list[Arrived], list[Any], Sight, str]:
        sight = await look(connection.bus, passing=True)
        rows = instances(sight, target, ending=True)
        found = of_service(sight, target.service, target)
        if found is None:
            raise no_service(sight.view, name)
        events = await _last_events(connection.bus, target)
        objects = [event_object(item.signed, connection.trust) for item in reversed(events)]
        return found, rows, events, objects, sight, connection.realm.name

    found, rows, events, objects, sight, realm = ctx.ask(work)
    if ctx.json:
        document({**msgspec.to_builtins(found), "target": name, "instances": rows, "events": objects, "realm": realm})
    else:
        said = [item.signed.event for item in events]
        show(service_screen.screen(found, rows, said, sight=sight, realm=realm, part=target))
    return found.state


async def _last_events(bus: BusReader, target: Target) -> list[Arrived]:
    """The last that was said of what a target is to be and how it is; none, with a warning, where that does not come."""
    events: list[Arrived] = []
    try:
        async with patience("its last events"):
            async for batch in tail(bus, TailQuery(target.states, last=LOOKED_AT, follow=False)):
                events += [item for item in batch if isinstance(item, Arrived)]
    except TransportError as late:
        if late.code != "bus.slow":
            raise
        warn([f"{late.message}: dsmt tail {' '.join(target.states)}"])
    return events
