"""Upgrading: all of dsmt in a home is begun anew, with what is installed now, and services go on (rule C18).

Rule 1: keeper, brokers and controllers end together, and are there again a second later: who is attached elsewhere sees
    nothing of it, and who was attached here attaches anew. What a broker does not hear how it closes is no evidence (F2).
Rule 2: of a node never all ends at once, for it would be dead to the others: first its manager; when the next one is
    attached its monitor, and then one agent after the other. Before that its spawner begins anew in its own process, for it
    alone is told how programs end whose agent is ended; one that cannot, of an earlier dsmt, ends.
Rule 3: it may be interrupted anywhere: `dsmt up` starts what is gone then, and who types it again begins all of it anew:
    what is ended is written down before it is, until the keeper is there again, or `down` has ended all.
Rule 4: where a program cannot be imported as it is installed now, or ends as it begins (`programs.trial`), nothing is ended.
    Where a broker, a controller, a node's manager or monitor, or an agent ends again and again (`steadiness`), all that
    would come after it is left as it was: agents of before look after their programs until something that runs is installed.
Rule 5: of what something else keeps, as systemd, nodes are begun anew in the same way: that sees nothing of it. Brokers and
    controllers it restarts itself.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dsmt.agents.rules.container import CONFIG, OUTCOME, AgentOutcome
from dsmt.errors import FailedError, RefusedError, TransportError
from dsmt.operations.connection import listens
from dsmt.operations.local.home.home import ROLES, Home, check_in_place, keeper_directory
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.steadiness import broken, check_programs, follows, stays
from dsmt.operations.local.members.settling import SETTLED
from dsmt.operations.local.processes.ending import OWN_S, end, end_kept, end_program
from dsmt.operations.local.processes.keeping import BEGUN_ANEW, ask_keeper, is_kept, run_of, start_keeper, was_up
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up.machine import StartedRealm, check_moved, start_all
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import ATTACHED, BrokerFile
from dsmt.programs.containers import agents_in, containers_in, records_of_agents
from dsmt.system.clock import LinuxClock
from dsmt.system.files import write_atomically
from dsmt.system.processes import Request, SpawnedProcesses
from dsmt.system.procfs import began_s, is_alive, send_signal
from dsmt.system.reading import read_what_is_there
from dsmt.system.records import process_of, read_record

FOLLOW_S: Final = 10.0
"""How long who follows somebody, a killed keeper too, may take to be there: it is started all the same later."""
STEADY_S: Final = 1.0
"""How long a node's monitor, and the first agent that is begun anew there, have to live before the next agent ends."""
LOOK_S: Final = 0.02
ROOM_BYTES: Final = 2**17
_BEFORE: Final = frozenset({AgentOutcome.FOLLOWED, AgentOutcome.EXCUSED})
"""What stands in a container until the next agent has begun its work."""


class Upgraded(NamedTuple):
    """What runs anew now; how many programs of services ran before it, and how many of these processes do so still.

    `realm_run` names the run of the realm that `up` keeps; it is empty where something else keeps what is here.
    """

    started: StartedRealm
    brokers: list[str]
    ran: int
    run: int
    realm_run: str = ""


async def upgrade(home: Home, tell: Tell, *, waits: Tell = silent) -> Upgraded:
    """Begin all of dsmt in a home anew; `tell` hears what is at its turn.

    Raises `FailedError` where something does not start, or does not stay, and `RefusedError` where it is not up, or being
    moved; before anything is ended OSError where a disk is full.
    """
    async with alone(home, waits):
        check_in_place(home)
        check_moved(home)
        parts = Parts(home)
        ran = [one for one in parts.instances() if is_alive(one)]
        kept = await _is_kept(home, parts)
        started = await _replace_all(home, tell) if kept else await _replace_former(home, tell)
        run = (run_of(home) or "") if kept else ""
        return Upgraded(started, home.names("brokers") if kept else [], len(ran), sum(map(is_alive, ran)), run)


