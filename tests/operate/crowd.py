"""`make crowd`: as many nodes as a machine's memory allows, each with its own real processes, one instance on each.

All come up, and are looked at for a minute at rest; then a tenth of them dies at once, by SIGKILL to all of their processes,
and every instance is ready elsewhere. `down` leaves nothing. The figures are printed: they are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.usage import memory, usage, used
from tests.operate.__main__ import dsmt, until
from tests.real.fleet import processes_of

SPEC: Final = """\
service: crowd
components:
  app:
    run: sleep infinity
    instances: %d
    update: {healthy_after: 1s}
"""
REST_S: Final = 60.0
PATIENCE_S: Final = 600.0
_NODE: Final = re.compile(r"/nodes/(n\d+)(?![^/ ])")


def play(nodes: int) -> list[str]:
    """What is wrong with so many nodes; the figures are printed."""
    with tempfile.TemporaryDirectory(prefix="crowd-") as name:
        home, spec = Path(name) / "home", Path(name) / "crowd.yaml"
        spec.write_text(SPEC % nodes)
        try:
            wrong = _played(home, spec, nodes)
        finally:
            dsmt(home, "down", timeout=PATIENCE_S)
        return [*wrong, *(f"down left {one}" for one in processes_of(home).values())]


def _played(home: Path, spec: Path, nodes: int) -> list[str]:
    began = time.monotonic()
    dsmt(home, "up", "--nodes", str(nodes), "--detach", timeout=PATIENCE_S)
    dsmt(home, "apply", str(spec), f"--wait={PATIENCE_S:.0f}s", timeout=PATIENCE_S + 10)
    print(f"{nodes} nodes and {nodes} instances ready {time.monotonic() - began:.0f} s after up", flush=True)

    everybody = list(processes_of(home))
    before = usage(everybody)
    time.sleep(REST_S)  # at rest is what it is looked at
    cpu_s, wakes = used(before, usage(everybody), everybody)
    held = memory(everybody).private / 2**20
    print(
        f"at rest: {cpu_s / REST_S:.1%} of a core, {wakes / REST_S:.0f} wake-ups a second, "
        f"{held:.0f} MiB private in {len(everybody)} processes",
        flush=True,
    )

    dying = {f"n{number}" for number in range(1, max(1, nodes // 10) + 1)}
    for pid in _of_nodes(home, dying):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    took = until(lambda: _whole(home, nodes, dying), PATIENCE_S)
    if took is None:
        return [f"not all is ready {PATIENCE_S:.0f} s after {len(dying)} nodes died"]
    print(f"{len(dying)} nodes died; all is ready elsewhere {took:.1f} s later, as `dsmt ps` sees it", flush=True)
    return []


def _of_nodes(home: Path, nodes: set[str]) -> list[int]:
    """The processes of some nodes, their spawners first: nobody starts another of what is being killed."""
    found = [(pid, told) for pid, told in processes_of(home).items() if (at := _NODE.search(told)) and at[1] in nodes]
    return [pid for pid, _ in sorted(found, key=lambda one: "dsmt-spawner" not in one[1])]


def _whole(home: Path, nodes: int, dying: set[str]) -> bool:
    rows: list[dict[str, Any]] = json.loads(dsmt(home, "ps", "crowd", "--json", check=False) or "[]")
    there = [row for row in rows if row["state"] == "running" and row["node"] not in dying]
    return len(there) == nodes


def main() -> int:
    """0: all held; 1: not."""
    parser = argparse.ArgumentParser(prog="python -m tests.operate.crowd", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=200)
    wrong = play(parser.parse_args().nodes)
    for one in wrong:
        print(f"WRONG: {one}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
