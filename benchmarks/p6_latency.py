"""P6: publish -> receive, one event at a time, signed and verified, 300 B, in three processes.

Run alone: `python -m benchmarks.p6_latency`; with `--stages` what each stage of ours takes (`p6_stages`). Beside it, in the
same rounds, a bare relay with the same sockets whose publisher signs and whose reader verifies, and NATS core. The processes
of one round are started by this same module with a role. Times are taken with CLOCK_MONOTONIC, which all processes of a
machine share. The next event is published when the one before was answered, 2 ms later: what is measured is one event, not
the load.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bare_realm import client, make_realm, play, process, serve, wait_for, write
from benchmarks.bare_relay import BareLink, serve_bare
from benchmarks.peers import UnavailableError, from_python
from benchmarks.rows import Row, percentile, row
from benchmarks.sizes import sized

ID = "P6"
MODULE = "benchmarks.p6_latency"
EVENTS = sized(2000, 40)
WARM_UP = sized(200, 5)
ROUNDS = sized(3, 1)
SIZE = "300 B"
TOPIC = "user/p6"
OURS, RELAY, NATS = "dsmt", "bare relay, signed, CURVE", "NATS core + nats-py, unsigned, in clear"
FIGURES = (("p50", 0.5, 1.6), ("p99", 0.99, 3.0))
"""What is told, and how many times the bare relay's it may be."""
DATA = {"load": [0.25, 0.5, 0.75], "text": "x" * 60}
"""Makes a signed event of about 300 bytes."""


# --- one round ---------------------------------------------------------------------------------------------------


def of_ours(directory: Path, module: str = MODULE) -> list[float]:
    """The latencies of ours in microseconds, sorted; `module` has the roles of the processes."""
    make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(process(module, "broker", str(directory)))
        wait_for(directory / "address", broker)
        return _measure(stack, directory, "subscriber", "publisher", module=module)


def _of_relay(directory: Path) -> list[float]:
    with ExitStack() as stack:
        relay = stack.enter_context(process(MODULE, "relay", str(directory)))
        wait_for(directory / "address", relay)
        return _measure(stack, directory, "relay-subscriber", "relay-publisher")


def _of_nats(directory: Path) -> list[float]:
    with ExitStack() as stack:
        url = _start_nats(stack, from_python("nats-server"), directory)
        return _measure(stack, directory, "nats-subscriber", "nats-publisher", url)


def _measure(
    stack: ExitStack, directory: Path, subscriber: str, publisher: str, *address: str, module: str = MODULE
) -> list[float]:
    """The latencies in microseconds, sorted, without the warm-up."""
    reader = stack.enter_context(process(module, subscriber, str(directory), *address))
    wait_for(directory / "subscribed", reader)
    stack.enter_context(process(module, publisher, str(directory), *address))
    found: list[float] = json.loads(wait_for(directory / "latencies", reader, 120.0))
    return sorted(found[WARM_UP:])


