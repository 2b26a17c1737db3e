"""Every figure of `make bench` runs, at a size that tells nothing else: none is broken for weeks and nobody sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, RESULTS, STAGES

ROOT = Path(__file__).parents[2]
LONGEST_S, DEADLINE_S = 400, 500


def benchmarks(*arguments):
    """One that takes too long is asked to end, and has all end that it began."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--tiny"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            out, err = running.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            running.terminate()
            pytest.fail(f"it still ran after {LONGEST_S} s: {running.communicate(timeout=90)}")
        finally:
            running.kill()
    return subprocess.CompletedProcess(command, running.returncode, out, err)


@pytest.mark.real
@pytest.mark.timeout(DEADLINE_S)
@pytest.mark.parametrize("figure", BENCHMARKS)
def test_a_figure_runs(figure):
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    done = benchmarks(figure)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{figure} " in done.stdout
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before, "what tells nothing is not written down"


@pytest.mark.real
@pytest.mark.timeout(DEADLINE_S)
@pytest.mark.parametrize("figure", STAGES)
def test_a_figure_is_taken_apart(figure):
    done = benchmarks(figure, "--stages")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{figure} stages" in done.stdout


def test_a_figure_that_there_is_not_is_said_so():
    done = benchmarks("P99")
    assert done.returncode == 2
    assert "no figure P99; there are P1, P2" in done.stderr
