"""The simulated network: links with latency, loss and partitions, in order; fulfils `ports.network.Network`.

Rule 1: what is sent on a link arrives in order after the latency of its two hosts, `LOSS_S` later when it was lost and
    sent again, and in the receiver's process: held while that one is paused, dropped when it is dead.
Rule 2: while a host is cut off, or a partition is between two, what is sent to or from it is held, and arrives after the cut
    in order, as TCP's retransmissions do; nobody is told of the cut.
Rule 3: a process's end closes its links (`closed`, by the peer); a machine without power closes nothing, and resets
    them when it has booted again.
Rule 4: a middlebox may end all links of a host, each end believing that the other did it, and let none be made for a
    while (`filtered`); datagrams pass it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dsmt.bus.memory.network import Fabric, MemoryLink, MemoryListener
from dsmt.errors import TransportError
from dsmt.ports.network import Message, Peer
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.keys import link_public
from dsmt.simulator.engine.loop import SimLoop
from dsmt.simulator.engine.rng import Stream

LATENCY_S: Final = (0.001, 0.005)
LOSS: Final = 0.001
LOSS_S: Final = 0.2
CONNECT_S: Final = 5.0
RECOVERY_S: Final = (0.05, 0.8)
"""How long after a cut the first retransmission comes."""
BATCH: Final = 8
"""Messages that are taken from a link at once."""
PRUNE_EACH: Final = 512
_LOOK_S: Final = 0.1


class Hosts:
    """The hosts by address, the latency between two, and who is cut off from whom."""

    def __init__(self, loop: SimLoop, stream: Stream) -> None:
        self.loop, self.stream = loop, stream
        self.by_address: dict[str, Host] = {}
        self._latencies: dict[tuple[str, str], float] = {}

    def at(self, address: str) -> Host | None:
        """The host of `host:port`."""
        return self.by_address.get(address.rpartition(":")[0])

    def latency(self, a: Host, b: Host) -> float:
        """Seconds one way."""
        pair = (a.name, b.name) if a.name < b.name else (b.name, a.name)
        found = self._latencies.get(pair)
        if found is None:
            found = self._latencies[pair] = self.stream.stream("latency", *pair).uniform(*LATENCY_S)
        return found

    @staticmethod
    def reachable(a: Host, b: Host) -> bool:
        """Whether a packet of one reaches the other now."""
        return a.on and b.on and not Hosts.apart(a, b)

    @staticmethod
    def apart(a: Host, b: Host) -> bool:
        """Whether a partition is between two."""
        return a is not b and (a.cut or b.cut or a.side != b.side or a.name in b.severed or b.name in a.severed)


class SimLink(MemoryLink):
    """A client's end, with its wire."""

    wire: Wire

    async def receive(self) -> list[Message]:
        """What is here, but not more at once than a socket's reader takes: a backlog comes in several turns."""
        if self._messages:
            await asyncio.sleep(0)
        messages = await super().receive()
        if len(messages) <= BATCH:
            return messages
        rest = messages[BATCH:]
        self._messages.extendleft(reversed(rest))
        self.inward += len(rest)
        return messages[:BATCH]

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._lost

    def vanish(self) -> None:
        """Close it. A dead process closes nothing itself: its kernel does."""
        self.wire.client.host.loop.require_alive()
        super().vanish()

    def forget(self) -> None:
        """Its machine is without power: its peer hears of that when it has booted."""


class SimListener(MemoryListener):
    """A broker's end, with the process that holds it."""

    process: HostProcess

    @property
    def closed(self) -> bool:
        """Whether the port is no more its own."""
        return self._fabric.listeners.get(self.address) is not self

    def vanish(self) -> None:
        """Close the port and all that is connected to it."""
        self.process.host.loop.require_alive()
        super().vanish()

    def forget(self) -> None:
        """Its machine is without power: the port is free, and nobody is told."""
        self._fabric.listeners.pop(self.address, None)