async def begin_settled(home: Home, *, waits: Tell = silent) -> None:
    """Begin each node anew that runs with another address, or other labels, than it has now (`settling`, rule 4)."""
    if not any((directory / SETTLED).exists() for directory in home.parts("nodes").values()):
        return
    async with alone(home, waits):
        for node, directory in home.parts("nodes").items():
            marked = directory / SETTLED
            if marked.exists():
                if process_of(directory, "spawner") is not None:
                    await _replace_node(home, node)
                marked.unlink()


async def _is_kept(home: Home, parts: Parts) -> bool:
    """Whether `up` keeps a home; one whose keeper was killed has another soon, for those that it kept start it (C7)."""
    deadline = time.monotonic() + FOLLOW_S
    while was_up(home) and not is_kept(home) and (parts.controllers() or parts.brokers()):
        if time.monotonic() > deadline:  # something else keeps these
            break
        await asyncio.sleep(LOOK_S)
    return is_kept(home)


async def _replace_all(home: Home, tell: Tell) -> StartedRealm:
    parts = Parts(home)
    _check_room(home)
    await check_programs("keeper")
    tell("brokers and controllers")
    (keeper_directory(home) / BEGUN_ANEW).touch()
    await end_program(keeper_directory(home), "spawner")  # it ends the others first
    await end_kept(parts)
    await start_keeper(home)
    for broker in home.names("brokers") if home.realm().nats is None else ():
        await _check_broker(home, broker)
    await asyncio.gather(*(_check_controller(home, controller) for controller in home.names("controllers")))
    for node in home.names("nodes"):
        tell(node)
        await _replace_node(home, node)
    return await start_all(home)


async def _check_broker(home: Home, broker: str) -> None:
    """Raise `FailedError` where a broker that was begun anew does not stay (rule 4)."""
    directory = home.part("brokers", broker)
    address = BrokerFile.read(directory).address
    if not await stays(lambda: process_of(directory, "broker"), lambda: listens(address), patience_s=FOLLOW_S):
        raise broken(f"broker {broker}", directory / "broker.log", "nodes of this home, and services, run on as they were")


async def _check_controller(home: Home, controller: str) -> None:
    """The same of a controller."""
    directory = home.part("controllers", controller)

    def look() -> ProcessIdentity | None:
        return process_of(directory, "controller")

    async def attached() -> bool:
        return (own := look()) is not None and process_of(directory, ATTACHED) == own

    if not await stays(look, attached, patience_s=FOLLOW_S):
        then = "nodes of this home, and services, run on as they were, and are not repaired by it"
        raise broken(f"controller {controller}", directory / "controller.log", then)


async def _replace_former(home: Home, tell: Tell) -> StartedRealm:
    """Rule 5."""
    realm = home.realm()
    nodes = tuple(node for node, directory in home.parts("nodes").items() if process_of(directory, "spawner") is not None)
    if not nodes:
        said = f"the realm in {home.root} is not kept by dsmt up"
        raise RefusedError("upgrade.down", said, next="dsmt up starts what is installed; systemd restarts what it keeps")
    _check_room(home)
    await check_programs("spawner")
    for node in nodes:
        tell(node)
        await _replace_node(home, node)
    return StartedRealm(realm.name, tuple(address for address, _ in realm.brokers), (), nodes, made=False)


def _check_room(home: Home) -> None:
    """Raise OSError that names a disk with no room for what a program writes at its start: what runs there stays."""
    held = [part for kind in ROLES for part in home.parts(kind).values()]
    for directory in filter(Path.exists, (keeper_directory(home), *held)):
        probe = directory / "room"
        write_atomically(str(probe), bytes(ROOM_BYTES), durable=False)
        probe.unlink()


async def _replace_node(home: Home, node: str) -> None:
    """Rule 2."""
    directory = home.part("nodes", node)
    spawner = process_of(directory, "spawner")
    try:
        await SpawnedProcesses(str(directory)).request(Request("anew", python=sys.executable))
    except (TransportError, FailedError):  # it is dead, or hangs, or is of an earlier dsmt
        if is_kept(home):
            await end_program(directory, "spawner")
            await ask_keeper(home, "start", "spawner", directory)
        elif spawner is not None and is_alive(spawner):  # the node's manager, or who keeps the node, begins another one
            await _end_one(spawner)
            await _followed(lambda: process_of(directory, "spawner") not in {None, spawner})
        else:  # who restarts it has done so, or nobody does
            await _replace_programs(directory, None, None)
            return
    manager, monitor = (process_of(directory, program) for program in ("container_manager", "node_monitor"))
    await _replace_programs(directory, manager, monitor)


