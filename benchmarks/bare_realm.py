"""A bare realm: one broker, one publisher and one reader, each a process of a benchmark's own module, without a home.

A module is started with a role and a directory: what its processes tell each other are files there.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, table


@contextmanager
def process(module: str, role: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a module in a role, killed at the end of the block."""
    root = Path(__file__).resolve().parent.parent
    started = subprocess.Popen([sys.executable, "-m", module, role, *arguments], cwd=root)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for(path: Path, writer: subprocess.Popen[bytes], seconds: float = 120.0) -> str:
    """What a process writes into a file, once it is there. Raises `RuntimeError`."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if writer.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{writer.args!r} did not write {path.name}")
        time.sleep(0.01)
    return path.read_text()


def write(path: Path, text: str) -> None:
    """Write a file so that who waits for it sees all of it."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def make_realm(directory: Path, subscribers: int = 0) -> None:
    """The keys and certificates of a broker, a publisher, a subscriber, and so many operators below whom others are."""
    from dsmt.trust.identity import dump, root_issued
    from dsmt.trust.keys import SecretKey

    root, now = SecretKey(os.urandom(32)), int(time.time())
    operators = [f"operator/subscriber-{number}" for number in range(subscribers)]
    for name in ("broker/b1", "operator/publisher", "operator/subscriber", *operators):
        made = root_issued(name, root, key=SecretKey(os.urandom(32)), now_s=now, serial=os.urandom(16))
        (directory / name.replace("/", "-")).write_bytes(dump(made))
    (directory / "root").write_bytes(root.public)


async def serve(directory: Path, policy: str = "") -> None:
    from dsmt.bus.broker.broker import Broker
    from dsmt.bus.broker.config import BrokerConfig
    from dsmt.bus.store.sqlite import SqliteStore
    from dsmt.bus.zeromq.network import ZmqNetwork
    from dsmt.programs.bus import the_bus
    from dsmt.system.clock import LinuxClock
    from dsmt.system.entropy import SystemEntropy
    from dsmt.trust.store import Realm, TrustStore

    own, trust = (
        identity(directory, "broker/b1"),
        TrustStore(Realm(name="bench", roots=((directory / "root").read_bytes(),))),
    )
    broker = Broker(
        BrokerConfig(address="127.0.0.1:0", born=True, pid=os.getpid(), version="bench"),
        identity=own,
        trust=trust,
        store=SqliteStore(str(directory / "store.db"), identity=os.urandom(8).hex(), synced=policy == "synced"),
        network=ZmqNetwork(),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        reach=lambda address: the_bus(own, trust, [address], reads=True),  # there is no other
    )
    running = asyncio.create_task(broker.run())
    await broker.ready.wait()
    write(directory / "address", broker.address)
    gc.freeze()
    await running


def identity(directory: Path, name: str) -> Any:
    from dsmt.trust.identity import load

    return load((directory / name.replace("/", "-")).read_bytes(), where=name)


def client(directory: Path, name: str) -> Any:
    """A client of an operator of the realm."""
    from dsmt.bus.zeromq.network import ZmqNetwork

    return client_of(directory, identity(directory, f"operator/{name}"), ZmqNetwork())


def client_of(directory: Path, own: Any, network: Any) -> Any:
    from dsmt.bus.client.attaching import About
    from dsmt.bus.client.client import BusClient
    from dsmt.ports.realm import BrokerAddress
    from dsmt.system.clock import LinuxClock
    from dsmt.system.entropy import SystemEntropy
    from dsmt.trust.store import Realm, TrustStore

    broker = identity(directory, "broker/b1")
    return BusClient(
        identity=own,
        trust=TrustStore(Realm(name="bench", roots=((directory / "root").read_bytes(),))),
        brokers=[BrokerAddress((directory / "address").read_text(), broker.key.public)],
        network=network,
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        about=About(os.getpid(), "bench"),
    )


def play(
    roles: Mapping[str, Callable[..., Coroutine[Any, Any, None]]], run: Callable[[], list[Row]], arguments: list[str]
) -> int:
    """The command of a benchmark's module: its table, or one of its roles in a directory."""
    if not arguments:
        print(table(run()))
        return 0
    role, directory, *rest = arguments
    asyncio.run(roles[role](Path(directory), *rest))
    return 0
