"""`why`, `why-not`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from dsmt.cli.command import Count, command
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET
from dsmt.cli.printing import columns, document, one_line, page, show, table
from dsmt.cli.why_screen import screen
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import Reading
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.why import explaining, fitting
from dsmt.operations.read.why.explaining import Explained
from dsmt.operations.read.why.fitting import Fitting
from dsmt.operations.words.targets import Target

NAMED: Final = 10
"""Of how many nodes `why-not` shows the name, and what keeps each off."""


@command()
@click.argument("target", type=TARGET)
@click.option("--depth", type=Count(min=0), default=explaining.DEPTH, help="How far back to go.")
@click.option("--events", is_flag=True, help="Show every event of a loop, and all ids.")
def why(ctx: CliContext, target: str, depth: int, *, events: bool) -> None:
    """Explain the state of TARGET: in one sentence, and by the signed events that led to it, newest first.

    TARGET: SERVICE[/COMPONENT[/INDEX]], node/NODE, broker/BROKER, controller/CONTROLLER or an event id.
    """

    async def work(connection: Reading) -> Explained:
        return (await explaining.why(connection.bus, connection.trust, target, depth=depth)).explained

    found = ctx.ask(work)
    if ctx.json:
        document(found)
    else:
        print(page(screen(found, events=events, width=columns())))


@command("why-not")
@click.argument("target", type=TARGET)
@click.option("--node", default=None, metavar="NODE", help="Explain this node only.")
def why_not(ctx: CliContext, target: str, node: str | None) -> None:
    """Explain why nodes do not take an instance of TARGET: clause by clause, with the smallest change that helps."""

    async def work(connection: Reading) -> Fitting:
        return fitting.why_not(await look(connection.bus), Target.parse(target), node)

    found = ctx.ask(work)
    if ctx.json:
        document(found)
        return
    show("\n".join(why_not_lines(found)))


def why_not_lines(found: Fitting) -> list[str]:
    """The screen of `dsmt why-not`: what several nodes fail in the same words is said once."""
    fits, nodes = some(found.fits, NAMED) or "-", counted(found.nodes, "node")
    fit = f"{len(found.fits)} of {nodes} fit: {fits}"
    if found.on is not None:
        lines = [f"{found.target} has a place: it is on {found.on}", f"for one more like it {fit}"]
    elif found.has is None:
        lines = [f"{found.target}: {fit}"]
    else:
        lines = [
            f"{found.target}: one on each node that fits: on {len(found.has)} of {nodes}: {some(found.has, NAMED) or '-'}"
        ]
        lines += [f"of the others {len(found.fits)} fit: {fits}"] if found.fits else []
    if found.reason is not None:
        lines.append(f"it waits: {one_line(found.reason.message)}   {found.reason.code}")
    if found.clauses:
        laid = [
            ((one.clause, f"{one.removes} of {found.nodes}", str(one.alone)), _first([*dict.fromkeys(one.nodes.values())]))
            for one in found.clauses
        ]
        lines += ["", table(("CLAUSE", "REMOVES", "ALONE"), laid, right=("ALONE",))]
        lines.append("REMOVES: nodes that fail it.  ALONE: nodes that fail nothing else.")
    if found.suggestions:
        lines += ["", "  smallest changes that would give it a place", *(f"    {one}" for one in _first(found.suggestions))]
    return lines


def _first(lines: Sequence[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - NAMED
    return [*lines[:NAMED], f"and {more} more: --json has all, --node tells of one node"] if more > 1 else list(lines)
