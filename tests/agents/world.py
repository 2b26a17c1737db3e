"""A small world for agents and managers: a bus, a machine, a disk, all in memory and in the simulator's time."""

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import msgspec

from dsmt.agents.instance.deployment_agent import DeploymentAgent
from dsmt.agents.rules.container import CONFIG, RECORD, NodeConfig, SlotName, load_config, load_record
from dsmt.agents.shared.dependencies import Dependencies, NodeSurroundings
from dsmt.errors import DsmtError, FailedError, TransportError
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, Event, EventId, Link, SignedEvent, thing_of
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.order import is_over, newer
from dsmt.event.records import to_data
from dsmt.event.registry import is_fact, lookup
from dsmt.event.topic import matches
from dsmt.ports.bus import Ack, Arrived, Complete, Cursor, Draft, Interest, Level, Start
from dsmt.ports.check import Result
from dsmt.ports.driver import Handle, Launch
from dsmt.ports.logs import Begun
from dsmt.ports.processes import Exit, Identity
from dsmt.simulator.process import SimProcess, current_process
from dsmt.simulator.run import run as simulate
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey

EPOCH_MS = 1_700_000_000_000
BOOTED = 500.0
KEY = SecretKey(bytes(32))
WEB = """
service: web
components:
  app:
    run: sleep forever
    ports: {http: auto}
"""


def in_virtual_time(main: Callable[[], Any]) -> Any:
    """Run an async function in the simulator."""
    return simulate(main())


class Clock:
    def boottime(self) -> float:
        return asyncio.get_running_loop().time() + BOOTED

    def wall_ms(self) -> int:
        return EPOCH_MS + int(asyncio.get_running_loop().time() * 1000)


class Entropy:
    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)


class Moments:
    """Where the process that runs may be killed besides at its awaits: at each start of a program and each write."""

    def __init__(self) -> None:
        self.left = 0
        self.passed = 0

    def __call__(self) -> None:
        self.passed += 1
        if self.left:
            self.left -= 1
            process = current_process()
            if not self.left and process is not None:
                process.kill()


class MemoryFiles:
    """The `Files` port over a dict that outlives its users."""

    def __init__(
        self, content: dict[str, bytes] | None = None, root: str = "/node", moment: Callable[[], None] = lambda: None
    ) -> None:
        self.content = {} if content is None else content
        self.moment = moment
        self._root = root

    @property
    def root(self) -> str:
        return self._root

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def read(self, path: str) -> bytes | None:
        return self.content.get(self._place(path))

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        self.moment()
        self.content[self._place(path)] = content
        self.moment()

    def give(self, path: str, user: str) -> None:
        pass

    def write_given(self, path: str, name: str, content: bytes, *, user: str, mode: int) -> None:
        self.write(f"{path}/{name}", content, mode=mode)

    def names(self, path: str) -> list[str]:
        prefix = self._place(path) + "/"
        return sorted({key[len(prefix) :].split("/")[0] for key in self.content if key.startswith(prefix)})

    def remove(self, path: str) -> None:
        place = self._place(path)
        for key in [key for key in self.content if key == place or key.startswith(place + "/")]:
            del self.content[key]

    def below(self, path: str) -> "MemoryFiles":
        return MemoryFiles(self.content, self._place(path), self.moment)


class Emission:
    def __init__(self, signed: SignedEvent, realm: "Realm") -> None:
        self.signed = signed
        self.id = signed.id
        self._realm = realm

    async def acknowledged(self) -> Ack:
        await self._realm.up.wait()
        return Ack(Level.STORED, 1, False, Cursor("s", 1, 0))


