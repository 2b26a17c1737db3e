"""A program of dsmt's is found in its directory though no record tells, and nobody else is."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.fork import Program, fork
from dsmt.system.placed import Placed, placed_below
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path
from tests.waiting import seen

pytestmark = pytest.mark.real


def idle(_: str) -> int:
    """A program that runs until it is killed."""
    while True:
        time.sleep(600)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path, ProcessIdentity]]:
    """A home, the directory of a program in it, and its process."""
    home = tmp_path / "home"
    directory = home / "nodes" / "n1"
    directory.mkdir(parents=True)
    record = record_path(str(directory), "container_manager")
    running = fork(Program("container_manager", idle, str(directory), record), lambda: None)
    try:
        seen(Path(record).exists, "its record", 20)
        yield home, directory, running
    finally:
        os.kill(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)


def test_it_is_found_without_a_record_by_its_own_program_and_in_its_own_directory_alone(places, tmp_path: Path) -> None:
    home, directory, running = places
    shutil.rmtree(directory / "run")
    found = Placed()
    assert found.of(str(directory), "container_manager") == running
    assert found.of(str(directory), "node_monitor") is None
    assert found.of(str(home), "container_manager") is None
    assert found.of(str(home / "gone"), "container_manager") is None
    assert placed_below(str(home)) == {running}
    assert placed_below(str(tmp_path / "hom")) == set()
    own = identity_of(os.getpid())
    assert own not in placed_below("/")


def test_it_is_found_in_a_home_that_was_moved_and_in_one_that_was_removed(places, tmp_path: Path) -> None:
    home, _, running = places
    moved = home.rename(tmp_path / "moved")
    (home / "nodes" / "n1").mkdir(parents=True)
    assert Placed().of(str(moved / "nodes" / "n1"), "container_manager") == running
    assert Placed().of(str(home / "nodes" / "n1"), "container_manager") is None
    assert (placed_below(str(moved)), placed_below(str(home))) == ({running}, set())
    shutil.rmtree(moved)
    assert placed_below(str(moved)) == {running}


def test_a_look_names_nobody_who_has_ended_since(places) -> None:
    _, directory, running = places
    found = Placed()
    os.kill(running.pid, signal.SIGKILL)
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert found.of(str(directory), "container_manager") is None