class Wire:
    """What carries one link. `broken`: one of its machines has lost its power."""

    __slots__ = ("_contexts", "_due", "_held", "_loop", "_loss", "broken", "client", "latency", "link", "server")

    def __init__(self, client: HostProcess, server: HostProcess, latency: float, loss: Stream) -> None:
        self.client, self.server, self.latency = client, server, latency
        self.broken = False
        self.link: SimLink | None = None
        self._loop = client.host.loop
        self._loss = loss
        self._contexts = (server.sim.context, client.sim.context)
        self._due = [0.0, 0.0]
        self._held: tuple[list[Callable[[], None]], list[Callable[[], None]]] = ([], [])
        for host in (client.host, server.host):
            host.wires[self] = None

    def carry(self, call: Callable[[], None], *, to_listener: bool) -> None:
        """Bring something to the other end (rules 1 and 2)."""
        way = 0 if to_listener else 1
        if self.broken:
            return
        if self._held[way] or Hosts.apart(self.client.host, self.server.host):
            self._held[way].append(call)
        else:
            self._send(call, way, self.latency)

    def _send(self, call: Callable[[], None], way: int, after: float) -> None:
        loop = self._loop
        when = loop.time() + after
        if self._loss.chance(LOSS):
            when += LOSS_S
        due = self._due
        when = max(when, due[way])
        due[way] = when
        loop.call_at(when, call, context=self._contexts[way])

    def healed(self) -> None:
        """A cut is over: what was held goes on its way."""
        if Hosts.apart(self.client.host, self.server.host) or self.broken:
            return
        for way in (0, 1):
            held = list(self._held[way])
            self._held[way].clear()
            after = self._loss.uniform(*RECOVERY_S)
            for call in held:
                self._send(call, way, after)

    def reset(self) -> None:
        """A machine that had lost its power is there again, and knows nothing of this link."""
        self.broken = False
        for held in self._held:
            held.clear()
        if self.link is None:
            return
        if self.client.alive:
            self.link.lost()
        else:
            self.link.vanish()

    def torn(self) -> None:
        """Something between the two ends it (rule 4)."""
        for held in self._held:
            held.clear()
        if self.link is not None and not self.link.closed and not self.broken:
            self.link.vanish()
            self.link.has_room.set()

    @property
    def needed(self) -> bool:
        """Whether anything may still go over it."""
        return self.link is None or not self.link.closed or any(self._held)


class SimFabric(Fabric):
    """The wire of every link."""

    def __init__(self, hosts: Hosts, stream: Stream) -> None:
        super().__init__()
        self.hosts, self.stream = hosts, stream
        self._made = 0

    def wire(self, client: HostProcess, server: HostProcess) -> Wire:
        """A new wire; now and then those that are closed are forgotten."""
        self._made += 1
        if self._made % PRUNE_EACH == 0:
            for host in self.hosts.by_address.values():
                host.wires = {wire: None for wire in host.wires if wire.needed}
        latency = self.hosts.latency(client.host, server.host)
        return Wire(client, server, latency, self.stream.stream("wire", self._made))

    def carry(self, link: MemoryLink, call: Callable[[], None], *, to_listener: bool) -> None:
        """Bring something to the other end."""
        if not isinstance(link, SimLink):
            raise TypeError("only links of the simulation are carried")
        link.wire.carry(call, to_listener=to_listener)


class SimNetwork:
    """One process's way to the network."""

    def __init__(self, fabric: SimFabric, process: HostProcess) -> None:
        self._fabric, self._process = fabric, process

    async def listen(
        self, address: str, secret: bytes, *, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> SimListener:
        """Open a port."""
        address = self._fabric.free(address)
        listener = SimListener(self._fabric, address, link_public(secret), admit, writable)
        listener.process = self._process
        self._fabric.listeners[address] = listener
        self._process.hold(listener)
        return listener

    async def connect(self, address: str, secret: bytes, *, server_key: bytes) -> SimLink:
        """Connect to a listener: two round trips, or a time-out."""
        there = self._fabric.hosts.at(address)
        listener = await self._reach(address, there)
        key = link_public(secret)
        if listener is None or there is None or not listener.admit(key):
            raise TransportError("link.refused", f"no broker answers at {address}")
        if listener.public != server_key:
            raise TransportError("link.stranger", f"who answers at {address} is not the broker that was named")
        peer = self._fabric.peer()
        link = SimLink(self._fabric, listener, peer, key)
        link.wire = self._fabric.wire(self._process, listener.process)
        link.wire.link = link
        listener.links[peer] = link
        self._process.hold(link)
        return link

    async def _reach(self, address: str, there: Host | None) -> SimListener | None:
        """The listener; None when its host refuses. Raises `TransportError` when nothing answers."""
        here = self._process.host
        if there is not None:
            await asyncio.sleep(4 * self._fabric.hosts.latency(here, there))
        until = here.loop.time() + CONNECT_S
        while here.loop.time() < until:
            if there is not None and Hosts.reachable(here, there) and not (here.filtered or there.filtered):
                listener = self._fabric.listeners.get(address)
                if not isinstance(listener, SimListener):
                    return None
                if not listener.process.sim.halted:
                    return listener
            await asyncio.sleep(_LOOK_S)
        raise TransportError("link.timeout", f"nothing answers at {address}")
