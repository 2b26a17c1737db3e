"""Whole fleets: every invariant holds over seeds, a run is the same in every process, and seeds that failed once hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.simulator.play import Report
from dsmt.simulator.scenarios import SCENARIOS, play

pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__)
SEEDS = int(os.environ.get("DSMT_SEEDS", "10"))
"""How many of each scenario: ten where somebody waits for the answer, fifty in CI."""
PART = 10
"""Seeds of one test: enough to be worth its line, few enough to be shared out among workers."""


def failed_once() -> dict[str, list[int]]:
    """The seeds of `seeds.txt`, which says of each why it is there, by scenario."""
    lines = HERE.with_name("seeds.txt").read_text().splitlines()
    found: dict[str, list[int]] = {}
    for scenario, seed, _ in (line.split(maxsplit=2) for line in lines if line and not line.startswith("#")):
        found.setdefault(scenario, []).append(int(seed))
    return found


def parts() -> list[object]:
    """The first seeds of each scenario, in parts, and those beyond them that failed once."""
    known = failed_once()
    assert not known.keys() - SCENARIOS.keys()
    every = {name: sorted({*range(1, SEEDS + 1), *known.get(name, ())}) for name in SCENARIOS}
    return [
        pytest.param(name, seeds[at : at + PART], id=f"{name}-{seeds[at]}")
        for name, seeds in every.items()
        for at in range(0, len(seeds), PART)
    ]


def held(report: Report) -> bool:
    """Whether no rule was broken; if one was, what happened is printed."""
    if report.wrong:
        print(f"{report.scenario} {report.seed}", *report.log, *report.wrong, sep="\n")  # noqa: T201 - for who reads it
    return not report.wrong


@pytest.mark.parametrize(("scenario", "seeds"), parts())
def test_every_invariant_holds(scenario: str, seeds: list[int]) -> None:
    assert not [seed for seed in seeds if not held(play(seed, scenario=scenario))]


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
