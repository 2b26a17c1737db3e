"""P13: SIGKILL of the broker that a publisher is attached to, one of N -> the next event is seen at all the others.

The publisher says an event each 5 ms; a reader is attached to each other broker. What counts is the time from the kill until
the first event that was said after it has come to every reader, verified. Beside it NATS clusters with a replicated stream,
the server killed that the publisher is connected to, with the settings that the client has by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import UnavailableError, from_python
from benchmarks.progress import progress
from benchmarks.realm import ATTACH_S
from benchmarks.rows import Row, median, row
from benchmarks.sizes import sized
from benchmarks.stream_peers import free_port
from dsmt.errors import DsmtError
from dsmt.operations.connection import Connection, connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Level
from dsmt.system.records import living, record_path

ID: Final = "P13"
SIZES: Final = sized((2, 3, 5, 7), (2,))
PEER_SIZES: Final = (3, 5)
ROUNDS: Final = sized(8, 1)
EACH_S: Final = 0.005
PATIENCE_S: Final = 60.0
CALM_S: Final = 1.0
BAR_MS: Final = 1000.0
TOPIC: Final = "user/p13"
PEER: Final = "NATS cluster, JetStream with 3 replicas"


class Seen:
    """What each reader has had, by number, and when (monotonic seconds)."""

    def __init__(self, readers: int) -> None:
        self.at: list[dict[int, float]] = [{} for _ in range(readers)]
        self._came = asyncio.Event()

    def came(self, reader: int, number: int) -> None:
        """A reader has an event now."""
        self.at[reader].setdefault(number, time.monotonic())
        self._came.set()

    async def by_all(self, those: Callable[[int], bool], seconds: float = PATIENCE_S) -> float:
        """When all readers had one and the same of some events, for the first time. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            while True:
                common = set.intersection(*(set(filter(those, one)) for one in self.at))
                if common:
                    return min(max(one[number] for one in self.at) for number in common)
                await self.more()

    async def more(self) -> None:
        """Wait until something comes."""
        self._came.clear()
        await self._came.wait()


class Said:
    """What the publisher has said: when, and what of it was acknowledged."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.acknowledged: set[int] = set()

    async def speak(self, say: Callable[[int], Awaitable[object]]) -> None:
        """Say one thing after the other, until it is cancelled; nothing waits for what was said before."""
        async with asyncio.TaskGroup() as group:
            while True:
                number = len(self.at)
                self.at.append(time.monotonic())
                group.create_task(self._say(say, number))
                await asyncio.sleep(EACH_S)

    async def _say(self, say: Callable[[int], Awaitable[object]], number: int) -> None:
        if await say(number):
            self.acknowledged.add(number)

    def after(self, at: float) -> Callable[[int], bool]:
        """Whether an event was said after a time."""
        return lambda number: self.at[number] > at


async def _failover(
    seen: Seen, said: Said, say: Callable[[int], Awaitable[object]], kill: Callable[[], float]
) -> tuple[float, int]:
    """Milliseconds from the kill until the next event was at all the others, and how many acknowledged ones were not."""
    speaking = asyncio.create_task(said.speak(say))
    await asyncio.sleep(CALM_S)
    at = kill()
    next_seen = await seen.by_all(said.after(at))
    await asyncio.sleep(CALM_S)
    speaking.cancel()
    await asyncio.wait({speaking})
    await _settled(seen, said)
    return (next_seen - at) * 1000, _lost(seen, said)


async def _settled(seen: Seen, said: Said) -> None:
    """Wait until all that was acknowledged has come, or a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            while _lost(seen, said):
                await seen.more()


def _lost(seen: Seen, said: Said) -> int:
    return len({number for one in seen.at for number in said.acknowledged - one.keys()})


# --- ours --------------------------------------------------------------------------------------------------------


@contextmanager
def _realm(directory: Path, brokers: int) -> Iterator[Home]:
    home = Home(directory)
    wanted = Wanted(nodes=0, controllers=1, brokers=brokers, name="bench")
    try:
        asyncio.run(up(home, wanted))
        yield home
    finally:
        asyncio.run(down(home))


def _ours(brokers: int) -> tuple[list[float], int]:
    with tempfile.TemporaryDirectory(prefix="dsmt-p13-") as directory, _realm(Path(directory) / "home", brokers) as home:
        return asyncio.run(_rounds(home, brokers))


