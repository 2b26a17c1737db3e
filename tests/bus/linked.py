"""Two ends of a link over ZeroMQ, of which the first has sent something to the second."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nacl.bindings import crypto_scalarmult_base

from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.ports.network import Link, Received


@asynccontextmanager
async def linked(said: bytes = b"first", at: str = "127.0.0.1:0") -> AsyncIterator[tuple[Any, Link, Received]]:
    """Who listens at `at`, who has connected to that host, and what came of it."""
    network, secret = ZmqNetwork(), os.urandom(32)
    listener = await network.listen(at, secret, admit=lambda _: True, writable=lambda _: None)
    host, port = at.rpartition(":")[0], listener.address.rpartition(":")[2]
    link = await network.connect(f"{host}:{port}", os.urandom(32), server_key=crypto_scalarmult_base(secret))
    assert link.send((said,))
    (first,) = await listener.receive()
    assert isinstance(first, Received)
    yield listener, link, first
    await link.close()
    await listener.close()
    network.close()
