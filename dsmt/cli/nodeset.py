"""`nodeset list`, `show`, `set`, `use`, `remove`."""

from __future__ import annotations

import click

from dsmt.cli import screens
from dsmt.cli.command import command, reason_option, seconds, wait_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET
from dsmt.cli.printing import document, one_line, page, table, warn
from dsmt.cli.printing import show as show_text
from dsmt.event.phrases import counted, quoted
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target
from dsmt.operations.write import nodesets
from dsmt.operations.write.nodesets import NodeSet
from dsmt.operations.write.revising import use_nodes


@command("list")
def list_sets(ctx: CliContext) -> None:
    """List the named sets, and the nodes that each selects now."""

    async def work(connection: Reading) -> list[NodeSet]:
        return nodesets.every(await look(connection.bus))

    found = ctx.ask(work)
    if ctx.json:
        document(found)
    else:
        show_text(listed(found))


@command()
@click.argument("name")
def show(ctx: CliContext, name: str) -> None:
    """Show one set, and the nodes that it selects now."""

    async def work(connection: Reading) -> NodeSet:
        return await nodesets.show(connection.bus, name)

    _tell(ctx, ctx.ask(work))


@command("set")
@click.argument("name")
@click.argument("expression")
@reason_option
def set_one(ctx: CliContext, name: str, expression: str, reason: str) -> None:
    """Give EXPRESSION a name, as in: dsmt nodeset set good 'minus(all_nodes, failed)'."""

    async def work(connection: Connection) -> NodeSet:
        return await nodesets.define(connection.bus, name, expression, by=connection.by, reason=reason)

    _tell(ctx, ctx.act(work))


@command()
@click.argument("target", type=TARGET)
@click.argument("nodes")
@reason_option
@wait_option
def use(ctx: CliContext, target: str, nodes: str, reason: str, wait: str | None) -> int:
    """Run TARGET (a component, or a service with only one) on NODES (a set or an expression). This makes a new revision."""
    named, limit = Target.parse(target), seconds(wait)

    async def work(connection: Connection) -> Applied:
        done = await use_nodes(connection.bus, named, nodes, by=connection.by, reason=reason)
        ctx.asked = f"the change of {target} to the nodes of {nodes}", f"dsmt status {named.service}"
        return done if wait is None else await ctx.settled(connection, done, limit_s=limit)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        warn(done.warnings)
        print(f"{target} is to run on the nodes of {nodes}")
        print(page(screens.applied(done)))
    return int(done.failed)


@command()
@click.argument("name")
@yes_option
@reason_option
def remove(ctx: CliContext, name: str, *, yes: bool, reason: str) -> None:
    """Forget a named set. For a set that is in use it asks first."""

    async def look_at(connection: Reading) -> NodeSet:
        return await nodesets.show(connection.bus, name)

    used = [] if yes else ctx.ask(look_at).used_by
    if used:
        named, ends = ", ".join(used), "without it that name selects no node"
        ctx.confirm(
            f"{name} is used by {named}: {ends}, so what has to be placed for them may have no place; what runs stays",
            f"realm {ctx.home().realm().name}: remove node set {name}?",
            no=f"node set {name} is not removed",
            advice=f"dsmt nodeset show {name}; dsmt nodeset remove {name} --yes",
        )

    async def work(connection: Connection) -> NodeSet:
        return await nodesets.forget(connection.bus, name, by=connection.by, used=yes or bool(used), reason=reason)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        print(f"node set {name} is removed")


def _tell(ctx: CliContext, found: NodeSet) -> None:
    if ctx.json:
        document(found)
    else:
        show_text(screen(found))


def listed(found: list[NodeSet]) -> str:
    """Every named set in a line."""
    laid = [((one.name, str(len(one.nodes)), one.expression, one.by), _cycle(one)) for one in found]
    return table(("SET", "NODES", "EXPRESSION", "BY"), laid, right=("NODES",)) if found else "no named sets"


def _cycle(one: NodeSet) -> tuple[str, ...]:
    if one.cycle is None:
        return ()
    return (one.cycle, f"nothing leaves its node or is placed for them; next: dsmt nodeset set {one.name} EXPRESSION")


def screen(found: NodeSet) -> str:
    """One set: its expression, what it selects now, and who uses it."""
    lines = [
        one_line(f"{found.name} = {found.expression}   by {found.by}{quoted(found.reason)}"),
        f"  selects {counted(len(found.nodes), 'node')} now: {', '.join(found.nodes) or '-'}",
    ]
    lines += [f"  {line}" for line in _cycle(found)]
    if found.unknown:
        lines.append(f"  names neither a set nor a node now: {', '.join(found.unknown)}")
    if found.hides is not None:
        lines.append(f"  hides the node {found.hides}: its name now means this set; dsmt nodeset remove {found.name}")
    if found.used_by:
        lines.append(f"  used by {', '.join(found.used_by)}")
    return "\n".join([*lines, *map(screens.overruled, found.overruled)])
