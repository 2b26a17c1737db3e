"""Datagrams: small messages that may be lost (UDP), as a port: what probes are made of (rule F4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Receive = Callable[[bytes, str], None]
"""Called with each datagram and its sender's `host:port`; must not block."""

MAX_BYTES = 1200
"""What passes every usual path whole."""


class DatagramSocket(Protocol):
    """A bound socket."""

    @property
    def port(self) -> int:
        """The port it is bound to."""
        ...

    def send(self, content: bytes, to: str) -> None:
        """Send to `host:port`, an address and no name; it may be lost, and nothing is raised for that."""
        ...

    def close(self) -> None:
        """Stop receiving and free the port."""
        ...


class Datagrams(Protocol):
    """Where sockets come from."""

    async def found(self, to: str) -> str:
        """`host:port` with an address in the place of a name; who answers late for that keeps nobody else waiting.

        Raises `TransportError` (`datagrams.unknown`).
        """
        ...

    async def bind(self, address: str, port: int, receive: Receive) -> DatagramSocket:
        """Bind to a local address; port 0 takes a free one. Raises `TransportError` (`datagrams.bind`)."""
        ...
