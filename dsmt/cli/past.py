"""`history`, `rollback`."""

from __future__ import annotations

import click

from dsmt.cli import screens
from dsmt.cli.command import command, reason_option, seconds, wait_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET, revision_number
from dsmt.cli.printing import document, page, show, table, warn
from dsmt.event.phrases import counted
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.realm.sight import Sight, look_at
from dsmt.operations.read.rows.past import Revision
from dsmt.operations.read.rows.past import history as of_service
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.write import rolling_back


@command()
@click.argument("service", type=TARGET)
def history(ctx: CliContext, service: str) -> None:
    """List SERVICE's revisions: when, by whom and why each was applied; and which one runs, is good or was refused.

    If a key was revoked since, dsmt no longer believes what only this key said. An earlier revision may then not be good.
    """

    async def work(connection: Reading) -> tuple[list[Revision], Sight]:
        sight = await look_at(connection.bus, service, passing=True)
        return await of_service(connection.bus, sight, service), sight

    found, sight = ctx.ask(work)
    if ctx.json:
        document(found)
    else:
        show(screen(service, found, sight))


def screen(service: str, found: list[Revision], sight: Sight) -> str:
    """The screen of `dsmt history`."""
    header = ("REVISION", "WHEN", "BY", "STATE", "REASON")
    laid = [
        (
            (
                f"r{one.revision}",
                f"{screens.age(one.at, sight.now_ms)} ago",
                one.by,
                ", ".join(["removed"] * one.removed + one.state) or "-",
                one.reason or "-",
            ),
            [one.refusal] if one.refusal else [],
        )
        for one in found
    ]
    first = found[-1].revision
    gone = "r1 is" if first == 2 else f"r1 to r{first - 1} are"
    trimmed = f"; {gone} no longer in the history" if first > 1 else ""
    lost = sum("overruled" in one.state for one in found)
    again = (
        f"; {counted(lost, 'other')} overruled: another one came first; if you still want it, apply it again" if lost else ""
    )
    then = f"dsmt rollback {service} --to N goes back to one"
    stands = next((one for one in found if "current" in one.state), None)
    if stands is None or stands.removed:
        then = f"{service} {'was' if stands is None else 'is being'} removed; dsmt apply begins it anew"
    last = f"{counted(len(found) - lost, 'revision')}{again}{trimmed}.   {then}"
    return page([*table(header, laid).split("\n"), last, screens.freshness(sight)])


@command()
@click.argument("service", type=TARGET)
@click.option(
    "--to",
    default=None,
    metavar="N",
    help="The revision, such as r3 or 3; by default the last good one before this that runs something, else the one before.",
)
@reason_option
@wait_option
def rollback(ctx: CliContext, service: str, to: str | None, reason: str, wait: str | None) -> int:
    """Apply an earlier revision of SERVICE again, as a new revision."""
    number, limit = None if to is None else revision_number(to, option="--to"), seconds(wait)

    async def work(connection: Connection) -> Applied:
        done = await rolling_back.rollback(connection.bus, service, number, by=connection.by, reason=reason)
        ctx.asked = f"the rollback of {service}, as r{done.revision},", f"dsmt status {service}"
        return done if wait is None else await ctx.settled(connection, done, limit_s=limit)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        print(page(screens.applied(done)))
        warn(done.warnings)
        if wait is None:
            print(f"next: dsmt status {service}")
    return int(done.failed)
