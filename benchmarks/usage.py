"""Usage: the memory, CPU time and wake-ups of processes, as the kernel counts them in /proc.

Rule 1: RSS counts what processes share once for each of them; `private` is what would be free again without them.
Rule 2: CPU time and wake-ups are those of all threads, one by one: a process' own ticks of 10 ms would add up to more than
    an idle program uses. A thread that has ended by the second look is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, added up over processes."""

    rss: int
    private: int


def memory(pids: Iterable[int]) -> Memory:
    """What processes have now. Raises `OSError` for one that is gone."""
    rss = private = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Rss":
                rss += int(value.split()[0]) * KB
            elif name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"):
                private += int(value.split()[0]) * KB
    return Memory(rss, private)


@dataclass(frozen=True, slots=True)
class Thread:
    """What a thread has used since it began."""

    cpu_ns: int
    wakes: int


Usage = dict[tuple[int, int], Thread]
"""By process and thread."""


def usage(pids: Iterable[int]) -> Usage:
    """What all threads of processes have used until now."""
    return dict(each for pid in pids for each in _threads(pid))


def used(before: Usage, now: Usage, pids: Iterable[int]) -> tuple[float, int]:
    """CPU seconds and wake-ups (voluntary context switches) of processes between two looks."""
    wanted, none = set(pids), Thread(0, 0)
    both = [(before.get(key, none), thread) for key, thread in now.items() if key[0] in wanted]
    return (
        sum(after.cpu_ns - earlier.cpu_ns for earlier, after in both) / 1e9,
        sum(after.wakes - earlier.wakes for earlier, after in both),
    )


def _threads(pid: int) -> Iterator[tuple[tuple[int, int], Thread]]:
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                cpu_ns = int((task / "schedstat").read_text().split()[0])
                status = (task / "status").read_text()
                wakes = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
                yield (pid, int(task.name)), Thread(cpu_ns, wakes)
