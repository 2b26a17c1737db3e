"""P6: publish -> receive, one event at a time, signed and verified, 300 B, in three processes; beside NATS core.

Run alone: `python -m benchmarks.p6_latency`. The processes of one round are started by this same module with a role:
`broker DIR`, `subscriber DIR`, `publisher DIR`, `nats-subscriber DIR URL`, `nats-publisher DIR URL`. Times are taken with
CLOCK_MONOTONIC, which all processes of a machine share. The next event is published when the one before was answered, 2 ms
later: what is measured is one event, not the load.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import UnavailableError, from_python
from benchmarks.rows import Row, percentile, row, table

ID = "P6"
EVENTS = 2000
WARM_UP = 200
ROUNDS = 3
SIZE = "300 B"
PEER = "NATS core + nats-py, unsigned, in clear"
FIGURES = (("p50", 0.5, 300.0), ("p99", 0.99, 1000.0))
"""What is told, and its bar in microseconds."""
DATA = {"load": [0.25, 0.5, 0.75], "text": "x" * 60}
"""Makes a signed event of about 300 bytes."""


# --- one round ---------------------------------------------------------------------------------------------------


@contextmanager
def _process(role: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.p6_latency", role, *arguments], cwd=root)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float = 20.0) -> str:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not write {path.name}")
        time.sleep(0.01)
    return path.read_text()


def _ours(directory: Path) -> list[float]:
    _make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(_process("broker", str(directory)))
        _wait_for(directory / "address", broker)
        return _measure(stack, directory, ("subscriber", str(directory)), ("publisher", str(directory)))


def _theirs(directory: Path) -> list[float]:
    with ExitStack() as stack:
        url = _start_nats(stack, from_python("nats-server"), directory)
        return _measure(stack, directory, ("nats-subscriber", str(directory), url), ("nats-publisher", str(directory), url))


def _measure(stack: ExitStack, directory: Path, subscriber: tuple[str, ...], publisher: tuple[str, ...]) -> list[float]:
    """The latencies in microseconds, sorted, without the warm-up."""
    reader = stack.enter_context(_process(*subscriber))
    _wait_for(directory / "subscribed", reader)
    stack.enter_context(_process(*publisher))
    found: list[float] = json.loads(_wait_for(directory / "latencies", reader, 120.0))
    return sorted(found[WARM_UP:])


def _start_nats(stack: ExitStack, program: str, directory: Path) -> str:
    process = subprocess.Popen(
        [program, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for ports in directory.glob("*.ports"):
            told = json.loads(ports.read_text())
            return str(told["nats"][0])
        time.sleep(0.02)
    raise RuntimeError("nats-server did not start")


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


# --- ours --------------------------------------------------------------------------------------------------------


def _make_realm(directory: Path) -> None:
    from dsmt.trust.identity import dump, root_issued
    from dsmt.trust.keys import SecretKey

    root, now = SecretKey(os.urandom(32)), int(time.time())
    for name in ("broker/b1", "operator/publisher", "operator/subscriber"):
        made = root_issued(name, root, key=SecretKey(os.urandom(32)), now_s=now, serial=os.urandom(16))
        (directory / name.replace("/", "-")).write_bytes(dump(made))
    (directory / "root").write_bytes(root.public)


async def _broker(directory: Path) -> None:
    from dsmt.bus.adapters.sqlite import SqliteStore
    from dsmt.bus.adapters.zeromq import ZmqNetwork
    from dsmt.bus.broker.broker import Broker
    from dsmt.bus.broker.config import BrokerConfig
    from dsmt.system.clock import LinuxClock
    from dsmt.system.entropy import SystemEntropy
    from dsmt.trust.identity import load
    from dsmt.trust.store import Realm, TrustStore

    broker = Broker(
        BrokerConfig(address="127.0.0.1:0", born=True, pid=os.getpid(), version="bench"),
        identity=load((directory / "broker-b1").read_bytes(), where="broker-b1"),
        trust=TrustStore(Realm(name="bench", roots=((directory / "root").read_bytes(),))),
        store=SqliteStore(str(directory / "store.db"), identity=os.urandom(8).hex()),
        network=ZmqNetwork(),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
    )
    running = asyncio.create_task(broker.run())
    await broker.ready.wait()
    _write(directory / "address", broker.address)
    gc.freeze()
    await running


def _client(directory: Path, name: str) -> Any:
    from dsmt.bus.adapters.zeromq import ZmqNetwork
    from dsmt.bus.client.attaching import About
    from dsmt.bus.client.client import BusClient
    from dsmt.ports.realm import BrokerAddress
    from dsmt.system.clock import LinuxClock
    from dsmt.system.entropy import SystemEntropy
    from dsmt.trust.identity import load
    from dsmt.trust.store import Realm, TrustStore

    broker = load((directory / "broker-b1").read_bytes(), where="broker-b1")
    return BusClient(
        identity=load((directory / f"operator-{name}").read_bytes(), where=name),
        trust=TrustStore(Realm(name="bench", roots=((directory / "root").read_bytes(),))),
        brokers=[BrokerAddress((directory / "address").read_text(), broker.key.public)],
        network=ZmqNetwork(),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        about=About(os.getpid(), "bench"),
    )


async def _subscriber(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = _client(directory, "subscriber")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    found: list[float] = []
    async with bus.subscribe(Interest(("user/p6",), start=Start.LIVE)) as deliveries:
        async for batch in deliveries:
            now = time.monotonic_ns()
            for one in batch:
                if isinstance(one, Complete):
                    gc.freeze()
                    _write(directory / "subscribed", "yes")
                if isinstance(one, Arrived):
                    found.append((now - one.signed.event.data["at"]) / 1000)
                    bus.emit(Draft("user/p6-back", {}))
            if len(found) >= EVENTS + WARM_UP:
                break
    _write(directory / "latencies", json.dumps(found))
    running.cancel()
    await asyncio.wait({running})


async def _publisher(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = _client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    async with bus.subscribe(Interest(("user/p6-back",), start=Start.LIVE)) as answers:
        async for batch in answers:
            if any(isinstance(one, Arrived | Complete) for one in batch):
                await asyncio.sleep(0.002)
                bus.emit(Draft("user/p6", {**DATA, "at": time.monotonic_ns()}))
    running.cancel()


# --- theirs ------------------------------------------------------------------------------------------------------


async def _nats_subscriber(directory: Path, url: str) -> None:
    import nats

    connection = await nats.connect(url)
    found: list[float] = []
    done = asyncio.Event()

    async def arrived(message: Any) -> None:
        now = time.monotonic_ns()
        found.append((now - json.loads(message.data)["at"]) / 1000)
        await connection.publish("p6.back", b"")
        if len(found) >= EVENTS + WARM_UP:
            done.set()

    await connection.subscribe("p6", cb=arrived)
    await connection.flush()
    gc.freeze()
    _write(directory / "subscribed", "yes")
    await done.wait()
    _write(directory / "latencies", json.dumps(found))


async def _nats_publisher(directory: Path, url: str) -> None:
    import nats

    del directory
    connection = await nats.connect(url)
    back = await connection.subscribe("p6.back")
    await connection.flush()
    gc.freeze()
    while True:
        await asyncio.sleep(0.002)
        body = json.dumps({**DATA, "pad": "x" * 140, "at": time.monotonic_ns()}).encode()
        await connection.publish("p6", body)
        await back.next_msg(timeout=10)


# --- all ---------------------------------------------------------------------------------------------------------

ROLES: dict[str, Callable[..., object]] = {
    "broker": _broker,
    "subscriber": _subscriber,
    "publisher": _publisher,
    "nats-subscriber": _nats_subscriber,
    "nats-publisher": _nats_publisher,
}


def _round(measure: Callable[[Path], list[float]]) -> list[float]:
    directory = Path(tempfile.mkdtemp(prefix="p6-"))
    try:
        return measure(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run() -> list[Row]:
    """The rows of the table; ours and theirs take turns in one run, a round of each at a time."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    missing = ""
    for _ in range(ROUNDS):
        ours.append(_round(_ours))
        try:
            theirs.append(_round(_theirs))
        except UnavailableError as error:
            missing = str(error)
    return [_row(figure, ours, theirs, missing) for figure in FIGURES]


def _row(told: tuple[str, float, float], ours: list[list[float]], theirs: list[list[float]], missing: str) -> Row:
    name, share, bar = told
    of = percentile(share)
    mine, peer = [of(one) for one in ours], [of(one) for one in theirs]
    ratios = [a / b for a, b in zip(mine, peer, strict=False)]
    figure = statistics.median(mine)
    return row(
        ID,
        f"{SIZE}, {name}",
        unit="us",
        ours=figure,
        peer=statistics.median(peer) if peer else None,
        peer_name=PEER,
        ratio=statistics.median(ratios) if ratios else None,
        spread=f"{min(ratios):.2g}..{max(ratios):.2g}" if ratios else "",
        bar=f"<= {bar:.0f} us",
        holds=figure <= bar,
        note=missing or f"least of all {min(min(one) for one in ours):.0f} us",
    )


def main(arguments: list[str]) -> int:
    if not arguments:
        print(table(run()))
        return 0
    role, directory, *rest = arguments
    asyncio.run(ROLES[role](Path(directory), *rest))  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
