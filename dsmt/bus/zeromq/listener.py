"""A broker's end on ZeroMQ: a ROUTER, its ZAP handler and its monitor; fulfils `ports.network.Listener`.

Rule 1: a peer is known by its CURVE key, which ZAP hands to each message as `User-Id`.
Rule 2: libzmq names no lost peer on a ROUTER; the socket monitor does, by file descriptor, and each message tells the
    descriptor it came from (`ZMQ_SRCFD`). The monitor is drained before data, so a reused descriptor is not misread, and a
    closed peer is told after the data that it had sent.
Rule 3: a ROUTER drops silently at its high-water mark; with ROUTER_MANDATORY it says so, and the sender keeps the message.
Rule 4: few messages are taken from the socket at once, so that the loop stays free; it takes them from peers by turns (D2).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from dsmt.bus.zeromq.sockets import (
    AT_ONCE,
    AT_ONCE_BYTES,
    HANDSHAKE_S,
    LINGER_MS,
    MORE,
    NOW,
    RCVMORE,
    RETRY_S,
    Edges,
    joined,
    parted,
    readable,
    secure,
)
from dsmt.errors import FailedError
from dsmt.event.addresses import host_of
from dsmt.ports.network import Arrival, Closed, How, Message, Peer, Received
from dsmt.system.sockets import family_of

MAX_FRAME: Final = 512 * 1024
BATCH: Final = 1000
WAITING: Final = BATCH
"""How many arrivals wait in memory; beyond it TCP holds the peers back."""


class ZmqListener:
    """A broker's ROUTER."""

    def __init__(
        self, address: str, secret: bytes, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> None:
        self._admit, self._writable = admit, writable
        self._context: zmq.Context[Any] = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._router = self._context.socket(zmq.ROUTER)
        secure(self._router, secret)
        self._router.setsockopt(zmq.CURVE_SERVER, 1)
        self._router.setsockopt_string(zmq.ZAP_DOMAIN, "dsmt")
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self._router.setsockopt(zmq.BACKLOG, 1024)
        self._router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._router.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED)
        self._router.setsockopt(zmq.IPV6, int(family_of(host_of(address)) is socket.AF_INET6))
        try:
            self._router.bind(f"tcp://{address}")
        except zmq.ZMQError as error:
            self._close_sockets()
            self._context.term()
            raise FailedError(
                "start.port_in_use", f"cannot listen on {address}: {error.strerror}", next="choose another port"
            ) from error
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("tcp://")
        self._arrivals: deque[Arrival] = deque()
        self._here = asyncio.Event()
        self._keys: dict[Peer, bytes] = {}
        self._descriptors: dict[int, Peer] = {}
        self._leaving: list[Peer] = []
        self._unknown: set[int] = set()
        self._blocked: dict[Peer, None] = {}
        self._closing: set[Peer] = set()
        self._last: Message = ()
        self._body = b""
        """The last message that was sent, and the same as the content of one frame."""
        self._loop = asyncio.get_running_loop()
        self._edges = Edges(self._drain, self._router, self._zap, self._monitor)
        self._edges.begin()

    async def receive(self) -> list[Arrival]:
        """Wait for at least one arrival; return all that are here, at most 1000."""
        while not self._arrivals:
            self._here.clear()
            await self._here.wait()
        return self._taken()

    def present(self) -> list[Arrival]:
        """What has arrived by now; asks the network, so that nobody waits for a turn of the loop to be heard."""
        if not self._router.closed:
            self._drain()
        return self._taken()

    def _taken(self) -> list[Arrival]:
        if len(self._arrivals) >= WAITING:
            self._edges.soon()
        return [self._arrivals.popleft() for _ in range(min(BATCH, len(self._arrivals)))]

    def send(self, peer: Peer, message: Message) -> bool:
        """Queue a message; False when the peer's queue is full, True also for a peer that is gone."""
        to_many = message is self._last
        if not to_many:
            self._last, self._body = message, joined(message)
        try:
            self._router.send(peer, MORE)
            self._router.send(self._body, NOW)
        except zmq.Again:
            if not self._blocked:
                self._loop.call_later(RETRY_S, self._retry)
            self._blocked[peer] = None
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        if to_many:
            self._edges.soon()
        else:
            self._edges.sent()
        return True

    def disconnect(self, peer: Peer) -> None:
        """Forget the connection: its TCP socket is shut down under libzmq, which has no call for it."""
        self._drain_monitor()
        descriptor = next((d for d, p in self._descriptors.items() if p == peer), None)
        if descriptor is None:
            return
        self._closing.add(peer)
        with suppress(OSError):
            same = socket.socket(fileno=descriptor)  # no double of it: there may be no descriptor left for one
            try:
                same.shutdown(socket.SHUT_RDWR)
            finally:
                same.detach()

    async def close(self) -> None:
        """Send what is queued (at most one second), then close every connection and the port."""
        self._edges.end()
        self._close_sockets()
        await asyncio.to_thread(self._context.term)

    def _close_sockets(self) -> None:
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._zap.close(linger=0)
        self._router.close(linger=LINGER_MS)

    def _retry(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for peer in blocked:
            self._writable(peer)

    def _drain(self) -> None:
        self._drain_zap()
        self._drain_monitor()
        if len(self._arrivals) < WAITING:
            if self._drain_router():
                self._tell_closed()
            else:
                self._edges.soon()
        if self._arrivals:
            self._here.set()

    def _drain_zap(self) -> None:
        while readable(self._zap):
            version, number, _, _, _, mechanism, *credentials = self._zap.recv_multipart()
            admitted = mechanism == b"CURVE" and len(credentials) == 1 and self._admit(credentials[0])
            status = (b"200", b"OK", credentials[0].hex().encode()) if admitted else (b"400", b"not admitted", b"")
            self._zap.send_multipart((version, number, *status, b""))

    def _drain_monitor(self) -> None:
        while readable(self._monitor):
            event = parse_monitor_message(self._monitor.recv_multipart())
            descriptor = event["value"]
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._unknown.discard(descriptor)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                peer = self._descriptors.pop(descriptor, None)
                if peer is None:
                    self._unknown.add(descriptor)
                else:
                    self._leaving.append(peer)

    def _drain_router(self) -> bool:
        """Take in messages; False when there may be more."""
        router, keys = self._router, self._keys
        taken = 0
        for _ in range(AT_ONCE):
            if taken > AT_ONCE_BYTES:
                break
            if not readable(router):
                return True
            peer = Peer(router.recv(NOW))
            key = keys.get(peer)
            if key is None:
                first = router.recv(copy=False)
                key, body = self._met(peer, first), first.bytes
            else:
                body = router.recv()
            taken += len(body)
            while router.getsockopt(RCVMORE):
                router.recv()
                body = b""  # a peer that sends several frames speaks another protocol
            if key is not None and peer not in self._closing:
                self._arrivals.append(Received(peer, key, parted(body)))
        return False

    def _met(self, peer: Peer, frame: Any) -> bytes | None:
        try:
            key = bytes.fromhex(frame.get("User-Id"))
        except (zmq.ZMQError, ValueError):
            return None
        self._keys[peer] = key
        descriptor = frame.get(zmq.SRCFD)
        if descriptor in self._unknown:
            self._unknown.discard(descriptor)
            self._leaving.append(peer)
        else:
            before = self._descriptors.get(descriptor)
            if before is not None:
                self._leaving.append(before)
            self._descriptors[descriptor] = peer
        return key

    def _tell_closed(self) -> None:
        leaving, self._leaving = self._leaving, []
        for peer in leaving:
            how = How.LOCAL if peer in self._closing else How.PEER
            self._closing.discard(peer)
            self._blocked.pop(peer, None)
            self._arrivals.append(Closed(peer, self._keys.pop(peer), how))
