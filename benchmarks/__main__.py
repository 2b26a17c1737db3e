"""`python -m benchmarks [P1 ...]`: run the figures asked for (all without any), print one table, write latest.json.

With `--tiny` each does so little that it tells only whether it runs, and nothing is written.
With `--long` P7 and P10 have larger sizes, which take long.
With `--stages` the table says where the time of each figure goes that can be taken apart.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.processes import become_subreaper, interrupt_on_term, sweep
from benchmarks.rows import Row, machine, row, table

BENCHMARKS: Final[Mapping[str, str]] = {
    "P1": "benchmarks.p1_restart",
    "P2": "benchmarks.p2_status",
    "P3": "benchmarks.p3_node_death",
    "P4": "benchmarks.p4_stream",
    "P5": "benchmarks.p5_history",
    "P6": "benchmarks.p6_latency",
    "P7": "benchmarks.p7_fan_out",
    "P8": "benchmarks.p8_footprint",
    "P9": "benchmarks.p9_decisions",
    "P10": "benchmarks.p10_simulator",
    "P11": "benchmarks.p11_start",
    "P13": "benchmarks.p13_failover",
    "P14": "benchmarks.p14_traffic",
}
"""Every figure's module, with `run() -> list[Row]`."""

STAGES: Final[Mapping[str, str]] = {"P6": "benchmarks.p6_stages"}
"""The modules that take a figure apart."""

OPTIONS: Final[Mapping[str, str]] = {"--tiny": "BENCHMARKS_TINY", "--long": "BENCHMARKS_LONG"}
"""The variables of the environment by which `sizes` knows; that module is not imported before they are set."""

RESULTS: Final = Path(__file__).with_name("results") / "latest.json"


def main(arguments: list[str]) -> int:
    """0: all ran, whether they hold or fall short; 1: one broke; 2: there is no such figure; 130: interrupted."""
    modules = STAGES if "--stages" in arguments else BENCHMARKS
    for option in OPTIONS.keys() & arguments:
        os.environ[OPTIONS[option]] = "1"  # before any figure is imported, and for its processes
    wanted = [argument.upper() for argument in arguments if argument not in ("--stages", *OPTIONS)] or list(modules)
    unknown = [name for name in wanted if name not in modules]
    if unknown:
        print(f"no figure {', '.join(unknown)}; there are {', '.join(modules)}", file=sys.stderr)
        return 2
    become_subreaper()
    interrupt_on_term()
    print(machine(), flush=True)
    rows: list[Row] = []
    broken = False
    try:
        for name in wanted:
            found, failed = _run(name, modules[name])
            rows += found
            broken = broken or failed
    except KeyboardInterrupt:
        return 130
    finally:
        left = sweep()
        if left:
            print(f"the last sweep ended {len(left)} processes", file=sys.stderr)
    print(table(rows))
    if "--tiny" not in arguments:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if broken else 0


def _run(name: str, module: str) -> tuple[list[Row], bool]:
    began = time.monotonic()
    try:
        found = importlib.import_module(module).run()
    except Exception as error:  # noqa: BLE001 - the outermost frame: one broken benchmark must not hide the others
        traceback.print_exc()
        note = f"broke: {type(error).__name__}: {error}"
        return [row(name, "", unit="", ours=None, note=note)], True
    finally:
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found, False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
