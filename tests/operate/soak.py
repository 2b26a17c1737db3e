"""`make soak`: ordinary use for a while, and what dsmt keeps of it: memory, descriptors, certificates, disk.

A command each second, a restart of an instance each ten, the broker ended each two minutes and kept up again. Every quarter
of a minute the resident memory and open descriptors of each process are noted by its name, as well as the disk and the
certificates of the home; in the end the last quarter of the time is compared with the second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dsmt.operations.local.home.home import Home
from dsmt.system.records import living, record_path
from tests.operate.__main__ import dsmt
from tests.real.fleet import processes_of

WEB = """\
service: web
components:
  app:
    instances: 3
    run: python3 -m http.server {port.http} --bind 127.0.0.1
    ports: {http: auto}
    health: {http: {port: http, path: /}, interval: 1s}
"""
COMMANDS = (("ps",), ("status",), ("nodes",), ("endpoints", "web"))
SAMPLE_S = 15.0
RESTART_S = 10.0
BROKER_S = 120.0
MEMORY = 1.15
"""How much more memory the last quarter may have than the second; and this much is noise:"""
MEMORY_BYTES = 4 * 1024 * 1024
DESCRIPTORS = 4


class Sample(NamedTuple):
    """What one process holds: when, resident bytes, open descriptors."""

    at: float
    memory: int
    descriptors: int


def sample(home: Path, found: dict[str, list[Sample]], at: float) -> None:
    """Note every process of dsmt, by its name."""
    for pid, told in processes_of(home).items():
        if not told.startswith("dsmt-"):
            continue
        with suppress(OSError):
            memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            found[told.rpartition(" in ")[0].strip()].append(
                Sample(at, memory, len(list(Path(f"/proc/{pid}/fd").iterdir())))
            )


def disk(home: Path) -> int:
    """Bytes of the home's files, without the programs' logs."""
    total = 0
    for path in home.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() and "logs" not in path.parts else 0
    return total


def grown(name: str, samples: list[Sample], seconds: float) -> list[str]:
    """What of a process is not flat."""
    early = [one for one in samples if seconds / 4 <= one.at < seconds / 2]
    late = [one for one in samples if one.at >= seconds * 3 / 4]
    if not early or not late:
        return []
    before, after = (statistics.median(one.memory for one in part) for part in (early, late))
    few, many = (statistics.median(one.descriptors for one in part) for part in (early, late))
    print(f"  {name}: {before / 2**20:.1f} -> {after / 2**20:.1f} MiB, {few:.0f} -> {many:.0f} descriptors", flush=True)
    wrong = [f"{name} grew from {before:.0f} to {after:.0f} bytes"] if after > before * MEMORY + MEMORY_BYTES else []
    return wrong + ([f"{name} had {few:.0f} descriptors and has {many:.0f}"] if many > few + DESCRIPTORS else [])


def use(root: Path, seconds: float) -> tuple[dict[str, list[Sample]], list[str]]:
    """Use a realm for a while; what its processes held, and what went wrong."""
    found: dict[str, list[Sample]] = defaultdict(list)
    wrong: list[str] = []
    broker = record_path(str(Home(root).part("brokers", "b1")), "broker")
    began = time.monotonic()
    due = {"command": 0.0, "restart": RESTART_S, "sample": SAMPLE_S, "broker": BROKER_S}
    every = {"command": 1.0, "restart": RESTART_S, "sample": SAMPLE_S, "broker": BROKER_S}
    certificates: list[int] = []
    count = 0
    while (at := time.monotonic() - began) < seconds:
        what = min(due, key=lambda one: due[one])
        time.sleep(max(0.0, due[what] - at))
        due[what] += every[what]
        count += 1
        match what:
            case "command":
                dsmt(
                    root,
                    ("ps", "status", "nodes", "endpoints")[count % 4],
                    *(["web"] if count % 4 == 3 else []),
                    check=False,
                )
            case "restart":
                dsmt(root, "restart", f"web/app/{count % 3}", check=False)
            case "broker":
                identity = living(broker)
                if identity is not None:
                    os.kill(identity.pid, signal.SIGTERM)
            case _:
                sample(root, found, at)
                known = len(json.loads(dsmt(root, "cert", "list", "--json", check=False) or "[]"))
                certificates.append(known)
                print(f"  {at:.0f} s: {disk(root) / 2**20:.1f} MiB on disk, {known} certificates", flush=True)
    half = certificates[len(certificates) // 2 :]
    if half and max(half) > max(certificates[: len(certificates) // 2]):
        wrong.append(f"certificates grow: {certificates}")
    return found, wrong


def main() -> int:
    """Use it; 0 when all is flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.operate.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    seconds = parser.parse_args().minutes * 60
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    home = work / "home"
    (work / "web.yaml").write_text(WEB)
    try:
        dsmt(home, "up", "--nodes", "3", "--detach")
        dsmt(home, "apply", str(work / "web.yaml"), "--wait=60s")
        found, wrong = use(home, seconds)
        for name in sorted(found):
            wrong += grown(name, found[name], seconds)
    finally:
        dsmt(home, "down", check=False)
        left = processes_of(home)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(work, ignore_errors=True)
    wrong += [f"left after down: {pid} {what}" for pid, what in left.items()]
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
