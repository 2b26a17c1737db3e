"""UDP: datagrams on the running event loop (udp(7))."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

from dsmt.errors import TransportError
from dsmt.event.addresses import host_of, host_port, is_number, parted
from dsmt.ports.datagrams import Receive

LAST_PORT: Final = 65_535


class UdpEndpoint(asyncio.DatagramProtocol):
    """A bound UDP socket; fulfils the port `Endpoint`. What the network says of lost datagrams is not passed on."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        """The port it is bound to."""
        if self._transport is None:
            return 0
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    def send(self, content: bytes, to: str) -> None:
        """Send to `host:port`, and nothing to no place. A name would be looked up here and now: all else would wait."""
        with suppress(ValueError):
            host, port = parted(to)
            if self._transport is not None and is_number(host) and 0 <= port <= LAST_PORT:
                self._transport.sendto(content, (host, port))

    def close(self) -> None:
        """Stop receiving."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """The socket is bound."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """A datagram has come."""
        self._receive(data, host_port(addr[0], addr[1]))


class UdpDatagrams:
    """The `Datagrams` port."""

    async def found(self, to: str) -> str:
        """Look a name up in a thread. Raises `TransportError` (`datagrams.unknown`)."""
        if is_number(host_of(to)):
            return to
        host, port = parted(to)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise TransportError("datagrams.unknown", f"{host} is not found: {error}") from error
        return host_port(str(found[0][4][0]), port)

    async def bind(self, address: str, port: int, receive: Receive) -> UdpEndpoint:
        """Bind a UDP socket. Raises `TransportError` (`datagrams.bind`)."""
        loop = asyncio.get_running_loop()
        try:
            _, endpoint = await loop.create_datagram_endpoint(lambda: UdpEndpoint(receive), local_addr=(address, port))
        except (OSError, UnicodeError) as error:
            raise TransportError("datagrams.bind", f"cannot bind UDP {address}:{port}: {error}") from error
        return endpoint
