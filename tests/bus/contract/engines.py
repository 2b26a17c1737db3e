"""What the contract is run on: each engine gives buses, and lets what happens to a realm happen.

An adapter to another engine passes when it is added to `ENGINES` and the suite holds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from msgspec.structs import replace

from dsmt.bus.client.client import BusClient
from dsmt.bus.memory.bus import MemoryBus
from dsmt.bus.memory.realm import MemoryRealm
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.wire.subjects import Subjects
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.ports.bus import Bus
from dsmt.ports.network import Network
from dsmt.trust.identity import Identity
from tests.bus.idle import run_alone
from tests.bus.nats_servers import Gates, NatsServers, Way
from tests.bus.realm import TestClock, TestEntropy, TestRealm, memory_network, realm

HOURS_MS = 2 * 3600 * 1000


class Engine(Protocol):
    """One realm on one engine. A name has one identity for as long as the realm lives."""

    async def bus(self, name: str, *, wait: bool = True) -> Bus:
        """A process that is new under a name, running; with `wait` it is attached."""
        ...

    async def leave(self, bus: Bus) -> None:
        """The process of a bus ends."""
        ...

    async def interrupt(self) -> None:
        """Every connection is lost, also where its bus looks only now and then, and nobody can attach."""
        ...

    async def resume(self) -> None:
        """They can attach again; nothing that was acknowledged is gone."""
        ...

    async def lose(self, rows: list[int]) -> None:
        """Damage: these rows are gone."""
        ...

    async def trim(self) -> None:
        """All of the history that may be trimmed is."""
        ...


class BrokerEngine:
    """dsmt's own broker, on a network of choice."""

    def __init__(self, made: TestRealm) -> None:
        self._made = made
        self._identities: dict[str, Identity] = {}

    async def begin(self) -> None:
        """Run the broker."""
        self._broker = await self._made.broker()

    async def end(self) -> None:
        """It ends with its realm."""

    async def bus(self, name: str, *, wait: bool = True) -> BusClient:
        identity = _identity(self._made, self._identities, name)
        return await self._made.client(name, identity=identity, wait=wait)

    async def leave(self, bus: Bus) -> None:
        await self._made.stop(bus)

    async def interrupt(self) -> None:
        await self._made.stop(self._broker)
        self._broker._store.close()

    async def resume(self) -> None:
        identity, address = self._made.identities[self._broker], self._broker.address
        self._broker = await self._made.broker(identity=identity, address=address)

    async def lose(self, rows: list[int]) -> None:
        self._broker._store._db.connection.execute(f"DELETE FROM events WHERE row IN ({','.join(map(str, rows))})")

    async def trim(self) -> None:
        while self._broker._store.trim(self._broker.now_ms() + HOURS_MS):
            pass


class MemoryEngine:
    """The bus that ships for tests."""

    def __init__(self, made: TestRealm) -> None:
        self._made = made
        self._realm = MemoryRealm(made.trust().realm, TestClock())
        self._identities: dict[str, Identity] = {}

    async def begin(self) -> None:
        """There is nothing to run."""

    async def end(self) -> None:
        """There is nothing to end."""

    async def bus(self, name: str, *, wait: bool = True) -> MemoryBus:
        bus = MemoryBus(_identity(self._made, self._identities, name), self._realm)
        self._made.tasks[bus] = asyncio.create_task(bus.run())
        if wait:
            await asyncio.wait_for(bus.wait_attached(), 10)
        return bus

    async def leave(self, bus: Bus) -> None:
        await self._made.stop(bus)

    async def interrupt(self) -> None:
        self._realm.cut()

    async def resume(self) -> None:
        self._realm.mend()

    async def lose(self, rows: list[int]) -> None:
        for held in [held for held in self._realm._log if held.row in rows]:
            self._realm._log.remove(held)
            del self._realm._by_id[held.signed.id]

    async def trim(self) -> None:
        self._realm.trim()


