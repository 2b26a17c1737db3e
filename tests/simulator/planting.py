"""What tests of the simulator share: runs that are caught breaking a rule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Report
from dsmt.simulator.scenarios import play

SEEDS = int(os.environ.get("DSMT_SEEDS", "3"))
"""How many of each scenario: three where somebody waits for the answer, eight in CI."""
FEW = 5
SMALL = Scale(nodes=16, services=5)
SMALLER = Scale(nodes=10, services=3)
FEWEST = Scale(nodes=6, services=2)


def broken(report: Report, rule: str) -> list[str]:
    """What a run says of a rule that it breaks."""
    return [sentence for sentence in report.wrong if sentence.startswith(rule)]


def control(seeds: Sequence[int], *, defect: bool) -> Sequence[int]:
    """Of what may catch a defect: without it, the first where somebody waits for the answer, and all in CI."""
    return seeds if defect or SEEDS > FEW else seeds[:1]


def caught(
    scenario: str, seeds: Iterable[int], rule: str, *, scale: Scale | None = None, seconds: float | None = None
) -> list[str]:
    """What the first of these seeds that breaks a rule says of it. A defect fits what it is planted in: no program fails."""
    for seed in seeds:
        report = play(seed, scenario=scenario, scale=scale, seconds=seconds)
        failed = [sentence for sentence in report.wrong if "Traceback" in sentence]
        assert not failed, failed[0]
        said = broken(report, rule)
        if said:
            print("\n".join(said))  # noqa: T201 - how it was caught
            return said
    return []
