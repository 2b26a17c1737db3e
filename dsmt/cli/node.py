"""`nodes`, `node show`, `node drain`, `node exclude`, `node include`."""

from __future__ import annotations

import click

from dsmt.cli import screens
from dsmt.cli.command import CliContext, command, reason_option, seconds, wait_option
from dsmt.cli.listing import seen
from dsmt.cli.printing import counted, document
from dsmt.operations.local.connection import Connection
from dsmt.operations.read.members import node_shown
from dsmt.operations.read.members import nodes as of_nodes
from dsmt.operations.write.node_control import Controlled, Mode, drained, set_mode


@command()
def nodes(ctx: CliContext) -> None:
    """Every node: alive or not, what it has, what it runs."""
    sight = seen(ctx)
    found = of_nodes(sight)
    if ctx.json:
        document(found)
    else:
        print(screens.nodes(found, sight))


@command()
@click.argument("node")
def show(ctx: CliContext, node: str) -> None:
    """One node and every process of ours on it; killing them all in this order is the death of the node."""
    sight = seen(ctx)
    found = node_shown(sight, node)
    if ctx.json:
        document(found)
    else:
        print(screens.node_shown(found, sight))


@command()
@click.argument("node")
@reason_option
@wait_option
def drain(ctx: CliContext, node: str, reason: str, wait: str | None) -> None:
    """Move everything off NODE and place nothing more there."""
    _set(ctx, node, "draining", reason, wait)


@command()
@click.argument("node")
@reason_option
def exclude(ctx: CliContext, node: str, reason: str) -> None:
    """Place nothing more on NODE; what runs there stays."""
    _set(ctx, node, "excluded", reason, None)


@command()
@click.argument("node")
@reason_option
def include(ctx: CliContext, node: str, reason: str) -> None:
    """Use NODE again."""
    _set(ctx, node, "active", reason, None)


def _set(ctx: CliContext, node: str, mode: Mode, reason: str, wait: str | None) -> None:
    limit = seconds(wait)

    async def work(connection: Connection) -> Controlled:
        done = await set_mode(connection.bus, node, mode, by=connection.by, reason=reason)
        ctx.asked = f"what was asked of {node}", f"dsmt node show {node}"
        return done if wait is None else await drained(connection.bus, node, limit_s=limit)

    done = ctx.act(work)
    if ctx.json:
        document(done)
        return
    was = "" if done.changed else " already"
    match mode:
        case "draining":
            moving = done.instances - len(done.pinned)
            left = f"{counted(moving, 'instance')} to move" if moving > 0 else "nothing is left to move there"
            print(f"{node} is {done.mode}{was}: {left}; dsmt node include {node} undoes it")
            for key in done.pinned:
                print(f"  {key} stays with its data; dsmt move {key} --accept-data-loss moves it without")
        case "excluded":
            print(f"{node} is excluded{was}: nothing more is placed there; dsmt node include {node} undoes it")
        case _:
            print(f"{node} is active{was}")
