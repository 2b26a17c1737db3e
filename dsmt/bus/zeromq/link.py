"""A client's end on ZeroMQ: a DEALER and its monitor; fulfils `ports.network.Link`. It never reconnects by itself.

Rule 1: few messages wait here; beyond them TCP holds the broker back. A broker that sends without end takes neither the loop
    nor memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from socket import AF_INET6, AddressFamily

import zmq
from zmq.utils.monitor import parse_monitor_message

from dsmt.bus.zeromq.sockets import (
    AT_ONCE,
    AT_ONCE_BYTES,
    HANDSHAKE_S,
    LINGER_MS,
    NOW,
    RETRY_S,
    Edges,
    joined,
    parted,
    readable,
)
from dsmt.errors import TransportError
from dsmt.ports.network import Message


class ZmqLink:
    """A client's DEALER."""

    def __init__(self, dealer: zmq.Socket[bytes], monitor: zmq.Socket[bytes], address: str) -> None:
        self._dealer, self._monitor, self._address = dealer, monitor, address
        self._messages: deque[Message] = deque()
        self._bytes, self._is_more = 0, False
        self._here = asyncio.Event()
        self._room = asyncio.Event()
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = False
        self._loop = asyncio.get_running_loop()
        self._edges = Edges(self._drain, dealer, monitor)
        try:
            self._edges.begin()
        except OSError:  # the loop can watch no more
            self.end()
            raise

    def reach(self, family: AddressFamily) -> None:
        """Begin to connect. Raises `zmq.ZMQError` for what is no address."""
        self._dealer.setsockopt(zmq.IPV6, int(family is AF_INET6))
        self._dealer.connect(f"tcp://{self._address}")

    async def shaken(self) -> None:
        """Wait for the end of the handshake. Raises `TransportError`."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._shaken
        except TimeoutError as error:
            raise TransportError("link.refused", f"no broker answers at {self._address}") from error

    async def receive(self) -> list[Message]:
        """Wait for at least one message; return those that are here. Raises `TransportError` when the link is lost."""
        if self._is_more and not self._messages:
            self._drain()
        while not self._messages:
            if self._lost:
                raise TransportError("link.lost", f"the broker at {self._address} closed the link")
            self._here.clear()
            await self._here.wait()
        messages, self._bytes = list(self._messages), 0
        self._messages.clear()
        return messages

    def send(self, message: Message) -> bool:
        """Queue a message; False when the queue is full. Raises `TransportError` when the link is lost."""
        if self._lost:
            raise TransportError("link.lost", f"the broker at {self._address} closed the link")
        try:
            self._dealer.send(joined(message), NOW)
        except zmq.Again:
            self._room.clear()
            self._loop.call_later(RETRY_S, self._room.set)
            return False
        self._edges.sent()
        return True

    async def writable(self) -> None:
        """Wait until `send` has room again."""
        await self._room.wait()

    async def close(self) -> None:
        """Send what is queued (at most one second), then close."""
        self.end()

    def end(self) -> None:
        """Close without waiting: who ends the network waits for what is queued, and only where somebody may take it."""
        if self._dealer.closed:
            return
        stands = self._shaken.done() and not self._shaken.cancelled() and not self._lost
        self._edges.end()
        self._dealer.disable_monitor()
        self._monitor.close(linger=0)
        self._dealer.close(linger=LINGER_MS if stands else 0)
        if not self._shaken.done():
            self._shaken.cancel()

    def _drain(self) -> None:
        while not self._lost and readable(self._monitor):
            self._note(parse_monitor_message(self._monitor.recv_multipart())["event"])
        dealer = self._dealer
        while (is_more := readable(dealer)) and len(self._messages) < AT_ONCE and self._bytes <= AT_ONCE_BYTES:
            body = dealer.recv(NOW)
            self._bytes += len(body)
            self._messages.append(parted(body))
        self._is_more = is_more
        if self._messages or self._lost:
            self._here.set()

    def _note(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if not self._shaken.done():
                self._shaken.set_result(None)
            return
        self._lost = True
        self._room.set()
        if not self._shaken.done():
            refused = event in (zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED)
            said = "no broker answers" if refused else "who answers is not the broker that was named, or it refused us"
            self._shaken.set_exception(TransportError("link.refused", f"{said} at {self._address}"))
