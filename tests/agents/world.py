"""A small world for agents and managers: their nodes, over a bus and a machine in memory, in the simulator's time."""

import asyncio
import signal
from collections.abc import Collection
from typing import Any

from dsmt.agents.instance.deployment_agent import DeploymentAgent
from dsmt.agents.rules.container import CONFIG, RECORD, NodeConfig, load_config
from dsmt.agents.rules.record import InstanceRecord, load_record
from dsmt.agents.shared.surroundings import InstanceSurroundings, NodeSurroundings
from dsmt.errors import FailedError, TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Draft
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.simulator.engine.process import SimProcess
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey

from .memory_bus import EPOCH_MS, KEY, Bus, Clock, Realm
from .memory_machine import Artifacts, Checks, Entropy, Machine, MemoryFiles, MemoryLogs

WEB = """
service: web
components:
  app:
    run: sleep forever
    ports: {http: auto}
"""


class Site:
    """One slot on one node: everything an agent needs, which outlives the agent."""

    def __init__(self, realm: Realm, node: str = "n1", slot: SlotKey | None = None) -> None:
        self.realm = realm
        self.node = node
        self.slot = slot or SlotKey("web", "app", 0)
        self.config = node_config(node)
        self.machine = Machine()
        self.disk: dict[str, bytes] = {}
        self.files = MemoryFiles(self.disk, f"/{node}", self.machine.moment)
        self.checks = Checks()
        self.artifacts = Artifacts()
        self.entropy = Entropy()
        self.spec_bus = Bus(realm, "operator/op")
        self.slot_bus = Bus(realm, "controller/c1")
        self.logs = MemoryLogs(self.machine, f"/{node}/{self.slot.directory}")
        self.last: DeploymentAgent | None = None
        self.bus: Bus | None = None
        self.task: asyncio.Task[int] | None = None
        self.process: SimProcess | None = None

    # what operators and controllers say

    def spec(self, text: str = WEB, *, version: int = 1, epoch: int = 1) -> SignedEvent:
        plain = to_plain(parse(text, file="test.yaml")[0])
        topic = f"service/{self.slot.service}/spec"
        data = to_data(SpecFact(spec=plain, by="operator/op", reason=""))
        return self.spec_bus.emit(Draft(topic, data, version=version, epoch=epoch)).signed

    def assign(
        self,
        spec: SignedEvent,
        *,
        version: int = 1,
        to: tuple[str, ...] | None = None,
        epoch: int = 1,
        ttl_ms: int | None = None,
        **about: Any,
    ) -> SignedEvent:
        """A controller's word; `to` None names all the nodes that A1 says."""
        slot = Slot(
            **{
                "node": self.node,
                "spec": str(spec.id),
                "revision": spec.event.version,
                "desired": "running",
                **about,
            }
        )
        nodes = {self.node, slot.node, None if slot.previous is None else slot.previous.node}
        told = tuple(sorted(f"node/{node}" for node in nodes if node is not None)) if to is None else to
        draft = Draft(self.slot.topic, to_data(slot), version=version, to=told, epoch=epoch, ttl_ms=ttl_ms)
        return self.slot_bus.emit(draft).signed

    def spec_of(self) -> SignedEvent:
        """The spec fact that holds now."""
        return self.realm.facts[f"service/{self.slot.service}/spec"]

    def place(self, text: str = WEB, **about: Any) -> SignedEvent:
        return self.assign(self.spec(text), **about)

    # the agent

    def deps(self) -> InstanceSurroundings:
        self.bus = Bus(self.realm, self.slot.agent(self.node))
        files = self.files.below(self.slot.directory)
        return InstanceSurroundings(
            bus=self.bus,
            drivers=self.machine.drivers(files.root),
            checks=self.checks,
            artifacts=self.artifacts,
            sockets=self.machine,
            logs=self.logs,
            files=files,
            quick=files,
            data=self.files.below("data"),
            host=MemoryFiles(self.disk, ""),
            clock=Clock(),
            entropy=self.entropy,
            boot=self.machine.boot,
            inherited={"PATH": "/bin", "SECRET": "x"},
            is_disowned=lambda signed: signed in self.realm.void,
        )

    def agent(self) -> DeploymentAgent:
        self.last = DeploymentAgent(self.config.for_agent(self.slot), self.deps())
        return self.last

    def start(self) -> SimProcess:
        """Run an agent as a process of the simulation."""
        self.process = SimProcess(f"agent of {self.slot} on {self.node}")

        async def main() -> int:
            return await self.agent().run()

        self.process.start(main())
        return self.process

    def record(self) -> InstanceRecord:
        """The agent's record on disk."""
        record = load_record(self.files.below(self.slot.directory).read(RECORD))
        assert record is not None
        return record

    def kept_pid(self) -> int:
        """Whom the agent's record on disk names."""
        record = self.record()
        assert record.process is not None
        return int(record.process["pid"])

    # what was heard

    def statuses(self) -> list[Any]:
        return self.realm.told(f"{self.slot.on('status', self.node)}/application")

    def states(self) -> list[str]:
        return [status["state"] for status in self.statuses()]

    def state(self) -> str | None:
        return self.statuses()[-1]["state"] if self.statuses() else None

    def good(self) -> Any:
        """What was said last of which revision was good; None where nothing was."""
        return self.statuses()[-1].get("good") if self.statuses() else None

    def health(self) -> str | None:
        told = self.realm.told(self.slot.on("health", self.node))
        return told[-1]["health"] if told else None

    def endpoint(self) -> Any:
        told = self.realm.told(self.slot.on("endpoint", self.node))
        return told[-1] if told else None

    async def until(self, state: str, within: float = 600.0) -> None:
        await self.realm.until(lambda: self.state() == state, within)


