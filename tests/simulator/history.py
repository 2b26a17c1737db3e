"""Play one seed in a process of its own and print how many rows its history has, and its hash: `history.py SEED DEFECT`.

`DEFECT`: `none`; `set`, victims of faults are taken in the order of a set of text.
"""

from __future__ import annotations

import sys

from dsmt.simulator.faults import FaultInjector
from dsmt.simulator.fleet import Scale
from dsmt.simulator.members import SimNode
from dsmt.simulator.scenarios import play


def in_the_order_of_a_set(self: FaultInjector) -> list[SimNode]:
    return [self.fleet.nodes[name] for name in list(set(self.fleet.nodes)) if self.fleet.nodes[name].manager.wanted]


def main() -> None:
    seed, defect = int(sys.argv[1]), sys.argv[2]
    if defect == "set":
        FaultInjector.up = in_the_order_of_a_set  # type: ignore[method-assign]
    report = play(seed, scenario="storm", scale=Scale(nodes=12, services=4), seconds=60)
    print(report.rows, report.digest)  # noqa: T201 - it is the answer


if __name__ == "__main__":
    main()
