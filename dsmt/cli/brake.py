"""`brake show`, `brake hold`, `brake release`."""

from __future__ import annotations

from dsmt.cli.command import command, reason_option
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, one_line, page
from dsmt.cli.screens import idle, overruled
from dsmt.event.phrases import quoted
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.screens.summaries import BrakeSummary
from dsmt.operations.write import braking


@command()
def show(ctx: CliContext) -> None:
    """Show whether the brake is on or held, and why."""

    async def work(connection: Reading) -> braking.BrakeShown:
        return await braking.show(connection.bus)

    found = ctx.ask(work)
    _print(ctx, found)
    if found.overruled and not ctx.json:
        print("\n".join(map(overruled, found.overruled)))


@command()
@reason_option
def hold(ctx: CliContext, reason: str) -> None:
    """Replace nothing until the brake is released; restarts on the same node go on."""

    async def work(connection: Connection) -> braking.BrakeHeld:
        return await braking.hold(connection.bus, by=connection.by, reason=reason)

    done = ctx.act(work)
    _print(ctx, done)
    if ctx.json:
        return
    if done.kept:
        print("  it was held already; nothing was changed")
    elif done.replaced_by is not None:
        print(one_line(f"  this replaces the hold of {done.replaced_by}{quoted(done.replaced_reason)}"))


@command()
@reason_option
def release(ctx: CliContext, reason: str) -> None:
    """Release the brake, and replace the instances of silent nodes."""

    async def work(connection: Connection) -> BrakeSummary:
        return await braking.release(connection.bus, by=connection.by, reason=reason)

    _print(ctx, ctx.act(work))


def _print(ctx: CliContext, brake: BrakeSummary) -> None:
    if ctx.json:
        document(brake)
    elif brake.held:
        print(page([f"brake HELD by {brake.by}{quoted(brake.reason)}: nothing is replaced; dsmt brake release goes on"]))
    elif brake.on:
        silent = ", ".join(brake.silent)
        print(f"brake ON: {len(brake.silent)} of {brake.total} nodes went silent at once: {silent}")
        print("  you: dsmt nodes, then dsmt brake release")
    else:
        silent = f"{len(brake.silent)} of {brake.total} nodes silent{idle(brake)}"
        print(f"brake off: {silent}; it comes on above {brake.acts_above}")
