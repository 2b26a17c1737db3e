"""A bare relay: ROUTER and DEALER with CURVE on asyncio, by the sockets that ours has, and no more than that.

Nothing is stored, numbered, chained, granted or acknowledged, and anybody is let in. A message is a topic of one byte and
what is to be passed on; `+` and a topic asks for all of that topic from then on.
"""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from benchmarks.bare_realm import write

SUBSCRIBE = b"+"
_NOW, _MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)


async def serve_bare(directory: Path) -> None:
    """Pass on what comes to who asked for it, until killed."""
    from dsmt.bus.zeromq.sockets import Edges, readable, secure

    public, secret = _pair()
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    secure(router, secret)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.BACKLOG, 1024)
    readers: defaultdict[bytes, list[bytes]] = defaultdict(list)

    def drain() -> None:
        while readable(router):
            peer, body = router.recv(_NOW), router.recv(_NOW)
            if body[:1] == SUBSCRIBE:
                readers[body[1:]].append(peer)
                body, to = SUBSCRIBE, [peer]
            else:
                to = readers[body[:1]]
            for reader in to:
                router.send(reader, _MORE)
                router.send(body, _NOW)

    router.bind("tcp://127.0.0.1:*")
    Edges(drain, router).begin()
    (directory / "relay-key").write_bytes(public)
    write(directory / "address", router.getsockopt_string(zmq.LAST_ENDPOINT))
    gc.freeze()
    await asyncio.Event().wait()


class BareLink:
    """A connection to the relay; `arrived` is given each message, an empty one once a subscription is there."""

    def __init__(self, directory: Path, arrived: Callable[[bytes], None]) -> None:
        from dsmt.bus.zeromq.sockets import Edges, readable, secure

        self._dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        secure(self._dealer, _pair()[1])
        self._dealer.setsockopt(zmq.CURVE_SERVERKEY, (directory / "relay-key").read_bytes())
        self._dealer.connect((directory / "address").read_text())

        def drain() -> None:
            while readable(self._dealer):
                arrived(self._dealer.recv(_NOW)[1:])

        self._edges: Any = Edges(drain, self._dealer)
        self._edges.begin()

    def subscribe(self, topic: bytes) -> None:
        """Ask for a topic."""
        self._send(SUBSCRIBE + topic)

    def publish(self, topic: bytes, body: bytes) -> None:
        """Have something passed on."""
        self._send(topic + body)

    def _send(self, message: bytes) -> None:
        self._dealer.send(message, _NOW)
        self._edges.sent()


def _pair() -> tuple[bytes, bytes]:
    """A public and a secret key of CURVE."""
    from nacl.bindings import crypto_box_keypair

    return crypto_box_keypair()
