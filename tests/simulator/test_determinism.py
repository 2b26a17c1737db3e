"""The same seed gives the same trace, in every process; the check itself can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).with_name("scenario.py")


def traces(seed: int, defect: str) -> list[str]:
    """Run the scenario in three processes with different hash seeds and heaps and return what they print."""
    running = [
        subprocess.Popen(
            [sys.executable, str(SCENARIO), str(seed), defect, str(heap)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed, heap in (("0", 0), ("1", 1000), ("4711", 54_321))
    ]
    try:
        printed = [process.communicate(timeout=150)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return printed


@pytest.mark.real
def test_one_seed_gives_one_trace_under_three_hash_seeds_and_heaps() -> None:
    first, second, third = traces(9, "none")
    assert first == second == third
    assert int(first.split()[0]) > 5000


@pytest.mark.real
def test_another_seed_gives_another_trace() -> None:
    assert traces(7, "none")[0] != traces(8, "none")[0]


@pytest.mark.real
@pytest.mark.parametrize("defect", ["set", "address"])
def test_a_planted_defect_changes_the_trace(defect: str) -> None:
    assert len(set(traces(7, defect))) > 1
