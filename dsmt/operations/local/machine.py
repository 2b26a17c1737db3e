"""A realm on this machine: `up` starts what a home holds, `down` ends it, whatever else has died meanwhile.

Rule 1: `up` may be repeated, also while another is at it: what runs is left alone, what is missing is made and started.
Rule 2: `down` reads who runs from the records in the home, from the locks that are held there and from who is below them,
    never from names: it ends what this home started and no more, also what a full disk had no room to record, or the
    realm of a home that was removed meanwhile.
Rule 3: `down` first ends who would restart others (keeper, spawners, managers, also one that is only just starting) and
    keeps their locks, so that whom they kept starts no other,
    then controllers, so that nobody repairs what is being ended, then agents with their services, then brokers, which
    so have heard of every end.
Rule 4: after `down` no process is left, and of a container's directory only the record of what was good there; keys, history
    and `data` directories stay.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from dsmt.backoff import Backoff
from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.operations.local.addresses import check_free
from dsmt.operations.local.dating import dated
from dsmt.operations.local.home import (
    ENGINES,
    SERVERS,
    Home,
    check_name,
    ensure_broker,
    ensure_controller,
    ensure_node,
    ensure_operator,
    init,
    lacks_issuer,
)
from dsmt.operations.local.keeping import BEGUN_ANEW, START_S, ask_keeper, is_up, keep, start_keeper, write_kept
from dsmt.operations.local.lock import alone
from dsmt.operations.local.parts import Parts, keeper_directory
from dsmt.operations.local.wanted import Wanted, check_brokers, check_counts, check_running, check_same, names_of
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import (
    IDENTITY,
    ISSUER,
    BrokerFile,
    ConfigFile,
    ControllerFile,
    NodeFile,
    read_identity,
)
from dsmt.system.processes import SOCKET
from dsmt.system.procfs import descendants, identities, is_alive, send_signal
from dsmt.system.records import process_of, take_lock
from dsmt.system.tree import kill_owned

GRACE_S = 15.0
"""How long agents may take to stop their services before they are killed."""


@dataclass(frozen=True, slots=True)
class StartedRealm:
    """What `up` did: the realm's brokers' addresses, and the names of its programs here."""

    realm: str
    brokers: tuple[str, ...]
    controllers: tuple[str, ...]
    nodes: tuple[str, ...]
    made: bool


def abandoned(home: Home) -> list[ProcessIdentity]:
    """The spawners that run in a home whose realm is gone: it was removed while they ran."""
    return [] if home.exists else Parts(home).holders()


def _ignored(_: bool) -> None:
    pass


async def up(
    home: Home, wanted: Wanted, *, waits: Tell = silent, begins: Callable[[bool], object] = _ignored
) -> StartedRealm:
    """Start a realm on this machine, and make it first when there is none; two at once do it one after the other (C16).

    `waits` hears whom it waits for, and `begins`, before anything is done and when nothing speaks against it, whether the
    realm is up already.

    Raises `InputError`, `FailedError` when something does not start or the broker's port is taken, `TransportError` when
    it does not answer in time.
    """
    check_counts(wanted)
    if wanted.name is not None:
        check_name(wanted.name)
    async with alone(home, waits):
        await _check(home, wanted)
        begins(is_up(home))
        return await _up(home, wanted)


async def _check(home: Home, wanted: Wanted) -> None:
    """Raise where a home, as it is, cannot be started as it is wanted."""
    check_abandoned(home)
    check_moved(home)
    if not home.exists:
        if wanted.listen is not None:
            check_free(wanted.listen, "the broker", then="stop it, or choose another with --port")
        return
    if home.is_joined:
        _check_joined(home, wanted)
    else:
        check_same(home, wanted)
        check_running(home, wanted)
        await check_brokers(home, wanted)
    for name in home.names("brokers"):
        check_broker(home, name)


async def _up(home: Home, wanted: Wanted) -> StartedRealm:
    made = not home.exists
    if not made and home.is_joined:
        return await start_all(home)
    if made:
        name = "local" if wanted.name is None else wanted.name
        init(home, name=name, listen=wanted.listen, brokers=wanted.brokers or 1, nats=wanted.engine == "nats")
    brokers = names_of(home, "brokers", wanted.brokers, else_=0)
    controllers = names_of(home, "controllers", wanted.controllers, else_=2)
    nodes = names_of(home, "nodes", wanted.nodes, else_=1)
    held = (("brokers", brokers), ("controllers", controllers), ("nodes", nodes))
    parts = [home.part(kind, name) for kind, names in held for name in names]
    there = all(file.exists() for file in (home.operator_file, *(part / IDENTITY for part in parts)))
    there = there and not any(lacks_issuer(home, name) for name in controllers)
    now_s = None if made or there else (await dated(home.realm().clocks)).now_s
    ensure_operator(home, now_s=now_s)
    for name in brokers:
        ensure_broker(home, name, now_s=now_s)
    for name in controllers:
        ensure_controller(home, name, now_s=now_s)
    for name in nodes:
        ensure_node(home, name, now_s=now_s)
        await asyncio.sleep(0)  # who interrupts is heard
    return await start(home, brokers, controllers, nodes, made=made)


def check_moved(home: Home) -> None:
    """Raise `RefusedError` where the move of the realm to another engine has ended its brokers, and is not done."""
    move = home.moving()
    if move is not None and move.cut and (home.names(SERVERS) or home.realm().engine != move.engine):
        said = f"the realm in {home.root} is being moved to {ENGINES[move.engine]}, and was not started again"
        raise RefusedError("migrate.cut", said, next="dsmt bus migrate --cut goes on; dsmt bus migrate --abort goes back")


def check_abandoned(home: Home) -> None:
    """Raise `FailedError` where a realm still runs whose home was removed: another one beside it would fight with it."""
    left = abandoned(home)
    if left:
        said = f"the realm that was removed from {home.root} still runs: pid {', '.join(str(one.pid) for one in left)}"
        raise FailedError("start.running", said, next="dsmt down ends it")


def _check_joined(home: Home, wanted: Wanted) -> None:
    """Raise `InputError` where of a machine that has joined a realm more is wanted than it has."""
    if wanted != Wanted():
        here = ", ".join(dict.fromkeys([*home.names("brokers"), *home.names("controllers"), *home.names("nodes")]))
        said = f"{home.root} has joined realm {home.realm().name}, and holds only {here} of it"
        raise InputError("up.joined", said, next="dsmt up starts that, with no option; or set another DSMT_HOME")


async def start_all(home: Home) -> StartedRealm:
    """Start all that a home holds, unless it runs."""
    return await start(home, home.names("brokers"), home.names("controllers"), home.names("nodes"))


async def start(
    home: Home, brokers: list[str], controllers: list[str], nodes: list[str], *, made: bool = False
) -> StartedRealm:
    """Start these programs, which are made, unless they run."""
    await start_keeper(home)
    if home.realm().nats is not None:
        await keep(home, "brokers", "nats_server", brokers)
    await keep(home, "brokers", "broker", brokers)
    await keep(home, "controllers", "controller", controllers)
    for node in nodes:  # the keeper forks one after the other, and each may take long
        await ask_keeper(home, "start", "spawner", home.part("nodes", node))
    realm = home.realm()
    addresses = tuple(address for address, _ in realm.brokers)
    return StartedRealm(realm.name, addresses, tuple(home.names("controllers")), tuple(nodes), made)


def check_broker(home: Home, name: str) -> None:
    """Raise `FailedError` when somebody else holds the port of a broker of this home, which does not run.

    Raises `InputError` for files of it that are damaged: without it nobody hears anything.
    """
    directory = home.part("brokers", name)
    config = BrokerFile.read(directory)
    identity = directory / IDENTITY
    if not identity.exists() and (directory / "broker.log").exists():  # it has run, and is known by its key
        said = f"{identity} is missing: broker {name} is known by the key in it to all who have joined"
        again = (
            "" if config.realm.nats else f"; or dsmt cert rotate broker/{name}, and then dsmt node add of each host again"
        )
        raise InputError("trust.identity", said, next=f"restore it from a backup{again}")
    if identity.exists():
        read_identity(identity)
    listens = "broker" if config.realm.nats is None else "nats_server"
    if process_of(directory, listens) is None:
        check_free(config.address, f"broker {name}", then="stop it, then try again")


def damaged(home: Home) -> list[str]:
    """What is wrong with the files of controllers and nodes of a home: whose they are does not start, and all else does."""
    found = []
    files: dict[str, type[ConfigFile]] = {"controllers": ControllerFile, "nodes": NodeFile}
    for kind, file in files.items():
        for name in home.names(kind):
            directory = home.part(kind, name)
            try:
                file.read(directory)
                for path in (directory / IDENTITY, directory / ISSUER):
                    if path.exists():
                        read_identity(path)
            except InputError as error:
                found.append(f"{error.message}; {kind.removesuffix('s')} {name} lacks it. Next: {error.next}")
    return found


def check_alone(directory: str, program: str) -> None:
    """Raise `FailedError` when a program runs from its directory already: two would contest each other's every word."""
    running = process_of(directory, program)
    if running is not None:
        said = f"the {program} of {directory} runs already, pid {running.pid}"
        raise FailedError("start.running", said, next="leave it running, or stop it first: dsmt down")


