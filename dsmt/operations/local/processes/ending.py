"""Ending what a home has started on this machine, whatever else has died meanwhile: all of it, or one program.

Rule 1: `down` reads who runs from the records in the home, from the locks that are held there, from who is below them, and
    from who has a directory of it open, never from names alone: it ends what this home started and no more, also what a
    full disk had no room to record, or the realm of a home that was removed meanwhile. Of a container that its program has
    removed the marks tell who is left.
Rule 2: `down` first ends who would restart others (keeper, spawners, managers, also one that is only just starting) and
    keeps their locks, so that whom they kept starts no other,
    then controllers, so that nobody repairs what is being ended, then agents with their services, then brokers, which
    so have heard of every end.
Rule 3: after `down` no process is left, and of a container's directory only what nobody else may have: the facts that its
    node acted on, what was good there, and what is installed; keys, history and `data` directories stay.
Rule 4: `down` first says of all that runs here that it is taken down, and by whom: the history tells why it ends. It ends
    all the same where no operator is here, or no broker takes that within `SAYS_S`.
Rule 5: a program has the time to end that its service file gives it (`stop`), and its agent `OWN_S` more, before both are
    killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from dsmt.agents.rules.container import OUTCOME, AgentOutcome
from dsmt.backoff import Backoff
from dsmt.errors import DsmtError, FailedError
from dsmt.event.kinds.source import TakenDown
from dsmt.event.records import to_data
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import KINDS, Home, is_up, keeper_directory
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.processes.by_systemd import check_left
from dsmt.operations.local.processes.keeping import BEGUN_ANEW, RUN, START_S, ask_keeper, check_run, was_up, write_kept
from dsmt.operations.local.processes.parts import NODE_PROGRAMS, Parts
from dsmt.operations.local.processes.patience import stop_in
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import Draft
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.containers import agents_in, containers_in, marked_in, owners_in
from dsmt.programs.known_spawner import forget_spawner
from dsmt.system.files import write_atomically
from dsmt.system.placed import placed_below
from dsmt.system.process_tree import kill_owned
from dsmt.system.processes import SOCKET
from dsmt.system.procfs import descendants, identities, is_alive, send_signal
from dsmt.system.records import lock_holders, process_of, take_lock

GRACE_S: Final = 15.0
"""How long an agent may take to stop its program before it is killed, at least: longer where `stop` says so (rule 5)."""
OWN_S: Final = 5.0
"""How long another program of dsmt's own may take to end, or a NATS server: longer than a spawner, which kills first whom it
keeps (`agents.rules.keeping`)."""
DIES_S: Final = 5.0
"""How long who was killed may take to die: who is in the kernel (state D) does not."""
SAYS_S: Final = 2.0
"""How long `down` tries to say what it takes down."""


class Down(msgspec.Struct, frozen=True):
    """What `down` found: how many processes it ended, how many of them had to be killed, and who does not die."""

    processes: int
    killed: int
    stuck: tuple[int, ...]


async def down(home: Home, *, run: str | None = None, reason: str = "", waits: Tell = silent, ends: Tell = silent) -> Down:
    """End everything that this home started on this machine, also what is being started now: that is waited for (C16).

    `ends` is told whose end is waited for, each time that these are others. With a `run` of the realm that one alone is
    ended: raises `FailedError` where it is over, for what runs then is not of it. Raises `RefusedError` where systemd would
    begin anew what is ended.
    """
    async with alone(home, waits):
        if run is not None:
            check_run(home, run)
        check_left(home, "dsmt down, which ends what they have left running")
        await _say_down(home, reason)
        return await _down(home, ends)


async def _say_down(home: Home, reason: str) -> None:
    """Say it of each broker, controller and node that runs here (rule 4)."""
    with suppress(DsmtError, OSError):  # a timeout is an OSError
        things = Parts(home).things()
        if not things:
            return
        async with asyncio.timeout(SAYS_S), connect(home.operator(), home.realm(), patience_s=SAYS_S) as operator:
            record = to_data(TakenDown(by=operator.by, reason=reason))
            words = [operator.bus.emit(Draft(f"{thing}/down", record, subject=thing)) for thing in things]
            await asyncio.gather(*(word.acknowledged() for word in words))


async def _down(home: Home, ends: Tell) -> Down:
    parts = Parts(home)
    seen = set(parts.all())
    below: set[ProcessIdentity] = set()
    ends("those that would start others again")
    with await _end_restarters(parts, seen, below):
        ends("the controllers")
        await end(parts.controllers(), OWN_S)
        for identity in parts.monitors():
            send_signal(identity, signal.SIGKILL)
        ends("the services: each is asked to stop, and has the time for it that its file gives it")
        killed = await _end_agents(parts.containers())
        ends("what services have left running, which is killed")
        stuck = set(await _kill_left({*parts.containers(), *marked_in(home.root / "nodes")}))
        ends("the brokers")
        killed |= await end([*parts.bridges(), *parts.brokers()], OWN_S)
        killed |= await end(parts.servers(), OWN_S)
        ends("all that is left of dsmt's own")
        killed |= await _end_rest(parts, seen, below)
        for directory in parts.homes_of_spawners():
            with suppress(OSError):  # of a disk that has become read-only nothing is removed
                (directory / SOCKET).unlink()
        for left in (BEGUN_ANEW, RUN):
            with suppress(OSError):
                (keeper_directory(home) / left).unlink()
    parts.clear()
    living = set(filter(is_alive, seen))
    return Down(len(seen - living), len(killed - living), tuple(sorted(stuck.union(one.pid for one in living))))


async def end_own(home: Home, *, servers: bool) -> None:
    """End every process of dsmt's own that this home started: what agents run goes on, and the next ones take it over.

    NATS servers are ended with `servers` only. Brokers end before nodes do: they would hear how their connections close,
    which is evidence of deaths (F2). Raises `FailedError` where one does not end.
    """
    parts = Parts(home)
    with await _end_restarters(parts, set(), set()):
        await end_kept(parts)
        for container in filter(agents_in, parts.containers()):
            with suppress(OSError):  # what is wrong with one container keeps no other one waiting
                write_atomically(str(container / OUTCOME), AgentOutcome.EXCUSED.encode(), durable=False)
        looks, deadline = 0, time.monotonic() + START_S
        while looks < 2:  # who is just being forked writes its record before it does anything else
            left = [*parts.monitors(), *parts.agents(), *parts.controllers(), *parts.brokers()]
            for identity in left:
                send_signal(identity, signal.SIGKILL)
            await _gone(left, DIES_S)
            check_ended([one.pid for one in left if is_alive(one)] if time.monotonic() > deadline else [])
            looks = 0 if left else looks + 1
            await asyncio.sleep(0.02)
        await end(parts.servers() if servers else [], OWN_S)


async def end_kept(parts: Parts) -> None:
    """End what a keeper keeps: controllers, so that nobody repairs what is being ended, then bridges and brokers."""
    await end(parts.controllers(), OWN_S)
    await end([*parts.bridges(), *parts.brokers()], OWN_S)


async def _end_restarters(parts: Parts, seen: set[ProcessIdentity], below: set[ProcessIdentity]) -> ExitStack:
    """Kill all who would restart others (rule 2), until nobody is left who is one or is becoming one; `below` gets theirs.

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
        await _gone(restarters, DIES_S)
        free = [directory for directory in parts.homes_of_spawners() if directory not in held]
        for directory in free:
            with suppress(IsADirectoryError, PermissionError):  # where there is no lock to take no spawner begins either
                lock = take_lock(str(directory))
                if lock is None:
                    continue
                locks.callback(os.close, lock)
            held.add(directory)
            forget_spawner(directory)  # it has not died: we have ended it
        if not restarters and held.issuperset(free):
            break
        await asyncio.sleep(0.01)
    return locks


