"""Whole fleets: every invariant holds over seeds, a run is the same in every process, and seeds that failed once hold."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from dsmt.ports.store import Row
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play, Report
from dsmt.simulator.scenarios import SCENARIOS, play_each
from dsmt.simulator.stores import SimStore
from tests.simulator.planting import SEEDS

pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__)
PARTED = int(os.environ.get("DSMT_PARTED", SEEDS))
"""For how many seeds brokers are parted; all other scenarios are played for `SEEDS`."""
WORK_S = 300
"""CPU seconds that no seed needs: 30 on a quick core, 75 on a slow one. How long it lasts says nothing: it runs behind all
other tests, and longer the more of these are busy."""


def failed_once() -> dict[int, list[str]]:
    """The runs of `seeds.txt`, which says of each why it is there: by seed, the scenarios."""
    lines = HERE.with_name("seeds.txt").read_text().splitlines()
    found: dict[int, list[str]] = {}
    for scenario, seed, _ in (line.split(maxsplit=2) for line in lines if line and not line.startswith("#")):
        assert scenario in SCENARIOS
        found.setdefault(int(seed), []).append(scenario)
    return found


def runs() -> list[object]:
    """Every scenario for each of the first seeds, for those of one seed begin once; and what failed once beyond them."""
    every = failed_once()
    for seed in range(SEEDS + 1, PARTED + 1):
        every[seed] = sorted({*every.get(seed, ()), "parted"})
    every |= {seed: [*SCENARIOS] for seed in range(1, SEEDS + 1)}
    return [pytest.param(seed, every[seed], id=f"seed-{seed}") for seed in sorted(every)]


def held(report: Report) -> bool:
    """Whether no rule was broken; if one was, what happened is printed."""
    if report.wrong:
        print(f"{report.scenario} {report.seed}", *report.log, *report.wrong, sep="\n")  # noqa: T201 - for who reads it
    return not report.wrong


def behind() -> None:
    """Go behind all tests that wait, and end by SIGXCPU after `WORK_S` of work."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CPU, (WORK_S, WORK_S))


@pytest.mark.behind
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("seed", "scenarios"), runs())
def test_every_invariant_holds(seed: int, scenarios: list[str]) -> None:
    with ProcessPoolExecutor(1, get_context("fork"), behind) as behind_all_tests_that_wait:
        reports = behind_all_tests_that_wait.submit(play_each, seed, scenarios).result()
    assert not [report.scenario for report in reports if not held(report)]


def test_a_store_is_read_once_in_an_instant_and_again_when_it_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    rows = SimStore.rows

    def counted(self: SimStore, after: int, limit: int, **only: bool) -> list[Row]:
        read.append(after)
        return rows(self, after, limit, **only)

    async def main() -> None:
        playing = Play(1, Scale(nodes=1, services=0, controllers=1))
        fleet = playing.fleet
        await fleet.start()
        with monkeypatch.context() as at:
            at.setattr(SimStore, "rows", counted)
            before = fleet.held(fleet.broker.store)
            once = len(read)
            assert [row for row, _ in fleet.rows()] == [row.row for row, _ in before] == list(range(1, len(before) + 1))
            assert once == len(read) > 0
        fleet.operator.use("n1", "excluded")
        await playing.until(playing.now + 2)
        after = fleet.held(fleet.broker.store)
        assert len(after) == fleet.broker.store.head > len(before)
        playing.world.power_off()
        await playing.until(playing.now + 1)

    run(main())


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
        printed = [process.communicate(timeout=250)[0] for process in running]
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