async def release(home: Home, program: str, name: str) -> None:
    """Have the keeper end a broker or a controller, and keep it no more. Raises `FailedError` when it does not end."""
    directory = home.part("brokers" if program == "nats_server" else f"{program}s", name)
    if is_up(home):
        write_kept(home, without=str(directory))
        await ask_keeper(home, "release", program, directory)
    await end_program(directory, program, GRACE_S)


@dataclass(frozen=True, slots=True)
class Ended:
    """What `down` found: how many processes it ended, how many of them had to be killed, and who does not die."""

    processes: int
    killed: int
    stuck: tuple[int, ...]


async def down(home: Home, *, waits: Tell = silent) -> Ended:
    """End everything that this home started on this machine, also what is being started now: that is waited for (C16)."""
    async with alone(home, waits):
        return await _down(home)


async def _down(home: Home) -> Ended:
    parts = Parts(home)
    seen = set(parts.all())
    below: set[ProcessIdentity] = set()
    with await _end_restarters(parts, seen, below):
        await end(parts.controllers(), 3.0)
        for identity in parts.monitors():
            send_signal(identity, signal.SIGKILL)
        killed = await end(parts.agents(), GRACE_S)
        stuck: list[int] = []
        for container in parts.containers():
            stuck.extend(await kill_owned(str(container), deadline=5.0))
        killed += await end([*parts.bridges(), *parts.brokers()], 5.0)
        killed += await end(parts.servers(), 5.0)
        killed += await _end_rest(parts, seen, below)
        for directory in parts.homes_of_spawners():
            with suppress(OSError):  # of a disk that has become read-only nothing is removed
                (directory / SOCKET).unlink()
        with suppress(OSError):
            (keeper_directory(home) / BEGUN_ANEW).unlink()
    parts.clear()
    return Ended(len(seen), killed, tuple(stuck))


