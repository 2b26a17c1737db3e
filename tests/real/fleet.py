"""A real fleet on this machine for tests: up in a temporary home, watched, and ended whatever happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsmt.agents.rules.container import LEFT
from dsmt.event.envelope import EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.connection import Connection, connect
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.read.realm.watching import Watch, watching
from dsmt.operations.read.rows.node_rows import processes
from dsmt.ports.bus import Draft
from dsmt.ports.processes import ProcessIdentity
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.system.procfs import is_alive
from dsmt.system.records import process_of
from dsmt.view.entries import InstanceEntry

PATIENCE_S = 90.0
ENGINE = os.environ.get("DSMT_ENGINE")
"""What carries the realms of tests that do not say it themselves: with `nats` the table of deaths is run on NATS."""

REDIS = """\
service: {name}
components:
  kv:
    instances: {instances}
    run: [redis-server, --port, "{{port.redis}}", --bind, 127.0.0.1, --save, "", --daemonize, "no"]
    ports: {{redis: auto}}
    health: {{tcp: {{port: redis}}, interval: 500ms}}
"""


def redis_spec(instances: int | str = 2, name: str = "store") -> str:
    assert shutil.which("redis-server"), "redis-server is missing: scripts/test-needs installs it"
    return REDIS.format(name=name, instances=instances)


def web_spec(instances: int) -> str:
    """A service of Python's own web server, ready when its port answers."""
    return f"""\
service: web
components:
  app:
    instances: {instances}
    run: {sys.executable} -m http.server {{port.http}} --bind 127.0.0.1
    ports: {{http: auto}}
    health: {{tcp: {{port: http}}, interval: 500ms}}
"""


def processes_of(home: Path) -> dict[int, str]:
    """Every process that has to do with a home, by pid: its command line, or its directory, names it."""
    needle = str(home).encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            where = str((process / "cwd").readlink()).encode()
            state = (process / "stat").read_bytes().rpartition(b")")[2].split()[0]
            if state != b"Z" and (needle in command or needle in where):
                found[int(process.name)] = f"{command.replace(bytes(1), b' ').decode()} in {where.decode()}"
    return found


@dataclass
class Fleet:
    home: Home
    connection: Connection
    watch: Watch
    acknowledged: list[EventId] = field(default_factory=list)

    async def apply(self, text: str) -> None:
        for spec in parse(text, file="test.yaml"):
            topic = f"service/{spec.service}/spec"
            record = SpecFact(spec=to_plain(spec), by="test", reason="test")
            await self.connection.bus.publish(Draft(topic, to_data(record), replaces=self.watch.view.winner(topic)))

    def instances(self, service: str) -> dict[tuple[str, int, str], InstanceEntry]:
        """The ready instances of a service, where their slots say, by (component, index, node)."""
        entry = self.watch.view.services.get(service)
        found = {}
        for (component, index), slot in ({} if entry is None else entry.slots).items():
            node = None if slot.fact is None else slot.fact.record.node
            instance = None if node is None else slot.instances.get(node)
            if node is None or instance is None or instance.application is None or instance.health is None:
                continue
            running = instance.application.record.state is State.RUNNING
            if running and instance.health.record.health == "ready" and slot.fact is not None:
                found[component, index, node] = instance
        return found

    async def ready(
        self, service: str, count: int, *, but: Callable[[InstanceEntry], bool] | None = None
    ) -> dict[tuple[str, int, str], InstanceEntry]:
        def condition() -> dict[tuple[str, int, str], InstanceEntry] | None:
            found = {k: i for k, i in self.instances(service).items() if but is None or not but(i)}
            return found if len(found) >= count else None

        return await self.watch.until(f"{count} ready instances of {service}", condition, PATIENCE_S)

    def pids(self, service: str) -> dict[tuple[str, int, str], int]:
        found = {}
        for key, instance in self.instances(service).items():
            assert instance.application is not None
            found[key] = instance.application.record.pid or 0
        return found

    async def say(self) -> None:
        """Publish something and wait for its acknowledgement: what `missing` looks for afterwards."""
        emission = self.connection.bus.emit(Draft("user/test/said", {"n": len(self.acknowledged)}))
        await asyncio.wait_for(emission.acknowledged(), PATIENCE_S)
        assert emission.id is not None
        self.acknowledged.append(emission.id)

    async def missing(self) -> list[EventId]:
        """The acknowledged events that the history does not hold."""
        found = {signed.id for signed in await self.connection.bus.fetch(self.acknowledged)}
        return [identity for identity in self.acknowledged if identity not in found]

    def record(self, kind: str, name: str, program: str) -> ProcessIdentity:
        directory = keeper_directory(self.home) if kind == "keeper" else self.home.part(kind, name)
        found = process_of(directory, program)
        assert found is not None, f"{program} of {name} does not run"
        return found

    async def replaced(self, kind: str, name: str, program: str, before: ProcessIdentity) -> ProcessIdentity:
        """Wait until another process has taken the place of one that was killed."""
        directory = keeper_directory(self.home) if kind == "keeper" else self.home.part(kind, name)

        def look() -> ProcessIdentity | None:
            found = process_of(directory, program)
            return None if found is None or found == before else found

        return await eventually(f"a new {program} of {name}", look)

    def processes_of_node(self, node: str) -> list[int]:
        """Every process of a node, the spawner first."""
        return [process.pid for process in processes(self.watch.sight(), self.watch.view.nodes[node])]

    async def kill_node(self, node: str) -> None:
        kill_at_once(self.processes_of_node(node))


async def eventually(what: str, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait for a condition outside the bus: a process, a file. Looks again at once, then ever less often."""
    deadline, pause = time.monotonic() + patience_s, 0.001
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s for {what}")
        await asyncio.sleep(pause)
        pause = min(0.1, pause * 1.5)
    return found


def kill_at_once(pids: Sequence[int]) -> None:
    """Kill processes, of which none sees another one's death, and begins it again, however slowly they are killed."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


async def gone(*identities: ProcessIdentity) -> None:
    await eventually("their end", lambda: not any(is_alive(i) for i in identities))


@asynccontextmanager
async def attached(home: Home, *, nodes: int) -> AsyncIterator[Fleet]:
    """A watch on a realm that is up, once so many of its nodes are attached."""
    async with (
        connect(home.operator(), home.realm(), patience_s=PATIENCE_S) as connection,
        watching(connection.bus) as watch,
    ):
        await watch.until(
            f"{nodes} nodes", lambda: sum(n.attributes is not None for n in watch.view.nodes.values()) >= nodes, PATIENCE_S
        )
        yield Fleet(home, connection, watch)


async def end(home: Home) -> None:
    """`down`; what is left of the home then is killed, and fails the test."""
    try:
        await down(home)
    finally:
        left = processes_of(home.root)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left, f"down left processes: {left}"
    left_files = [str(p) for p in (home.root / "nodes").glob("*/containers/*/*/*/*") if p.name not in LEFT]
    assert not left_files, f"down left files: {left_files}"


@asynccontextmanager
async def fleet(
    directory: Path, *, nodes: int = 3, controllers: int = 2, brokers: int | None = None, engine: str | None = ENGINE
) -> AsyncIterator[Fleet]:
    """A realm with nodes that are attached; after the block nothing of it is left, or the test fails."""
    home = Home(directory / "home")
    try:
        await up(home, Wanted(nodes=nodes, controllers=controllers, brokers=brokers, name="test", engine=engine))
        async with attached(home, nodes=nodes) as made:
            yield made
    finally:
        await end(home)
