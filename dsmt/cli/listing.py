"""`ps`, `endpoints`, `services`, `brokers`, `controllers`."""

from __future__ import annotations

import sys
from collections.abc import Collection

import click

from dsmt.cli import member_screens, screens
from dsmt.cli.command import command, local_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET, remember
from dsmt.cli.printing import document, page, show
from dsmt.errors import InputError
from dsmt.event.addresses import host_port
from dsmt.operations.connection import Reading
from dsmt.operations.local.processes.asking import asked
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.broker_rows import BrokerRow, broker_rows, with_ended
from dsmt.operations.read.rows.certificates import ended_brokers, ended_in, in_use
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.endpoints import Reached
from dsmt.operations.read.rows.endpoints import endpoints as of_endpoints
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.summaries import services as of_services
from dsmt.operations.words.targets import Target


def seen(ctx: CliContext, named: Target | None = None) -> Sight:
    """The realm now, with what passes by; of services only that of a target, if there is one of its name."""

    async def work(connection: Reading) -> tuple[Sight, bool]:
        if named is not None:
            sight = await look(connection.bus, passing=True, of=(named.service,))
            if named.service in sight.view.services:
                return sight, False
        return await look(connection.bus, passing=True), True

    sight, whole = ctx.ask(work)
    if whole:
        remember(ctx, sight)
    return sight


@command()
@click.argument("target", type=TARGET, required=False)
@click.option("-l", "labels", multiple=True, metavar="KEY=VALUE", help="Only services with this label.")
@click.option("--problems", is_flag=True, help="Only instances with a problem, or whose start-up check fails.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also instances that have ended, and copies on other nodes.")
@local_option
def ps(
    ctx: CliContext, target: str | None, labels: tuple[str, ...], *, problems: bool, everything: bool, local: bool
) -> None:
    """List the instances (of TARGET: a service, component or instance): where each runs, and its state.

    RESTARTS counts how often its program was begun again on its node after a failure, whatever revision failed there; an
    installation that is tried again does not count. SINCE is how long its state has lasted.

    With --local: what is on this machine, by its own files and processes, whoever else is dead.
    """
    wanted = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise InputError("label.form", f"{label!r} is not a label", next="write -l KEY=VALUE")
        wanted[key] = value
    named = None if target is None else Target.parse(target)
    if local:
        from dsmt.cli import here  # noqa: PLC0415 - only on a machine that is cut off

        here.ps(ctx, named, wanted, problems=problems)
        return
    sight = seen(ctx, named)
    rows = instances(sight, named, labels=wanted, problems=problems, everything=everything, ending=not problems)
    if ctx.json:
        document(rows)
    else:
        show(screens.ps(rows, sight))


@command()
@click.argument("target", type=TARGET, required=False)
def endpoints(ctx: CliContext, target: str | None) -> None:
    """Show where the instances (of TARGET: a service, component or instance) can be reached now: a line for each port."""
    named = None if target is None else Target.parse(target)
    found = of_endpoints(seen(ctx, named), named)
    if ctx.json:
        document(found)
        return
    if not any(one.ports for one in found):
        whose = ("there is", "", "dsmt ps") if target is None else (f"{target} has", " of it", f"dsmt ps {target}")
        said = f"{whose[0]} no endpoint: no instance{whose[1]} is ready and has ports; {whose[2]} shows them"
        print(said, file=sys.stderr)  # who reads the lines gets none
    else:
        show(endpoint_lines(found))


def endpoint_lines(found: list[Reached]) -> str:
    """A line for each port that can be reached."""
    ports = ((one, name, port) for one in found for name, port in one.ports.items())
    return page(f"{one.instance}  {name}  {host_port(one.address, port)}  {one.node}" for one, name, port in ports)


@command()
def services(ctx: CliContext) -> None:
    """List the services, and how many instances of each are ready."""
    sight = seen(ctx)
    found = of_services(sight)
    if ctx.json:
        document(found)
    else:
        show(screens.services(found, sight))


@command()
def brokers(ctx: CliContext) -> None:
    """List the brokers; dsmt asks a broker that is not alive what is wrong with it.

    FACTS is how many each held when it last said so, up to 30 s ago, with those of its own: they differ where nothing is
    missing. Below one that lacks something stands that it is not whole yet.
    """
    home = ctx.home()
    realm = home.realm()

    async def work(connection: Reading) -> tuple[Sight, list[BrokerRow]]:
        sight = await look(connection.bus, passing=True)
        now_s, trust = sight.now_ms // 1000, connection.trust
        used = in_use(trust, now_s)
        found = await asked(connection.identity, home, realm, broker_rows(sight, realm.addresses))
        revoked = {name for name, one in used.items() if trust.is_revoked(one.key_id, name)}
        return sight, with_ended(found, ended_brokers(used, now_s), revoked)

    sight, found = ctx.ask(work)
    remember(ctx, sight)
    if ctx.json:
        document(found)
    else:
        show(member_screens.brokers(found, sight))


@command()
def controllers(ctx: CliContext) -> None:
    """List the controllers."""

    async def work(connection: Reading) -> tuple[Sight, Collection[str]]:
        sight = await look(connection.bus, passing=True)
        now_s = sight.now_ms // 1000
        return sight, ended_in("controller", in_use(connection.trust, now_s), now_s)

    sight, ended = ctx.ask(work)
    remember(ctx, sight)
    found = controller_rows(sight)
    if ctx.json:
        document(found)
    else:
        show(member_screens.controllers(found, sight, ended))
