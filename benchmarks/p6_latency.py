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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bare_realm import client, make_realm, play, process, serve, wait_for, write
from benchmarks.peers import UnavailableError, from_python
from benchmarks.rows import Row, percentile, row

ID = "P6"
MODULE = "benchmarks.p6_latency"
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


def _ours(directory: Path) -> list[float]:
    make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(process(MODULE, "broker", str(directory)))
        wait_for(directory / "address", broker)
        return _measure(stack, directory, ("subscriber", str(directory)), ("publisher", str(directory)))


def _theirs(directory: Path) -> list[float]:
    with ExitStack() as stack:
        url = _start_nats(stack, from_python("nats-server"), directory)
        return _measure(stack, directory, ("nats-subscriber", str(directory), url), ("nats-publisher", str(directory), url))


def _measure(stack: ExitStack, directory: Path, subscriber: tuple[str, ...], publisher: tuple[str, ...]) -> list[float]:
    """The latencies in microseconds, sorted, without the warm-up."""
    reader = stack.enter_context(process(MODULE, *subscriber))
    wait_for(directory / "subscribed", reader)
    stack.enter_context(process(MODULE, *publisher))
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
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for ports in directory.glob("*.ports"):
            told = json.loads(ports.read_text())
            return str(told["nats"][0])
        time.sleep(0.02)
    raise RuntimeError("nats-server did not start")


# --- ours --------------------------------------------------------------------------------------------------------


async def _subscriber(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = client(directory, "subscriber")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    found: list[float] = []
    async with bus.subscribe(Interest(("user/p6",), start=Start.LIVE)) as deliveries:
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


async def _publisher(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = client(directory, "publisher")
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

ROLES: dict[str, Callable[..., object]] = {
    "broker": serve,
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


if __name__ == "__main__":
    sys.exit(play(ROLES, run, sys.argv[1:]))
