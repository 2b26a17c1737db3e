"""A small realm for tests: keys, certificates, brokers and clients on a network of choice."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_scalarmult_base

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.older import OLDER
from dsmt.bus.client.attaching import greet, sign_attachment
from dsmt.bus.client.client import BusClient
from dsmt.bus.client.emission import ClientEmission
from dsmt.bus.memory.network import Fabric, MemoryNetwork
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.event.chain import SourceChain
from dsmt.event.codec import prepare, protected_header, sign_burst
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.bus import Arrived, Bookmark, Complete, Draft, Interest, Notice, Reattached
from dsmt.ports.files import Files
from dsmt.ports.network import Link, Network
from dsmt.ports.realm import About, BrokerAddress
from dsmt.programs.damage import found_in
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import Realm, TrustStore
from tests.bus.idle import run_alone
from tests.bus.raw_session import RawSession


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


NETWORKS: dict[str, Callable[[], Network]] = {"memory": memory_network, "zeromq": ZmqNetwork}


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test on a realm: `async def test(r)` becomes one that is run once for each network."""

    def run(network_kind: str, tmp_path: Path) -> None:
        async def within() -> None:
            network = NETWORKS[network_kind]()
            try:
                async with asyncio.timeout(45), realm(network, tmp_path) as r:
                    await test(r)
            finally:
                if isinstance(network, ZmqNetwork):
                    network.close()

        (asyncio.run if network_kind == "zeromq" else run_alone)(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@dataclass
class Reading:
    """Everything that a subscription has delivered so far."""

    __test__ = False
    batches: list[list[Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    mark: Callable[[int], None] = lambda _token: None

    @property
    def all(self) -> list[Any]:
        return [one for batch in self.batches for one in batch]

    @property
    def arrived(self) -> list[Arrived]:
        return [one for one in self.all if isinstance(one, Arrived)]

    @property
    def notices(self) -> list[Notice]:
        return [one for one in self.all if isinstance(one, Notice)]

    @property
    def reattached(self) -> list[Reattached]:
        return [one for one in self.all if isinstance(one, Reattached)]

    @property
    def completes(self) -> list[Complete]:
        return [one for one in self.all if isinstance(one, Complete)]

    @property
    def bookmarks(self) -> list[Bookmark]:
        return [one for one in self.all if isinstance(one, Bookmark)]

    def of(self, topic: str) -> list[Any]:
        """The data of the events on a topic."""
        return [one.signed.event.data for one in self.arrived if one.signed.event.topic == topic]

    def types(self) -> list[str]:
        return [one.type.removeprefix("dsmt.notice.") for one in self.notices]

    async def until(self, condition: Callable[[Reading], Any], seconds: float = 20.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"what was waited for did not come; {len(self.all)} did, last {self.all[-5:]}") from None

    async def complete(self) -> None:
        await self.until(lambda r: r.completes)


@asynccontextmanager
async def reading(client: BusClient, *patterns: str, wait: bool = True, **interest: Any) -> AsyncIterator[Reading]:
    """A subscription whose deliveries are collected; `wait` for its completion first."""
    got = Reading()

    async def collect() -> None:
        async with client.subscribe(Interest(patterns, **interest)) as deliveries:
            got.mark = deliveries.mark
            async for batch in deliveries:
                got.batches.append(list(batch))
                got.changed.set()

    task = asyncio.get_running_loop().create_task(collect())
    try:
        if wait:
            await got.complete()
        yield got
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


class Facts:
    """Shared facts of one client: each replaces the one that it said last on its topic."""

    def __init__(self, client: BusClient) -> None:
        self._client = client
        self._last: dict[str, ClientEmission] = {}

    def emit(self, topic: str, data: dict[str, Any], **about: Any) -> ClientEmission:
        emission = self._client.emit(Draft(topic, data, replaces=self._last.get(topic), **about))
        self._last[topic] = emission
        return emission

    async def publish(self, topic: str, data: dict[str, Any], **about: Any) -> ClientEmission:
        emission = self.emit(topic, data, **about)
        await emission.acknowledged()
        return emission


class Pen:
    """Writes events by hand, as an identity that minds no rule."""

    def __init__(self, identity: Identity, incarnation: int | None = None) -> None:
        self.identity = identity
        self.chain = SourceChain(int(time.time() * 1000) if incarnation is None else incarnation)

    def write(
        self, topic: str, data: dict[str, Any], *, ahead_s: float = 0.0, key: SecretKey | None = None, **more: Any
    ) -> SignedEvent:
        match = lookup(topic)
        sequence, link = self.chain.next(topic)
        values: dict[str, Any] = {
            "source": self.identity.name,
            "incarnation": self.chain.incarnation,
            "sequence": sequence,
            "chain": link,
            "type": match.row.event_type if match else "dsmt.user",
            "topic": topic,
            "subject": topic,
            "time": hlc(int((time.time() + ahead_s) * 1000)),
            "data": data,
        }
        if "version" in more:
            values["epoch"] = 1
        event = Event(**{**values, **more})
        signer = key or self.identity.key
        prepared = prepare(event, protected_header(signer.algorithm, signer.key_id))
        self.chain.signed(event, prepared.leaf)
        return sign_burst([prepared], signer)[0]


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
    identities: dict[Broker, Identity] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    def trust(self) -> TrustStore:
        return TrustStore(Realm(name=self.name, roots=(self.root.public,)))

    def identity(self, name: str, *, parent: Identity | None = None, now_s: int | None = None) -> Identity:
        key, now = SecretKey(os.urandom(32)), int(time.time()) if now_s is None else now_s
        if name == "root":
            key = self.root
        if parent is not None:
            return delegate(name, parent, key=key, now_s=now, serial=os.urandom(16))
        return root_issued(name, self.root, key=key, now_s=now, serial=os.urandom(16))

    async def broker(
        self,
        name: str = "b1",
        *,
        identity: Identity | None = None,
        store: str | None = None,
        address: str | None = None,
        born: bool = True,
        clock: TestClock | None = None,
        trust: TrustStore | None = None,
        kept: SqliteStore | None = None,
        others: Sequence[BrokerAddress] = (),
        **told: Any,
    ) -> Broker:
        identity = identity or self.identity(f"broker/{name}")
        path = store or str(self.directory / f"{name}.db")
        broker = Broker(
            BrokerConfig(
                address=address or f"127.0.0.1:{free_port()}",
                born=born,
                pid=os.getpid(),
                version="test",
                brokers=tuple(others),
                **told,
            ),
            identity=identity,
            trust=trust or self.trust(),
            store=kept or SqliteStore(path, identity=os.urandom(8).hex()),
            network=self.network,
            clock=clock or TestClock(),
            entropy=TestEntropy(),
            reach=lambda there: nullcontext(self.reader(identity, there)),
        )
        task = asyncio.get_running_loop().create_task(broker.run())
        self.tasks[broker] = task
        ready = asyncio.get_running_loop().create_task(broker.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            del self.tasks[broker]
            await task
        self.identities[broker] = identity
        self.brokers = [b for b in self.brokers if b.public != identity.key.public]
        self.brokers.append(BrokerAddress(broker.address, identity.key.public))
        return broker

    def reader(self, identity: Identity, there: Sequence[BrokerAddress]) -> BusClient:
        """A broker's own connection to another, which it runs itself."""
        return BusClient(
            identity=identity,
            trust=self.trust(),
            brokers=there,
            network=self.network,
            clock=TestClock(),
            entropy=TestEntropy(),
            about=About(os.getpid(), "test"),
            reads=True,
        )

    async def restarted(self, broker: Broker, **more: Any) -> Broker:
        """The broker stopped, and another on its store at its address."""
        identity, address = self.identities[broker], broker.address
        await self.stop(broker)
        broker._store.close()
        name = identity.name.split("/")[1]
        return await self.broker(name, identity=identity, address=address, **more)

    async def renewed(self, broker: Broker, seconds: float = 20.0) -> Broker:
        """The broker that finds its store to be an older copy, begun anew as its program does it."""
        task = self.tasks.pop(broker)
        await asyncio.wait({task}, timeout=seconds)
        assert task.done(), "it did not find that its store is an older copy"
        found = found_in(task.exception(), OLDER)
        assert found is not None, task.exception()
        broker._store.leave_identity()
        broker._store.close()
        identity, path = self.identities[broker], broker._store._db.path
        name, others = identity.name.split("/")[1], broker._config.brokers
        return await self.broker(
            name, identity=identity, address=broker.address, store=path, born=False, others=others, older=found.message
        )

    async def raw(
        self, name: str, *, identity: Identity | None = None, attach: bool = True, reads: bool = False
    ) -> RawSession:
        """A session by hand, attached."""
        identity, broker = identity or self.identity(name), self.brokers[-1]
        link = await self.network.connect(broker.address, identity.key.link_secret(), server_key=link_key(broker.public))
        self.links.append(link)
        session = RawSession(link)
        if attach:
            about = About(1, "raw", "")
            welcome = await greet(link, identity, self.trust(), about, incarnation=0, attachment=1, reads=reads)
            sign_attachment(link, identity, welcome)
        return session

    async def client(
        self,
        name: str,
        *,
        identity: Identity | None = None,
        clock: TestClock | None = None,
        wait: bool = True,
        brokers: list[BrokerAddress] | None = None,
        kept: Files | None = None,
        **how: Any,
    ) -> BusClient:
        client = BusClient(
            identity=identity or self.identity(name),
            trust=self.trust(),
            brokers=brokers or self.brokers,
            network=self.network,
            clock=clock or TestClock(),
            entropy=TestEntropy(),
            about=About(os.getpid(), "test", "127.0.0.1"),
            kept=kept,
            **how,
        )
        self.tasks[client] = asyncio.get_running_loop().create_task(client.run())
        if wait:
            await asyncio.wait_for(client.wait_attached(), 10)
        return client

    async def placed(self, agent: str) -> BusClient:
        """A controller that has placed the slot of an agent on its node."""
        _, node, service, component, index = agent.split("/")
        controller = await self.client("controller/placer")
        slot = Slot(node=node, spec="operator/a@1-1", revision=1, desired="running")
        topic = f"service/{service}/slot/{component}/{index}"
        await asyncio.wait_for(controller.publish(Draft(topic, to_data(slot), version=1)), 10)
        return controller

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
        for link in made.links:
            await link.close()
        for part in list(made.tasks)[::-1]:
            await made.stop(part)