class Realm:
    """One broker that never forgets, and may be away."""

    def __init__(self) -> None:
        self.facts: dict[str, SignedEvent] = {}
        self.log: list[SignedEvent] = []
        self.readers: list[tuple[Interest, str, asyncio.Queue[Any]]] = []
        self.up = asyncio.Event()
        self.up.set()
        self.fetched = 0
        self.changed = asyncio.Event()

    def publish(self, signed: SignedEvent) -> None:
        self.log.append(signed)
        event = signed.event
        if is_fact(event):
            held = self.facts.get(event.topic)
            if held is not None and not held.event.is_dead(event.time_ms) and not newer(event, held.event):
                return
            self.facts[event.topic] = signed
            of = {topic: fact.event for topic, fact in self.facts.items() if thing_of(topic) == event.ends}
            for topic in [topic for topic, fact in of.items() if is_over(fact, event.epoch)]:
                del self.facts[topic]
        for interest, source, queue in self.readers:
            if wants(interest, source, event):
                queue.put_nowait([Arrived(signed, len(self.log), live=True)])
        self.changed.set()

    def tell(self, delivery: Any) -> None:
        """Deliver this to all who read."""
        for *_, queue in self.readers:
            queue.put_nowait([delivery])

    def told(self, topic: str) -> list[Any]:
        """The data of all events on a topic."""
        return [signed.event.data for signed in self.log if signed.event.topic == topic]

    def states(self, topic: str) -> list[str]:
        return [data["state"] for data in self.told(topic)]

    async def until(self, true: Callable[[], Any], within: float = 600.0) -> Any:
        """Wait until something is so; it is looked at after each event, and each virtual 10 ms."""
        async with asyncio.timeout(within):
            while not (found := true()):
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self.changed.wait()
                except TimeoutError:
                    continue
        return found


def wants(interest: Interest, source: str, event: Event) -> bool:
    return any(matches(pattern, event.topic) for pattern in interest.patterns) or (interest.inbox and source in event.to)


