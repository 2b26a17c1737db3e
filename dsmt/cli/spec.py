"""`apply`, `plan`, `get`."""

from __future__ import annotations

import sys
from typing import Any

import click

from dsmt.cli.command import DIFFERS, a_file, command, reason_option, seconds, wait_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import TARGET
from dsmt.cli.printing import document, for_programs, one_line, page, show, warn
from dsmt.errors import FailedError, TimedOutError
from dsmt.operations.connection import Connection, Reading


@command()
@click.argument("files", nargs=-1, required=True, shell_complete=a_file)
@click.option(
    "--plan", "plans", multiple=True, metavar="ID", help="Refuse unless FILES and the present state are those of this plan."
)
@reason_option
@wait_option
def apply(ctx: CliContext, files: tuple[str, ...], plans: tuple[str, ...], reason: str, wait: str | None) -> int:
    """Create or change services as FILES say (service files, directories, or `-`). Done when this is stored."""
    from dsmt.cli import screens  # noqa: PLC0415 - the parser of YAML is slow to import
    from dsmt.operations.read.waits import settling  # noqa: PLC0415 - the parser of YAML is slow to import
    from dsmt.operations.write import applying, declaring  # noqa: PLC0415 - the parser of YAML is slow to import

    declared = declaring.read_files(files)
    limit = seconds(wait)

    async def work(connection: Connection) -> tuple[list[settling.Applied], FailedError | TimedOutError | None]:
        done = await applying.apply(connection.bus, declared, by=connection.by, reason=reason, plans=plans)
        revisions = ", ".join(f"{one.service} r{one.revision}" for one in done)
        ctx.asked = revisions, f"dsmt status {done[0].service}" if len(done) == 1 else "dsmt status"
        if wait is None:
            return done, None
        with ctx.progress() as tell:
            return await settling.all_settled(connection.bus, done, limit_s=limit, tell=tell)

    done, late = ctx.act(work)
    if late is not None and ctx.json:
        raise late
    if ctx.json:
        document(done[0] if len(done) == 1 else done)
    else:
        for one in done:
            warn(one.warnings)
            print(page(screens.applied(one)))
        if wait is None:
            print(f"next: dsmt status {done[0].service}" if len(done) == 1 else "next: dsmt status")
    if late is not None:
        raise late
    return int(any(one.failed for one in done))


@command()
@click.argument("files", nargs=-1, required=True, shell_complete=a_file)
def plan(ctx: CliContext, files: tuple[str, ...]) -> None:
    """Show what apply would do with FILES: what differs, each step and where, and the plan's id. Changes nothing."""
    from dsmt.operations.read.ahead.planning import ApplyPlan  # noqa: PLC0415 - with it
    from dsmt.operations.write import applying, declaring  # noqa: PLC0415 - the parser of YAML is slow to import

    declared = declaring.read_files(files)

    async def work(connection: Reading) -> list[ApplyPlan]:
        return await applying.plan_all(connection.bus, declared, by=connection.by)

    found = ctx.ask(work)
    if ctx.json:
        document(found[0] if len(found) == 1 else found)
        return
    from dsmt.cli.plan_screen import screens  # noqa: PLC0415 - only for people

    show(screens(found, files))


@command()
@click.argument("files", nargs=-1, required=True, shell_complete=a_file)
@click.option("--exit-code", is_flag=True, help="Exit with 6 when something differs.")
def diff(ctx: CliContext, files: tuple[str, ...], *, exit_code: bool) -> int:
    """Show what differs between FILES and what is applied."""
    from dsmt.operations.read.ahead.planning import Difference  # noqa: PLC0415 - with it
    from dsmt.operations.write import applying, declaring  # noqa: PLC0415 - the parser of YAML is slow to import

    declared = declaring.read_files(files)

    async def work(connection: Reading) -> list[Difference]:
        return await applying.diff_all(connection.bus, declared)

    found = ctx.ask(work)
    if ctx.json:
        document(found[0] if len(found) == 1 else found)
    else:
        from dsmt.cli.plan_screen import difference  # noqa: PLC0415 - only for people

        show("\n".join(difference(one) for one in found))
    return DIFFERS if exit_code and any(one.changes for one in found) else 0


@command()
@click.argument("service", type=TARGET)
def get(ctx: CliContext, service: str) -> None:
    """Print SERVICE's file, as it was last applied. If that revision was refused, the first line says so."""
    from dsmt.operations.read.ahead.planning import base_of  # noqa: PLC0415 - with it
    from dsmt.operations.read.realm.sight import look_at  # noqa: PLC0415 - with it
    from dsmt.operations.read.rows.revisions import refused, running, was_refused  # noqa: PLC0415 - with it
    from dsmt.operations.write import applying  # noqa: PLC0415 - the parser of YAML is slow to import
    from dsmt.spec.writing import document as as_document  # noqa: PLC0415 - with it
    from dsmt.spec.yamltext import to_yaml  # noqa: PLC0415 - with it

    async def work(connection: Reading) -> tuple[Any, Any, int, Any]:
        sight = await look_at(connection.bus, service)
        spec, fact = applying.current(sight, service)
        return spec, fact, base_of(sight.view, service), sight.view.services[service]

    spec, fact, revision, entry = ctx.ask(work)
    runs, denied = running(entry), refused(entry)
    if ctx.json:
        told = {"service": service, "revision": revision, "by": fact.by, "reason": fact.reason}
        document({**told, "running": runs, "refused": denied, "spec": as_document(spec)})
    else:
        for_programs()
        if denied is not None:
            why = "" if denied.reason is None else f": {one_line(denied.reason.message)}"
            said, number = was_refused(denied), denied.revision
            again = f", as r{number} with another number of instances; r{number}" if number != revision else ", which"
            sys.stdout.write(f"# this is r{revision}{again}{said.removeprefix(f'r{number}')}{why}\n")
        sys.stdout.write(to_yaml(spec))
