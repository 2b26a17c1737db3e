"""A small realm for tests: keys, certificates, brokers and clients on a network of choice."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nacl.bindings import crypto_scalarmult_base

from dsmt.bus.broker import Broker, BrokerConfig
from dsmt.bus.client import About, BusClient
from dsmt.bus.memory import Fabric, MemoryNetwork
from dsmt.bus.sqlite import SqliteStore
from dsmt.ports.network import Network
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore


class TestClock:
    """The machine's clocks, with a wall clock that may be set wrong by `offset_s`."""

    __test__ = False

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> int:
        return int((time.time() + self.offset_s) * 1000)


class TestEntropy:
    __test__ = False

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)


def memory_network() -> Network:
    return MemoryNetwork(Fabric(), public=crypto_scalarmult_base)


@dataclass
class TestRealm:
    """Makes identities, runs brokers and clients; everything ends with the block."""

    __test__ = False
    network: Network
    directory: Path
    name: str = "test"
    root: SecretKey = field(default_factory=lambda: SecretKey(os.urandom(32)))
    brokers: list[BrokerAddress] = field(default_factory=list)
    tasks: dict[object, asyncio.Task[None]] = field(default_factory=dict)

    def trust(self) -> TrustStore:
        return TrustStore(Realm(name=self.name, roots=(self.root.public,)))

    def identity(self, name: str, *, parent: Identity | None = None, now_s: int | None = None) -> Identity:
        key, now = SecretKey(os.urandom(32)), int(time.time()) if now_s is None else now_s
        if parent is not None:
            return delegate(name, parent, key=key, now_s=now, serial=os.urandom(16))
        return root_issued(name, self.root, key=key, now_s=now, serial=os.urandom(16))

    async def broker(
        self, name: str = "b1", *, identity: Identity | None = None, store: str | None = None, address: str = "127.0.0.1:0",
        born: bool = True, clock: TestClock | None = None,
    ) -> Broker:
        identity = identity or self.identity(f"broker/{name}")
        path = store or str(self.directory / f"{name}.db")
        broker = Broker(
            BrokerConfig(address=address, born=born, pid=os.getpid(), version="test"),
            identity=identity, trust=self.trust(), store=SqliteStore(path, identity=os.urandom(8).hex()),
            network=self.network, clock=clock or TestClock(), entropy=TestEntropy(),
        )
        task = asyncio.get_running_loop().create_task(broker.run())
        self.tasks[broker] = task
        ready = asyncio.get_running_loop().create_task(broker.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            del self.tasks[broker]
            await task
        self.brokers = [b for b in self.brokers if b.public != identity.key.public]
        self.brokers.append(BrokerAddress(broker.address, identity.key.public))
        return broker

    async def client(
        self, name: str, *, identity: Identity | None = None, clock: TestClock | None = None, wait: bool = True,
    ) -> BusClient:
        client = BusClient(
            identity=identity or self.identity(name), trust=self.trust(), brokers=self.brokers, network=self.network,
            clock=clock or TestClock(), entropy=TestEntropy(), about=About(os.getpid(), "test", "127.0.0.1"),
        )
        self.tasks[client] = asyncio.get_running_loop().create_task(client.run())
        if wait:
            await asyncio.wait_for(client.wait_attached(), 10)
        return client

    async def stop(self, part: object) -> None:
        task = self.tasks.pop(part)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


@asynccontextmanager
async def realm(network: Network, directory: Path) -> AsyncIterator[TestRealm]:
    made = TestRealm(network, directory)
    try:
        yield made
    finally:
        for part in list(made.tasks)[::-1]:
            await made.stop(part)