async def _rounds(home: Home, brokers: int) -> tuple[list[float], int]:
    took, lost = [], 0
    for number in range(ROUNDS):
        await _linked(home, brokers)
        found = await _round(home, f"b{number % brokers + 1}")
        took.append(found[0])
        lost += found[1]
        progress(ID, number + 1, ROUNDS)
    return took, lost


async def _linked(home: Home, brokers: int) -> None:
    """Wait until each broker reads all others, and has all that they have."""
    async with asyncio.timeout(PATIENCE_S), connect(home.operator(), home.realm(), patience_s=ATTACH_S) as connection:
        while True:
            shown = broker_rows(await look(connection.bus, passing=True), connection.brokers)
            if len(shown) == brokers and all(one.alive and one.whole for one in shown):
                return
            await asyncio.sleep(0.05)


async def _round(home: Home, victim: str) -> tuple[float, int]:
    realm = home.realm()
    by_name = {f"b{number}": one for number, one in enumerate(realm.addresses, start=1)}
    seen, said, topic = Seen(len(by_name) - 1), Said(), f"{TOPIC}/{os.urandom(4).hex()}"
    async with AsyncExitStack() as stack:
        readers = [name for name in by_name if name != victim]
        for number, name in enumerate(readers):
            reader = await stack.enter_async_context(connect(home.operator(), realm, brokers=[by_name[name]]))
            await _follow(stack, reader, topic, partial(seen.came, number))
        own = await _attached_to(stack, home, f"broker/{victim}")

        async def say(number: int) -> bool:
            with suppress(DsmtError):
                ack = await own.bus.emit(Draft(topic, {"n": number})).acknowledged()
                return ack.level is Level.SAFE
            return False

        return await _failover(seen, said, say, lambda: _kill(home, victim))


async def _attached_to(stack: AsyncExitStack, home: Home, broker: str) -> Connection:
    """One that knows all brokers, and has chosen this one."""
    while True:
        async with AsyncExitStack() as one:
            connection = await one.enter_async_context(connect(home.operator(), home.realm()))
            if connection.bus.broker == broker:
                await stack.enter_async_context(one.pop_all())
                return connection


def _kill(home: Home, name: str) -> float:
    identity = living(record_path(str(home.part("brokers", name)), "broker"))
    if identity is None:
        raise RuntimeError(f"broker {name} is not there")
    os.kill(identity.pid, signal.SIGKILL)
    return time.monotonic()


async def _follow(stack: AsyncExitStack, reader: Connection, topic: str, came: Callable[[int], None]) -> None:
    complete = asyncio.Event()

    async def follow() -> None:
        async with reader.bus.subscribe(Interest((topic,))) as deliveries:
            async for batch in deliveries:
                for one in batch:
                    if isinstance(one, Arrived):
                        came(one.signed.event.data["n"])
                    elif isinstance(one, Complete):
                        complete.set()

    _in_background(stack, follow())
    async with asyncio.timeout(ATTACH_S):
        await complete.wait()


def _in_background(stack: AsyncExitStack, running: Any) -> None:
    task = asyncio.create_task(running)

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)


# --- the peer ----------------------------------------------------------------------------------------------------


class Cluster:
    """NATS servers that know each other, with JetStream."""

    def __init__(self, stack: ExitStack, directory: Path, count: int) -> None:
        self._program = from_python("nats-server")
        self._directory = directory
        self.ports, self._routes, self._monitors = ([free_port() for _ in range(count)] for _ in range(3))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        stack.callback(self.end)
        for number in range(count):
            self.start(number)

    def start(self, number: int) -> None:
        """Start one, with what it has on its disk."""
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        at = self._directory / f"s{number}"
        settings = [
            *("-a", "127.0.0.1", "-p", str(self.ports[number]), "-m", str(self._monitors[number]), "-n", f"s{number}"),
            *("-js", "-sd", str(at), "--cluster_name", "bench"),
            *("--cluster", f"nats://127.0.0.1:{self._routes[number]}", "--routes", routes),
        ]
        quiet = subprocess.DEVNULL
        self._processes[number] = subprocess.Popen([self._program, *settings], stdout=quiet, stderr=quiet)

    def kill(self, number: int) -> float:
        """SIGKILL one; when that was."""
        self._processes[number].kill()
        at = time.monotonic()
        self._processes[number].wait()
        return at

    def end(self) -> None:
        """SIGKILL all."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def wait_healthy(self) -> None:
        """Wait until each says that it is, JetStream included. Raises `TimeoutError`."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._healthy():
            if time.monotonic() > deadline:
                raise TimeoutError("the servers do not find together")
            time.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            for port in self._monitors:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                    if json.load(answer)["status"] != "ok":
                        return False
        except (OSError, ValueError):
            return False
        return True


