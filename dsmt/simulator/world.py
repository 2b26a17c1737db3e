"""The world of one simulation: hosts, network, the realm's keys, and how its programs are given their ports.

Rule 1: everything is drawn from streams named under one seed; nothing is iterated whose order is not that of making.
Rule 2: the programs are the real ones; only what they touch is simulated. One shortcut: each event is decoded once for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

from dsmt.bus.client.client import BusClient
from dsmt.bus.client.emission import ClientEmission
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Draft, Level
from dsmt.ports.files import Files
from dsmt.ports.realm import About, BrokerAddress
from dsmt.simulator.engine.clocks import EPOCH_MS
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.keys import SimKey, verify
from dsmt.simulator.engine.loop import SimLoop, current_loop
from dsmt.simulator.engine.network import Hosts, SimFabric, SimNetwork
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.reading import EventReader
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.revocations import is_disowned
from dsmt.trust.store import Realm, TrustStore
from dsmt.version import __version__

REALM: Final = "sim"
NOW_S: Final = EPOCH_MS // 1000


class TappedClient(BusClient):
    """The real client; `tap`, when there is one, hears of each topic that something was just said on."""

    tap: Callable[[str], None] | None = None
    said: list[ClientEmission] | None = None
    """What was said, by all of the realm's clients; None while nobody wants to know."""
    is_disowned: Callable[[SignedEvent], bool]
    """Whether nobody believes a fact any more, as far as this client was told (J3)."""

    def emit(self, draft: Draft, *, level: Level | None = None) -> ClientEmission:
        """Sign and send, without waiting."""
        emission = super().emit(draft, level=level)
        if self.said is not None:
            self.said.append(emission)
        if self.tap is not None:
            self.tap(draft.topic)
        return emission


class World:
    """Everything that a simulated realm stands on. To be made inside of a running simulation."""

    def __init__(self, seed: int) -> None:
        self.loop: SimLoop = current_loop()
        self.seed = seed
        self.stream = Stream(seed, "world")
        self.hosts: dict[str, Host] = {}
        self.net = Hosts(self.loop, self.stream.stream("net"))
        self.fabric = SimFabric(self.net, self.stream.stream("links"))
        self.crashes: list[str] = []
        """What programs raised and did not catch: bugs."""
        self.said: list[ClientEmission] | None = []
        """What was said; None in runs that are too long for that."""
        self.brokers: list[BrokerAddress] = []
        self.sites: dict[str, BrokerAddress] = {}
        """By host of a site, its leaf: what everything there is configured with (E5)."""
        self.reader = EventReader()
        self._keys = self.stream.stream("keys")
        self._made: list[Identity] = []
        self.root = self.key()

    @property
    def realm(self) -> Realm:
        """The realm and its root."""
        return Realm(name=REALM, roots=(self.root.public,))

    @property
    def now_ms(self) -> int:
        """The true realm time in ms."""
        return EPOCH_MS + int(self.loop.time() * 1000)

    def trust(self) -> TrustStore:
        """A trust store for one process."""
        return TrustStore(self.realm, verify=verify, decode=self.reader.decode)

    def trust_in_all(self) -> TrustStore:
        """A trust store that knows all identities that were made."""
        trust = self.trust()
        trust.add_all([signed.raw for one in self._made for signed in one.chain])
        return trust

    def key(self) -> SimKey:
        """A new key."""
        return SimKey(self._keys.bytes(32))

    def identity(self, name: str, *, parent: Identity | None = None) -> Identity:
        """A new identity, under the root or below another."""
        serial = self._keys.bytes(16)
        if parent is None:
            made = root_issued(name, self.root, key=self.key(), now_s=NOW_S, serial=serial)
        else:
            made = delegate(name, parent, key=self.key(), now_s=NOW_S, serial=serial)
        self._made.append(made)
        return made

    def root_identity(self) -> Identity:
        """The root's, to end a key with."""
        return root_issued("root", self.root, key=self.root, now_s=NOW_S, serial=self._keys.bytes(16))

    def host(self, name: str, address: str) -> Host:
        """A new machine."""
        host = Host(self.loop, name, address, self.stream.stream("host", name), self.crashes)
        self.hosts[name] = host
        self.net.by_address[address] = host
        return host

    def client(
        self,
        process: HostProcess,
        identity: Identity,
        *,
        kept: Files | None = None,
        trust: TrustStore | None = None,
        brokers: Sequence[BrokerAddress] = (),
        reads: bool = False,
    ) -> TappedClient:
        """A connection to the realm for a process."""
        trust = trust or self.trust()
        client = TappedClient(
            identity=identity,
            trust=trust,
            brokers=brokers or self.brokers_of(process.host),
            network=SimNetwork(self.fabric, process),
            clock=process.host.clock,
            entropy=process.host.entropy("client"),
            about=About(process.identity.pid, __version__, process.host.address),
            kept=kept,
            reads=reads,
        )
        client.said, client.is_disowned = self.said, partial(is_disowned, is_revoked=trust.disowns)
        return client

    def brokers_of(self, host: Host) -> list[BrokerAddress]:
        """What a machine is configured with."""
        return [self.sites[host.name]] if host.name in self.sites else self.brokers

    def cut(self, host: Host) -> None:
        """Partition a host from all others."""
        host.cut = True

    def heal(self, host: Host) -> None:
        """End a partition."""
        host.cut = False
        for wire in list(host.wires):
            wire.healed()

    def part(self, sides: Iterable[Iterable[Host]]) -> None:
        """Partition the hosts: those of each group reach each other; who is in none is with the first."""
        for side, hosts in enumerate(sides):
            for host in hosts:
                host.side = side

    def join(self) -> None:
        """End that partition."""
        for host in self.hosts.values():
            host.side = 0
        for host in self.hosts.values():
            self.heal(host)

    def reset(self, host: Host) -> None:
        """A middlebox ends all links of a host."""
        for wire in list(host.wires):
            wire.torn()

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Do something in so many seconds, outside of all processes."""
        self.loop.call_in_at(None, self.loop.time() + seconds, call, *args)

    def background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task outside of all processes."""
        return self.loop.create_task(work, name=name, context=self.loop.world)

    def power_off(self) -> None:
        """End everything, at the end of a run."""
        for host in self.hosts.values():
            host.power_off()
