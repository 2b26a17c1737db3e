"""The network on ZeroMQ: ROUTER and DEALER over TCP, encrypted by CURVE, admitted by ZAP; fulfils `ports.network.Network`.

Rule 1: a peer is known by its CURVE key, which ZAP hands to each message as `User-Id`.
Rule 2: libzmq names no lost peer on a ROUTER; the socket monitor does, by file descriptor, and each message tells the
    descriptor it came from (`ZMQ_SRCFD`). The monitor is drained before data, so a reused descriptor is not misread, and a
    closed peer is told after the data that it had sent.
Rule 3: ZMTP heartbeats are off: a starved peer must not look like a closed one. A DEALER never reconnects by itself.
Rule 4: a ROUTER drops silently at its high-water mark; with ROUTER_MANDATORY it says so, and the sender keeps the message.
Rule 5: a message is one ZMTP frame: each part behind its length in 4 bytes. One frame is encrypted, sent and received
    several times faster than many.
Rule 6: a message is parted no further than its bound, and so few are taken from the socket at once that the loop stays
    free; the socket takes them from its peers by turns (rule D2).
Rule 7: a socket's descriptor signals edges only: after each send and each wake-up it is drained until it is dry.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import zmq
from nacl.bindings import crypto_scalarmult_base
from zmq.utils.monitor import parse_monitor_message

from dsmt.errors import FailedError, TransportError
from dsmt.ports.network import Arrival, Closed, How, Message, Peer, Received

SEND_HIGH_WATER: Final = 4096
RECEIVE_HIGH_WATER: Final = 16
MAX_FRAME: Final = 512 * 1024
MOST_PARTS: Final = 1 + 1024
"""A message's map and its parts (`frames.MAX_PARTS`)."""
HANDSHAKE_S: Final = 5.0
LINGER_MS: Final = 1000
RETRY_S: Final = 0.01
"""How soon a full queue is tried again."""
BATCH: Final = 1000
_NOW, _MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS, _RCVMORE, _POLLIN = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)
"""As plain numbers: arithmetic on enumerations costs more than the calls that take them."""
AT_ONCE: Final = 64
AT_ONCE_BYTES: Final = 1024 * 1024
"""How many messages, and bytes, are taken from the ROUTER before others on the loop have their turn."""
WAITING: Final = BATCH
"""How many arrivals wait in memory; beyond it TCP holds the peers back."""


class _Edges:
    """Has a socket, and those beside it, drained whenever something may have come (rule 7)."""

    __slots__ = ("_drain", "_due", "_loop", "_main", "_sockets")

    def __init__(self, drain: Callable[[], None], main: zmq.Socket[bytes], *beside: zmq.Socket[bytes]) -> None:
        self._drain, self._main, self._sockets = drain, main, (main, *beside)
        self._due = False
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Listen for edges, and drain what is there already."""
        for one in self._sockets:
            self._loop.add_reader(_descriptor(one), self._run)
        self._run()

    def end(self) -> None:
        """Listen no more; before the sockets are closed."""
        for one in self._sockets:
            self._loop.remove_reader(_descriptor(one))

    def soon(self) -> None:
        """Drain in the next turn of the loop."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._run)

    def sent(self) -> None:
        """Something was sent, which may have taken an edge with it."""
        if not self._due and _readable(self._main):
            self.soon()

    def _run(self) -> None:
        self._due = False
        if not self._main.closed:
            self._drain()


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
        _secure(self._router, secret)
        self._router.setsockopt(zmq.CURVE_SERVER, 1)
        self._router.setsockopt_string(zmq.ZAP_DOMAIN, "dsmt")
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self._router.setsockopt(zmq.BACKLOG, 1024)
        self._router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._router.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED)
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
        self._loop = asyncio.get_running_loop()
        self._edges = _Edges(self._drain, self._router, self._zap, self._monitor)
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
        try:
            self._router.send(peer, _MORE)
            self._router.send(_joined(message), _NOW)
        except zmq.Again:
            if not self._blocked:
                self._loop.call_later(RETRY_S, self._retry)
            self._blocked[peer] = None
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        self._edges.sent()
        return True

    def disconnect(self, peer: Peer) -> None:
        """Forget the connection: its TCP socket is shut down under libzmq, which has no call for it."""
        self._drain_monitor()
        descriptor = next((d for d, p in self._descriptors.items() if p == peer), None)
        if descriptor is None:
            return
        self._closing.add(peer)
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as double:
            double.shutdown(socket.SHUT_RDWR)

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
        while _readable(self._zap):
            version, number, _, _, _, mechanism, *credentials = self._zap.recv_multipart()
            admitted = mechanism == b"CURVE" and len(credentials) == 1 and self._admit(credentials[0])
            status = (b"200", b"OK", credentials[0].hex().encode()) if admitted else (b"400", b"not admitted", b"")
            self._zap.send_multipart((version, number, *status, b""))

    def _drain_monitor(self) -> None:
        while _readable(self._monitor):
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
            if not _readable(router):
                return True
            peer = Peer(router.recv(_NOW))
            key = keys.get(peer)
            if key is None:
                first = router.recv(copy=False)
                key, body = self._met(peer, first), first.bytes
            else:
                body = router.recv()
            taken += len(body)
            while router.getsockopt(_RCVMORE):
                router.recv()
                body = b""  # a peer that sends several frames speaks another protocol
            if key is not None and peer not in self._closing:
                self._arrivals.append(Received(peer, key, _parted(body)))
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