async def _end_rest(parts: Parts, seen: set[ProcessIdentity], below: set[ProcessIdentity]) -> set[ProcessIdentity]:
    """End who is left, or was forked by somebody in the moment of its end, until two looks find nobody; who was killed.

    Who was `below` a spawner and still lives has no record (rule 1).
    """
    killed, looks = set[ProcessIdentity](), 0
    deadline = time.monotonic() + START_S
    while looks < 2 and time.monotonic() < deadline:
        left = list({*parts.all(), *parts.unrecorded(), *filter(is_alive, below)})
        seen.update(left)
        looks = 0 if left else looks + 1
        killed |= await end(left, 1.0)
        await asyncio.sleep(0.02)
    return killed


async def release(home: Home, program: str, name: str) -> None:
    """Have the keeper end a broker or a controller, and keep it no more. Raises `FailedError` where it does not end."""
    directory = home.part(KINDS["broker" if program == "nats_server" else program], name)
    await _released(home, program, directory)
    await end_program(directory, program)


async def _released(home: Home, program: str, directory: Path) -> None:
    """Have no keeper start a program any more."""
    if was_up(home):  # also for the keeper that follows one that was killed
        write_kept(home, without=str(directory))
    if is_up(home):
        await ask_keeper(home, "release", program, directory)


