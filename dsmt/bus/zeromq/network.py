"""The network on ZeroMQ: ROUTER and DEALER over TCP, encrypted by CURVE, admitted by ZAP; fulfils `ports.network.Network`.

Rule 1: ZMTP heartbeats are off: a starved peer must not look like a closed one.
Rule 2: where no machine answers a connection is given up before the handshake is: the next try may be answered at once, and
    the kernel's own would come seconds later, as those of a network that was cut for long.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from socket import AddressFamily
from typing import Any, Final
from weakref import WeakSet

import zmq

from dsmt.bus.zeromq.link import ZmqLink
from dsmt.bus.zeromq.listener import ZmqListener
from dsmt.bus.zeromq.sockets import secure
from dsmt.errors import TransportError
from dsmt.event.addresses import host_of, is_number
from dsmt.ports.network import Peer
from dsmt.system.sockets import family_of

_FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_LOST: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED

DESCRIPTORS: Final = 16
"""More than a context and its first link open: libzmq aborts the process where it has too few for a context."""
CONNECT_S: Final = 1.5
"""How long TCP may take to connect: one lost packet more than a round trip (RFC 6298: it is sent again after 1 s)."""


class ZmqNetwork:
    """The way to the network of one process; its context is made with the first link."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] | None = None
        self._links = WeakSet[ZmqLink]()

    async def listen(
        self, address: str, secret: bytes, *, admit: Callable[[bytes], bool], writable: Callable[[Peer], None]
    ) -> ZmqListener:
        """Open a port. Raises `FailedError` with code `start.port_in_use` when it is taken."""
        return ZmqListener(address, secret, admit, writable)

    async def connect(self, address: str, secret: bytes, *, server_key: bytes) -> ZmqLink:
        """Connect within `CONNECT_S`, and finish the handshake within 5 seconds. Raises `TransportError`."""
        try:
            link = self._made(address, secret, server_key)
        except (zmq.ZMQError, OSError) as error:  # no descriptor is left, or the loop can watch no more
            raise _refused(address, error) from error
        try:
            link.reach(await _family(host_of(address)))
            await link.shaken()
        except zmq.ZMQError as error:
            await link.close()
            raise _refused(address, error) from error
        except BaseException:
            await link.close()
            raise
        return link

    def _made(self, address: str, secret: bytes, server_key: bytes) -> ZmqLink:
        """A link that does not connect yet. Raises `zmq.ZMQError`, `OSError`, and then holds nothing."""
        if self._context is None:
            _check_descriptors()
            self._context = zmq.Context()
        dealer = self._context.socket(zmq.DEALER)
        try:
            secure(dealer, secret)
            dealer.setsockopt(zmq.CURVE_SERVERKEY, server_key)
            dealer.setsockopt(zmq.RECONNECT_IVL, -1)
            dealer.setsockopt(zmq.CONNECT_TIMEOUT, int(CONNECT_S * 1000))
            monitor = dealer.get_monitor_socket(_FAILED | _LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        except zmq.ZMQError:
            dealer.close(linger=0)
            raise
        link = ZmqLink(dealer, monitor, address)
        self._links.add(link)
        return link

    def close(self) -> None:
        """End the context, and what is left of links: it would wait for these for ever, and the whole process with it."""
        for link in list(self._links):
            link.end()
        if self._context is not None:
            self._context.term()
            self._context = None


def _check_descriptors() -> None:
    """Raise `OSError` where there are too few descriptors left to begin with."""
    opened: list[int] = []
    try:
        while len(opened) < DESCRIPTORS:
            opened.append(os.eventfd(0))
    finally:
        for one in opened:
            os.close(one)


def _refused(address: str, error: zmq.ZMQError | OSError) -> TransportError:
    return TransportError("link.refused", f"cannot connect to {address}: {error.strerror}")


async def _family(host: str) -> AddressFamily:
    """What kind of address a host has; a name is looked up beside the loop."""
    return family_of(host) if is_number(host) else await asyncio.to_thread(family_of, host)