class ZmqLink:
    """A client's DEALER."""

    def __init__(self, dealer: zmq.Socket[bytes], monitor: zmq.Socket[bytes], address: str) -> None:
        self._dealer, self._monitor, self._address = dealer, monitor, address
        self._messages: deque[Message] = deque()
        self._here = asyncio.Event()
        self._room = asyncio.Event()
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = False
        self._loop = asyncio.get_running_loop()
        self._edges = _Edges(self._drain, dealer, monitor)
        self._edges.begin()

    async def shaken(self) -> None:
        """Wait for the end of the handshake. Raises `TransportError`."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._shaken
        except TimeoutError as error:
            raise TransportError("link.refused", f"no broker answers at {self._address}") from error

    async def receive(self) -> list[Message]:
        """Wait for at least one message; return all that are here. Raises `TransportError` when the link is lost."""
        while not self._messages:
            if self._lost:
                raise TransportError("link.lost", f"the broker at {self._address} closed the link")
            self._here.clear()
            await self._here.wait()
        messages = list(self._messages)
        self._messages.clear()
        return messages

    def send(self, message: Message) -> bool:
        """Queue a message; False when the queue is full. Raises `TransportError` when the link is lost."""
        if self._lost:
            raise TransportError("link.lost", f"the broker at {self._address} closed the link")
        try:
            self._dealer.send(_joined(message), _NOW)
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
        if self._dealer.closed:
            return
        self._edges.end()
        self._dealer.disable_monitor()
        self._monitor.close(linger=0)
        self._dealer.close(linger=LINGER_MS)
        if not self._shaken.done():
            self._shaken.cancel()

    def _drain(self) -> None:
        while not self._lost and _readable(self._monitor):
            self._note(parse_monitor_message(self._monitor.recv_multipart())["event"])
        dealer = self._dealer
        while _readable(dealer):
            self._messages.append(_parted(dealer.recv(_NOW)))
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


_FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_LOST: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED


class ZmqNetwork:
    """The way to the network of one process; its context is made with the first link."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] | None = None

    async def listen(
        self, address: str, secret: bytes, *, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> ZmqListener:
        """Open a port. Raises `FailedError` with code `start.port_in_use` when it is taken."""
        return ZmqListener(address, secret, admit, writable)

    async def connect(self, address: str, secret: bytes, *, server_key: bytes) -> ZmqLink:
        """Connect and finish the handshake within 5 seconds. Raises `TransportError`."""
        if self._context is None:
            self._context = zmq.Context()
        dealer = self._context.socket(zmq.DEALER)
        _secure(dealer, secret)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, server_key)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        dealer.setsockopt(zmq.LINGER, LINGER_MS)
        monitor = dealer.get_monitor_socket(_FAILED | _LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        link = ZmqLink(dealer, monitor, address)
        try:
            dealer.connect(f"tcp://{address}")
            await link.shaken()
        except zmq.ZMQError as error:
            await link.close()
            raise TransportError("link.refused", f"cannot connect to {address}: {error.strerror}") from error
        except BaseException:
            await link.close()
            raise
        return link

    def close(self) -> None:
        """End the context; links must be closed before."""
        if self._context is not None:
            self._context.term()
            self._context = None


def _joined(message: Message) -> bytes:
    """A message as the content of one frame."""
    return b"".join([piece for part in message for piece in (len(part).to_bytes(4, "big"), part)])


def _parted(body: bytes) -> Message:
    """The message that a frame holds; a single empty part for what holds none.

    Of one with too many parts just enough to see it (rule 6).
    """
    parts: list[bytes] = []
    at, end = 0, len(body)
    while at < end and len(parts) <= MOST_PARTS:
        start = at + 4
        at = start + int.from_bytes(body[at:start], "big")
        parts.append(body[start:at])
    return tuple(parts) if parts and (at == end or len(parts) > MOST_PARTS) else (b"",)


def _descriptor(one: zmq.Socket[bytes]) -> int:
    return int(one.getsockopt(zmq.FD))


def _readable(one: zmq.Socket[bytes]) -> bool:
    return bool(int(one.getsockopt(_EVENTS)) & _POLLIN)


def _secure(one: zmq.Socket[bytes], secret: bytes) -> None:
    one.setsockopt(zmq.CURVE_SECRETKEY, secret)
    one.setsockopt(zmq.CURVE_PUBLICKEY, crypto_scalarmult_base(secret))
    one.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER)
    one.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER)
    one.setsockopt(zmq.LINGER, LINGER_MS)