async def end_own(home: Home, *, servers: bool) -> None:
    """End every process of dsmt's own that this home started: what agents run goes on, and the next ones take it over.

    NATS servers are ended with `servers` only. Brokers end before nodes do: they would hear how their connections close,
    which is evidence of deaths (F2).
    """
    parts = Parts(home)
    with await _end_restarters(parts, set(), set()):
        await end(parts.controllers(), 3.0)
        await end([*parts.bridges(), *parts.brokers()], 5.0)
        looks = 0
        while looks < 2:  # who is just being forked writes its record before it does anything else
            left = [*parts.monitors(), *parts.agents(), *parts.controllers(), *parts.brokers()]
            for identity in left:
                send_signal(identity, signal.SIGKILL)
            await _gone(left, 5.0)
            looks = 0 if left else looks + 1
            await asyncio.sleep(0.02)
        await end(parts.servers() if servers else [], 5.0)


async def _end_restarters(parts: Parts, seen: set[ProcessIdentity], below: set[ProcessIdentity]) -> ExitStack:
    """Kill all who would restart others (rule 3), until nobody is left who is one or is becoming one; `below` gets theirs.

    Who holds a directory's lock is its spawner, from its birth on, and the lock is made before: where there is none, nobody
    ever was, and none is on its way once the keeper is dead. The locks that are returned keep others from starting.
    """
    locks, held = ExitStack(), set[Path]()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        restarters = parts.restarters() or parts.holders()
        seen.update(restarters)
        for identity in restarters:  # first stopped, so that none sees another's death, and none forks
            send_signal(identity, signal.SIGSTOP)
        for identity in restarters:
            below |= identities(descendants(identity.pid))
        for identity in restarters:
            send_signal(identity, signal.SIGKILL)
        await _gone(restarters, 5.0)
        free = [directory for directory in parts.homes_of_spawners() if directory not in held]
        for directory in free:
            lock = take_lock(str(directory))
            if lock is not None:
                locks.callback(os.close, lock)
                held.add(directory)
        if not restarters and held.issuperset(free):
            break
        await asyncio.sleep(0.01)
    return locks


async def _end_rest(parts: Parts, seen: set[ProcessIdentity], below: set[ProcessIdentity]) -> int:
    """End who is left, or was forked by somebody in the moment of its end, until two looks find nobody; how many.

    Who was `below` a spawner and still lives has no record (rule 2).
    """
    killed = looks = 0
    deadline = time.monotonic() + START_S
    while looks < 2 and time.monotonic() < deadline:
        left = list({*parts.all(), *filter(is_alive, below)})
        seen.update(left)
        looks = 0 if left else looks + 1
        killed += await end(left, 1.0)
        await asyncio.sleep(0.02)
    return killed


async def end_program(directory: Path, program: str, patience_s: float) -> None:
    """End a program of a directory, if it runs."""
    running = process_of(directory, program)
    await end([] if running is None else [running], patience_s)


async def end(identities: list[ProcessIdentity], patience_s: float) -> int:
    """SIGTERM, then SIGKILL after the patience; how many had to be killed."""
    for identity in identities:
        send_signal(identity, signal.SIGTERM)
    left = await _gone(identities, patience_s)
    for identity in left:
        send_signal(identity, signal.SIGKILL)
    await _gone(left, 5.0)
    return len(left)


async def _gone(identities: list[ProcessIdentity], patience_s: float) -> list[ProcessIdentity]:
    """Wait until none of them lives; who still does when the patience ends."""
    return await wait_for(lambda: [i for i in identities if is_alive(i)], patience_s)


async def wait_for(left: Callable[[], list[ProcessIdentity]], patience_s: float) -> list[ProcessIdentity]:
    """Look again and again, ever less often, until nothing is left or the patience ends; what is left then."""
    deadline = time.monotonic() + patience_s
    backoff = Backoff(0.002, 0.05, factor=1.5)
    while (found := left()) and time.monotonic() < deadline:
        pause = backoff.failed()
        await asyncio.sleep(pause)
    return found
