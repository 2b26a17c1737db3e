"""P2: SIGKILL of a supervised process -> the signed event that says so, verified by a subscriber elsewhere on the bus.

No peer offers it. What the machine itself takes at that time is told in a note: a bare loop that restarts its process
and then writes a byte into a pipe, its process killed in turn with ours.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.progress import progress
from benchmarks.realm import Ear, Heard, apply, listening, operator, realm
from benchmarks.rows import Row, median, percentile, row
from benchmarks.sizes import sized
from benchmarks.stamps import Stamps, compile_program, now_ns
from benchmarks.supervisors import Place, bare_loop
from dsmt.operations.local.home.home import Home

ID: Final = "P2"
KILLS: Final = sized(120, 2)
INSTANCES: Final = sized(4, 2)
LIVED_S: Final = sized(1.25, 0.3)
APART_S: Final = 0.05
"""Between our kill and the bare loop's, so that neither meets the other's work."""
PATIENCE_S: Final = 30.0
STATUS: Final = "service/bench/status/stamp/+/+/application"
BARS: Final = (("p50", median, 4.5), ("p99", percentile(0.99), 12.0))


@dataclass(slots=True)
class Life:
    """The present process of one instance."""

    topic: str
    pid: int
    began_ns: int


def run() -> list[Row]:
    directory = Path(tempfile.mkdtemp(prefix="dsmt-p2-"))
    try:
        with ExitStack() as stack:
            program = compile_program(directory)
            stamps, bare_stamps = Stamps(directory / "fifo"), Stamps(directory / "bare")
            told = Told(directory / "told")
            for one in (stamps, bare_stamps, told):
                stack.callback(one.close)
            stack.enter_context(bare_loop(Place(directory, program, bare_stamps.path), told.path))
            home = stack.enter_context(realm(directory / "home", nodes=1, controllers=1))
            samples, bare = asyncio.run(_measure(home, f"{program} {stamps.path}", bare_stamps, told))
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
            note=f"a bare loop and a pipe: {statistic(bare):.3g} ms",
        )
        for name, statistic, most in BARS
    ]


class Told:
    """The pipe of the bare loop."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def next(self, timeout_s: float) -> int:
        """Wait for a byte; when it was there, in ns."""
        loop = asyncio.get_running_loop()
        here: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._descriptor, lambda: here.done() or here.set_result(now_ns()))
        try:
            async with asyncio.timeout(timeout_s):
                at = await here
        finally:
            loop.remove_reader(self._descriptor)
        os.read(self._descriptor, 1)
        return at

    def close(self) -> None:
        os.close(self._descriptor)


async def _measure(home: Home, run: str, bare_stamps: Stamps, told: Told) -> tuple[list[float], list[float]]:
    """Milliseconds from each kill to its event, verified and in our hands; and to the bare loop's byte."""
    async with operator(home) as connection, listening(connection, STATUS) as ear:
        await apply(connection, "bench", run, instances=INSTANCES)
        lives: list[Life] = []
        while len(lives) < INSTANCES:
            lives.append(await _next_life(ear, lives))
        await told.next(PATIENCE_S)
        gc.collect()
        gc.freeze()
        samples, bare = [], []
        for number in range(KILLS):
            bare.append(await _kill_bare(bare_stamps, told))
            life = lives.pop(0)
            lived = (now_ns() - life.began_ns) / 1e9
            await asyncio.sleep(max(APART_S, LIVED_S - lived))
            samples.append(await _kill(ear, life))
            lives.append(await _next_life(ear, lives))
            await asyncio.sleep(APART_S)
            progress(ID, number + 1, KILLS)
        return samples, bare


async def _kill_bare(stamps: Stamps, told: Told) -> float:
    pid = stamps.next(PATIENCE_S).pid
    at = now_ns()
    os.kill(pid, signal.SIGKILL)
    return (await told.next(PATIENCE_S) - at) / 1e6


async def _kill(ear: Ear, life: Life) -> float:
    at = now_ns()
    os.kill(life.pid, signal.SIGKILL)
    heard = await ear.until(
        f"word of the death of pid {life.pid}",
        lambda heard: heard.topic == life.topic and heard.data["state"] == "failed",
        PATIENCE_S,
    )
    return (heard.at_ns - at) / 1e6


async def _next_life(ear: Ear, lives: Collection[Life]) -> Life:
    """The next instance that is told to run, other than those: what runs may be told again."""
    known = {one.topic for one in lives}

    def runs(heard: Heard) -> bool:
        return heard.topic not in known and heard.data["state"] == "running" and heard.data["pid"] is not None

    heard = await ear.until("a running instance", runs, PATIENCE_S)
    return Life(heard.topic, heard.data["pid"], time.clock_gettime_ns(time.CLOCK_BOOTTIME))
