"""`start`, `stop`, `restart`, `move`, `retry`, `scale`, `wait`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import click

from dsmt.cli import screens
from dsmt.cli.command import Count, among, command, local_option, reason_option, seconds, wait_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.names import NODE, TARGET
from dsmt.cli.printing import document, one_line, page, warn
from dsmt.errors import InputError
from dsmt.event.phrases import counted
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.waits import heeding, waiting
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.read.waits.waiting import Waited
from dsmt.operations.words.targets import Target
from dsmt.operations.write import controlling, revising
from dsmt.operations.write.controlling import Done

Act = Callable[..., Awaitable[Done]]
_SAID = {
    "stop": "held stopped until dsmt start {target}",
    "start": "may run again",
    "restart": "will be restarted, a few at a time",
    "retry": "retried now",
    "move": "will be moved",
}
_WAITED = {"start": "started", "restart": "restarted", "retry": "retried", "move": "moved"}
"""What is said of those that were waited for."""


@command()
@click.argument("target", type=TARGET)
@reason_option
@wait_option
@local_option
def stop(ctx: CliContext, target: str, *, reason: str, wait: str | None, local: bool) -> None:
    """Stop TARGET and keep it stopped, through apply, failover and reboot, until `dsmt start`.

    With --local it is stopped on this machine, with no broker, and waited for until it has ended. It stays stopped on its
    node, and everybody is told by whom as soon as a broker is back. What moves it elsewhere begins it there: a drain, a
    move, or that its node, which nobody hears, is taken for dead. `dsmt start` ends it, or `dsmt start --local` here.
    """
    if local:
        from dsmt.cli import here  # noqa: PLC0415 - only on a machine that is cut off

        here.stop(ctx, Target.parse(target), reason=reason, limit_s=seconds(wait))
        return
    _act(ctx, target, controlling.stop, reason=reason, wait=wait)


@command()
@click.argument("target", type=TARGET)
@reason_option
@wait_option
@local_option
def start(ctx: CliContext, target: str, *, reason: str, wait: str | None, local: bool) -> None:
    """Let TARGET run again after `dsmt stop`, also where that was done on its node with --local.

    With --local: what was stopped so on this machine, with no broker. What an operator of the realm has stopped stays so.
    """
    if local:
        from dsmt.cli import here  # noqa: PLC0415 - only on a machine that is cut off

        if reason:
            raise InputError(
                "local.form", "--reason cannot be combined with --local here: nobody keeps it", next="leave it out"
            )
        here.start(ctx, Target.parse(target), waits=wait is not None, limit_s=seconds(wait))
        return
    _act(ctx, target, controlling.start, reason=reason, wait=wait)


@command()
@click.argument("target", type=TARGET)
@reason_option
@wait_option
def restart(ctx: CliContext, target: str, reason: str, wait: str | None) -> None:
    """Restart TARGET, `update.max_parallel` at a time."""
    _act(ctx, target, controlling.restart, reason=reason, wait=wait)


@command()
@click.argument("target", type=TARGET)
@reason_option
@wait_option
def retry(ctx: CliContext, target: str, reason: str, wait: str | None) -> None:
    """Retry now the instances of TARGET that are parked, have failed or wait for their next try."""
    _act(ctx, target, controlling.retry, reason=reason, wait=wait)


@command()
@click.argument("target", type=TARGET)
@click.option(
    "--to", default=None, metavar="NODE", type=NODE, help="The node to move to; by default the one that fits best."
)
@click.option(
    "--accept-data-loss",
    is_flag=True,
    help="Also move an instance that keeps data. That stays behind: it begins with none, or with what it left there before.",
)
@reason_option
@wait_option
def move(ctx: CliContext, target: str, *, to: str | None, accept_data_loss: bool, reason: str, wait: str | None) -> None:
    """Move TARGET to another node."""
    asked = partial(controlling.move, to=to, accept_data_loss=accept_data_loss)
    _act(ctx, target, asked, reason=reason, wait=wait)


def _act(ctx: CliContext, target: str, act: Act, *, reason: str, wait: str | None) -> None:
    named, limit = Target.parse(target), seconds(wait)

    async def work(connection: Connection) -> tuple[Done, set[str]]:
        done = await act(connection.bus, named, by=connection.by, reason=reason)
        ctx.asked = f"the {done.action} of {target}", f"dsmt status {named.service}"
        if wait is None or (done.action == "retry" and not done.instances):
            return done, set()
        with ctx.progress() as tell:
            waited = await heeding.heeded(connection.bus, named, done.action, done.asked, limit_s=limit, tell=tell)
        return done, {row.instance for row in waited.instances}

    done, waited = ctx.act(work)
    if ctx.json:
        document(done)
        return
    for those, said in ((waited, {**_SAID, **_WAITED}), (set(done.instances) - waited, _SAID)):
        if told := [one for one in done.instances if one in those]:
            print(f"{', '.join(told)}: {said[done.action].format(target=target)}")
    for instance, node in done.data.items():
        stays = f"its data stays on {one_line(node)}; elsewhere it begins with none, or with what it left there before"
        print(f"{instance}: {stays}")
    warn(done.warnings)
    for instance in done.unchanged:
        print(f"{instance}: nothing to do: {one_line(done.because.get(instance, 'it is so already'))}")


@command()
@click.argument("target", type=TARGET)
@click.argument("count", type=Count(min=0, max=100_000))
@yes_option
@reason_option
@wait_option
def scale(ctx: CliContext, target: str, count: int, *, yes: bool, reason: str, wait: str | None) -> int:
    """Run COUNT instances of TARGET (a component, or a service with only one). This makes a new revision.

    For a COUNT that is likely a slip it asks first. With 0 all stop, as with `dsmt stop`; data directories are kept.
    """
    named, limit = Target.parse(target), seconds(wait)
    if not yes and count >= revising.MANY:
        _confirm_many(ctx, target, count)

    async def work(connection: Connection) -> Applied:
        done = await revising.scale(connection.bus, named, count, by=connection.by, reason=reason)
        ctx.asked = f"the change of {target} to {counted(count, 'instance')}", f"dsmt status {named.service}"
        return done if wait is None else await ctx.settled(connection, done, limit_s=limit, counted=True)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        undone = "" if count else f"; dsmt scale {target} N runs N again"
        print(f"{target}: {counted(count, 'instance')}{undone}")
        print(page(screens.applied(done)))
    return int(done.failed)


def _confirm_many(ctx: CliContext, target: str, count: int) -> None:
    """Ask whether a count is meant that is likely a slip. Raises `InputError`, and `FailedError` for a no."""

    async def foreseen(connection: Reading) -> str:
        return await revising.slip(connection.bus, Target.parse(target), count)

    said = ctx.ask(foreseen)
    if said:
        ask, advice = f"realm {ctx.home().realm().name}: scale {target} to {count}?", f"dsmt scale {target} {count} --yes"
        ctx.confirm(said, ask, no=f"{target} is not scaled", advice=advice)


@command()
@click.argument("target", type=TARGET)
@click.option(
    "--for",
    "state",
    required=True,
    metavar="STATE",
    shell_complete=among(waiting.STATES),
    help=f"One of {', '.join(waiting.STATES)}.",
)
@click.option("--timeout", default=None, metavar="DUR", help="Wait at most this long; by default for ever.")
def wait(ctx: CliContext, target: str, state: str, timeout: str | None) -> None:
    """Wait until every instance of TARGET is in a state."""
    named, limit = Target.parse(target), seconds(timeout)

    async def work(connection: Reading) -> Waited:
        ctx.asked = f"what {target} does", f"dsmt status {named.service}"
        with ctx.progress() as tell:
            return await waiting.wait_for(connection.bus, named, state, limit_s=limit, tell=tell)

    done = ctx.ask(work)
    if ctx.json:
        document(done)
    else:
        where = ", ".join(f"{row.instance} on {row.node}" for row in done.instances if row.node is not None)
        told = one_line(where or done.because)
        print(f"{target} is {state}{f': {told}' if told else ''}")