def _start_nats(stack: ExitStack, program: str, directory: Path) -> str:
    process = subprocess.Popen(
        [program, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for ports in directory.glob("*.ports"):
            told = json.loads(ports.read_text())
            return str(told["nats"][0])
        time.sleep(0.02)
    raise RuntimeError("nats-server did not start")


# --- ours --------------------------------------------------------------------------------------------------------


async def subscribe(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = client(directory, "subscriber")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    found: list[float] = []
    async with bus.subscribe(Interest((TOPIC,), start=Start.LIVE)) as deliveries:
        async for batch in deliveries:
            now = time.monotonic_ns()
            for one in batch:
                if isinstance(one, Complete):
                    gc.freeze()
                    write(directory / "subscribed", "yes")
                if isinstance(one, Arrived):
                    found.append((now - one.signed.event.data["at"]) / 1000)
                    bus.emit(Draft("user/p6-back", {}))
            if len(found) >= EVENTS + WARM_UP:
                break
    write(directory / "latencies", json.dumps(found))
    running.cancel()
    await asyncio.wait({running})


async def publish(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    async with bus.subscribe(Interest(("user/p6-back",), start=Start.LIVE)) as answers:
        async for batch in answers:
            if any(isinstance(one, Arrived | Complete) for one in batch):
                await asyncio.sleep(0.002)
                bus.emit(Draft(TOPIC, {**DATA, "at": time.monotonic_ns()}))
    running.cancel()


# --- the bare relay ----------------------------------------------------------------------------------------------


async def _relay_subscriber(directory: Path) -> None:
    from dsmt.event.codec import EDDSA
    from dsmt.trust.keys import verify

    public = _relay_key().public
    found: list[float] = []
    done = asyncio.Event()

    def arrived(message: bytes) -> None:
        if not message:
            gc.freeze()
            write(directory / "subscribed", "yes")
            return
        signature, body = message[:64], message[64:]
        if not verify(EDDSA, public, body, signature):
            raise RuntimeError("a signature is not what it was")
        event = json.loads(body)
        found.append((time.monotonic_ns() - event["at"]) / 1000)
        link.publish(b"b", b"back")
        if len(found) >= EVENTS + WARM_UP:
            done.set()

    link = BareLink(directory, arrived)
    link.subscribe(b"e")
    await done.wait()
    write(directory / "latencies", json.dumps(found))


async def _relay_publisher(directory: Path) -> None:
    key = _relay_key()
    answered = asyncio.Event()
    link = BareLink(directory, lambda _message: answered.set())
    link.subscribe(b"b")
    gc.freeze()
    while True:
        await answered.wait()
        answered.clear()
        await asyncio.sleep(0.002)
        body = json.dumps({**DATA, "pad": "x" * 103, "at": time.monotonic_ns()}).encode()
        link.publish(b"e", key.sign(body) + body)


def _relay_key() -> Any:
    from dsmt.trust.keys import SecretKey

    return SecretKey(bytes(32))


# --- NATS --------------------------------------------------------------------------------------------------------


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
    write(directory / "subscribed", "yes")
    await done.wait()
    write(directory / "latencies", json.dumps(found))


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

ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "broker": serve,
    "subscriber": subscribe,
    "publisher": publish,
    "relay": serve_bare,
    "relay-subscriber": _relay_subscriber,
    "relay-publisher": _relay_publisher,
    "nats-subscriber": _nats_subscriber,
    "nats-publisher": _nats_publisher,
}


MEASURED: dict[str, Callable[[Path], list[float]]] = {OURS: of_ours, RELAY: _of_relay, NATS: _of_nats}


def run() -> list[Row]:
    """The rows of the table; all take turns in one run, a round of each at a time."""
    found: dict[str, list[list[float]]] = {name: [] for name in MEASURED}
    missing: dict[str, str] = {}
    for _ in range(ROUNDS):
        for name, measure in MEASURED.items():
            with tempfile.TemporaryDirectory(prefix="p6-") as directory:
                try:
                    found[name].append(measure(Path(directory)))
                except UnavailableError as error:
                    missing[name] = str(error)
    return [_row(told, found[OURS], peer, found[peer], missing) for told in FIGURES for peer in (RELAY, NATS)]


def _row(
    told: tuple[str, float, float], ours: list[list[float]], peer: str, theirs: list[list[float]], missing: dict[str, str]
) -> Row:
    name, share, most = told
    of = percentile(share)
    mine, others = [of(one) for one in ours], [of(one) for one in theirs]
    ratios = [a / b for a, b in zip(mine, others, strict=False)]
    ratio = statistics.median(ratios) if ratios else None
    barred = peer == RELAY
    least = f"least of all {min(min(one) for one in ours):.0f} us"
    return row(
        ID,
        f"{SIZE}, {name}",
        unit="us",
        ours=statistics.median(mine),
        peer=statistics.median(others) if others else None,
        peer_name=peer,
        ratio=ratio,
        spread=f"{min(ratios):.2g}..{max(ratios):.2g}" if ratios else "",
        bar=f"<= {most:g} x" if barred else None,
        holds=ratio <= most if barred and ratio is not None else None,
        note=missing.get(peer) or least,
    )


def main(arguments: list[str]) -> int:
    if arguments == ["--stages"]:
        from benchmarks import p6_stages

        return play({}, p6_stages.run, [])
    return play(ROLES, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
