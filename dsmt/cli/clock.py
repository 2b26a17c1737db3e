"""`clock accept`."""

from __future__ import annotations

import click

from dsmt.cli.command import command, reason_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.event.hlc import rfc3339
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.local.members import certificates
from dsmt.operations.words.times import off_by, span
from dsmt.operations.write import clocks

_SHOWN = 8


@command()
@click.argument("broker")
@yes_option
@reason_option
def accept(ctx: CliContext, broker: str, *, yes: bool, reason: str) -> None:
    """Accept the clock of a broker's machine as realm time, though it is far off."""

    async def look(connection: Reading) -> clocks.Jump:
        certificates.learn(connection.trust, ctx.home())
        return await clocks.foreseen(connection.bus, connection.trust, broker)

    jump = None if yes else ctx.ask(look)
    if jump is not None and (jump.ended or jump.runs_out):
        _confirm(ctx, broker, jump)

    async def work(connection: Connection) -> clocks.AcceptedClock:
        return await clocks.accept(connection.bus, broker, by=connection.by, reason=reason)

    found = ctx.act(work)
    if ctx.json:
        document(found)
    else:
        print(f"{broker} takes its machine's clock as realm time; it was {off_by(found.ahead_s)}")
        if found.there_in_s:
            print(f"realm time never goes back: it runs slower, and is right in {span(found.there_in_s * 1000)}")


def _confirm(ctx: CliContext, broker: str, jump: clocks.Jump) -> None:
    """Ask on a terminal; refuse without one. Raises `InputError`, and `FailedError` for a no."""
    ends = "; ".join([*_ended(jump), *running_out_said(jump)])
    ctx.confirm(
        f"realm time would be {rfc3339(jump.to_ms)} and never goes back: {ends}",
        f"realm {ctx.home().realm().name}: take the clock of {broker}'s machine?",
        no=f"the clock of {broker} is not accepted",
        advice=f"set the clock of its machine right; if it is, dsmt clock accept {broker} --yes",
    )


def _ended(jump: clocks.Jump) -> list[str]:
    if not jump.ended:
        return []
    ended = f"by then {counted(len(jump.ended), 'certificate')} will have ended ({some(jump.ended, _SHOWN)})"
    return [f"{ended}, and whose has ended is out until it is rotated with the root key"]


def running_out_said(jump: clocks.Jump) -> list[str]:
    """What a jump would end that waits, as the question says it; nothing where nothing does."""
    return [f"what waits will have waited for long enough: {some(jump.runs_out, _SHOWN)}"] if jump.runs_out else []
