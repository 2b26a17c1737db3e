"""How often a socket of ZeroMQ is looked at, whose descriptor signals edges only."""

from __future__ import annotations

import asyncio

import pytest
import zmq

from dsmt.bus.zeromq import sockets
from dsmt.bus.zeromq.sockets import readable
from tests.bus.linked import linked


def test_after_what_is_sent_to_many_a_socket_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def look(one: zmq.Socket[bytes]) -> bool:
        nonlocal looks
        looks += 1
        return readable(one)

    async def play() -> int:
        async with linked() as (listener, link, first):
            monkeypatch.setattr(sockets, "readable", look)
            message = (b"to many",)
            for _ in range(1000):
                assert listener.send(first.peer, message)
            asked = looks
            came: list[object] = []
            while len(came) < 1000:
                came += await link.receive()
        return asked

    assert asyncio.run(asyncio.wait_for(play(), 30)) == 1


def test_what_comes_while_much_is_sent_is_found_without_another_edge() -> None:
    """Each send may take the edge of what has just come with it."""

    async def play() -> None:
        async with linked(b"0") as (listener, link, first):
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

    asyncio.run(asyncio.wait_for(play(), 60))
