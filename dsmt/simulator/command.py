"""What `python -m dsmt.simulator` does: it plays seeds, a line for each, and says of one that fails how to play it again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from dsmt.simulator.fleet import Scale
from dsmt.simulator.scenarios import SCENARIOS, Report, play

SHOWN = 10
"""What is shown of a failing seed: sentences, and faults before the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Play; 0 when every invariant held in each run."""
    parser = argparse.ArgumentParser(prog="python -m dsmt.simulator", description="Play a simulated fleet by seeds.")
    parser.add_argument("--seeds", type=int, default=50, help="how many seeds (50)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--seconds", type=float, default=120.0, help="simulated seconds of each (120)")
    parser.add_argument("--nodes", type=int, default=100, help="nodes (100)")
    parser.add_argument("--services", type=int, default=10, help="services (10)")
    parser.add_argument("--scenario", choices=[*SCENARIOS], default="", help="what to play; else the seed says")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--log", action="store_true", help="show every fault")
    told = parser.parse_args(argv)
    seeds = [told.seed] if told.seed is not None else list(range(told.first, told.first + told.seeds))
    began = time.monotonic()
    failed = 0
    one = partial(_one, told.scenario, Scale(nodes=told.nodes, services=told.services), told.seconds)
    for report in _reports(one, seeds, told.jobs):
        failed += bool(report.wrong)
        _say(report, told)
    sys.stdout.write(f"{len(seeds) - failed} of {len(seeds)} seeds held in {time.monotonic() - began:.0f} s\n")
    return 1 if failed else 0


def _reports(one: Callable[[int], Report], seeds: Sequence[int], jobs: int) -> Iterator[Report]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _one(scenario: str, scale: Scale, seconds: float, seed: int) -> Report:
    return play(seed, scenario=scenario, scale=scale, seconds=seconds)


def _say(report: Report, told: argparse.Namespace) -> None:
    speed = report.seconds / max(0.001, report.cpu_s)
    held = "FAILED" if report.wrong else "held"
    counts = f"{report.slots} slots, {report.faults} faults, {report.decisions} decisions, {report.rows} rows"
    head = f"seed {report.seed:4} {report.scenario:8} {held}: {report.seconds:.0f} s at {speed:.0f}x, {counts}"
    lines = [f"{head}, history {report.digest}"]
    if told.log:
        lines += [f"    {line}" for line in report.log]
    if report.wrong:
        lines += [f"    {sentence}" for sentence in report.wrong[:SHOWN]]
        lines += [f"    and {len(report.wrong) - SHOWN} more"] if len(report.wrong) > SHOWN else []
        lines += [f"    fault {line}" for line in report.log[-SHOWN:]] if not told.log else []
        lines.append(
            f"    again: python -m dsmt.simulator --seed {report.seed} --scenario {report.scenario}"
            f" --seconds {told.seconds:g} --nodes {told.nodes} --services {told.services} --log"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
