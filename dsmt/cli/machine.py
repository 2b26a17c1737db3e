"""`up`, `upgrade`, `down`, `demo`: a realm on this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence

import click
import msgspec

from dsmt.cli.command import Count, Engine, command, reason_option
from dsmt.cli.context import CliContext
from dsmt.cli.labels import labels_of, labels_option
from dsmt.cli.printing import document, warn
from dsmt.errors import FailedError, NotFoundError, RefusedError, TransportError
from dsmt.event.phrases import counted, some
from dsmt.operations.local.home.home import Home, is_up
from dsmt.operations.local.home.lock import has_lock
from dsmt.operations.local.processes import ending
from dsmt.operations.local.processes.keeping import check_goes_on
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.processes.unreached import unreached, while_they_stay
from dsmt.operations.local.up import coming_up, machine, startable, upgrading
from dsmt.operations.local.up.machine import RealmRun, StartedRealm
from dsmt.operations.local.up.wanted import Wanted
from dsmt.system.procfs import is_alive
from dsmt.together import end_all, unless
from dsmt.version import __version__

LOOK_S = 0.5
"""How often is looked whether the realm goes on that `up` keeps, or that it or `upgrade` waits for."""


@command()
@click.option(
    "--nodes",
    default=None,
    type=int,
    metavar="N",
    help="How many nodes; by default as many as the home has, 1 for a new home.",
)
@click.option(
    "--controllers",
    default=None,
    type=int,
    metavar="N",
    help="How many controllers; by default as many as the home has, 2 for a new home.",
)
@click.option(
    "--brokers",
    default=None,
    type=int,
    metavar="N",
    help="How many brokers; by default as many as the home has, 1 for a new home.",
)
@click.option("--port", default=None, type=Count(1, 65535), metavar="P", help="The first broker's port.")
@click.option("--name", default=None, help="The name of a new realm; `local` by default.")
@click.option("--engine", default=None, type=Engine(), help="The bus of a new realm; `dsmt` by default.")
@labels_option("each node of this home")
@click.option("--detach", is_flag=True, help="Return when everything is attached; `dsmt down` stops it.")
def up(
    ctx: CliContext,
    *,
    nodes: int | None,
    controllers: int | None,
    brokers: int | None,
    port: int | None,
    name: str | None,
    engine: str | None,
    labels: tuple[str, ...],
    detach: bool,
) -> None:
    """Run a realm on this machine: brokers, controllers and nodes, each in its own process. Ctrl-C does what `down` does."""
    home = ctx.home()
    listen = None if port is None else f"127.0.0.1:{port}"
    wanted = Wanted(
        nodes=nodes,
        controllers=controllers,
        brokers=brokers,
        name=name,
        listen=listen,
        engine=engine,
        labels=labels_of(labels),
    )
    asyncio.run((_detached if detach else _foreground)(ctx, home, wanted))


async def _detached(ctx: CliContext, home: Home, wanted: Wanted) -> None:
    """Start it and go; who fails after the start says that what was started goes on."""
    runs: list[RealmRun] = []

    def begins(run: RealmRun) -> None:
        runs.append(run)
        ctx.asked = f"what was started in {home.root}", "dsmt down ends it"

    try:
        if not await unless(_watched(home, runs), _start(ctx, home, wanted, begins)):
            await _end_begun(home, runs[0])
    except (FailedError, RefusedError) as error:
        if ctx.asked is None or not is_up(home):
            raise
        said = f"{error.message}; what was started in {home.root} goes on"
        raise type(error)(error.code, said, next="; ".join(filter(None, (error.next, "dsmt down ends it")))) from error


async def _foreground(ctx: CliContext, home: Home, wanted: Wanted) -> None:
    runs: list[RealmRun] = []  # one, once this command is at work and no other

    def begins(run: RealmRun) -> None:
        runs.append(run)
        if run.was_up and not ctx.json:
            print("this realm is up already: Ctrl-C here stops all of it, as dsmt down does; --detach leaves it running")

    working = asyncio.ensure_future(_start(ctx, home, wanted, begins))
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    waiting, watching = asyncio.ensure_future(interrupted.wait()), asyncio.ensure_future(_watched(home, runs))
    await asyncio.wait({working, waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
    if working.done() and working.exception() is None and working.result():
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
    over = watching.exception() if watching.done() else None
    await end_all(waiting, watching, working)
    if interrupted.is_set():
        if not runs:  # it has waited for another one, whose work goes on
            raise KeyboardInterrupt
        await _down(ctx, home, runs[0].name)
        return
    if over is not None:
        raise over
    await _end_by_itself(home, runs, working)


async def _end_by_itself(home: Home, runs: Sequence[RealmRun], working: asyncio.Future[bool]) -> None:
    """Nothing is to be kept, or it did not come up: what was begun is not left behind. Raises why it did not."""
    if working.exception() is None:
        await _end_begun(home, runs[0])
    elif home.exists and runs and not runs[0].was_up:
        await ending.down(home, run=runs[0].name)
    working.result()


async def _end_begun(home: Home, run: RealmRun) -> None:
    """Nothing that is here is let in: end what was begun for it, but nothing that ran before, as a service may still do."""
    if not run.was_up and not any(map(is_alive, Parts(home).instances())):
        await ending.down(home, run=run.name)


async def _watched(home: Home, runs: Sequence[RealmRun]) -> None:
    """Watch the run of the realm that was found, once one is. Raises `FailedError` when it has ended."""
    while True:
        for run in runs:
            check_goes_on(home, run.name)
        await asyncio.sleep(LOOK_S)


async def _start(ctx: CliContext, home: Home, wanted: Wanted, begins: Callable[[RealmRun], None]) -> bool:
    """Start it, and tell what runs. Whether anything that is here is let in: else nothing is to be kept."""
    out, left = dict[str, str](), set[str]()
    with ctx.lasting() as waits, ctx.progress() as tell:
        waits("the start of dsmt's own programs")
        started = await machine.up(home, wanted, waits=ctx.tell_waits, begins=begins)
        damaged = {**startable.damaged(home), **started.refused}
        counts = [*machine.left_out(home, started), *machine.more_than(home, wanted)]
        warn([*started.amiss.values(), *damaged.values(), *counts, *started.moved])
        out.update({node: said for node in started.nodes if (said := damaged.get(f"node {node}"))})
        controllers = tuple(one for one in started.controllers if f"controller {one}" not in damaged)
        started = msgspec.structs.replace(started, controllers=controllers)
        await upgrading.begin_settled(home, waits=ctx.tell_waits)
        waits(f"an answer at {some(started.brokers)}")

        async def come_up() -> None:
            warn(await coming_up.announced(home, started.amiss, left=left))
            warn(await coming_up.attached(home, started, tell=lambda text: (waits(""), tell(text)), out=out))

        try:
            await while_they_stay(home, come_up())
        except TransportError as error:
            raise unreached(home, error) from error
    living = [node for node in started.nodes if node not in out]
    started = msgspec.structs.replace(started, brokers=tuple(one for one in started.brokers if one not in left))
    keeps = bool(not out or living or home.names("brokers") or home.names("controllers"))
    if ctx.json:
        told = {"realm": started.realm, "home": str(home.root), "brokers": started.brokers, "nodes": started.nodes}
        document({**told, "out": sorted(out)})
        sys.stdout.flush()
    elif keeps:
        _tell_up(home, started, living)
    return keeps


def _tell_up(home: Home, started: StartedRealm, nodes: Sequence[str]) -> None:
    made = " (made now)" if started.made else ""
    brokers = "broker" if len(started.brokers) == 1 else "brokers"
    parts = f"{brokers} {', '.join(started.brokers)}, {counted(len(started.controllers), 'controller')}"
    print(f"realm {started.realm}{made}: {parts}, {counted(len(nodes), 'node')}")
    print(f"home {home.root}")
    if home.is_joined:
        print("next: dsmt status, where the realm was made", flush=True)
    else:
        print("next: dsmt apply FILE (dsmt example prints one); dsmt status; dsmt tail", flush=True)


@command()
def upgrade(ctx: CliContext) -> None:
    """Restart all of dsmt that runs in this home, with the installed version. Services keep running, with the same pids."""
    home = ctx.home()
    if not home.exists:
        home.check_lost()
        raise _no_realm(home)
    ctx.asked = f"what was begun anew in {home.root}", "dsmt upgrade begins the rest anew"
    asyncio.run(_upgrade(ctx, home))


async def _upgrade(ctx: CliContext, home: Home) -> None:
    with ctx.progress() as tell:
        done = await upgrading.upgrade(home, tell, waits=ctx.tell_waits)
        runs = [RealmRun(was_up=True, name=done.realm_run)] if done.realm_run else []
        warn(await unless(_watched(home, runs), coming_up.attached(home, done.started, tell=tell)))
    ctx.done = True
    parts = {"broker": done.brokers, "controller": done.started.controllers, "node": done.started.nodes}
    if ctx.json:
        listed = {f"{part}s": names for part, names in parts.items()}
        document({"version": __version__, "home": str(home.root), **listed, "programs": done.ran, "untouched": done.run})
        return
    print(f"dsmt {__version__} runs {', '.join(counted(len(names), part) for part, names in parts.items() if names)} now")
    print(f"{done.run} of {counted(done.ran, 'program')} of services run on, with the same pids")


@command()
@reason_option
def down(ctx: CliContext, reason: str) -> None:
    """Stop everything that this home started on this machine, services included, and nothing else."""
    home = ctx.home()
    if not (home.exists or has_lock(home) or machine.abandoned(home)):
        raise _no_realm(home)
    asyncio.run(_down(ctx, home, reason=reason))


def _no_realm(home: Home) -> NotFoundError:
    return NotFoundError("home.empty", f"there is no realm in {home.root}", next="set DSMT_HOME, or --home")


async def _down(ctx: CliContext, home: Home, run: str | None = None, *, reason: str = "") -> None:
    with ctx.lasting() as waits:

        def ends(who: str) -> None:
            ctx.asked = f"what is not ended yet in {home.root}", "dsmt down ends it; dsmt up starts all of it again"
            waits(f"the end of {who}")

        ended = await ending.down(home, run=run, reason=reason, waits=ctx.tell_waits, ends=ends)
    ctx.done, ctx.asked = True, None
    if ctx.json:
        document({"processes": ended.processes, "killed": ended.killed, "stuck": ended.stuck})
    elif ended.processes:
        killed = f", {ended.killed} of them killed" if ended.killed else ""
        print(f"ended {counted(ended.processes, 'process')}{killed}; keys, history and data stay in {home.root}")
    elif not ended.stuck:
        print(f"nothing was running; keys, history and data stay in {home.root}")
    if ended.processes and home.is_joined and not ctx.json:
        names = home.names("nodes")
        said = f"{some(names)} {'count' if len(names) > 1 else 'counts'} as dead until dsmt up"
        print(f"{said}: what ran there begins on other nodes, where it may")
    ending.check_ended(ended.stuck)


@command()
@click.option("--hold", is_flag=True, help="Wait for Enter before the clean-up.")
@click.option("--engine", default=None, type=Engine(), help="The bus of the realm; `dsmt` by default.")
def demo(ctx: CliContext, *, hold: bool, engine: str | None) -> int:
    """Start a realm in a temporary home with a real service, kill twice, and show each repair with its times."""
    from dsmt.demo import Line  # noqa: PLC0415 - lazily, for quick help
    from dsmt.demo import demo as play  # noqa: PLC0415 - the same

    def show(line: Line) -> None:
        if not ctx.json:
            verdict = {True: "ok", False: "FAILED", None: ""}[line.ok]
            at = f"{line.at_s:5.1f}" if line.step else "     "
            print(f"{at}  {line.step:<9} {line.text:<58} {line.took:>9}  {verdict}".rstrip(), flush=True)

    async def held(home: Home) -> None:
        print(f"held: DSMT_HOME={home.root} dsmt status; Enter cleans up", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, input)

    if not ctx.json:
        print("dsmt demo   a realm of 3 nodes in a temporary home   (about 15 s)\n")
    result = asyncio.run(play(show, engine=engine, hold=held if hold else None))
    if ctx.json:
        document(
            {
                "ok": result.ok,
                "instance_restart_ms": result.instance_restart_ms,
                "node_repair_ms": result.node_repair_ms,
                "events": result.events,
                "verified": result.verified,
                "gaps": result.gaps,
            }
        )
    elif result.ok and result.node_repair_ms is not None:
        repaired = f"instance in {result.instance_restart_ms} ms, node in {result.node_repair_ms / 1000:.2f} s"
        print(f"\n2 of 2 repaired: {repaired}, on this machine.")
        print("Look at it yourself:  dsmt demo --hold      next:  dsmt up --nodes 3 --detach")
    return 0 if result.ok else 1
