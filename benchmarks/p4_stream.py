"""P4: events a second from one publisher over a broker to one reader, 300 B, signed, verified, encrypted and stored.

Run alone: `python -m benchmarks.p4_stream`. What one process costs an event is its own CPU time, that of its network
threads among it. An event counts when the reader has verified it; the broker has stored it by then. Beside it, in the
same rounds, programs that neither sign nor encrypt.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare_realm import client, make_realm, play, process, serve, wait_for, write
from benchmarks.peers import UnavailableError
from benchmarks.rows import Row, row
from benchmarks.sizes import sized
from benchmarks.stream_peers import PEERS
from benchmarks.stream_peers import measure as measure_peer

ID = "P4"
MODULE = "benchmarks.p4_stream"
SIZES = sized(((1, 20_000), (16, 40_000), (64, 100_000), (256, 100_000)), ((1, 100), (64, 640)))
"""Events in a burst, and how many are sent."""
ROUNDS = sized(3, 1)
PEER_EVENTS = 100_000
FLYING = 4096
"""At most so many events are not acknowledged."""
BAR = 50_000.0
BARS_US = {"broker": 15.0, "reader": 12.0, "publisher": 12.0}
DATA = {"load": [0.25, 0.5, 0.75], "text": "x" * 60}
"""Makes an event of about 250 bytes, and of 300 with its share of a signature."""


@dataclass(frozen=True)
class Round:
    """Events a second, and microseconds of CPU an event in each process."""

    rate: float
    cpu_us: dict[str, float]


def measure(directory: Path, burst: int, events: int) -> Round:
    make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(process(MODULE, "broker", str(directory)))
        wait_for(directory / "address", broker)
        reader = stack.enter_context(process(MODULE, "reader", str(directory), str(events)))
        wait_for(directory / "subscribed", reader)
        publisher = stack.enter_context(process(MODULE, "publisher", str(directory), str(burst), str(events)))
        wait_for(directory / "ready", publisher)
        all_three = {"broker": broker, "reader": reader, "publisher": publisher}
        before = {name: _cpu_s(one) for name, one in all_three.items()}
        write(directory / "go", "go")
        seconds = float(wait_for(directory / "seconds", reader, 300.0))
        used = {name: (_cpu_s(one) - before[name]) / events * 1e6 for name, one in all_three.items()}
    return Round(events / seconds, used)


def _cpu_s(one: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(one.pid).cpu_times()
    return float(times.user + times.system)


async def _reader(directory: Path, events: str) -> None:
    from dsmt.ports.bus import Arrived, Complete, Interest, Start

    bus = client(directory, "subscriber")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    seen, began = 0, 0.0
    async with bus.subscribe(Interest(("user/p4",), start=Start.LIVE)) as deliveries:
        async for batch in deliveries:
            if isinstance(batch[0], Complete):
                gc.freeze()
                write(directory / "subscribed", "yes")
            began = began or (time.monotonic() if any(isinstance(one, Arrived) for one in batch) else 0.0)
            seen += sum(isinstance(one, Arrived) for one in batch)
            if seen >= int(events):
                break
    write(directory / "seconds", str(time.monotonic() - began))
    await running


async def _publisher(directory: Path, burst: str, events: str) -> None:
    from dsmt.ports.bus import Draft

    bus = client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    write(directory / "ready", "yes")
    while not (directory / "go").exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)
    size, waiting = int(burst), []
    for at in range(0, int(events), size):
        last = None
        for n in range(at, min(at + size, int(events))):
            last = bus.emit(Draft("user/p4", {**DATA, "n": n}))
        bus.flush()
        waiting.append(last)
        if len(waiting) * size >= FLYING:
            await waiting.pop(0).acknowledged()
        elif len(waiting) % 8 == 0:
            await asyncio.sleep(0)
    await running


ROLES: dict[str, Callable[..., Any]] = {"broker": serve, "reader": _reader, "publisher": _publisher}


def _round(burst: int, events: int) -> Round:
    directory = Path(tempfile.mkdtemp(prefix="p4-"))
    try:
        return measure(directory, burst, events)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run() -> list[Row]:
    """The rows of the table, by the size of a burst, and what the peers do in the same rounds."""
    ours: dict[int, list[Round]] = {burst: [] for burst, _ in SIZES}
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    missing: dict[str, str] = {}
    for _ in range(ROUNDS):
        for burst, events in SIZES:
            ours[burst].append(_round(burst, events))
        for name, rates in theirs.items():
            with tempfile.TemporaryDirectory(prefix="p4-") as directory:
                try:
                    rates.append(measure_peer(name, Path(directory), PEER_EVENTS))
                except UnavailableError as error:
                    missing[name] = str(error)
    rows = [_row(burst, rounds) for burst, rounds in ours.items()]
    best = statistics.median(one.rate for one in ours[SIZES[-1][0]])
    return rows + [_against(name, best, rates, missing.get(name, "")) for name, rates in theirs.items()]


def _row(burst: int, rounds: list[Round]) -> Row:
    rate = statistics.median(one.rate for one in rounds)
    least = {name: min(one.cpu_us[name] for one in rounds) for name in BARS_US}
    bar = f">= {BAR:.0f}/s" if burst >= 64 else None
    told = ", ".join(f"{name} {us:.1f} (bar {BARS_US[name]:.0f})" for name, us in least.items())
    return row(
        ID,
        f"300 B, bursts of {burst}",
        unit="/s",
        ours=rate,
        bar=bar,
        holds=rate >= BAR if bar else None,
        note=f"us of CPU an event: {told}",
    )


def _against(name: str, ours: float, rates: list[float], missing: str) -> Row:
    theirs = statistics.median(rates) if rates else None
    return row(
        ID,
        f"300 B, bursts of {SIZES[-1][0]}",
        unit="/s",
        ours=ours,
        peer=theirs,
        peer_name=f"{name}, unsigned, in clear, not stored",
        ratio=ours / theirs if theirs else None,
        note=missing,
    )


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["once"]:
        print(json.dumps(_round(int(arguments[1]), int(arguments[2])).__dict__))
        return 0
    return play(ROLES, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
