"""`controller remove`."""

from __future__ import annotations

import click

from dsmt.cli.cert import tell_left
from dsmt.cli.command import CliContext, command, reason_option
from dsmt.cli.printing import document
from dsmt.operations.connection import Connection
from dsmt.operations.local import controllers


@command()
@click.argument("controller")
@reason_option
def remove(ctx: CliContext, controller: str, *, reason: str) -> None:
    """End a controller of this home for good, or forget one that is gone: its key ends, and the others go on.

    Needs the root key in this home. Another controller first signs again what this one had said for all.
    """
    home = ctx.home()

    async def work(connection: Connection) -> list[str]:
        return await controllers.remove(home, connection, controller, reason=reason, waits=ctx.waits)

    left = ctx.act(work)
    if ctx.json:
        document({"controller": controller, "left": left})
        return
    print(f"controller {controller} is removed; the other controllers decide")
    tell_left(left)
