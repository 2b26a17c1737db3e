"""Crowds: supervisors that each keep many sleeping processes for the length of a block, with their own defaults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.processes import descendants, running
from benchmarks.realm import apply, listening, operator, realm
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import keeper_directory
from dsmt.system.records import living, record_path

PATIENCE_S: Final = 60.0
SLEEPER: Final = "sleep"
COMMAND: Final = f"{SLEEPER} infinity"

Programs = dict[str, list[int]]
"""Each program that supervises, by name, and the processes that run it: those that are supervised are not among them."""
Crowd = Callable[[Path, int], AbstractContextManager[Programs]]


@contextmanager
def dsmt(directory: Path, count: int) -> Iterator[Programs]:
    """A whole realm, with one node."""
    with realm(directory / "home", nodes=1, controllers=1) as home:
        asyncio.run(_settled(home, count))
        yield _programs(home)


async def _settled(home: Home, count: int) -> None:
    async with operator(home) as connection, listening(connection, "service/+/status/stamp/") as ear:
        await apply(connection, "crowd", COMMAND, instances=count)
        started: set[str] = set()
        while len(started) < count:
            heard = await ear.until(
                f"the start of {count} instances, {len(started)} have begun",
                lambda heard: heard.topic.endswith("/application") and heard.data["state"] == "running",
                PATIENCE_S,
            )
            started.add(heard.topic)


def _programs(home: Home) -> Programs:
    """Who runs, by the records of the home. Raises `RuntimeError` when one is missing."""
    node = home.part("nodes", "n1")
    places = {
        "keeper": [record_path(str(keeper_directory(home)), "spawner")],
        "broker": [record_path(str(home.part("brokers", "b1")), "broker")],
        "controller": [record_path(str(home.part("controllers", "c1")), "controller")],
        "spawner": [record_path(str(node), "spawner")],
        "container manager": [record_path(str(node), "container_manager")],
        "node monitor": [record_path(str(node), "node_monitor")],
        "agents": [record_path(str(one), "deployment_agent") for one in (node / "containers").glob("*/*/*")],
    }
    return {name: [_pid(path) for path in paths] for name, paths in places.items()}


def _pid(record: str) -> int:
    identity = living(record)
    if identity is None:
        raise RuntimeError(f"nobody lives whom {record} names")
    return identity.pid


@contextmanager
def circus(directory: Path, count: int) -> Iterator[Programs]:
    """`circusd`, one watcher."""
    config = directory / "circus.ini"
    config.write_text(
        "[circus]\n"
        f"endpoint = ipc://{directory}/endpoint\npubsub_endpoint = ipc://{directory}/pubsub\n"
        f"[watcher:crowd]\ncmd = {COMMAND}\nnumprocesses = {count}\n"
    )
    with running([peers.from_python("circusd"), str(config)], log=directory / "log") as started:
        yield {"circusd": _supervising(started.pid, count)}


@contextmanager
def supervisord(directory: Path, count: int) -> Iterator[Programs]:
    """`supervisord`, one program."""
    config = directory / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon = true\nlogfile = {directory}/log\npidfile = {directory}/pid\nchildlogdir = {directory}\n"
        f"[program:crowd]\ncommand = {COMMAND}\nnumprocs = {count}\nprocess_name = crowd_%(process_num)d\n"
    )
    with running([peers.from_python("supervisord"), "-c", str(config)], log=directory / "out") as started:
        yield {"supervisord": _supervising(started.pid, count)}


@contextmanager
def runit(directory: Path, count: int) -> Iterator[Programs]:
    """`runsvdir`, and one `runsv` for each."""
    for number in range(count):
        service = directory / "services" / str(number)
        service.mkdir(parents=True)
        (service / "run").write_text(f"#!/bin/sh\nexec {COMMAND}\n")
        (service / "run").chmod(0o755)
    program = peers.from_debian("runsvdir", "runit")
    with running([program, str(directory / "services")], log=directory / "log") as started:
        yield {"runsv": _supervising(started.pid, count)}


def _supervising(root: int, count: int) -> list[int]:
    """A supervisor's own processes, once all that it is to supervise run. Raises `RuntimeError`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        below = descendants(root)
        names = {pid: _name(pid) for pid in below}
        own = [pid for pid, name in names.items() if name != SLEEPER]
        if len(names) - len(own) == count:
            return [root, *own]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(names) - len(own)} of {count} processes run after {PATIENCE_S:.0f} s")
        time.sleep(0.05)


def _name(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


OURS: Final = "dsmt"
CROWDS: Final[Mapping[str, Crowd]] = {OURS: dsmt, "circus": circus, "supervisord": supervisord, "runit": runit}
"""All that P8 compares."""
