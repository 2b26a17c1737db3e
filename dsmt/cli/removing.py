"""`remove`: a service ends; its data stays, or goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import click
import msgspec

from dsmt.cli.command import command, reason_option, seconds, wait_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.listing import seen
from dsmt.cli.names import TARGET
from dsmt.cli.printing import document, one_line, warn
from dsmt.errors import InputError, TimedOutError, TransportError
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import Connection
from dsmt.operations.read.realm.sight import look_at
from dsmt.operations.read.waits import leaving
from dsmt.operations.words.targets import Target
from dsmt.operations.write import removing
from dsmt.operations.write.controlling import Done

NAMED = 10
"""Data directories that a question names."""


@command()
@click.argument("service", type=TARGET)
@click.option("--purge", is_flag=True, help="Wait until it has ended, then have each node delete its data directories, too.")
@yes_option
@reason_option
@wait_option
def remove(ctx: CliContext, service: str, *, purge: bool, yes: bool, reason: str, wait: str | None) -> None:
    """End SERVICE: stop and uninstall all of its instances. Data directories are kept, unless `--purge` is given.

    `--purge` also deletes what a service left that was removed before. A node that is away deletes it when it is back. What
    belongs to a service that was applied again meanwhile is kept.
    """
    named, limit = Target.parse(service), seconds(wait)
    if named.component is not None:
        raise InputError("target.form", f"{service} is not a service", next="dsmt scale SERVICE/COMPONENT 0")
    if not yes:
        _confirm(ctx, named, purge=purge)

    async def work(connection: Connection) -> Done:
        bus, by = connection.bus, connection.by
        epoch = None
        if wait is not None or purge:
            sight = await look_at(bus, service)
            if purge and removing.is_buried(sight, service):
                return await removing.purge(bus, service, by=by, reason=reason)
            epoch = removing.epoch_of(sight, service)
        done = await removing.remove(bus, service, by=by, reason=reason)
        kept = f"; its data is kept until dsmt remove {service} --purge is typed again" if purge else ""
        ctx.asked = f"the removal of {service}{kept}", f"dsmt ps {service}"
        if wait is not None or purge:
            with ctx.progress() as tell, _kept_meanwhile(service) if purge else nullcontext():
                waited = await leaving.gone(bus, service, epoch=epoch, limit_s=limit, tell=tell)
            done = msgspec.structs.replace(done, warnings=[*done.warnings, *filter(None, [waited.because])])
        if purge:
            purged = await removing.purge(bus, service, by=by, reason=reason)
            done = msgspec.structs.replace(done, action="purge", data=done.data | purged.data)
        return done

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        _show(service, done, ended=wait is not None)


@contextmanager
def _kept_meanwhile(service: str) -> Iterator[None]:
    """Who waits no longer is told that the data is yet to go."""
    try:
        yield
    except TimedOutError as late:
        said = f"{late.message}; its data is kept until then"
        raise TimedOutError(late.code, said, next=f"dsmt remove {service} --purge again, which waits on") from late


def _confirm(ctx: CliContext, named: Target, *, purge: bool) -> None:
    """Say what goes, and ask. Raises `InputError`, and `FailedError` for a no; `NotFoundError` where there is nothing."""
    service, data = named.service, dict[str, str]()
    with suppress(TransportError):  # where no broker answers, the question is asked as before
        sight = seen(ctx, named)
        data = removing.known_data(sight, service)
        if not purge or not removing.is_buried(sight, service):
            removing.epoch_of(sight, service)
    known = some([f"{instance} on {node}" for instance, node in sorted(data.items())], NAMED)
    goes = f"deleted on each node that has one{f': {known}' if known else ''}" if purge else "kept"
    ctx.confirm(
        f"all of {service} is stopped and removed; data directories are {goes}",
        f"realm {ctx.home().realm().name}: remove {service}{' and its data' if purge else ''}?",
        no=f"{service} is not removed",
        advice=f"dsmt remove {service}{' --purge' if purge else ''} --yes",
    )


def _show(service: str, done: Done, *, ended: bool) -> None:
    warn(done.warnings)
    if done.action == "purge":
        print(f"{service} is gone; each node deletes what it has of its data, one that is away when it is back")
        for instance, node in sorted(done.data.items()):
            print(f"  data of {instance} is deleted on {one_line(node)}")
        return
    count = len(done.instances) + len(done.unchanged)
    end = "is gone" if ended else f"is being removed: {counted(count, 'instance')} to stop"
    print(f"{service} {end}; data directories are kept")
    for instance, node in sorted(done.data.items()):
        print(f"  data of {instance} stays on {one_line(node)}: applied again, it comes back there")