class NatsEngine:
    """One NATS server that all tests share: a realm has its own streams. Lost connections are a server that stops."""

    count = 1
    _running: ClassVar[dict[int, NatsServers]] = {}

    def __init__(self, made: TestRealm) -> None:
        made.name = f"t{os.urandom(6).hex()}"
        self._made = made
        self._identities: dict[str, Identity] = {}

    async def begin(self) -> None:
        """Run what does not run yet, and make the realm's streams."""
        if self.count not in self._running:
            self._running[self.count] = NatsServers(self.count)
            self._running[self.count].start()
        self._servers = self._running[self.count]
        self._subjects = await self._servers.make(self._made.name)
        self._realm = self._servers.realm()

    @classmethod
    def end_all(cls) -> None:
        """The servers end: three that idle take 15 ms of CPU each second."""
        while cls._running:
            cls._running.popitem()[1].close()

    async def end(self) -> None:
        """The streams of the realm go, and the servers stay."""
        link = await self._servers.administrator()
        for stream in (self._subjects.facts, self._subjects.history, self._subjects.blobs):
            await link.api(f"STREAM.DELETE.{stream}")
        await link.close()

    async def bus(self, name: str, *, wait: bool = True) -> NatsBus:
        bus = NatsBus(
            identity=_identity(self._made, self._identities, name),
            trust=self._made.trust(),
            realm=self._realm,
            clock=TestClock(),
            entropy=TestEntropy(),
        )
        self._made.tasks[bus] = asyncio.create_task(bus.run())
        if wait:
            await asyncio.wait_for(bus.wait_attached(), 20)
        return bus

    async def leave(self, bus: Bus) -> None:
        await self._made.stop(bus)

    async def interrupt(self) -> None:
        self._servers.stop()

    async def resume(self) -> None:
        self._servers.start()

    async def lose(self, rows: list[int]) -> None:
        await self._asked(*(("MSG.DELETE", {"seq": row, "no_erase": True}) for row in rows))

    async def trim(self) -> None:
        await self._asked(("PURGE", {}))

    def hold(self, bus: NatsBus) -> None:
        """One bus loses its link, and gets no other until `let`."""
        bus._realm = replace(bus._realm, servers=("127.0.0.1:1",))
        asyncio.get_running_loop().create_task(bus._link.close())

    def let(self, bus: NatsBus) -> None:
        bus._realm = self._realm

    async def lose_everything(self) -> None:
        """The servers' disks are gone, and the streams are made anew."""
        self._servers.forget()
        self._servers.start()
        self._subjects = await self._servers.make(self._made.name)

    async def _asked(self, *asked: tuple[str, dict[str, Any]]) -> None:
        link = await self._servers.administrator()
        for what, body in asked:
            await link.api(f"STREAM.{what}.{self._subjects.history}", body)
        await link.close()


class NatsClusterEngine(NatsEngine):
    """Three NATS servers, each of which holds everything. Lost connections are a way to them that is shut."""

    count = 3

    async def begin(self) -> None:
        await super().begin()
        self._way = Way(self._servers.addresses)
        await self._way.open()
        self._realm = self._servers.realm(addresses=self._way.addresses)

    async def end(self) -> None:
        await self._way.shut()
        await super().end()

    async def interrupt(self) -> None:
        await self._way.shut()

    async def resume(self) -> None:
        await self._way.open()


class NatsGatedEngine(NatsEngine):
    """A NATS server with TLS of the realm's own, and a gate beside it."""

    async def begin(self) -> None:
        self._servers = NatsServers(1, tls=True)
        self._servers.gates = Gates(self._made, self._servers)
        self._servers.start()
        self._servers.gates.open()
        self._subjects = Subjects(self._made.name)
        await self._servers.gates.born.wait()
        self._realm = self._servers.realm()

    async def end(self) -> None:
        await self._servers.gates.close()
        self._servers.close()


def _identity(made: TestRealm, known: dict[str, Identity], name: str) -> Identity:
    """The one identity of a name; an agent's is its node's to give."""
    role, _, rest = name.partition("/")
    parent = _identity(made, known, f"node/{rest.split('/')[0]}") if role == "agent" else None
    if name not in known:
        known[name] = made.identity(name, parent=parent)
    return known[name]


Made = Callable[[TestRealm], Any]
ENGINES: dict[str, tuple[Callable[[], Network], Made]] = {
    "memory": (memory_network, MemoryEngine),
    "broker": (memory_network, BrokerEngine),
    "broker over zeromq": (ZmqNetwork, BrokerEngine),
    "nats": (memory_network, NatsEngine),
    "nats, three servers": (memory_network, NatsClusterEngine),
    "nats with a gate": (memory_network, NatsGatedEngine),
}
REAL = frozenset({"broker over zeromq", "nats", "nats, three servers", "nats with a gate"})
"""Those that run real processes or sockets."""


@asynccontextmanager
async def engine(kind: str, directory: Path) -> AsyncIterator[Engine]:
    """An engine of a kind; everything ends with the block."""
    network, make = ENGINES[kind]
    made = network()
    try:
        async with realm(made, directory) as r:
            one = make(r)
            await one.begin()
            try:
                yield one
            finally:
                await one.end()
    finally:
        if isinstance(made, ZmqNetwork):
            made.close()


def contract(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A clause of the contract: `async def test(e: Engine)` becomes a test that is run once on each engine."""

    def run(engine_kind: str, tmp_path: Path) -> None:
        async def within() -> None:
            async with asyncio.timeout(45), engine(engine_kind, tmp_path) as e:
                await test(e)

        (asyncio.run if engine_kind in REAL else run_alone)(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def passed(bus: Bus, ms: int) -> None:
    """Wait until realm time has gone beyond a moment."""
    deadline = time.monotonic() + 10
    while bus.now_ms() <= ms:
        assert time.monotonic() < deadline, "realm time stands still"
        await asyncio.sleep(0.002)
