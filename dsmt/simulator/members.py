"""The members of a simulated realm: brokers, controllers and nodes, each the real program in a process.

Rule 1: what ends and is wanted is started again by its keeper after a moment, as `up`'s keeper and the spawner do.
Rule 2: a broker's store and a node's disk belong to their machines, and survive processes and reboots.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine
from contextlib import nullcontext
from typing import Any, Final, TypeVar

from dsmt.agents.instance.deployment_agent import DeploymentAgent
from dsmt.agents.node.container_manager import ContainerManager
from dsmt.agents.node.data_key import data_key
from dsmt.agents.rules.container import CONFIG, IDENTITY, LOGS, NodeConfig, load_config
from dsmt.agents.shared.surroundings import InstanceSurroundings, NodeSurroundings
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.older import OLDER
from dsmt.bus.store.sqlite import GIB
from dsmt.controllers.decide import RULESET
from dsmt.errors import DsmtError
from dsmt.event.kinds.node import DriverAttributes
from dsmt.monitors.node import MonitorConfig, MonitorSurroundings, NodeMonitor
from dsmt.ports.bus import Bus
from dsmt.ports.driver import KILL_S
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.damage import found_in
from dsmt.simulator.attention import WatchedRunner
from dsmt.simulator.engine.datagrams import SimDatagrams
from dsmt.simulator.engine.disk import SimFiles, SimLogs
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.keys import SimKey, load_identity, verify
from dsmt.simulator.engine.network import SimNetwork
from dsmt.simulator.engine.process import current_process
from dsmt.simulator.machine import SimArtifacts, SimChecks, SimMachine, SimProcesses, SimSockets
from dsmt.simulator.programs import Habits, SimDriver
from dsmt.simulator.stores import SimStore, copy_rows
from dsmt.simulator.world import REALM, TappedClient, World
from dsmt.version import __version__

BROKER_PORT: Final = 4500
AGAIN_S: Final = (0.05, 0.3)
"""How soon a keeper starts again what has ended."""
NODE_ROOT: Final = "/dsmt/node"
DATA_ROOT: Final = "/dsmt/data"

T = TypeVar("T")
Main = Callable[[HostProcess], Coroutine[Any, Any, int | None]]


class KeptMember:
    """A program that is kept alive on a host."""

    def __init__(self, host: Host, name: str, main: Main) -> None:
        self.host, self.name = host, name
        self.process: HostProcess | None = None
        self.wanted = False
        self.starts = 0
        self._main = main

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start it, and keep it."""
        self.wanted = True
        self._start(self.host.boots)

    def stop(self) -> None:
        """SIGKILL, and do not start it again."""
        self.wanted = False
        self.kill()

    def kill(self) -> None:
        """SIGKILL; it is started again."""
        if self.process is not None:
            self.process.sim.kill()

    def _start(self, boot: int) -> None:
        if self.wanted and self.host.on and self.host.boots == boot and not self.alive:
            self.starts += 1
            self.process = self.host.start(self.name, self._main)
            self.process.on_end(self._ended)

    def _ended(self, _process: HostProcess) -> None:
        if self.wanted and self.host.on:
            loop, boot = self.host.loop, self.host.boots
            loop.call_in_at(None, loop.time() + self.host.stream.uniform(*AGAIN_S), self._start, boot)


