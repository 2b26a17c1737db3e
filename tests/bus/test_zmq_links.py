"""A link over ZeroMQ that one end leaves: nothing more comes of it, and who goes on sending is told (`ports.network`)."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from types import SimpleNamespace

import pytest
from nacl.bindings import crypto_scalarmult_base

from dsmt.bus.zeromq import link as zmq_link
from dsmt.bus.zeromq.network import CONNECT_S, ZmqNetwork
from dsmt.bus.zeromq.sockets import AT_ONCE, HANDSHAKE_S, LINGER_MS
from dsmt.errors import TransportError
from dsmt.ports.network import Arrival, Closed, How, Link, Message, Received
from tests.bus.linked import linked
from tests.ipv6 import on_ipv6
from tests.waiting import until


async def sends_on(link: Link) -> None:
    while True:
        link.send((b"more",))
        await asyncio.sleep(0)


@pytest.mark.parametrize("address", [pytest.param("[::1]:0", marks=on_ipv6), "localhost:0"])
def test_it_is_reached_at_an_address_of_ipv6_and_by_its_name(address: str) -> None:
    async def play() -> None:
        async with linked(at=address):
            pass

    asyncio.run(asyncio.wait_for(play(), 30))


def test_a_network_that_is_closed_ends_a_link_that_somebody_has_left_open() -> None:
    """It waited for that for ever: a broker hung, and took connections that nobody answered."""

    async def play() -> None:
        network, key = ZmqNetwork(), os.urandom(32)
        listener = await network.listen("127.0.0.1:0", key, admit=lambda _: True, writable=lambda _: None)
        try:
            link = await network.connect(listener.address, os.urandom(32), server_key=crypto_scalarmult_base(key))
            network.close()
            await link.close()
        finally:
            await listener.close()

    asyncio.run(play())


def test_of_a_peer_that_was_disconnected_nothing_is_taken_that_comes_behind_and_it_is_told_who_left() -> None:
    async def play() -> None:
        async with linked() as (listener, link, first):
            assert link.send((b"second",))
            assert listener._router.poll(10_000), "it is here, and was not taken"
            listener.disconnect(first.peer)
            with pytest.raises(TransportError) as lost:
                await sends_on(link)
            assert (lost.value.code, lost.value.message) == (
                "link.lost",
                f"the broker at {listener.address} closed the link",
            )
            came: list[Arrival] = []
            while not came or not isinstance(came[-1], Closed):
                came += await listener.receive()
            assert came == [Closed(first.peer, first.key, How.LOCAL)]

    asyncio.run(asyncio.wait_for(play(), 30))


def test_a_broker_that_sends_without_end_is_taken_in_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with linked() as (listener, link, first):
            for n in range(3 * AT_ONCE):
                assert listener.send(first.peer, (b"%d" % n,))
            came: list[Message] = []
            while len(came) < 3 * AT_ONCE:
                some = await link.receive()
                assert len(some) <= AT_ONCE
                came += some
            assert came == [(b"%d" % n,) for n in range(3 * AT_ONCE)]
            taken = count()
            with monkeypatch.context() as patch:
                endless = SimpleNamespace(recv=lambda _: b"" if next(taken) < 10 * AT_ONCE else pytest.fail("without end"))
                patch.setattr(link, "_dealer", endless)
                patch.setattr(zmq_link, "readable", lambda one: one is endless)
                link._drain()
                link._drain()
                assert len(await link.receive()) == AT_ONCE

    asyncio.run(asyncio.wait_for(play(), 30))


def test_what_came_before_a_link_was_lost_is_taken_in_though_it_is_more_than_is_taken_at_once() -> None:
    async def play() -> None:
        async with linked() as (listener, link, first):
            for n in range(2 * AT_ONCE):
                assert listener.send(first.peer, (b"%d" % n,))
            await until(lambda: link._is_more)
            listener.disconnect(first.peer)
            came: list[Message] = []
            with suppress(TransportError):
                while True:
                    came += await link.receive()
            assert len(came) > AT_ONCE
            assert came == [(b"%d" % n,) for n in range(len(came))]

    asyncio.run(asyncio.wait_for(play(), 30))


def test_where_no_machine_answers_a_connection_is_given_up_soon() -> None:
    async def play() -> float:
        network = ZmqNetwork()
        with ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):  # whoever comes after these is not answered
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            began = time.monotonic()
            with pytest.raises(TransportError, match="no broker answers"):
                await network.connect(f"127.0.0.1:{full.getsockname()[1]}", os.urandom(32), server_key=os.urandom(32))
            took = time.monotonic() - began
        network.close()
        return took

    assert CONNECT_S * 0.9 < asyncio.run(asyncio.wait_for(play(), 30)) < HANDSHAKE_S


def test_who_takes_a_connection_and_says_nothing_keeps_nobody_waiting_when_the_network_is_closed() -> None:
    """A broker's loop stood still for a second each time: libzmq waits for a handshake as for what is queued."""

    async def play() -> float:
        network = ZmqNetwork()
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            connecting = asyncio.create_task(
                network.connect(f"127.0.0.1:{silent.getsockname()[1]}", os.urandom(32), server_key=os.urandom(32))
            )
            came, _ = await asyncio.to_thread(silent.accept)
            with came:
                connecting.cancel()
                await asyncio.wait({connecting})
                began = time.monotonic()
                network.close()
                return time.monotonic() - began

    assert asyncio.run(asyncio.wait_for(play(), 30)) < LINGER_MS / 2000


