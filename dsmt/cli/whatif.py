"""`whatif`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dsmt.cli.command import a_file, command
from dsmt.cli.context import CliContext
from dsmt.cli.names import NODE
from dsmt.cli.plan_screen import screens
from dsmt.cli.printing import document, page, show, table
from dsmt.errors import InputError
from dsmt.event.phrases import counted
from dsmt.operations.connection import Reading
from dsmt.operations.read.ahead.whatif import WhatIf
from dsmt.spec.quantities import format_duration


@command()
@click.option(
    "--kill",
    multiple=True,
    metavar="NODES",
    type=NODE,
    help="Nodes that die: a name, a set or an expression; may be repeated.",
)
@click.option("--drain", multiple=True, metavar="NODES", type=NODE, help="Nodes that are drained, in the same way.")
@click.option(
    "--spec",
    multiple=True,
    metavar="FILE",
    shell_complete=a_file,
    help="A service file that is applied first; may be repeated.",
)
def whatif(ctx: CliContext, kill: tuple[str, ...], drain: tuple[str, ...], spec: tuple[str, ...]) -> None:
    """Show what would follow if nodes died or were drained, as controllers would decide it. Changes nothing.

    It runs on a copy of the present state, in which every living node does what it is told. Brokers and controllers
    on the machines of these nodes go on in it: whether enough of them would be left is not asked.
    """
    from dsmt.operations.write import applying, declaring  # noqa: PLC0415 - the parser of YAML is slow to import

    if not (kill or drain or spec):
        raise InputError("whatif.nothing", "nothing is to happen", next="dsmt whatif --kill NODE, --drain NODE, --spec FILE")
    declared = declaring.read_files(spec) if spec else []

    async def work(connection: Reading) -> WhatIf:
        return await applying.foresee(connection.bus, declared, kill=kill, drain=drain, by=connection.by)

    found = ctx.ask(work)
    if ctx.json:
        document(found)
        return
    if found.plans:
        show(screens(found.plans, spec))
        print()
    show(screen(found, [*(() if found.killed else kill), *(() if found.drained else drain)]))


def screen(found: WhatIf, empty: Sequence[str] = ()) -> str:
    """What would follow, as people read it; `empty`: what was named, and selects nobody."""
    lines = [f"{one} selects no node now." for one in empty]
    if found.killed:
        lines.append(f"{_listed(found.killed)} would die at once.")
    if found.drained:
        lines.append(f"{_listed(found.drained)} would be drained.")
    if found.brake is not None:
        is_on = "is on already" if found.braked else "would come on"
        lines.append(f"The brake {is_on}: {found.brake.message}.")
    if found.steps:
        header = ("AT", "INSTANCE", "WHAT", "NODE", "BECAUSE")
        laid = [
            (
                (
                    f"{one.at_s:g}s",
                    one.instance,
                    one.action,
                    " -> ".join(node for node in (one.leaves, one.node) if node) or "-",
                    f"under way anyway: {one.because}" if one.anyway else one.because,
                ),
                (),
            )
            for one in found.steps
        ]
        lines += ["", *(f"  {line}" for line in table(header, laid, right=("AT",)).splitlines())]
    if found.services:
        header = ("SERVICE", "READY NOW", "LOWEST", "THEN", "WANTED")
        counts = [
            ((one.service, str(one.before), str(one.least), str(one.after), str(one.wanted)), ()) for one in found.services
        ]
        lines += ["", *(f"  {line}" for line in table(header, counts, right=header[1:]).splitlines())]
    for left in found.unready:
        why = f": {left.reason.message}" if left.reason is not None else ""
        lines += ["", f"  {left.instance} would not be ready{why}"]
    for stays in found.left:
        lines += ["", f"  {stays.instance} would stay: {stays.because}"]
    made = f"{counted(len(found.steps), 'step')}, the last after {format_duration(found.took_s)}"
    none = "no step beyond the plan" if found.plans else "no step"
    lines += ["", f"{made if found.steps else none}; nothing was changed."]
    return page(lines if lines[0] else lines[1:])


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