class SimBroker:
    """A broker. `store` is its disk's; `stores` are all that it has had. The realm is born in the first one.

    What happens to its disk happens while it does not run: `new_store` loses all of it, or the store alone; `old_store`
    brings an earlier copy back; `cut_power` leaves what was synced, `lose_tail` all but some rows. `birth` is the id of the
    store that the birth record names; empty when there is none.
    """

    def __init__(
        self, world: World, name: str, address: str, *, born: bool = True, leaf: bool = False, store_bytes: int = GIB
    ) -> None:
        self.world, self.name, self._store_bytes = world, name, store_bytes
        self.host = world.host(name, address)
        self.identity = world.identity(f"broker/{name}")
        self.address = f"{address}:{BROKER_PORT}"
        self.stores: list[SimStore] = []
        self._left: SimStore | None = None
        """What a power cut has left on its disk."""
        self.birth = ""
        self.broker: Broker | None = None
        """That of its last process."""
        self.new_store()
        self.birth = self.store.identity if born else ""
        self.kept = KeptMember(self.host, "broker", self._main)
        self.at = BrokerAddress(self.address, self.identity.key.public, leaf=leaf)
        if not leaf:
            world.brokers.append(self.at)

    @property
    def store(self) -> SimStore:
        """The store that it has now."""
        return self.stores[-1]

    @property
    def born(self) -> bool:
        """Whether the realm was born in the store that it has now."""
        return self.birth == self.store.identity

    @property
    def now_ms(self) -> int:
        """The realm time that it tells."""
        return self.world.now_ms if self.broker is None else self.broker.now_ms()

    def new_store(self, *, kept_birth: bool = True) -> None:
        """Its store is lost, with its other files or without: it has an empty one, with another id."""
        self.stores.append(SimStore(identity=self._new_id(), boot=self.host.boot, limit_bytes=self._store_bytes))
        if not kept_birth:
            self.birth = ""

    def copied(self, *, closed: bool = False) -> SimStore:
        """A copy of its store as it is now, or as it were if it was `closed` now."""
        copy = self.store.copy(identity=self.store.identity, boot=self.host.boot)
        if closed:
            copy.sync()
        return copy

    def old_store(self, copy: SimStore) -> None:
        """It finds an older copy of its store in place of what it had."""
        self.stores.append(copy.copy(identity=self._new_id(), boot=self.host.boot))

    def cut_power(self, copy: SimStore) -> None:
        """Its machine loses its power: what its disk has is this copy, which it opens when it has booted."""
        self.host.power_off()
        self._left = copy

    def lose_tail(self, rows: int) -> None:
        """The power is cut before the last `rows` rows were on the disk; `boot` starts it again."""
        before = self.store
        copy = SimStore(identity=before.identity, boot=self.host.boot, limit_bytes=before.limit_bytes)
        copy_rows(before, copy, up_to=max(0, before.head - rows))
        self.cut_power(copy)

    def boot(self) -> None:
        """The power is back."""
        if not self.host.on:
            self.host.power_on()
        left, self._left = self._left, None
        if left is not None:
            self.old_store(left)
        self.kept.start()

    def _new_id(self) -> str:
        return self.host.entropy("store").bytes(8).hex()

    async def _main(self, process: HostProcess) -> None:
        """Serve; anew under another id where the store is found to be an older copy, as the program does."""
        older = ""
        while True:
            try:
                await self._serve(process, older)
            except (DsmtError, BaseExceptionGroup) as error:
                found = found_in(error, OLDER)
                if found is None:
                    raise
                older = found.message
            self.store.leave_identity()
            self.old_store(self.store)

    async def _serve(self, process: HostProcess, older: str) -> None:
        self.broker = broker = Broker(
            BrokerConfig(
                address=self.address,
                born=self.born,
                pid=process.identity.pid,
                version=__version__,
                boot=self.host.boot,
                brokers=tuple(self.world.brokers),
                older=older,
            ),
            identity=self.identity,
            trust=self.world.trust(),
            store=self.store,
            network=SimNetwork(self.world.fabric, process),
            clock=self.host.clock,
            entropy=self.host.entropy("broker"),
            reach=lambda there: nullcontext(self.world.client(process, self.identity, brokers=there, reads=True)),
        )
        await broker.run()


class SimController:
    """A controller; `runner` is the one of its present process, `ruleset` that of its version."""

    ruleset = RULESET

    def __init__(self, world: World, name: str, address: str, complaints: list[str]) -> None:
        self.world, self.name, self._complaints = world, name, complaints
        self.host = world.host(name, address)
        self.identity = world.identity(f"controller/{name}")
        self.bus: TappedClient | None = None
        self.runner: WatchedRunner | None = None
        self.kept = KeptMember(self.host, "controller", self._main)

    async def _main(self, process: HostProcess) -> None:
        trust = self.world.trust()
        self.bus = bus = self.world.client(process, self.identity, trust=trust)
        self.runner = runner = WatchedRunner(
            bus,
            self.host.clock,
            trust,
            version=__version__,
            pid=process.identity.pid,
            ruleset=self.ruleset,
            complain=self._complain,
            check=verify,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.run())
            group.create_task(runner.run())

    def _complain(self, sentence: str) -> None:
        self._complaints.append(f"[{self.world.loop.time():.3f} s] controller {self.name}: {sentence}")


