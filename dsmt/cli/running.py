"""`broker run`, `controller run`, `node run`: one program of a home in the foreground."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from dsmt.cli.command import command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import warn
from dsmt.errors import NotFoundError
from dsmt.operations.local.home.dating import dated
from dsmt.operations.local.home.home import ROLES, Home, check_part
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.up import startable
from dsmt.programs.configuration import IDENTITY
from dsmt.programs.recorded import own_identity
from dsmt.system.records import record_path, write_record


def _made(ctx: CliContext, home: Home, kind: str, name: str, make: Callable[..., Path]) -> None:
    """See to it that a program has its directory; where the root key is not, it must be there."""

    async def making() -> None:
        async with alone(home, ctx.tell_waits):
            make(home, name, now_s=(await dated(home.realm().clocks)).now_s)

    check_part(ROLES[kind], name)
    if home.exists and not (home.part(kind, name) / IDENTITY).exists():
        with suppress(NotFoundError):
            asyncio.run(making())
            role = ROLES[kind]
            slip = f"if the name is a slip: dsmt {role} remove {name}"
            warn([f"{role} {name} is new, its key was made in {home.root}; {slip}"])


def _directory(home: Home, kind: str, name: str) -> str:
    check_part(ROLES[kind], name)
    if not home.exists:
        home.realm()  # says so
    directory = home.part(kind, name)
    if not (directory / IDENTITY).exists():
        known = ", ".join(home.names(kind)) or "none"
        advice = "restore it from a backup" if kind == "brokers" else "dsmt up makes them"  # a broker is known by its key
        raise NotFoundError("part.unknown", f"{directory} holds no identity; {kind} here: {known}", next=advice)
    return str(directory)


def _note(directory: str, program: str) -> None:
    """Have `up` start this program no second time, and `down` end it. It runs also where a full disk takes no record."""
    with suppress(OSError):
        write_record(record_path(directory, program), own_identity())


@command("run")
@click.argument("name", default="b1")
def broker_run(ctx: CliContext, name: str) -> int:
    """Run a broker of this home in the foreground."""
    from dsmt.programs import broker, nats_gate  # noqa: PLC0415 - lazily, for quick help

    directory = _directory(ctx.home(), "brokers", name)
    startable.check_alone(directory, "broker")
    startable.check_broker(ctx.home(), name)
    on_nats = ctx.home().realm().nats is not None
    if on_nats:
        startable.check_alone(directory, "nats_server")
    _note(directory, "broker")
    return nats_gate.serve(directory) if on_nats else broker.main(directory)


@command("run")
@click.argument("name", default="c1")
def controller_run(ctx: CliContext, name: str) -> int:
    """Run a controller of this home in the foreground."""
    from dsmt.operations.local.home.making import ensure_controller  # noqa: PLC0415 - lazily, for quick help
    from dsmt.programs import controller  # noqa: PLC0415 - the same

    _made(ctx, ctx.home(), "controllers", name, ensure_controller)
    directory = _directory(ctx.home(), "controllers", name)
    startable.check_alone(directory, "controller")
    _note(directory, "controller")
    return controller.main(directory)


@command("run")
@click.argument("name", required=False)
@click.option("--replace", is_flag=True, help="In the place of what runs that node now; its services keep running.")
def node_run(ctx: CliContext, name: str | None, *, replace: bool) -> int:
    """Run a node of this home in the foreground; by default its only one, or n1. When it ends, its services keep running."""
    from dsmt.operations.local.home.making import ensure_node  # noqa: PLC0415 - lazily, for quick help
    from dsmt.programs import spawner  # noqa: PLC0415 - the same

    if name is None:
        here = ctx.home().names("nodes")
        name = here[0] if len(here) == 1 else "n1"
    _made(ctx, ctx.home(), "nodes", name, ensure_node)
    return spawner.main(_directory(ctx.home(), "nodes", name), replace=replace)
