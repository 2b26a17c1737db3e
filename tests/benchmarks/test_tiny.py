"""Every figure of `make bench` runs, at a size that tells nothing else: none is broken for weeks and nobody sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, RESULTS, STAGES

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments, seconds=170):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize("figure", BENCHMARKS)
def test_a_figure_runs(figure):
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    done = benchmarks(figure)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{figure} " in done.stdout
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before, "what tells nothing is not written down"


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize("figure", STAGES)
def test_a_figure_is_taken_apart(figure):
    done = benchmarks(figure, "--stages")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{figure} stages" in done.stdout


def test_a_figure_that_there_is_not_is_said_so():
    done = benchmarks("P99")
    assert done.returncode == 2
    assert "no figure P99; there are P1, P2" in done.stderr
