"""`logs`: what instances have written."""

from __future__ import annotations

import sys

import click

from dsmt.cli.command import Count, command, local_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET, revision_number
from dsmt.cli.printing import line
from dsmt.cli.while_read import while_read
from dsmt.errors import InputError
from dsmt.event.envelope import EventId
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import STEPS
from dsmt.operations.connection import Connection
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import moment, time_or_null
from dsmt.operations.write import asking_logs
from dsmt.operations.write.asking_logs import LogLine, LogNotice


@command()
@click.argument("target", type=TARGET)
@click.option("-n", "lines", type=Count(min=0, max=10_000), default=None, help="The last N lines of each stream (100).")
@click.option(
    "--since",
    default=None,
    metavar="TIME",
    help="When to start, to within half a minute: 10m (ago), 14:05 or an RFC 3339 time.",
)
@click.option("-f", "--follow", is_flag=True, help="Follow new lines, across restarts and moves.")
@click.option("--previous", is_flag=True, help="The last run that has ended; plain `logs` shows what runs.")
@click.option("--revision", default=None, metavar="N", help="The last run of a revision, such as r2, that ran here.")
@click.option("--step", default=None, type=click.Choice(STEPS), help="Show the log of this step instead.")
@local_option
def logs(
    ctx: CliContext,
    target: str,
    *,
    lines: int | None,
    since: str | None,
    follow: bool,
    previous: bool,
    revision: str | None,
    step: str | None,
    local: bool,
) -> None:
    """Show what the instances of TARGET have written.

    A program writes its files itself. So a line has a time only if it is written while you follow; else the time is null.

    With --local: what is in the files of this machine, with no broker and no agent.
    """
    if step is not None and (follow or previous or since is not None):
        raise _not_together("--step", "--follow, --previous or --since")
    if previous and since is not None:
        raise _not_together("--previous", "--since")
    if revision is not None and (follow or previous or since is not None or step is not None):
        raise _not_together("--revision", "--follow, --previous, --since or --step")
    if local and since is not None:
        raise _not_together("--local", "--since: no file says when a line was written")
    number = None if revision is None else revision_number(revision, option="--revision")
    named = Target.parse(target)
    if local:
        from dsmt.cli import here  # noqa: PLC0415 - only on a machine that is cut off

        last = 100 if lines is None else lines
        told = asking_logs.LogQuery(last, follow=follow, previous=previous, revision=number, step=step)
        here.logs(ctx, named, told, written)
        return
    many = named.index is None

    async def work(connection: Connection) -> None:
        begin = None if since is None else moment(since, connection.bus.now_ms())
        if isinstance(begin, EventId):
            raise InputError("time.form", "--since takes a time here, not an event", next="write the time of the event")
        last = lines if lines is not None else 100 if begin is None else asking_logs.MOST
        wanted = asking_logs.LogQuery(last, since_ms=begin, follow=follow, previous=previous, revision=number, step=step)
        async for batch in asking_logs.logs(connection.bus, named, wanted):
            for one in batch:
                written(ctx, one, many=many)
            sys.stdout.flush()

    ctx.act(lambda connection: while_read(work(connection)))


def _not_together(one: str, others: str) -> InputError:
    return InputError("logs.form", f"{one} cannot be combined with {others}", next="use one of them")


def written(ctx: CliContext, one: LogLine | LogNotice, *, many: bool) -> None:
    """Print a line; what is told beside it goes to people only."""
    if isinstance(one, LogNotice):
        if not ctx.json:
            sys.stderr.write(f"-- {one.message}\n")
    elif ctx.json:
        told = {"instance": one.instance, "node": one.node, "stream": one.stream, "line": one.line}
        line({**told, "time": time_or_null(one.time_ms), "answered_at": rfc3339(one.answered_ms)})
    else:
        text = one.line.replace("\n", "\\n")  # whoever says it: it is one line, of that instance
        sys.stdout.write(f"{one.instance} | {text}\n" if many else f"{text}\n")
