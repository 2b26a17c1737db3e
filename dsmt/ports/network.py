"""Network: encrypted, authenticated message links between two processes, as a port.

Contract:
1. A message is a tuple of byte frames; it arrives whole or not at all, in order, at most once.
2. Both ends are known by their X25519 public key (32 bytes) before the first message is delivered.
3. A peer's disconnect is told at once, as `Closed`, after every message it had sent that arrived.
4. `send` never blocks: it answers False when the peer's queue is full, and the message is not sent;
   `writable` is then called once when there is room again.
5. An address is `host:port`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NewType, Protocol

import msgspec

Message = tuple[bytes, ...]
Peer = NewType("Peer", bytes)
"""A connection, as the listener names it: unique for the life of the listener, never used again."""


class How(StrEnum):
    """How a connection ended (rule F2: only what the peer closed is evidence of its death)."""

    PEER = "peer"
    """The peer's end was closed: FIN or RST."""
    LOCAL = "local"
    """We closed it."""


class Received(msgspec.Struct, frozen=True):
    """One message from a connection; `key` is the sender's X25519 public key."""

    peer: Peer
    key: bytes
    message: Message


class Closed(msgspec.Struct, frozen=True):
    """A connection is gone; nothing of `peer` comes after it."""

    peer: Peer
    key: bytes
    how: How


Arrival = Received | Closed


class Listener(Protocol):
    """A broker's end: many connections on one port."""

    @property
    def address(self) -> str:
        """The address that is bound, with the real port when 0 was asked for."""
        ...

    async def receive(self) -> list[Arrival]:
        """Wait for at least one arrival; return all that are here, in order, at most 1000."""
        ...

    def present(self) -> list[Arrival]:
        """What has arrived by now, in order, at most 1000; none when there is nothing."""
        ...

    def send(self, peer: Peer, message: Message) -> bool:
        """Queue a message; False when the peer's queue is full, True also for a peer that is gone."""
        ...

    def disconnect(self, peer: Peer) -> None:
        """Forget the connection; its `Closed(how=LOCAL)` follows."""
        ...

    async def close(self) -> None:
        """Close every connection and the port."""
        ...


class Link(Protocol):
    """A client's end: one connection to one broker."""

    async def receive(self) -> list[Message]:
        """Wait for at least one message; return all that are here. Raises `TransportError` when the link is lost."""
        ...

    def send(self, message: Message) -> bool:
        """Queue a message; False when the queue is full. Raises `TransportError` when the link is lost."""
        ...

    async def writable(self) -> None:
        """Wait until `send` has room again."""
        ...

    async def close(self) -> None:
        """Send what is queued (at most one second), then close."""
        ...


class Network(Protocol):
    """Where links are made. `secret` is an X25519 secret key of 32 bytes."""

    async def listen(
        self, address: str, secret: bytes, *, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> Listener:
        """Open a port. `admit(key)` is asked before a connection exists; `writable(peer)` as in rule 4.

        Raises `FailedError` with code `start.port_in_use` when the port is taken.
        """
        ...

    async def connect(self, address: str, secret: bytes, *, server_key: bytes) -> Link:
        """Connect and finish the handshake within 5 seconds. Raises `TransportError`."""
        ...
