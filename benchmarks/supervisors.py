"""Supervisors: each keeps one stamping program alive for the length of a block, with its own defaults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.processes import running
from benchmarks.realm import applied, realm

PM2_S = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A supervisor's own directory, the program it is to keep alive, and where that program stamps."""

    directory: Path
    program: Path
    fifo: Path


Supervisor = Callable[[Place], AbstractContextManager[None]]


@contextmanager
def dsmt(place: Place) -> Iterator[None]:
    """One node with one instance. Its runs count as healthy, and so restart at once, after 0.8 s (kills come later)."""
    with realm(place.directory / "home", nodes=1, controllers=1) as home:
        applied(home, "bench", f"{place.program} {place.fifo}", instances=1)
        yield


@contextmanager
def floor(place: Place) -> Iterator[None]:
    """A bare loop in Python."""
    with bare_loop(place, Path(os.devnull)):
        yield


@contextmanager
def bare_loop(place: Place, told: Path) -> Iterator[None]:
    """The same, telling each start into a file or FIFO."""
    loop = Path(__file__).with_name("floor.py")
    with running([sys.executable, str(loop), str(told), str(place.program), str(place.fifo)]):
        yield


@contextmanager
def runit(place: Place) -> Iterator[None]:
    """`runsv` with a `run` script, as its manual shows."""
    with running([peers.from_debian("runsv", "runit"), str(_service_with_script(place))]):
        yield


@contextmanager
def runit_bare(place: Place) -> Iterator[None]:
    """`runsv` with the program itself in the place of `run`: no shell between."""
    with running([peers.from_debian("runsv", "runit"), str(_service_with_program(place))]):
        yield


@contextmanager
def s6(place: Place) -> Iterator[None]:
    """`s6-supervise` with a `run` script."""
    with running([peers.from_debian("s6-supervise", "s6"), str(_service_with_script(place))]):
        yield


@contextmanager
def circus(place: Place) -> Iterator[None]:
    """`circusd`, its defaults."""
    config = place.directory / "circus.ini"
    config.write_text(
        "[circus]\n"
        f"endpoint = ipc://{place.directory}/endpoint\npubsub_endpoint = ipc://{place.directory}/pubsub\n"
        f"[watcher:stamp]\ncmd = {place.program} {place.fifo}\n"
    )
    with running([peers.from_python("circusd"), str(config)], log=place.directory / "log"):
        yield


@contextmanager
def supervisord(place: Place) -> Iterator[None]:
    """`supervisord`, its defaults."""
    config = place.directory / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon = true\nlogfile = {place.directory}/log\npidfile = {place.directory}/pid\n"
        f"[program:stamp]\ncommand = {place.program} {place.fifo}\n"
    )
    with running([peers.from_python("supervisord"), "-c", str(config)], log=place.directory / "log"):
        yield


@contextmanager
def pm2(place: Place) -> Iterator[None]:
    """`pm2`, its defaults."""
    program = peers.from_npm("pm2", place.directory / "npm")
    environment = {**os.environ, "PM2_HOME": str(place.directory / "pm2"), "PM2_DISCRETE_MODE": "true"}

    def command(*words: str) -> None:
        subprocess.run([program, *words], env=environment, capture_output=True, check=True, timeout=PM2_S)

    try:
        command("start", str(place.program), "--interpreter", "none", "--name", "stamp", "--", str(place.fifo))
        yield
    finally:
        command("kill")


def _service_with_script(place: Place) -> Path:
    service = _service(place)
    (service / "run").write_text(f"#!/bin/sh\nexec {place.program} {place.fifo}\n")
    (service / "run").chmod(0o755)
    return service


def _service_with_program(place: Place) -> Path:
    service = _service(place)
    shutil.copy2(place.program, service / "run")
    (service / "stamps").symlink_to(place.fifo)
    return service


def _service(place: Place) -> Path:
    service = place.directory / "service"
    service.mkdir()
    return service


OURS: Final = "dsmt"
SUPERVISORS: Final[Mapping[str, Supervisor]] = {
    OURS: dsmt,
    "runit": runit,
    "runit, no shell": runit_bare,
    "s6": s6,
    "circus": circus,
    "supervisord": supervisord,
    "pm2": pm2,
    "floor: pidfd + posix_spawn in Python": floor,
}
"""All that P1 compares."""