def test_what_was_sent_just_before_a_network_is_closed_arrives() -> None:
    async def play() -> None:
        network, secret = ZmqNetwork(), os.urandom(32)
        listener = await network.listen("127.0.0.1:0", secret, admit=lambda _: True, writable=lambda _: None)
        link = await network.connect(listener.address, os.urandom(32), server_key=crypto_scalarmult_base(secret))
        sent = [(b"%d" % n,) for n in range(100)]
        assert all(map(link.send, sent))
        await link.close()
        await asyncio.to_thread(network.close)
        came: list[Arrival] = []
        while not came or not isinstance(came[-1], Closed):
            came += await listener.receive()
        assert [one.message for one in came if isinstance(one, Received)] == sent
        await listener.close()

    asyncio.run(asyncio.wait_for(play(), 30))


def test_where_the_loop_can_watch_no_more_a_link_is_refused_and_nothing_of_it_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was left of it kept the network from ending, for ever."""

    async def play() -> None:
        network, loop, watched = ZmqNetwork(), asyncio.get_running_loop(), count()
        watch = loop.add_reader

        def few(descriptor: int, call: Callable[[], object]) -> None:
            if next(watched):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            watch(descriptor, call)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "add_reader", few)
            with pytest.raises(TransportError, match="No space left") as refused:
                await network.connect("127.0.0.1:9", os.urandom(32), server_key=os.urandom(32))
        await asyncio.wait_for(asyncio.to_thread(network.close), 5)
        assert refused.value.code == "link.refused"

    asyncio.run(asyncio.wait_for(play(), 30))


@pytest.mark.parametrize("host", ["a..b", "a b"])
def test_what_an_operator_gave_as_the_address_of_a_broker_and_is_none_ends_nobody_who_tries_it(host: str) -> None:
    async def play() -> None:
        network = ZmqNetwork()
        with pytest.raises(TransportError) as refused:
            await network.connect(f"{host}:1", os.urandom(32), server_key=os.urandom(32))
        assert refused.value.code == "link.refused"
        network.close()

    asyncio.run(asyncio.wait_for(play(), 30))


def test_who_has_no_descriptor_left_for_a_link_tries_again_later() -> None:
    async def play() -> None:
        network, secret = ZmqNetwork(), os.urandom(32)
        listener = await network.listen("127.0.0.1:0", secret, admit=lambda _: True, writable=lambda _: None)
        server_key = crypto_scalarmult_base(secret)
        await (await network.connect(listener.address, os.urandom(32), server_key=server_key)).close()
        for more in range(5):
            with few_descriptors(more), suppress(TransportError):
                await (await network.connect(listener.address, os.urandom(32), server_key=server_key)).close()
        link = await network.connect(listener.address, os.urandom(32), server_key=server_key)
        await link.close()
        await listener.close()
        network.close()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_who_has_few_descriptors_left_to_begin_with_tries_again_later() -> None:
    """The first link of a process, or of a reader, was its end: libzmq aborted it."""

    async def play() -> None:
        for more in range(12):
            network = ZmqNetwork()
            with few_descriptors(more), pytest.raises(TransportError, match="Too many open files"):
                await network.connect("127.0.0.1:9", os.urandom(32), server_key=os.urandom(32))
            with pytest.raises(TransportError, match="no broker answers"):
                await network.connect("127.0.0.1:9", os.urandom(32), server_key=os.urandom(32))
            network.close()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_peer_is_sent_away_though_no_descriptor_is_left() -> None:
    async def play() -> None:
        async with linked() as (listener, link, first):
            with few_descriptors(0):
                listener.disconnect(first.peer)
            with pytest.raises(TransportError) as lost:
                await asyncio.wait_for(sends_on(link), 10)
            assert lost.value.code == "link.lost"

    asyncio.run(asyncio.wait_for(play(), 30))


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """So many more descriptors can be opened here."""
    before, lowest = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