class Bus:
    """One source's connection to the small realm; fulfils the port."""

    incarnations = iter(range(1_000_000, 9_000_000))

    def __init__(self, realm: Realm, source: str) -> None:
        self.realm = realm
        self.source = source
        self.broker = "b1"
        self.attachment = 7
        self.incarnation = next(Bus.incarnations)
        self.sequence = 0
        self.beats = 0
        self.offered: list[SignedEvent] = []
        self.introduced: set[bytes] = set()
        self.calls: list[Callable[[], None]] = []

    @property
    def attached(self) -> bool:
        return self.realm.up.is_set()

    async def wait_attached(self) -> None:
        await self.realm.up.wait()

    def now_ms(self) -> int:
        return Clock().wall_ms()

    def seal(self, draft: Draft) -> SignedEvent:
        self.sequence += 1
        match = lookup(draft.topic)
        assert match is not None, draft.topic
        version = draft.version
        if draft.replaces is not None and version is None:
            version = (draft.replaces.event.version or 0) + 1
        cause = tuple(one if isinstance(one, EventId) else one.id for one in draft.cause)
        assert None not in cause
        if match.row.record is not None:
            msgspec.convert(dict(draft.data), match.row.record, builtin_types=(bytes,))
        event = Event(
            source=self.source,
            incarnation=self.incarnation,
            sequence=self.sequence,
            chain=Link(1, NO_LEAF),
            type=match.row.event_type,
            topic=draft.topic,
            subject=draft.subject,
            time=self.now_ms() << 16 | self.sequence & 0xFFFF,
            data=dict(draft.data),
            cause=cause,
            ttl=match.row.ttl_ms if draft.ttl_ms is None else draft.ttl_ms,
            to=draft.to,
            epoch=None if version is None else draft.epoch or 1,
            version=version,
            replaces=None if draft.replaces is None else draft.replaces.id,
        )
        return seal([event], KEY)[0]

    def emit(self, draft: Draft, *, level: Level | None = None) -> Emission:
        signed = self.seal(draft)
        self.realm.publish(signed)
        return Emission(signed, self.realm)

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        return await self.emit(draft).acknowledged()

    def offer(self, signed: list[SignedEvent]) -> None:
        self.offered += signed

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        return (b"certificate of " + signed.event.source.encode(),)

    def introduce(self, certificates: Sequence[bytes]) -> None:
        self.introduced |= set(certificates)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        await self.realm.up.wait()
        reader = (interest, self.source, queue)
        history = interest.start is Start.HISTORY
        since = interest.since if isinstance(interest.since, int) else 0
        kept = [s for s in self.realm.log if s.event.time_ms >= since] if history else list(self.realm.facts.values())
        for signed in kept:
            if wants(interest, self.source, signed.event):
                queue.put_nowait([Arrived(signed, 1, live=False)])
        queue.put_nowait([Complete(Cursor("s", len(self.realm.log), 0), whole=True)])
        self.realm.readers.append(reader)

        async def batches() -> Any:
            while True:
                batch = await queue.get()
                yield batch
                if not interest.follow and isinstance(batch[0], Complete):
                    return

        stream = batches()
        try:
            yield stream
        finally:
            self.realm.readers.remove(reader)
            await stream.aclose()

    async def fetch(self, ids: list[EventId]) -> list[SignedEvent]:
        self.realm.fetched += 1
        await self.realm.up.wait()
        return [signed for signed in self.realm.log if signed.id in ids]

    async def put_blob(self, chunks: Any, digest: bytes) -> None:
        raise TransportError("depot", "there is no depot here")

    def get_blob(self, digest: bytes) -> Any:
        raise TransportError("depot", "there is no depot here")

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        self.beats += 1

    def on_attached(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


class Program:
    """A running program of the machine; fulfils `Instance`."""

    def __init__(self, machine: "Machine", owner: str, launch: Launch, identity: Identity) -> None:
        self.machine = machine
        self.owner = owner
        self.launch = launch
        self.identity = identity
        self.ended: Exit | None = None
        self.waiters: list[asyncio.Future[Exit]] = []
        self.signals: list[int] = []
        self.looks = 0

    @property
    def handle(self) -> Handle:
        return Handle(asdict(self.identity))

    @property
    def pid(self) -> int:
        return self.identity.pid

    async def wait(self) -> Exit:
        if self.ended is None:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            return await waiter
        return self.ended

    def look(self) -> None:
        self.looks += 1

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if self.ended is None and "stubborn" not in self.launch.argv:
            self.end(Exit(None, number))

    async def kill(self, *, deadline: float) -> tuple[int, ...]:
        self.end(Exit(None, signal.SIGKILL))
        return ()

    def end(self, how: Exit) -> None:
        if self.ended is None:
            self.ended = how
            self.machine.exits[self.identity] = how
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.get_loop().call_soon(_set, waiter, how)


def _set(waiter: asyncio.Future[Exit], how: Exit) -> None:
    if not waiter.done():
        waiter.set_result(how)


class Machine:
    """Programs, ports, logs and agents of one machine; fulfils `Sockets`."""

    def __init__(self, boot: str = "boot-1") -> None:
        self.boot = boot
        self.moment = Moments()
        self.programs: list[Program] = []
        self.copies: list[Program] = []
        """Programs that were started while another of the same slot ran."""
        self.exits: dict[Identity, Exit] = {}
        self.held: dict[int, str] = {}
        self.wrong: FailedError | None = None
        self.steps: dict[str, Exit] = {}
        self.lacking = ""
        self.prepared: list[Launch] = []
        self.preparing_s = 0.0
        self.starting_s = 0.0
        self.starts = 0
        """How often a driver was told to start a program, those under way included."""
        self.logs: dict[str, bytes] = {}

    @property
    def alive(self) -> list[Program]:
        return [program for program in self.programs if program.ended is None]

    def start(self, owner: str, launch: Launch) -> Program:
        if self.wrong is not None:
            raise self.wrong
        program = Program(self, owner, launch, Identity(100 + len(self.programs), 7, self.boot))
        if any(other.owner == owner for other in self.alive):
            self.copies.append(program)
        self.programs.append(program)
        exits = self.steps.get(launch.argv[0])
        if exits is not None:
            program.end(exits)
        self.moment()
        return program

    def drivers(self, owner: str) -> dict[str, "Driver"]:
        return {"process": Driver(self, owner)}

    def reboot(self) -> None:
        for program in self.alive:
            program.end(Exit(None, 9))
        self.boot += "+"
        self.exits.clear()

    async def ended(self, identity: Identity) -> Exit:
        return self.exits.get(identity, Exit(None, None))

    def holder(self, port: int, address: str, protocol: str) -> str | None:
        return self.held.get(port)


class Driver:
    """Runs programs of one container on a machine; fulfils the port."""

    fence = "none"
    enforces = ("files",)
    users = ("any",)

    def __init__(self, machine: Machine, owner: str) -> None:
        self.machine = machine
        self.owner = owner

    def available(self) -> str:
        return self.machine.lacking

    async def prepare(self, launch: Launch) -> None:
        self.machine.prepared.append(launch)
        await asyncio.sleep(self.machine.preparing_s)

    async def start(self, launch: Launch) -> Program:
        self.machine.starts += 1
        if self.machine.starting_s:
            await asyncio.sleep(self.machine.starting_s)
        return self.machine.start(self.owner, launch)

    async def adopt(self, handle: Handle) -> Program | None:
        return next((p for p in self.machine.alive if p.handle == handle), None)

    async def ended(self, handle: Handle) -> Exit:
        return await self.machine.ended(Identity(**handle))

    async def clear(self, *, deadline: float, spared: Sequence[Handle] = ()) -> tuple[int, ...]:
        for program in self.machine.alive:
            if program.owner == self.owner and program.handle not in spared:
                await program.kill(deadline=deadline)
        return ()


class MemoryLogs:
    def __init__(self, machine: Machine, root: str) -> None:
        self.content = machine.logs
        self.root = root
        self.trims: list[tuple[float, int]] = []
        """When the standard output was trimmed (s of the loop), and how far it had come."""
        self.done: list[tuple[str, str]] = []
        """What was done with which file."""

    def path(self, name: str) -> str:
        return f"{self.root}/logs/{name}.log"

    def begin(self, name: str, *, size_bytes: int, keep: int) -> Begun:
        self.done.append(("begin", name))
        return Begun(self.end(name), rotated=False)

    def end(self, name: str) -> int:
        return len(self.content.get(self.path(name), b""))

    def trim(self, name: str, *, size_bytes: int, keep: int) -> None:
        self.done.append(("trim", name))
        if name == "stdout":
            self.trims.append((asyncio.get_running_loop().time(), self.end(name)))

    def read(self, name: str, start: int, end: int | None, *, rotated: bool = False, most: int = 65536) -> bytes:
        return self.content.get(self.path(name), b"")[start:end][-most:]

    def write(self, name: str, text: str) -> None:
        self.content[self.path(name)] = self.content.get(self.path(name), b"") + text.encode()


class Checks:
    """Health checks whose answers a test sets."""

    def __init__(self) -> None:
        self.passed = True
        self.broken = False
        self.count = 0

    async def run(self, check: Any, **where: Any) -> Result:
        self.count += 1
        self.where = where
        await asyncio.sleep(0.01)
        return Result(self.passed, "200" if self.passed else "503", 0.01, self.broken)


class Artifacts:
    def __init__(self) -> None:
        self.installed: list[str] = []
        self.wrong: DsmtError | None = None
        self.takes_s = 0.0

    async def install(self, artifact: Any, directory: str, progress: Any) -> None:
        progress("fetch", 0, 10)
        await asyncio.sleep(self.takes_s)
        if self.wrong is not None:
            raise self.wrong
        progress("fetch", 10, 10)
        self.installed.append(f"{directory} {artifact.url}")


class Site:
    """One slot on one node: everything an agent needs, which outlives the agent."""

    def __init__(self, realm: Realm, node: str = "n1", slot: SlotName | None = None) -> None:
        self.realm = realm
        self.node = node
        self.slot = slot or SlotName("web", "app", "0")
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

    def deps(self) -> Dependencies:
        self.bus = Bus(self.realm, self.slot.agent(self.node))
        files = self.files.below(self.slot.directory)
        return Dependencies(
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
        )

    def agent(self) -> DeploymentAgent:
        self.last = DeploymentAgent(node_config(self.node).for_agent(self.slot), self.deps())
        return self.last

    def start(self) -> SimProcess:
        """Run an agent as a process of the simulation."""
        self.process = SimProcess(f"agent of {self.slot} on {self.node}")

        async def main() -> int:
            return await self.agent().run()

        self.process.start(main())
        return self.process

    def kept_pid(self) -> int:
        """Whom the agent's record on disk names."""
        record = load_record(self.files.below(self.slot.directory).read(RECORD))
        assert record is not None
        assert record.process is not None
        return int(record.process["pid"])

    # what was heard

    def statuses(self) -> list[Any]:
        return self.realm.told(f"{self.slot.on('status', self.node)}/application")

    def states(self) -> list[str]:
        return [status["state"] for status in self.statuses()]

    def state(self) -> str | None:
        return self.statuses()[-1]["state"] if self.statuses() else None

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

    def site(self, slot: SlotName) -> Site:
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
        made = AgentProcess(site, Identity(9000 + len(self.started), 1, self.machine.boot))
        self.started.append(made)
        return made

    def find(self, identity: Identity) -> "AgentProcess | None":
        return next((one for one in self.started if one.identity == identity and one.process.alive), None)


class AgentProcess:
    def __init__(self, site: Site, identity: Identity) -> None:
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

    def deps(self) -> NodeSurroundings:
        self.bus = Bus(self.realm, f"node/{self.node}")
        return NodeSurroundings(
            bus=self.bus,
            identity=self.identity,
            make_key=SecretKey,
            processes=self.agents,
            drivers=self.machine.drivers,
            files=self.files,
            clock=Clock(),
            entropy=self.entropy,
            ended=self.machine.ended,
            boot=self.machine.boot,
        )
