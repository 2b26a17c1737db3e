"""P1: SIGKILL of a supervised process -> its replacement has exec'd; all supervisors alive at once, killed in turn."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.progress import progress
from benchmarks.rows import Row, compare, median, percentile, row
from benchmarks.sizes import sized
from benchmarks.stamps import Stamp, Stamps, compile_program, now_ns
from benchmarks.supervisors import OURS, SUPERVISORS, Place

ID: Final = "P1"
KILLS: Final = sized(40, 2)
LIVED_S: Final = sized(1.25, 0.3)
"""No process is killed younger: runit, s6 and pm2 punish a life below one second."""
PHASE_S: Final = 0.25
"""A random wait before each kill, so that nobody's polling is met in step."""
START_S: Final = 60.0
RESTART_S: Final = 30.0
BARS: Final = {"runit": ("< 1", 1.0), "floor: pidfd + posix_spawn in Python": ("<= 2", 2.0)}


def run() -> list[Row]:
    directory = Path(tempfile.mkdtemp(prefix="dsmt-p1-"))
    try:
        with ExitStack() as stack:
            program = compile_program(directory)
            missing: dict[str, str] = {}
            alive: dict[str, tuple[Stamps, Stamp]] = {}
            for name in SUPERVISORS:
                try:
                    alive[name] = _start(stack, name, directory / f"s{len(alive) + len(missing)}", program)
                except Exception as error:  # whatever hinders a peer is told in its row
                    if name == OURS:
                        raise
                    missing[name] = f"not measured: {type(error).__name__}: {error}"
            samples = _kill_in_turn(alive)
            return _rows(samples, missing)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start(stack: ExitStack, name: str, directory: Path, program: Path) -> tuple[Stamps, Stamp]:
    directory.mkdir()
    stamps = Stamps(directory / "fifo")
    stack.callback(stamps.close)
    stack.enter_context(SUPERVISORS[name](Place(directory, program, stamps.path)))
    return stamps, stamps.next(START_S)


def _kill_in_turn(alive: dict[str, tuple[Stamps, Stamp]]) -> dict[str, list[float]]:
    """Milliseconds from each kill to the replacement's stamp."""
    samples: dict[str, list[float]] = {name: [] for name in alive}
    order, chance = list(alive), random.Random(1)
    for number in range(KILLS):
        chance.shuffle(order)
        for name in order:
            stamps, last = alive[name]
            lived = (now_ns() - last.at_ns) / 1e9
            time.sleep(max(0.0, LIVED_S - lived) + chance.uniform(0, PHASE_S))
            again = stamps.drain()
            if again:
                raise RuntimeError(f"{name} restarted its process although nobody had killed it: {again}")
            at = now_ns()
            os.kill(last.pid, signal.SIGKILL)
            new = stamps.next(RESTART_S)
            samples[name].append((new.at_ns - at) / 1e6)
            alive[name] = stamps, new
        progress(ID, number + 1, KILLS)
    return samples


def _rows(samples: dict[str, list[float]], missing: dict[str, str]) -> list[Row]:
    ours = samples[OURS]
    rows: list[Row] = []
    for what, statistic in (("median", median), ("p90", percentile(0.9))):
        size = f"{what} of {KILLS}"
        for name in SUPERVISORS:
            if name == OURS:
                continue
            bar, most = BARS.get(name, (None, 0.0)) if what == "median" else (None, 0.0)
            if name in missing:
                note = missing[name]
                rows.append(row(ID, size, unit="ms", ours=statistic(ours), peer_name=name, bar=bar, note=note))
                continue
            ratio, spread = compare(ours, samples[name], statistic)
            holds = None if bar is None else (ratio < most if bar.startswith("< ") else ratio <= most)
            rows.append(
                row(
                    ID,
                    size,
                    unit="ms",
                    ours=statistic(ours),
                    peer=statistic(samples[name]),
                    peer_name=name,
                    ratio=ratio,
                    spread=spread,
                    bar=bar,
                    holds=holds,
                )
            )
    return rows