class SimNode:
    """A node: its container manager and node monitor, kept by its spawner, and its agents."""

    def __init__(self, world: World, name: str, address: str, habits: Habits, *, heartbeat_s: float = 1.0) -> None:
        self.world, self.name = world, name
        self.host = world.host(name, address)
        self.identity = world.identity(f"node/{name}")
        self.machine = SimMachine(self.host)
        self.habits = habits
        self.processes = SimProcesses(self.host, self._agent)
        self.monitor_identity = world.identity(f"monitor/{name}", parent=self.identity)
        self.manager = KeptMember(self.host, "container_manager", self._manager)
        self.monitor = KeptMember(self.host, "monitor", self._monitor)
        self.heartbeat_s = heartbeat_s

    @property
    def running(self) -> list[HostProcess]:
        """Its processes that live."""
        return [process for process in self.host.processes.values() if process.alive]

    def start(self) -> None:
        """Start what its spawner keeps."""
        self.manager.start()
        self.monitor.start()

    def boot(self) -> None:
        """The power is back."""
        if not self.host.on:
            self.host.power_on()
        self.start()

    @property
    def data_key(self) -> str:
        """The key by which its data directory is known again as the same one."""
        return data_key(SimFiles(self.host.disk, DATA_ROOT), self.identity.key.key_id)

    @property
    def config(self) -> NodeConfig:
        """What its manager is told."""
        return NodeConfig(
            node=self.name,
            realm=REALM,
            roots=self.world.realm.roots,
            brokers=tuple((broker.address, broker.public) for broker in self.world.brokers_of(self.host)),
            address=self.host.address,
            directory=NODE_ROOT,
            data_root=DATA_ROOT,
            data_key=self.data_key,
            heartbeat_s=self.heartbeat_s,
        )

    def _drivers(self, directory: str) -> dict[str, SimDriver]:
        """The drivers of the container in a directory."""
        return {"process": SimDriver(self.host, directory, self.habits)}

    async def _clear(self, directories: Collection[str]) -> None:
        """End what is left of some containers."""
        for directory in directories:
            self.processes.kill(directory)
            await self._drivers(directory)["process"].clear(deadline=KILL_S)

    async def _manager(self, process: HostProcess) -> None:
        host = self.host
        files = SimFiles(host.disk, NODE_ROOT)
        bus = self.world.client(process, self.identity, kept=files)
        manager = ContainerManager(
            self.config,
            NodeSurroundings(
                bus=bus,
                identity=self.identity,
                make_key=SimKey,
                processes=self.processes,
                drivers=self._drivers,
                clear=self._clear,
                files=files,
                data=SimFiles(host.disk, DATA_ROOT),
                clock=host.clock,
                entropy=host.entropy("manager"),
                ended=host.exit_of,
                boot=host.boot,
                is_disowned=bus.is_disowned,
            ),
        )
        await _beside(bus, manager.run())

    async def _monitor(self, process: HostProcess) -> None:
        host = self.host
        bus = self.world.client(process, self.monitor_identity, kept=SimFiles(host.disk, f"{NODE_ROOT}/monitor"))
        monitor = NodeMonitor(
            MonitorConfig(
                node=self.name,
                address=host.address,
                version=__version__,
                key=self.data_key,
                labels={},
                drivers={"process": DriverAttributes(fence=SimDriver.fence, enforces=SimDriver.enforces)},
                pid=process.identity.pid,
            ),
            MonitorSurroundings(
                bus=bus,
                key=self.monitor_identity.key,
                machine=self.machine,
                datagrams=SimDatagrams(self.world.net, process),
                clock=host.clock,
                entropy=host.entropy("monitor"),
                check=verify,
            ),
        )
        await _beside(bus, monitor.run())

    async def _agent(self, process: HostProcess, directory: str) -> int:
        host = self.host
        files = SimFiles(host.disk, directory)
        config = load_config(files.read(CONFIG), where=f"{directory}/{CONFIG}")
        identity = load_identity(files.read(IDENTITY) or b"", where=f"{directory}/{IDENTITY}")
        bus = self.world.client(process, identity, kept=files)
        agent = DeploymentAgent(
            config,
            InstanceSurroundings(
                bus=bus,
                drivers=self._drivers(directory),
                checks=SimChecks(host),
                artifacts=SimArtifacts(host),
                sockets=SimSockets(host),
                logs=SimLogs(host.disk, f"{directory}/{LOGS}"),
                files=files,
                quick=files,
                data=SimFiles(host.disk, DATA_ROOT),
                host=SimFiles(host.disk, ""),
                clock=host.clock,
                entropy=host.entropy("agent"),
                boot=host.boot,
                inherited={},
                is_disowned=bus.is_disowned,
            ),
        )
        here = current_process()
        if here is not None:
            here.on_signal(signal.SIGTERM, agent.shutdown)
        return await _beside(bus, agent.run())


async def _beside(bus: Bus, work: Coroutine[Any, Any, T]) -> T:
    """Do the work with the connection kept up meanwhile."""
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(bus.run())
        result = await group.create_task(work)
        kept.cancel()
    return result
