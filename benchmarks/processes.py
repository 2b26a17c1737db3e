"""Processes: everything a benchmark starts stays its descendant, and none of it outlives the benchmark."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
SWEEP_S = 10.0


def become_subreaper() -> None:
    """Have orphans of our descendants become our children (prctl(2)), so that the sweep finds daemons too."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def interrupt_on_term() -> None:
    """Have SIGTERM (of timeout(1)) clean up like Ctrl-C."""

    def interrupted(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents before their children; zombies are left out."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names, and cheap
        if entry.isdigit():
            with suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    children[int(fields[1])].append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = sorted(children[waiting.pop(0)])
        found += below
        waiting += below
    return found


def sweep() -> list[int]:
    """SIGKILL every descendant that is left, and reap; who was found. Raises `RuntimeError` for who does not die."""
    found: list[int] = []
    deadline = time.monotonic() + SWEEP_S
    while left := descendants(os.getpid()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"these processes do not die: {left}")
        kill_all(left)
        found += [pid for pid in left if pid not in found]
        time.sleep(0.01)
        _reap()
    _reap()
    return found


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


@contextmanager
def running(
    command: list[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a block; at its end it is killed with all below it."""
    output = subprocess.DEVNULL if log is None else log.open("ab")
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if not isinstance(output, int):
            output.close()
    try:
        yield process
    finally:
        kill_with_all_below(process.pid)
        process.wait()


def kill_all(victims: Sequence[int]) -> None:
    """SIGKILL processes, of which none sees another one's death and begins it again, however slowly they are killed."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_with_all_below(root: int) -> None:
    """SIGKILL a process, then all that was below it."""
    kill_all([root, *descendants(root)])
