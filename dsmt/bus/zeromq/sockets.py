"""Sockets of ZeroMQ: what a listener and a link both do with theirs.

Rule 1: a message is one ZMTP frame: each part behind its length in 4 bytes. One frame is encrypted, sent and received
    several times faster than many. It is parted no further than its bound.
Rule 2: a socket's descriptor signals edges only: after each send and each wake-up it is drained until it is dry. Whether
    there is something to drain is a system call: after what is sent to many it is asked once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq
from nacl.bindings import crypto_scalarmult_base

from dsmt.ports.network import Message

SEND_HIGH_WATER: Final = 4096
RECEIVE_HIGH_WATER: Final = 16
AT_ONCE: Final = 64
AT_ONCE_BYTES: Final = 1024 * 1024
"""How many messages, and bytes, are taken from a socket before others on the loop have their turn."""
MOST_PARTS: Final = 1 + 1024
"""A message's map and its parts (`framing.MAX_PARTS`)."""
HANDSHAKE_S: Final = 5.0
LINGER_MS: Final = 1000
RETRY_S: Final = 0.01
"""How soon a full queue is tried again."""
NOW, MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS, RCVMORE, _POLLIN = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)
"""As plain numbers: arithmetic on enumerations costs more than the calls that take them."""


class Edges:
    """Has a socket, and those beside it, drained whenever something may have come (rule 2)."""

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
        if not self._due and readable(self._main):
            self.soon()

    def _run(self) -> None:
        self._due = False
        if not self._main.closed:
            self._drain()


def joined(message: Message) -> bytes:
    """A message as the content of one frame."""
    return b"".join([piece for part in message for piece in (len(part).to_bytes(4, "big"), part)])


def parted(body: bytes) -> Message:
    """The message that a frame holds; a single empty part for what holds none.

    Of one with too many parts just enough to see it (rule 1).
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


def readable(one: zmq.Socket[bytes]) -> bool:
    """Whether something can be taken from it."""
    return bool(int(one.getsockopt(_EVENTS)) & _POLLIN)


def secure(one: zmq.Socket[bytes], secret: bytes) -> None:
    """Encrypt it by CURVE with a secret key, and bound its queues."""
    one.setsockopt(zmq.CURVE_SECRETKEY, secret)
    one.setsockopt(zmq.CURVE_PUBLICKEY, crypto_scalarmult_base(secret))
    one.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER)
    one.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER)
    one.setsockopt(zmq.LINGER, LINGER_MS)
