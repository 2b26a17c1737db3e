"""What `python -m dsmt.simulator` does: it plays seeds, a line for each, and says of one that fails how to play it again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import get_context

from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Report
from dsmt.simulator.scenarios import SCENARIOS, play_each

SHOWN = 10
"""What is shown of a failing seed: sentences, and faults before the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Play; 0 when every invariant held in each run."""
    parser = argparse.ArgumentParser(prog="python -m dsmt.simulator", description="Play a simulated fleet by seeds.")
    parser.add_argument("--seeds", type=int, default=50, help="how many seeds (50)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--seconds", type=float, help="simulated seconds of each (the scenario's own)")
    parser.add_argument("--nodes", type=int, help="nodes (the scenario's own)")
    parser.add_argument("--services", type=int, default=10, help="services, where nodes are given (10)")
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="what to play (each); may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--log", action="store_true", help="show every fault")
    told = parser.parse_args(argv)
    seeds = [told.seed] if told.seed is not None else list(range(told.first, told.first + told.seeds))
    scale = Scale(nodes=told.nodes, services=told.services) if told.nodes else None
    began = time.monotonic()
    sums: dict[str, Sum] = {}
    scenarios = tuple(dict.fromkeys(told.scenario or SCENARIOS))
    one_seed = partial(play_each, scenarios=scenarios, scale=scale, seconds=told.seconds)
    for report in chain.from_iterable(_reports(one_seed, seeds, told.jobs)):
        sums.setdefault(report.scenario, Sum()).add(report)
        _say(report, told)
    failed, runs = (sum(counts) for counts in zip(*((len(one.failed), one.runs) for one in sums.values()), strict=True))
    for scenario, one in sums.items():
        sys.stdout.write(f"{scenario:10} {one}\n")
    sys.stdout.write(f"{runs - failed} of {runs} runs held in {time.monotonic() - began:.0f} s\n")
    return 1 if failed else 0


@dataclass(slots=True)
class Sum:
    """What the seeds of one scenario came to."""

    runs: int = 0
    cpu_s: float = 0.0
    failed: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        told = f", FAILED {' '.join(map(str, self.failed))}" if self.failed else ""
        return f"{self.runs - len(self.failed):4} of {self.runs} held, {self.cpu_s / self.runs:.2f} CPU s a seed{told}"

    def add(self, report: Report) -> None:
        """One more."""
        self.runs += 1
        self.cpu_s += report.cpu_s
        if report.wrong:
            self.failed.append(report.seed)


def _reports(one: Callable[[int], list[Report]], seeds: Sequence[int], jobs: int) -> Iterator[list[Report]]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _say(report: Report, told: argparse.Namespace) -> None:
    speed = report.seconds / max(0.001, report.cpu_s)
    held = "FAILED" if report.wrong else "held"
    counts = f"{report.slots} slots, {report.faults} faults, {report.decisions} decisions, {report.rows} rows"
    head = f"seed {report.seed:4} {report.scenario:10} {held}: {report.seconds:.0f} s at {speed:.0f}x, {counts}"
    lines = [f"{head}, history {report.digest}"]
    if told.log:
        lines += [f"    {line}" for line in report.log]
    if report.wrong:
        lines += [f"    {sentence}" for sentence in report.wrong[:SHOWN]]
        lines += [f"    and {len(report.wrong) - SHOWN} more"] if len(report.wrong) > SHOWN else []
        lines += [f"    fault {line}" for line in report.log[-SHOWN:]] if not told.log else []
        lines.append(
            f"    again: python -m dsmt.simulator --seed {report.seed} --scenario {report.scenario}{_given(told)} --log"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _given(told: argparse.Namespace) -> str:
    """The options that make a run another one."""
    seconds = f" --seconds {told.seconds:g}" if told.seconds else ""
    return seconds + (f" --nodes {told.nodes} --services {told.services}" if told.nodes else "")
