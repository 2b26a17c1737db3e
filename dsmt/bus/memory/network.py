"""The in-memory network: links inside one process, for tests and for the simulator; fulfils `ports.network.Network`.

Rule 1: `Fabric` is the wire. What is sent passes `carry`, which a simulator overrides with delay, loss and partition.
Rule 2: a link that is closed tells the other end after everything that was sent before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from dsmt.errors import FailedError, TransportError
from dsmt.ports.network import Arrival, Closed, How, Message, Peer, Received

CAPACITY: Final = 4096
"""Messages that may wait on a link in one direction."""


class Fabric:
    """Every listener that can be reached."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryListener] = {}
        self._next_port = 10_000
        self._next_peer = 0

    def free(self, address: str) -> str:
        """The address, with a port of its own where it names port 0. Raises `FailedError` for one that is in use."""
        host, _, port = address.rpartition(":")
        if port == "0":
            self._next_port += 1
            address = f"{host}:{self._next_port}"
        if address in self.listeners:
            raise FailedError("start.port_in_use", f"{address} is in use", next="choose another port")
        return address

    def peer(self) -> Peer:
        """A name for a new connection."""
        self._next_peer += 1
        return Peer(self._next_peer.to_bytes(8, "big"))

    def carry(self, link: MemoryLink, call: Callable[[], None], *, to_listener: bool) -> None:  # noqa: ARG002 - for simulators
        """Bring something to the other end: here at once, in the next turn of the loop."""
        asyncio.get_running_loop().call_soon(call)


class MemoryListener:
    """The broker's end."""

    def __init__(
        self,
        fabric: Fabric,
        address: str,
        public: bytes,
        admit: Callable[[bytes], bool],
        writable: Callable[[Peer], None],
    ) -> None:
        self.public = public
        self._fabric, self.address, self.admit, self._writable = fabric, address, admit, writable
        self._arrivals: deque[Arrival] = deque()
        self._here = asyncio.Event()
        self.links: dict[Peer, MemoryLink] = {}

    async def receive(self) -> list[Arrival]:
        """Wait for at least one arrival; return all that are here, at most 1000."""
        while not self._arrivals:
            self._here.clear()
            await self._here.wait()
        return self.present()

    def present(self) -> list[Arrival]:
        """What has arrived by now."""
        return [self._arrivals.popleft() for _ in range(min(1000, len(self._arrivals)))]

    def arrived(self, arrival: Arrival) -> None:
        """Take in what the wire brings."""
        if isinstance(arrival, Received):
            link = self.links.get(arrival.peer)
            if link is None:
                return
            link.outward -= 1
            link.has_room.set()
        elif self.links.pop(arrival.peer, None) is None:
            return
        self._arrivals.append(arrival)
        self._here.set()

    def send(self, peer: Peer, message: Message) -> bool:
        """Queue a message; False when the peer's queue is full, True also for a peer that is gone."""
        link = self.links.get(peer)
        if link is None:
            return True
        if link.inward >= CAPACITY:
            link.waiting = True
            return False
        link.inward += 1
        self._fabric.carry(link, lambda: link.arrived(message), to_listener=False)
        return True

    def drained(self, peer: Peer) -> None:
        """A link that was full has room again."""
        self._writable(peer)

    def disconnect(self, peer: Peer) -> None:
        """Forget the connection."""
        link = self.links.get(peer)
        if link is not None:
            self._fabric.carry(link, link.lost, to_listener=False)
            self.arrived(Closed(peer, link.key, How.LOCAL))

    async def close(self) -> None:
        """Close every connection and the port."""
        self.vanish()

    def vanish(self) -> None:
        """The process is gone: its kernel closes what it had."""
        if self._fabric.listeners.get(self.address) is self:
            del self._fabric.listeners[self.address]
        for link in list(self.links.values()):
            self._fabric.carry(link, link.lost, to_listener=False)
        self.links.clear()


class MemoryLink:
    """The client's end. `inward` and `outward` count messages that are on their way or not taken yet."""

    def __init__(self, fabric: Fabric, listener: MemoryListener, peer: Peer, key: bytes) -> None:
        self._fabric, self._listener, self._peer, self.key = fabric, listener, peer, key
        self._messages: deque[Message] = deque()
        self._here = asyncio.Event()
        self.has_room = asyncio.Event()
        self._lost = False
        self.inward = self.outward = 0
        self.waiting = False

    async def receive(self) -> list[Message]:
        """Wait for at least one message; return all that are here. Raises `TransportError` when the link is lost."""
        while not self._messages:
            if self._lost:
                raise TransportError("link.lost", f"the broker at {self._listener.address} closed the link")
            self._here.clear()
            await self._here.wait()
        messages = list(self._messages)
        self._messages.clear()
        self.inward -= len(messages)
        if self.waiting:
            self.waiting = False
            self._fabric.carry(self, lambda: self._listener.drained(self._peer), to_listener=True)
        return messages

    def arrived(self, message: Message) -> None:
        """Take in what the wire brings."""
        self._messages.append(message)
        self._here.set()

    def lost(self) -> None:
        """The other end is gone."""
        self._lost = True
        self._here.set()
        self.has_room.set()

    def send(self, message: Message) -> bool:
        """Queue a message; False when the queue is full. Raises `TransportError` when the link is lost."""
        if self._lost:
            raise TransportError("link.lost", f"the broker at {self._listener.address} closed the link")
        if self.outward >= CAPACITY:
            self.has_room.clear()
            return False
        self.outward += 1
        received = Received(self._peer, self.key, message)
        self._fabric.carry(self, lambda: self._listener.arrived(received), to_listener=True)
        return True

    async def writable(self) -> None:
        """Wait until `send` has room again."""
        await self.has_room.wait()

    async def close(self) -> None:
        """Send what is queued, then close."""
        self.vanish()

    def vanish(self) -> None:
        """The process is gone, or is done: its kernel closes the connection."""
        if not self._lost:
            self._lost = True
            self._here.set()
            closed = Closed(self._peer, self.key, How.PEER)
            self._fabric.carry(self, lambda: self._listener.arrived(closed), to_listener=True)


class MemoryNetwork:
    """One process's way to the fabric. `public` gives a secret's X25519 public key (the simulator brings its own)."""

    def __init__(self, fabric: Fabric, *, public: Callable[[bytes], bytes]) -> None:
        self.fabric, self._public = fabric, public

    async def listen(
        self, address: str, secret: bytes, *, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> MemoryListener:
        """Open a port."""
        address = self.fabric.free(address)
        listener = MemoryListener(self.fabric, address, self._public(secret), admit, writable)
        self.fabric.listeners[address] = listener
        return listener

    async def connect(self, address: str, secret: bytes, *, server_key: bytes) -> MemoryLink:
        """Connect to a listener."""
        await asyncio.sleep(0)
        listener = self.fabric.listeners.get(address)
        key = self._public(secret)
        if listener is None or not listener.admit(key):
            raise TransportError("link.refused", f"no broker answers at {address}")
        if listener.public != server_key:
            raise TransportError("link.stranger", f"who answers at {address} is not the broker that was named")
        peer = self.fabric.peer()
        link = MemoryLink(self.fabric, listener, peer, key)
        listener.links[peer] = link
        return link
