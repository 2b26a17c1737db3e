"""A spawner that has no descriptor left for a while: it ends for nothing, and what came meanwhile is done."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.processes import SOCKET
from dsmt.system.procfs import is_alive, stat_of
from tests.programs.spawned import Node, kill
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


@contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Who has this pid can open nothing."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def client_of(node: Node) -> Iterator[socket.socket]:
    """One that has connected, and has asked."""
    place = os.open(node.directory, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(20)
            client.connect(f"/proc/self/fd/{place}/{SOCKET}")
            client.send(b'{"op": "list"}')
            yield client
    finally:
        os.close(place)


def told(node: Node) -> int:
    return node.log("spawner").count("Too many open files")


def test_a_spawner_without_a_descriptor_for_who_connects_lives_and_answers_later(node: Node) -> None:
    async def play() -> None:
        node.start()
        spawner, _, _ = await node.up()
        await node.answers()
        with without_descriptors(spawner.pid), client_of(node) as client:
            await until(lambda: told(node) or not is_alive(spawner))
            assert is_alive(spawner)
            resource.prlimit(spawner.pid, resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            assert b"container_manager" in await asyncio.to_thread(client.recv, 65536)
        assert told(node) == 1, "it is said once"

    asyncio.run(play())


@pytest.mark.parametrize("adopted", [False, True])
def test_a_program_that_dies_while_its_spawner_has_no_descriptor_is_started_again_later(node: Node, adopted: bool) -> None:
    async def play() -> None:
        node.start()
        spawner, manager, _ = await node.up()
        if adopted:
            spawner = await followed(node, spawner)
        await node.answers()
        with without_descriptors(spawner.pid):
            kill(manager)
            await until(lambda: told(node) or not is_alive(spawner))
            assert is_alive(spawner)
        again = await until(lambda: (now := node.program("container_manager")) not in (None, manager) and now)
        assert stat_of(again.pid).parent == spawner.pid
        assert node.program("spawner") == spawner

    asyncio.run(play())


async def followed(node: Node, spawner: ProcessIdentity) -> ProcessIdentity:
    """Another spawner finds the programs that this one has left alive."""
    kill(spawner)
    await until(lambda: not is_alive(spawner))
    now = await until(node.followed)
    await until(lambda: node.program("spawner") == now and Path(node.directory, SOCKET).exists())
    return now
