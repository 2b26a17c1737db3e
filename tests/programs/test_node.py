"""A whole node with real processes: spawner, manager, agents, monitor and a service, under a real broker."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.container import POKE, PROCESS, RECORD, TOLD
from dsmt.agents.rules.record import load_record
from dsmt.agents.shared.kept import keep
from dsmt.bus.client.client import BusClient
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_node, init
from dsmt.ports.bus import Arrived, Draft, Emission, Interest
from dsmt.ports.realm import About, BrokerAddress
from dsmt.programs.configuration import set_realm
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.system.processes import start_spawner
from dsmt.system.procfs import descendants, pids
from dsmt.system.records import living, process_of
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from tests.loops import in_real_time

pytestmark = pytest.mark.real

WEB = f"""
service: web
components:
  app:
    run: [{sys.executable}, -m, http.server, "{{port.http}}", --bind, 127.0.0.1]
    ports: {{http: auto}}
    health: {{http: {{port: http, path: /}}}}
    data: true
"""
PATIENCE_S = 60.0


class World:
    """A realm of one broker and one node, with a client that hears everything and speaks as a controller."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.node = ensure_node(home, "n1")
        self.directory = str(self.node)
        self.heard: list[SignedEvent] = []
        self.broker: subprocess.Popen[bytes] | None = None
        self.bus: BusClient | None = None
        self.operator: BusClient | None = None
        self.slot = "service/web/slot/app/0"
        self.specified: Emission | None = None
        self.assigned: Emission | None = None

    async def until(self, true: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := true()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {PATIENCE_S} s: {what}; {self.tail()}")
            await asyncio.sleep(0.02)
        return found

    def tail(self) -> str:
        logs = sorted(self.node.rglob("*.log"))
        said = "\n".join(f"{log}: {log.read_text()[-1500:]}" for log in logs)
        return f"{[s.event.data.get('state') for s in self.told('status')]}\n{said}"

    def told(self, kind: str) -> list[SignedEvent]:
        return [signed for signed in self.heard if f"/{kind}/" in signed.event.topic]

    def status(self, layer: str = "application") -> dict[str, Any]:
        found = [signed.event.data for signed in self.told("status") if signed.event.topic.endswith(layer)]
        return found[-1] if found else {"state": None}

    def endpoint(self) -> dict[str, Any] | None:
        found = [signed.event.data for signed in self.told("endpoint")]
        return found[-1] if found and found[-1]["ready"] else None

    async def spec(self, text: str, version: int = 1) -> SignedEvent:
        assert self.operator is not None
        data = to_data(SpecFact(spec=to_plain(parse(text, file="web.yaml")[0]), by="operator/op", reason=""))
        emission = self.operator.emit(Draft("service/web/spec", data, version=version, replaces=self.specified))
        self.specified = emission
        await emission.acknowledged()
        assert emission.signed is not None
        return emission.signed

    async def assign(self, spec: SignedEvent, version: int = 1, **about: Any) -> None:
        assert self.bus is not None
        told = {"node": "n1", "spec": str(spec.id), "revision": spec.event.version, "desired": "running", **about}
        draft = Draft(self.slot, to_data(Slot(**told)), version=version, to=("node/n1",), replaces=self.assigned)
        self.assigned = self.bus.emit(draft)
        await self.assigned.acknowledged()

    async def ready(self, after: int = 0) -> dict[str, Any]:
        await self.until(lambda: self.endpoint() and self.status()["restarts"] >= after, "the instance is served")
        await self.until(self.is_agent_told, "its manager has said who its agent is")
        found = self.endpoint()
        assert found is not None
        return found

    def get(self) -> bytes:
        found = self.endpoint()
        assert found is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{found['ports']['http']}/", timeout=10) as answer:
            content: bytes = answer.read()
            return content

    def container(self) -> Path:
        return self.node / "containers" / "web" / "app" / "0"

    def pid(self, program: str) -> int:
        found = process_of(self.directory, program)
        assert found is not None
        return found.pid

    def is_agent_told(self) -> bool:
        found = living(str(self.container() / PROCESS))
        return found is not None and self.status("agent").get("pid") == found.pid

    def agent(self) -> int:
        found = living(str(self.container() / PROCESS))
        assert found is not None
        return found.pid


def client(home: Home, name: str) -> tuple[BusClient, ZmqNetwork]:
    realm = home.realm()
    entropy = SystemEntropy()
    identity: Identity = root_issued(
        name, home.root_key(), key=SecretKey(entropy.bytes(32)), now_s=int(time.time()), serial=entropy.bytes(16)
    )
    network = ZmqNetwork()
    made = BusClient(
        identity=identity,
        trust=TrustStore(realm.realm),
        brokers=[BrokerAddress(address, public) for address, public in realm.brokers],
        network=network,
        clock=LinuxClock(),
        entropy=entropy,
        about=About(os.getpid(), "test"),
    )
    return made, network


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    home = Home(tmp_path / "home")
    init(home, name="test")
    at = World(home)
    command = [sys.executable, "-m", "dsmt.programs.broker", str(home.part("brokers", "b1"))]
    with (tmp_path / "broker.log").open("wb") as log:
        at.broker = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - a test may wait for a fork
    at.bus, network = client(home, "controller/c1")
    at.operator, other = client(home, "operator/op")
    tasks = [asyncio.create_task(one.run()) for one in (at.bus, at.operator)]

    async def listen() -> None:
        assert at.bus is not None
        async with at.bus.subscribe(Interest(("service/", "node/"))) as batches:
            async for batch in batches:
                at.heard += [delivery.signed for delivery in batch if isinstance(delivery, Arrived)]

    tasks.append(asyncio.create_task(listen()))
    try:
        start_spawner(at.directory)
        yield at
    finally:
        await end(at)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        network.close()
        other.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


async def end(at: World) -> None:
    """End everything that was started here, until two looks in a row find nobody: they restart each other."""
    empty = 0
    while empty < 2:
        victims = started_here(at)
        empty = 0 if victims else empty + 1
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
    if at.broker is not None:
        at.broker.kill()
        at.broker.wait()


def started_here(at: World) -> list[int]:
    """Every living process that names this test's own directory, and what those have started."""
    mine = str(at.home.root).encode()
    found: list[int] = []
    for pid in pids():
        try:
            told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or another user's
        if mine in told and alive(pid) and (at.broker is None or pid != at.broker.pid):
            found += [pid, *descendants(pid)]
    return list(dict.fromkeys(found))


@in_real_time
async def test_a_service_survives_the_death_of_everything_around_it(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.assign(await at.spec(WEB))
        first = await at.ready()
        assert b"Directory listing" in at.get()
        program = at.status()["pid"]
        assert at.status("agent")["pid"] == at.agent()
        before, restarts = len(at.told("status")), at.status()["restarts"]  # a start may have failed: a taken port

        os.kill(program, signal.SIGKILL)
        await at.until(lambda: at.status()["pid"] not in (None, program), "it was started again")
        assert (await at.ready(restarts + 1))["ports"] == first["ports"]
        failed = next(s.event for s in at.told("status")[before:] if s.event.data["state"] == "failed")
        assert failed.data["reason"]["code"] == "run.signal"
        program = at.status()["pid"]

        agent = at.agent()
        os.kill(agent, signal.SIGKILL)
        await at.until(lambda: at.status("agent")["pid"] not in (None, agent), "a new agent is there")
        assert at.agent() != agent
        manager = at.pid("container_manager")
        agent = at.agent()
        os.kill(manager, signal.SIGKILL)
        await at.until(
            lambda: (found := process_of(at.directory, "container_manager")) and found.pid != manager,
            "a new manager is there",
        )
        assert at.broker is not None
        at.broker.kill()
        at.broker.wait()
        os.kill(program, signal.SIGKILL)
        record = at.container() / RECORD

        def restarted() -> Any:
            told = load_record(record.read_bytes())
            return told is not None and told.process is not None and told.process["pid"] != program

        await at.until(restarted, "it was started again without any broker")
        assert at.agent() == agent


@in_real_time
async def test_what_the_manager_tells_on_the_disk_is_obeyed_at_a_poke_without_any_broker(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        spec = await at.spec(WEB)
        await at.assign(spec)
        await at.ready()
        program, agent = at.status()["pid"], at.agent()
        assert at.bus is not None
        assert at.broker is not None
        at.broker.kill()
        at.broker.wait()
        data = to_data(Slot(node="n1", spec=str(spec.id), revision=1, desired="stopped"))
        said = at.bus.emit(Draft(at.slot, data, version=2, to=("node/n1",), replaces=at.assigned))
        assert said.signed is not None
        keep(DiskFiles(str(at.container())), TOLD, said.signed, at.bus)
        os.kill(agent, POKE)
        await at.until(lambda: program not in pids(), "it was stopped")
        assert at.agent() == agent


@in_real_time
async def test_a_slot_that_leaves_leaves_nothing_but_its_data(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        spec = await at.spec(WEB)
        await at.assign(spec)
        await at.ready()
        program, agent = at.status()["pid"], at.agent()
        await at.assign(spec, 2, desired="gone", node=None)
        await at.until(lambda: at.status("container")["state"] == "gone", "the container is gone")
        assert at.status()["state"] == "gone"
        assert not at.container().exists()
        assert (at.node / "data" / "web" / "app" / "0").is_dir()
        await at.until(lambda: not Path(f"/proc/{program}").exists(), "the program is gone")
        await at.until(lambda: not Path(f"/proc/{agent}").exists(), "the agent is gone")


@in_real_time
async def test_the_monitor_tells_what_the_node_is(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        found = await at.until(
            lambda: [s.event for s in at.heard if s.event.topic == "node/n1/attributes"], "attributes are told"
        )
        data = found[0].data
        assert data["cpus"] >= 1
        assert data["udp_port"] > 0
        assert data["drivers"]["process"]["fence"] == "none"
        assert found[0].source == "monitor/n1"


@in_real_time
async def test_a_monitor_goes_where_the_realm_went_though_its_manager_stands_still(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.until(lambda: any(s.event.topic == "node/n1/attributes" for s in at.heard), "attributes are told")
        monitor, manager = at.pid("node_monitor"), at.pid("container_manager")
        os.kill(manager, signal.SIGSTOP)
        assert at.broker is not None
        at.broker.kill()
        realm = at.home.realm()
        set_realm(at.node, replace(realm, brokers=((f"127.0.0.1:{free_port('')}", realm.brokers[0][1]),)))
        await at.until(lambda: not alive(monitor), "the monitor ends")
        await at.until(lambda: process_of(at.directory, "node_monitor"), "there is another one")
        os.kill(manager, signal.SIGCONT)


@in_real_time
async def test_sigusr1_to_the_manager_ends_the_node_and_leaves_no_process(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.assign(await at.spec(WEB))
        await at.ready()
        program, agent = at.status()["pid"], at.agent()
        manager, monitor, spawner = (at.pid(one) for one in ("container_manager", "node_monitor", "spawner"))
        os.kill(manager, signal.SIGUSR1)
        for pid, what in (
            (program, "program"),
            (agent, "agent"),
            (manager, "manager"),
            (monitor, "monitor"),
            (spawner, "spawner"),
        ):
            await at.until(lambda pid=pid: not alive(pid), f"the {what} is gone")
        assert started_here(at) == []
        assert at.status()["state"] == "stopped"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
