"""P8: resident memory of our programs with one instance and with fifty, and what fifty cost while nothing happens.

All supervisors are alive at once, each with as many sleeping processes, and are looked at over the same seconds. What is
supervised is not counted, only who supervises.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.crowds import CROWDS, OURS, Programs
from benchmarks.rows import Row, row
from benchmarks.sizes import sized
from benchmarks.usage import Memory, memory, usage, used

ID: Final = "P8"
FEW, MANY = 1, sized(50, 3)
SETTLE_S: Final = sized(20.0, 0.5)
"""How long all is left in peace before it is looked at: what starts once is over then."""
IDLE_S: Final = sized(30.0, 0.5)
MB: Final = 1e6
SUMMED: Final = ("broker", "controller", "container manager")
WITH_SPAWNER: Final = ("container manager", "spawner")
OF_NODE: Final = ("spawner", "container manager", "node monitor", "agents")
SUMMED_MB, WITH_SPAWNER_MB, CONTAINER_MB, CPU_PERCENT, WAKES = 110.0, 50.0, 5.0, 1.0, 120.0
"""The bars."""

PEERS: Final = [name for name in CROWDS if name != OURS]


@dataclass(slots=True)
class Found:
    """What each supervisor has with so many processes, by program, and what it used a second: CPU seconds, wake-ups."""

    memory: dict[str, dict[str, Memory]] = field(default_factory=dict)
    idle: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def mb(self, who: str, *programs: str, private: bool = False) -> float | None:
        """MB of some programs of a supervisor; of all without any."""
        if who not in self.memory:
            return None
        of = self.memory[who]
        chosen = [of[name] for name in programs or of]
        return sum(one.private if private else one.rss for one in chosen) / MB

    def idles(self, who: str, at: int) -> float | None:
        """CPU seconds (0) or wake-ups (1) a second, of all programs of a supervisor."""
        return sum(each[at] for each in self.idle[who].values()) if who in self.idle else None


def run() -> list[Row]:
    few, many = (_measured(count, idle_s=IDLE_S if count == MANY else 0.0) for count in (FEW, MANY))
    return _memory_rows(FEW, few) + _memory_rows(MANY, many) + [_container(few, many)] + _idle_rows(many)


def _measured(count: int, *, idle_s: float) -> Found:
    directory = Path(tempfile.mkdtemp(prefix="dsmt-p8-"))
    found = Found()
    try:
        with ExitStack() as stack:
            alive: dict[str, Programs] = {}
            for name, crowd in CROWDS.items():
                (directory / name).mkdir()
                try:
                    alive[name] = stack.enter_context(crowd(directory / name, count))
                except Exception as error:  # whatever hinders a peer is told in its row
                    if name == OURS:
                        raise
                    found.missing[name] = f"not measured: {type(error).__name__}: {error}"
            time.sleep(SETTLE_S)
            _look(alive, found, idle_s)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def _look(alive: dict[str, Programs], found: Found, idle_s: float) -> None:
    for who, programs in alive.items():
        found.memory[who] = {name: memory(pids) for name, pids in programs.items()}
    if not idle_s:
        return
    all_pids = [pid for programs in alive.values() for pids in programs.values() for pid in pids]
    before, began = usage(all_pids), time.monotonic()
    time.sleep(idle_s)
    after, lasted = usage(all_pids), time.monotonic() - began
    for who, programs in alive.items():
        each = {name: used(before, after, pids) for name, pids in programs.items()}
        found.idle[who] = {name: (cpu / lasted, wakes / lasted) for name, (cpu, wakes) in each.items()}


def _memory_rows(count: int, found: Found) -> list[Row]:
    rows = []
    for programs, bar in ((SUMMED, SUMMED_MB), (WITH_SPAWNER, WITH_SPAWNER_MB)):
        ours = found.mb(OURS, *programs) or 0.0
        private = found.mb(OURS, *programs, private=True)
        each = ", ".join(f"{name} {found.mb(OURS, name):.1f}" for name in programs)
        rows.append(
            row(
                f"{ID} memory",
                f"{count} instances: {', '.join(programs)}",
                unit="MB RSS",
                ours=ours,
                bar=f"<= {bar:.0f} MB",
                holds=ours <= bar,
                note=f"private {private:.1f}; {each}",
            )
        )
    size = f"{count} instances: all programs"
    for name in PEERS:
        note = (
            found.missing.get(name)
            or f"private (ours, theirs) {found.mb(OURS, private=True):.1f}, {found.mb(name, private=True):.1f}"
        )
        rows.append(_against(name, (f"{ID} memory", size, "MB RSS"), found.mb(OURS), found.mb(name), note))
    return rows


def _container(few: Found, many: Found) -> Row:
    """What the node's programs grow by, which all know of each container."""
    more, fewer = many.mb(OURS, *OF_NODE, private=True), few.mb(OURS, *OF_NODE, private=True)
    each = ((more or 0.0) - (fewer or 0.0)) / (MANY - FEW)
    first, rss = few.mb(OURS, "agents", private=True), (many.mb(OURS, "agents") or 0.0) / MANY
    return row(
        f"{ID} container",
        f"each beyond the first, of {MANY}",
        unit="MB private",
        ours=each,
        bar=f"<= {CONTAINER_MB:.0f} MB",
        holds=each <= CONTAINER_MB,
        note=f"all of the node's programs; an agent: RSS {rss:.1f}, the first one private {first:.1f}",
    )


def _idle_rows(found: Found) -> list[Row]:
    rows = []
    for at, unit, scale, bar in ((0, "% of a core", 100.0, CPU_PERCENT), (1, "wake-ups/s", 1.0, WAKES)):
        ours = (found.idles(OURS, at) or 0.0) * scale
        split = ", ".join(f"{name} {each[at] * scale:.3g}" for name, each in found.idle[OURS].items())
        size = f"{MANY} instances, {IDLE_S:.0f} s"
        rows.append(
            row(f"{ID} idle", size, unit=unit, ours=ours, bar=f"<= {bar:g}", holds=ours <= bar, note=split),
        )
        for name in PEERS:
            idle = found.idles(name, at)
            theirs = None if idle is None else idle * scale
            rows.append(_against(name, (f"{ID} idle", size, unit), ours, theirs, found.missing.get(name, "")))
    return rows


def _against(name: str, what: tuple[str, str, str], ours: float | None, theirs: float | None, note: str) -> Row:
    """A row beside a peer, for comparison only; `what` are figure, size and unit."""
    figure, size, unit = what
    ratio = ours / theirs if ours and theirs else None
    return row(figure, size, unit=unit, ours=ours, peer=theirs, peer_name=name, ratio=ratio, note=note)