async def end_node(home: Home, name: str) -> None:
    """End all that runs of a node of this home, its services too: first who would restart others (rule 2).

    Raises `FailedError` where not all of it ends.
    """
    directory = home.part("nodes", name)
    await _released(home, "spawner", directory)
    with await _end_spawners(directory):
        for program in NODE_PROGRAMS:
            await end_program(directory, program)
        containers = containers_in(directory)
        others = placed_below(str(directory))
        agents = {*others, *(agent for container in containers for agent in agents_in(container))}
        await _end_agents(containers, others)
        stuck = await _kill_left({*containers, *marked_in(directory)})
        check_ended({*stuck, *(one.pid for one in agents if is_alive(one))})


async def _end_agents(containers: Iterable[Path], others: Iterable[ProcessIdentity] = ()) -> set[ProcessIdentity]:
    """End the agents of containers with their programs, each in its time (rule 5), and who else there is; who was killed."""
    patience = dict.fromkeys(others, GRACE_S)
    for container in containers:
        for agent in agents_in(container):
            known_s = stop_in(container)
            patience[agent] = GRACE_S if known_s is None else max(GRACE_S, known_s + OWN_S)
    groups = [([one for one in patience if patience[one] == longest], longest) for longest in {*patience.values()}]
    return set().union(*await asyncio.gather(*(end(*group) for group in groups)))


async def _end_spawners(directory: Path) -> ExitStack:
    """End a node's spawner, and the one that its manager may just be starting in its place; its lock keeps others away.

    Raises `FailedError` where one does not end.
    """
    lock, deadline = ExitStack(), time.monotonic() + START_S
    with suppress(IsADirectoryError, PermissionError):  # where there is no lock to take no spawner begins either
        while time.monotonic() < deadline:
            await end_program(directory, "spawner")
            taken = take_lock(str(directory))
            if taken is not None:
                lock.callback(os.close, taken)
                break
            holders = list(lock_holders(str(directory)))  # one that was just born has no record yet
            await end(holders, OWN_S)
            check_ended([one.pid for one in holders if is_alive(one)])
            await asyncio.sleep(0.01)
    return lock


async def _kill_left(containers: Iterable[Path]) -> tuple[int, ...]:
    """Kill what services have left running, of all containers at once: each look is at every process of the machine."""
    owners = [owner for container in containers for owner in owners_in(container)]
    return await kill_owned(*owners, deadline=DIES_S) if owners else ()


async def end_program(directory: Path, program: str) -> None:
    """End a program of dsmt's own of a directory, if it runs. Raises `FailedError` where it does not end."""
    running = process_of(directory, program)
    if running is not None:
        await end([running], OWN_S)
        check_ended([running.pid] if is_alive(running) else [])


def check_ended(stuck: Collection[int]) -> None:
    """Raise `FailedError` that names those who were killed and do not die."""
    if stuck:
        pids = ", ".join(map(str, sorted(stuck)))
        raise FailedError("stop.stuck", f"these processes do not die: {pids}", next="look at the machine's storage")


async def end(identities: list[ProcessIdentity], patience_s: float) -> set[ProcessIdentity]:
    """SIGTERM, then SIGKILL after the patience; who had to be killed."""
    for identity in identities:
        send_signal(identity, signal.SIGTERM)
    left = await _gone(identities, patience_s)
    for identity in left:
        send_signal(identity, signal.SIGKILL)
    await _gone(left, DIES_S)
    return set(left)


async def _gone(identities: list[ProcessIdentity], patience_s: float) -> list[ProcessIdentity]:
    """Look again and again, ever less often, until none of them lives or the patience ends; who still does then."""
    deadline = time.monotonic() + patience_s
    backoff = Backoff(0.002, 0.05, factor=1.5)
    while (left := [one for one in identities if is_alive(one)]) and time.monotonic() < deadline:
        pause = backoff.failed()
        await asyncio.sleep(pause)
    return left