def node_config(node: str = "n1") -> NodeConfig:
    return NodeConfig(
        node=node,
        realm="test",
        roots=(KEY.public,),
        brokers=(("127.0.0.1:1", KEY.public),),
        address="127.0.0.1",
        directory=f"/{node}",
        data_root=f"/{node}/data",
        data_key="k",
        labels={"zone": "a"},
    )


class Agents:
    """The `Processes` port: agents as processes of the simulation, each with its site."""

    def __init__(self, realm: Realm, files: MemoryFiles, machine: Machine, node: str = "n1") -> None:
        self.realm = realm
        self.files = files
        self.machine = machine
        self.node = node
        self.away = 0
        self.sites: dict[str, Site] = {}
        self.started: list[AgentProcess] = []

    def site(self, slot: SlotKey) -> Site:
        if str(slot) not in self.sites:
            site = Site(self.realm, self.node, slot)
            site.machine, site.disk, site.files = self.machine, self.files.content, self.files
            site.logs = MemoryLogs(self.machine, f"/{self.node}/{slot.directory}")
            self.sites[str(slot)] = site
        return self.sites[str(slot)]

    async def start_agent(self, directory: str) -> "AgentProcess":
        if self.away > 0:
            self.away -= 1
            raise TransportError("spawner.gone", "it is being restarted")
        raw = self.files.content[f"{directory}/{CONFIG}"]
        slot = load_config(raw, where=directory).slot
        site = self.site(slot)
        made = AgentProcess(site, ProcessIdentity(9000 + len(self.started), 1, self.machine.boot))
        self.started.append(made)
        return made

    def find(self, identity: ProcessIdentity) -> "AgentProcess | None":
        return next((one for one in self.started if one.identity == identity and one.process.alive), None)


class AgentProcess:
    def __init__(self, site: Site, identity: ProcessIdentity) -> None:
        self.identity = identity
        self.site = site
        self.process = site.start()

    async def wait(self) -> Exit:
        status = await self.process.wait()
        return Exit(status.code, status.signal)

    def signal(self, number: int) -> None:
        if number == signal.SIGTERM and self.site.last is not None:
            self.site.last.shutdown()
        else:
            self.process.send_signal(number)

    def handles(self, number: int) -> bool:
        return self.process.handles(number)


class Node:
    """A node with its manager, which may be killed and started again."""

    def __init__(self, realm: Realm, node: str = "n1") -> None:
        self.realm = realm
        self.node = node
        self.machine = Machine()
        self.files = MemoryFiles({}, f"/{node}", self.machine.moment)
        self.agents = Agents(realm, self.files, self.machine, node)
        self.entropy = Entropy(3)
        root = SecretKey(b"r" * 32)
        self.identity = root_issued(f"node/{node}", root, key=SecretKey(b"n" * 32), now_s=EPOCH_MS // 1000, serial=bytes(16))
        self.bus: Bus | None = None
        self.cleared: list[tuple[str, ...]] = []
        """The directories of containers that were looked for, look for look."""
        self.looking_s = 0.0
        self.failing = 0
        """How many looks are yet to fail."""

    async def clear(self, directories: Collection[str]) -> None:
        self.cleared.append(tuple(directories))
        await asyncio.sleep(self.looking_s)
        if self.failing:
            self.failing -= 1
            raise FailedError("node.files", "no descriptor is left")
        for one in self.agents.started:
            if one.process.alive and f"/{self.node}/{one.site.slot.directory}" in directories:
                one.process.kill()
        for directory in directories:
            await self.machine.drivers(directory)["process"].clear(deadline=1.0)

    def deps(self) -> NodeSurroundings:
        self.bus = Bus(self.realm, f"node/{self.node}")
        return NodeSurroundings(
            bus=self.bus,
            identity=self.identity,
            make_key=SecretKey,
            processes=self.agents,
            drivers=self.machine.drivers,
            clear=self.clear,
            files=self.files,
            data=self.files.below("data", made=False),
            clock=Clock(),
            entropy=self.entropy,
            ended=self.machine.ended,
            boot=self.machine.boot,
            is_disowned=lambda signed: signed in self.realm.void,
        )
