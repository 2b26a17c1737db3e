"""Stamps: when each replacement's main began, told by the program itself (stamp.c) through a FIFO."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import UnavailableError

SOURCE = Path(__file__).with_name("stamp.c")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A process has begun: CLOCK_BOOTTIME nanoseconds, and its pid."""

    at_ns: int
    pid: int


def now_ns() -> int:
    """The clock of the stamps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def compile_program(directory: Path) -> Path:
    """The stamping program, static, so that no loader's time is in the figures. Raises `UnavailableError`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise UnavailableError("no C compiler (gcc) for the supervised program")
    program = directory / "stamp"
    for how in (["-static"], []):
        done = subprocess.run(
            [compiler, "-O2", *how, "-o", str(program), str(SOURCE)], capture_output=True, check=False, timeout=60
        )
        if done.returncode == 0:
            return program
    raise UnavailableError(f"gcc could not compile {SOURCE.name}: {done.stderr.decode(errors='replace')[:200]}")


class Stamps:
    """The reading end of one FIFO. Held open for writing too, so that no writer ever waits for us."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._found: list[Stamp] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._descriptor, selectors.EVENT_READ)

    def next(self, timeout_s: float) -> Stamp:
        """The next stamp. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while not self._found:
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise TimeoutError(f"no process wrote to {self.path} within {timeout_s:.0f} s")
            self._read()
        return self._found.pop(0)

    def drain(self) -> list[Stamp]:
        """All stamps that are there now."""
        if self._selector.select(0):
            self._read()
        found, self._found = self._found, []
        return found

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._descriptor, 65536)).split(b"\n")
        for line in lines:
            at, pid = line.split()
            self._found.append(Stamp(int(at), int(pid)))

    def close(self) -> None:
        self._selector.close()
        os.close(self._descriptor)
