"""`clock accept`."""

from __future__ import annotations

import click

from dsmt.cli.command import CliContext, command, reason_option
from dsmt.cli.printing import document
from dsmt.operations.local.connection import Connection
from dsmt.operations.words.times import off_by, span
from dsmt.operations.write import clocks


@command()
@click.argument("broker")
@reason_option
def accept(ctx: CliContext, broker: str, reason: str) -> None:
    """Accept the clock of a broker's machine as realm time, though it is far off."""

    async def work(connection: Connection) -> clocks.Clock:
        return await clocks.accept(connection.bus, broker, by=connection.by, reason=reason)

    found = ctx.act(work)
    if ctx.json:
        document(found)
    else:
        print(f"{broker} takes its machine's clock as realm time; it was {off_by(found.ahead_s)}")
        if found.there_in_s:
            print(f"realm time never goes back: it runs slower, and is right in {span(found.there_in_s * 1000)}")
