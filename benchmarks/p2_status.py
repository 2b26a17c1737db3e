"""P2: SIGKILL of a supervised process -> the signed event that says so, verified by a subscriber elsewhere on the bus."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.progress import progress
from benchmarks.realm import Ear, Heard, apply, listening, operator, realm
from benchmarks.rows import Row, median, percentile, row
from benchmarks.stamps import Stamps, compile_program, now_ns
from dsmt.operations.home import Home

ID: Final = "P2"
KILLS: Final = 120
INSTANCES: Final = 4
LIVED_S: Final = 1.25
PATIENCE_S: Final = 30.0
STATUS: Final = "service/bench/status/stamp/+/+/application"
BARS: Final = (("p50", median, 5.0), ("p99", percentile(0.99), 20.0))


@dataclass(slots=True)
class Life:
    """The present process of one instance."""

    topic: str
    pid: int
    began_ns: int


def run() -> list[Row]:
    directory = Path(tempfile.mkdtemp(prefix="dsmt-p2-"))
    try:
        program = compile_program(directory)
        stamps = Stamps(directory / "fifo")
        with realm(directory / "home", nodes=1, controllers=1) as home:
            samples = asyncio.run(_measure(home, f"{program} {stamps.path}"))
        stamps.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    size = f"of {len(samples)} kills of {INSTANCES} instances on 1 node"
    return [
        row(
            ID,
            f"{name} {size}",
            unit="ms",
            ours=statistic(samples),
            peer_name="none offers it",
            bar=f"<= {most:g} ms",
            holds=statistic(samples) <= most,
        )
        for name, statistic, most in BARS
    ]


async def _measure(home: Home, run: str) -> list[float]:
    """Milliseconds from each kill to its event, verified and in our hands."""
    async with operator(home) as connection, listening(connection, STATUS) as ear:
        await apply(connection, "bench", run, instances=INSTANCES)
        lives = [await _next_life(ear, set()) for _ in range(INSTANCES)]
        gc.collect()
        gc.freeze()
        samples = []
        for number in range(KILLS):
            life = lives.pop(0)
            lived = (now_ns() - life.began_ns) / 1e9
            await asyncio.sleep(max(0.0, LIVED_S - lived))
            samples.append(await _kill(ear, life))
            lives.append(await _next_life(ear, {one.topic for one in lives}))
            progress(ID, number + 1, KILLS)
        return samples


async def _kill(ear: Ear, life: Life) -> float:
    at = now_ns()
    os.kill(life.pid, signal.SIGKILL)
    heard = await ear.until(
        f"word of the death of pid {life.pid}",
        lambda heard: heard.topic == life.topic and heard.data["state"] == "failed",
        PATIENCE_S,
    )
    return (heard.at_ns - at) / 1e6


async def _next_life(ear: Ear, but: set[str]) -> Life:
    """The next instance that is told to run, other than those."""

    def runs(heard: Heard) -> bool:
        return heard.topic not in but and heard.data["state"] == "running" and heard.data["pid"] is not None

    heard = await ear.until("a running instance", runs, PATIENCE_S)
    return Life(heard.topic, heard.data["pid"], time.clock_gettime_ns(time.CLOCK_BOOTTIME))
