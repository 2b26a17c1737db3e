"""How often a socket of ZeroMQ is looked at, whose descriptor signals edges only."""

from __future__ import annotations

import asyncio
import os

import pytest
import zmq
from nacl.bindings import crypto_scalarmult_base

from dsmt.bus.zeromq import sockets
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.bus.zeromq.sockets import readable
from dsmt.ports.network import Received


def test_after_what_is_sent_to_many_a_socket_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def look(one: zmq.Socket[bytes]) -> bool:
        nonlocal looks
        looks += 1
        return readable(one)

    async def play() -> int:
        network, secret = ZmqNetwork(), os.urandom(32)
        listener = await network.listen("127.0.0.1:0", secret, admit=lambda _: True, writable=lambda _: None)
        link = await network.connect(listener.address, os.urandom(32), server_key=crypto_scalarmult_base(secret))
        assert link.send((b"here",))
        (first,) = await listener.receive()
        assert isinstance(first, Received)
        monkeypatch.setattr(sockets, "readable", look)
        message = (b"to many",)
        for _ in range(1000):
            assert listener.send(first.peer, message)
        asked = looks
        came: list[object] = []
        while len(came) < 1000:
            came += await link.receive()
        await link.close()
        await listener.close()
        network.close()
        return asked

    assert asyncio.run(asyncio.wait_for(play(), 30)) == 1


def test_what_comes_while_much_is_sent_is_found_without_another_edge() -> None:
    """Each send may take the edge of what has just come with it."""

    async def play() -> None:
        network, secret = ZmqNetwork(), os.urandom(32)
        listener = await network.listen("127.0.0.1:0", secret, admit=lambda _: True, writable=lambda _: None)
        link = await network.connect(listener.address, os.urandom(32), server_key=crypto_scalarmult_base(secret))
        assert link.send((b"0",))
        (first,) = await listener.receive()
        assert isinstance(first, Received)
        answer = (b"answer",)
        for n in range(1, 200):
            for _ in range(20):
                link.send((b"%d" % n,))
                listener.send(first.peer, answer)
            came: list[object] = []
            while len(came) < 20:
                came += await listener.receive()
            answers: list[object] = []
            while len(answers) < 20:
                answers += await link.receive()
        await link.close()
        await listener.close()
        network.close()

    asyncio.run(asyncio.wait_for(play(), 60))
