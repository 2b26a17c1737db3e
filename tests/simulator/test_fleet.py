"""Whole fleets: every invariant holds over seeds, a run is the same in every process, and seeds that failed once hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.simulator.scenarios import SCENARIOS, play
from tests.simulator.planting import held

pytestmark = pytest.mark.timeout(300)
HERE = Path(__file__)


def cases() -> list[object]:
    """Each scenario and two seeds."""
    return [pytest.param(scenario, seed, id=f"{scenario}-{seed}") for scenario in SCENARIOS for seed in (1, 2)]


def failed_once() -> list[object]:
    """The seeds of `seeds.txt`, each with why it is there."""
    lines = HERE.with_name("seeds.txt").read_text().splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line and not line.startswith("#")]
    return [pytest.param(scenario, int(seed), id=f"{scenario}-{seed}") for scenario, seed, _ in rows]


@pytest.mark.parametrize(("scenario", "seed"), cases())
def test_every_invariant_holds_in_a_small_fleet(scenario: str, seed: int) -> None:
    assert held(play(seed, scenario=scenario))


@pytest.mark.parametrize(("scenario", "seed"), failed_once())
def test_a_seed_that_failed_once_holds(scenario: str, seed: int) -> None:
    assert held(play(seed, scenario=scenario))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_scenario_holds_over_fifty_seeds() -> None:
    command = [sys.executable, "-m", "dsmt.simulator", "--seeds", "50", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- one seed, one history ---------------------------------------------------------------------------------------------


def histories(defect: str) -> list[str]:
    """The history of one seed, from three processes with different hash seeds."""
    script = str(HERE.with_name("history.py"))
    running = [
        subprocess.Popen(
            [sys.executable, script, "5", defect],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "1", "4711")
    ]
    try:
        printed = [process.communicate(timeout=55)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return printed


@pytest.mark.real
def test_one_seed_gives_byte_identical_histories_under_three_hash_seeds() -> None:
    first, second, third = histories("none")
    assert first == second == third
    rows, digest = first.split()
    assert int(rows) > 500
    assert len(digest) == 32


@pytest.mark.real
def test_the_order_of_a_set_somewhere_changes_the_history() -> None:
    assert len(set(histories("set"))) > 1
