"""P10: what a simulated fleet costs, by its size: CPU to settle, simulated seconds in a second of CPU at rest, memory.

The programs are the real ones; signatures are keyed hashes (`dsmt.simulator.engine.keys`), so no cryptography is in it.
Each size runs in a fork of its own. A fleet that has not settled within `PATIENCE_S` of CPU is given up, and says so.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from benchmarks.rows import Row, row
from benchmarks.simulated import EACH, PATIENCE_S, ended, started
from benchmarks.sizes import sized
from dsmt.simulator.engine.forks import each_way
from dsmt.simulator.engine.run import run as simulate

SIZES: Final = sized((30, 100, 300, 1000), (3, 5), (1000, 3000))
BARS_AT: Final = 1000
REST_S: Final = sized(10.0, 1.0)
"""Simulated seconds for which a fleet at rest is measured."""
MIB: Final = 1 << 20


@dataclass(slots=True)
class Cost:
    """What one fleet cost; `settled_s` is infinite when it was given up."""

    settled_s: float = inf
    speed: float = 0.0
    resident: float = 0.0


def run() -> list[Row]:
    """All sizes, and how what a node costs grows from one to the next."""
    rows: list[Row] = []
    before: Cost | None = None
    first = _resident()
    for size, cost in zip(SIZES, each_way(SIZES, _cost), strict=True):
        of = f"{size} nodes, {size * EACH} instances"
        bars = size == BARS_AT
        if cost.settled_s == inf:
            note = f"not within {PATIENCE_S:.0f} CPU s"
            rows.append(_row("settle", of, "CPU s", None, "<= 20 CPU s", bars=bars, holds=False, note=note))
            continue
        grown = "" if before is None else _grown(before, cost, size)
        rows += [
            _row("settle", of, "CPU s", cost.settled_s, "<= 20 CPU s", bars=bars, holds=cost.settled_s <= 20, note=grown),
            _row("rest", of, "x real time", cost.speed, ">= 10 x", bars=bars, holds=cost.speed >= 10),
            _row("memory", of, "MiB", cost.resident, "<= 1536 MiB", bars=bars, holds=cost.resident <= 1536,
                 note=f"{(cost.resident - first) / size:.2f} MiB a node"),
        ]  # fmt: skip
        before = cost
    return rows


def _row(what: str, of: str, unit: str, ours: float | None, bar: str, *, bars: bool, holds: bool, note: str = "") -> Row:
    """A row; the bar stands at one size."""
    return row(f"P10 {what}", of, unit=unit, ours=ours, bar=bar if bars else None, holds=holds if bars else None, note=note)


def _grown(before: Cost, now: Cost, size: int) -> str:
    """By how much more a node costs than in the fleet that is the next smaller one."""
    nodes = size / SIZES[SIZES.index(size) - 1]
    settling, resting = now.settled_s / before.settled_s / nodes, before.speed / now.speed / nodes
    return f"a node costs {settling:.2g} times as much to settle, and {resting:.2g} times at rest"


def _cost(which: Callable[[], int]) -> Cost:
    nodes = which()
    return simulate(_measured(nodes), collect_every=None)


async def _measured(nodes: int) -> Cost:
    play, settled_s = await started(nodes)
    cost = Cost(settled_s)
    if settled_s < inf:
        await asyncio.sleep(2.0)
        began, until = time.process_time(), play.now + REST_S
        await play.until(until)
        cost.speed = REST_S / (time.process_time() - began)
        cost.resident = _resident()
    await ended(play)
    return cost


def _resident() -> float:
    """MiB that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
