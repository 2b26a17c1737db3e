"""`python -m dsmt.simulator.profiling`: where the CPU of one seed of a scenario goes, by room and by function.

Rule 1: what a built-in function takes is its callers', for it has no room; other modules' time is under their own names.
Rule 2: shares are true as far as the profiler is: it makes small functions dearer. The CPU seconds are without it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from dsmt.simulator.fleet import Scale
from dsmt.simulator.scenarios import SCENARIOS, play

ROOT: Final = Path(__file__).parents[2]
BUILT_IN: Final = "~"
ROOMS: Final = 20

Function = tuple[str, int, str]


def main(argv: list[str] | None = None) -> int:
    """Play it twice, the second time under the profiler."""
    parser = argparse.ArgumentParser(prog="python -m dsmt.simulator.profiling", description="Where a run's CPU goes.")
    parser.add_argument("--scenario", choices=[*SCENARIOS], default="storm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, help="nodes (the scenario's own)")
    parser.add_argument("--services", type=int, default=10, help="services, where nodes are given (10)")
    parser.add_argument("--top", type=int, default=30, help="functions (30)")
    told = parser.parse_args(argv)
    scale = Scale(nodes=told.nodes, services=told.services) if told.nodes else None
    alone = play(told.seed, scenario=told.scenario, scale=scale)
    profiler = cProfile.Profile()
    profiled = profiler.runcall(play, told.seed, scenario=told.scenario, scale=scale)
    if alone.digest != profiled.digest:
        raise RuntimeError("the profiled run is another one: something in it is not decided by the seed")
    _say(f"{told.scenario}, seed {told.seed}: {alone.seconds:.0f} s in {alone.cpu_s:.2f} CPU s, history {alone.digest}")
    stats: Any = pstats.Stats(profiler)
    by_room = rooms(stats.stats)
    total = sum(by_room.values())
    for room, seconds in by_room.most_common(ROOMS):
        _say(f"{seconds / total:6.1%}  {room}")
    for order in ("tottime", "cumulative"):
        pstats.Stats(profiler, stream=sys.stdout).strip_dirs().sort_stats(order).print_stats(told.top)
    return 0


def rooms(stats: dict[Function, Any]) -> Counter[str]:
    """The profiler's seconds by room (rule 1)."""
    found: Counter[str] = Counter()
    for function, (_, _, own, _, callers) in stats.items():
        if function[0] != BUILT_IN or not callers:
            found[room_of(function)] += own
        else:
            for caller, (_, _, part, _) in callers.items():
                found[room_of(caller)] += part
    return found


def room_of(function: Function) -> str:
    """The folder of dsmt that a function stands in, or else the folder of its package."""
    path = Path(function[0])
    if path.is_relative_to(ROOT / "dsmt"):
        return str(path.parent.relative_to(ROOT))
    return path.parent.name or "generated, or built in"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