async def _replace_programs(directory: Path, manager: ProcessIdentity | None, monitor: ProcessIdentity | None) -> None:
    """All of a node but its spawner, of which these are its former manager and monitor, if they live."""
    await _replace_manager(directory, manager)
    await _replace_monitor(directory, monitor)
    await _replace_agents(directory)


async def _replace_manager(directory: Path, former: ProcessIdentity | None) -> None:
    """Return when the one after the `former` one is attached. Raises `FailedError` where that does not stay (rule 4)."""
    await _end_one(former)
    await _followed(lambda: process_of(directory, "container_manager") not in {None, former})

    async def attached() -> bool:
        return process_of(directory, ATTACHED) not in {None, former}

    if not await stays(lambda: process_of(directory, "container_manager"), attached, patience_s=FOLLOW_S):
        log = directory / "container_manager.log"
        raise broken(f"the manager of node {directory.name}", log, "its agents, and its services, run on as they were")


async def _replace_monitor(directory: Path, former: ProcessIdentity | None) -> None:
    """The same of the monitor of a node: nobody tells when it does its work."""
    await _end_one(former)

    def look() -> ProcessIdentity | None:
        return process_of(directory, "node_monitor")

    async def lives() -> bool:
        return (own := look()) is not None and LinuxClock().boottime() - began_s(own) >= STEADY_S

    if not await stays(look, lives, patience_s=FOLLOW_S):
        log = directory / "node_monitor.log"
        raise broken(f"the monitor of node {directory.name}", log, "its agents, and its services, run on as they were")


async def _end_one(former: ProcessIdentity | None) -> None:
    if former is not None:
        await end([former], OWN_S)


async def _replace_agents(directory: Path) -> None:
    """One after the other, those that are older than their manager."""
    containers = containers_in(directory)
    manager = process_of(directory, "container_manager")
    lives_s = STEADY_S
    for container in containers:
        if manager is not None and await _replace_agent(container, manager, lives_s=lives_s):
            lives_s = 0.0  # all have one program


async def _replace_agent(container: Path, manager: ProcessIdentity, *, lives_s: float) -> bool:
    """Whether there was one. Raises `FailedError` where the next one does not stay (rule 4)."""
    former = [one for one in agents_in(container) if one.started < manager.started]
    if former:  # its manager tells no failure
        with suppress(OSError):  # it tells one, then: what is wrong with one container keeps no other one waiting
            write_atomically(str(container / OUTCOME), AgentOutcome.FOLLOWED.encode(), durable=False)
    known = _named(container)
    for agent in former:
        send_signal(agent, signal.SIGKILL)
    if former and not await _is_followed(container, known.union(former), lives_s):
        slot = "/".join(container.parts[-3:])
        then = "its program, all other agents, and their services, run on as they were"
        raise broken(f"the agent of {slot}", container / "deployment_agent.log", then)
    return bool(former)


def _named(container: Path) -> set[ProcessIdentity]:
    """Whom the records of a container's agent name, alive or not."""
    return {one for record in records_of_agents(container) if (one := read_record(record)) is not None}


async def _is_followed(container: Path, former: set[ProcessIdentity], lives_s: float) -> bool:
    """Whether an agent has begun its work in the place of these, or will; or its slot has left."""

    def look() -> set[ProcessIdentity]:
        return _named(container) - former

    def begun() -> bool:
        waits = (read_what_is_there(str(container / OUTCOME)) or b"").decode(errors="replace") in _BEFORE
        return not (container / CONFIG).exists() or bool(look() and not waits)

    return await follows(look, begun, patience_s=FOLLOW_S, lives_s=lives_s)


async def _followed(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + FOLLOW_S
    while not there() and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(LOOK_S)