def _peer(count: int) -> tuple[list[float], int]:
    with tempfile.TemporaryDirectory(prefix="dsmt-p13-nats-") as directory, ExitStack() as stack:
        return asyncio.run(_peer_rounds(Cluster(stack, Path(directory), count), count))


async def _peer_rounds(cluster: Cluster, count: int) -> tuple[list[float], int]:
    import nats

    took, lost = [], 0
    for number in range(ROUNDS):
        await asyncio.to_thread(cluster.wait_healthy)
        if number == 0:
            await _make_stream(nats, cluster)
        found = await _peer_round(nats, cluster, number % count)
        took.append(found[0])
        lost += found[1]
        cluster.start(number % count)
        progress(f"{ID} NATS", number + 1, ROUNDS)
    return took, lost


async def _make_stream(nats: Any, cluster: Cluster) -> None:
    connection = await nats.connect(f"nats://127.0.0.1:{cluster.ports[0]}")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await connection.jetstream().add_stream(name="p13", subjects=["p13"], num_replicas=3)
            except (nats.js.errors.APIError, nats.errors.Error):
                await asyncio.sleep(0.1)
            else:
                break
    await connection.close()


async def _expected(_error: Exception) -> None:
    """Its server is killed."""


async def _peer_round(nats: Any, cluster: Cluster, victim: int) -> tuple[float, int]:
    addresses = [f"nats://127.0.0.1:{port}" for port in cluster.ports]
    others = [address for number, address in enumerate(addresses) if number != victim]
    seen, said = Seen(len(others)), Said()
    async with AsyncExitStack() as stack:
        for number, address in enumerate(others):
            reader = await nats.connect(address, allow_reconnect=False)
            stack.push_async_callback(reader.close)

            async def arrived(message: Any, reader: int = number) -> None:
                seen.came(reader, int(message.data))

            await reader.subscribe("p13", cb=arrived)
            await reader.flush()
        own = await nats.connect([addresses[victim], *others], dont_randomize=True, error_cb=_expected)
        stack.push_async_callback(own.close)
        stream = own.jetstream()

        async def say(number: int) -> bool:
            with suppress(Exception):  # whatever it is: it was not acknowledged
                await stream.publish("p13", str(number).encode(), timeout=PATIENCE_S)
                return True
            return False

        return await _failover(seen, said, say, lambda: cluster.kill(victim))


# --- rows --------------------------------------------------------------------------------------------------------


def run() -> list[Row]:
    peers: dict[int, list[float]] = {}
    missing = ""
    try:
        peers = {size: _peer(size)[0] for size in PEER_SIZES}
    except (UnavailableError, ImportError) as error:
        missing = f"NATS not measured: {error}"
    rows: list[Row] = []
    for size in SIZES:
        took, lost = _ours(size)
        rows += _rows(size, took, lost, peers.get(size, []), missing)
    return rows


def _rows(size: int, took: Sequence[float], lost: int, peer: Sequence[float], missing: str) -> list[Row]:
    rows = []
    for name, of in (("p50", median), ("longest", max)):
        ours, theirs = of(took), of(peer) if peer else None
        rows.append(
            row(
                ID,
                f"{size} brokers, {name} of {len(took)}",
                unit="ms",
                ours=ours,
                peer=theirs,
                peer_name=PEER if peer else None,
                ratio=None if theirs is None else ours / theirs,
                bar=f"<= {BAR_MS:g} ms",
                holds=ours <= BAR_MS,
                note=missing,
            )
        )
    text = "acknowledged events that were not seen"
    rows.append(row(ID, f"{size} brokers, {text}", unit="events", ours=float(lost), bar="0", holds=lost == 0))
    return rows
