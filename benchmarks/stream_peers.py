"""What P4 is held against: brokers that neither sign nor encrypt, each with its usual Python client.

Run as `python -m benchmarks.stream_peers NAME-reader|NAME-publisher DIR ADDRESS EVENTS`.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.bare_realm import process, wait_for, write
from benchmarks.peers import UnavailableError, from_debian, from_python

MODULE = "benchmarks.stream_peers"
BODY = b"x" * 300
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(stack: ExitStack, command: list[str], port: int) -> str:
    """The address at which a server answers."""
    launched(stack, command, port)
    return f"127.0.0.1:{port}"


def launched(stack: ExitStack, command: list[str], port: int) -> subprocess.Popen[bytes]:
    """A server that answers at this port of this machine. Raises `RuntimeError`."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(server.wait)
    stack.callback(server.kill)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return server
    raise RuntimeError(f"{command[0]} did not start")


def nats(stack: ExitStack, directory: Path) -> str:
    del directory
    port = free_port()
    return started(stack, [from_python("nats-server"), "-a", "127.0.0.1", "-p", str(port)], port)


def redis(stack: ExitStack, directory: Path) -> str:
    port = free_port()
    command = [from_debian("redis-server", "redis-server"), "--port", str(port), "--save", "", "--dir", str(directory)]
    return started(stack, command, port)


def mosquitto(stack: ExitStack, directory: Path) -> str:
    port = free_port()
    settings = directory / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    return started(stack, [from_debian("mosquitto", "mosquitto"), "-c", str(settings)], port)


PEERS: dict[str, Callable[[ExitStack, Path], str]] = {"nats": nats, "redis": redis, "mosquitto": mosquitto}
CLIENTS = {"nats": "nats", "redis": "redis", "mosquitto": "paho"}


def measure(name: str, directory: Path, events: int) -> float:
    """Events a second through a peer. Raises `UnavailableError` when it cannot be had."""
    if find_spec(CLIENTS[name]) is None:
        raise UnavailableError(f"no client of {name}: pip install 'dsmt[bench]'")
    with ExitStack() as stack:
        told = (str(directory), PEERS[name](stack, directory), str(events))
        reader = stack.enter_context(process(MODULE, f"{name}-reader", *told))
        wait_for(directory / "subscribed", reader)
        stack.enter_context(process(MODULE, f"{name}-publisher", *told))
        return events / float(wait_for(directory / "seconds", reader, PATIENCE_S))


class _Count:
    """Counts what arrives, and writes how long it took."""

    def __init__(self, directory: Path, events: int) -> None:
        self._directory, self._events = directory, events
        self._seen, self._began = 0, 0.0

    def arrived(self) -> None:
        self._began = self._began or time.monotonic()
        self._seen += 1
        if self._seen == self._events:
            write(self._directory / "seconds", str(time.monotonic() - self._began))


async def _nats_reader(directory: Path, address: str, events: int) -> None:
    import nats as client

    connection, count = await client.connect(f"nats://{address}"), _Count(directory, events)

    async def arrived(_message: Any) -> None:
        count.arrived()

    await connection.subscribe("p4", cb=arrived, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    write(directory / "subscribed", "yes")
    await asyncio.Event().wait()


async def _nats_publisher(_directory: Path, address: str, events: int) -> None:
    import nats as client

    connection = await client.connect(f"nats://{address}")
    for n in range(events):
        await connection.publish("p4", BODY)
        if n % 1000 == 0:
            await connection.flush()
    await connection.flush()
    await asyncio.Event().wait()


def _redis(address: str) -> Any:
    import redis as client

    host, _, port = address.partition(":")
    return client.Redis(host=host, port=int(port))


async def _redis_reader(directory: Path, address: str, events: int) -> None:
    heard, count = _redis(address).pubsub(), _Count(directory, events)
    heard.subscribe("p4")
    for message in heard.listen():
        if message["type"] == "subscribe":
            write(directory / "subscribed", "yes")
        else:
            count.arrived()


async def _redis_publisher(_directory: Path, address: str, events: int) -> None:
    connection = _redis(address)
    for at in range(0, events, 256):
        together = connection.pipeline(transaction=False)
        for _ in range(min(256, events - at)):
            together.publish("p4", BODY)
        together.execute()
    await asyncio.Event().wait()


def _mqtt(address: str) -> Any:
    from paho.mqtt import client

    made: Any = client.Client(client.CallbackAPIVersion.VERSION2)
    host, _, port = address.partition(":")
    made.max_queued_messages_set(0)
    made.connect(host, int(port))
    return made


async def _mosquitto_reader(directory: Path, address: str, events: int) -> None:
    connection, count = _mqtt(address), _Count(directory, events)
    connection.on_subscribe = lambda *_: write(directory / "subscribed", "yes")
    connection.on_message = lambda *_: count.arrived()
    connection.subscribe("p4")
    connection.loop_forever()


async def _mosquitto_publisher(_directory: Path, address: str, events: int) -> None:
    connection = _mqtt(address)
    connection.loop_start()
    for _ in range(events):
        connection.publish("p4", BODY)
    await asyncio.Event().wait()


ROLES: dict[str, Callable[[Path, str, int], Any]] = {
    "nats-reader": _nats_reader,
    "nats-publisher": _nats_publisher,
    "redis-reader": _redis_reader,
    "redis-publisher": _redis_publisher,
    "mosquitto-reader": _mosquitto_reader,
    "mosquitto-publisher": _mosquitto_publisher,
}


if __name__ == "__main__":
    role, place, where, number = sys.argv[1:]
    asyncio.run(ROLES[role](Path(place), where, int(number)))
