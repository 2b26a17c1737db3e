"""After: what a record says once acts were done."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.rules import after
from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.record import FinishedRun, InstanceRecord, Written
from dsmt.agents.rules.supervision import UNKNOWN_POLICY, Finished, Parked, RestartHistory, TryAgain, Verdict
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Ended
from dsmt.event.reason import reason
from dsmt.ports.driver import Handle

OLD, NEW = Goal("i1", "r1", 1, 0), Goal("i2", "r2", 2, 0)
HANDLE, OTHER = Handle({"pid": 7}), Handle({"name": "web-app-0"})
NONE = InstanceRecord(boot="b", ports={"http": 20001})
RUNS = replace(
    NONE,
    **after.started(NONE, OLD, handle=HANDLE, driver="process", began=5.0, history=RestartHistory(), now_ms=5),
)


def test_what_was_let_go_and_is_taken_back_is_written_as_it_was_also_its_driver() -> None:
    ready = replace(
        RUNS, started=True, ready=True, check="c", ports={"http": 20001}, restarts=2, run_restart=3,
        history=RestartHistory(failures=2), writes=Written(revision=1),
    )  # fmt: skip
    both = replace(ready, **after.handed_over(ready, ready.goal, handle=HANDLE, began=5.0))
    assert (both.process, both.started, both.ready) == (None, False, False)
    both = replace(both, ports={"http": 20002}, configured="r2", restarts=5)
    about = {"handle": OTHER, "driver": "podman", "began": 9.0, "history": RestartHistory(), "now_ms": 9}
    both = replace(both, **after.started(both, NEW, **about))
    back = replace(both, **after.taken_back(both, both.outgoing, check="c"))  # type: ignore[arg-type]
    assert back == replace(ready, begun={"r1": 5, "r2": 9})


def test_what_runs_writes_for_another_revision_from_now_on_also_where_it_is_not_known_where_that_stands() -> None:
    writes = Written(revision=1, beside=True, places={"stdout": (0, 7, None)})
    assert after.writes_on(replace(RUNS, writes=writes), 2) == {"writes": replace(writes, revision=2)}
    assert after.writes_on(replace(RUNS, writes=None), 2) == {"writes": None}


def test_an_installation_that_is_begun_anew_does_not_count_until_its_end() -> None:
    record = InstanceRecord(boot="b", installed=("i1", "i2"), configured="r1", step="reinstall")
    begun = replace(record, **after.installing(record, "i1"))
    assert (begun.installed, begun.configured, begun.step) == (("i2",), "", "reinstall")
    assert replace(begun, **after.installed(begun, "i1")) == replace(record, installed=("i2", "i1"), configured="", step="")


def test_what_was_decided_of_a_failure_stands_until_it_is_forgotten() -> None:
    verdict, history = TryAgain("recreate", 2.0, 1, 3), RestartHistory(failures=1)
    record = replace(RUNS, **after.failed(RUNS, verdict, history, 100.0))
    assert (record.step, record.not_before_s, record.restarts, record.finished) == ("recreate", 102.0, 1, False)
    last = replace(record, **after.failed(record, Finished(), history, 200.0))
    assert (last.step, last.restarts, last.finished) == ("", 1, True)
    assert replace(last, **after.forgotten(RestartHistory())) == replace(RUNS, restarts=1)


def test_each_act_changes_what_it_is_about_and_nothing_else() -> None:
    full = replace(
        RUNS, installed=("i1",), configured="r1", started=True, ready=True, check="c", step="reinstall", restarts=4,
        not_before_s=9.0, finished=True, held=3, asked=True,
    )  # fmt: skip
    last = LastExit(code=0, signal=None, at_ms=1, ran_s=2.0, reason=None)
    about = {"epoch": 2, "generation": 7, "revision": 3, "trigger": ("e",)}
    heeded = replace(full, held=0, step="", not_before_s=0.0, history=RestartHistory(), **about)
    assert replace(full, **after.obeyed(full, RestartHistory(), runs=True, **about)) == replace(heeded, finished=False)
    ran = replace(full, last_exit=last)
    assert replace(ran, **after.obeyed(ran, RestartHistory(), runs=True, **about)) == replace(
        heeded, finished=True, last_exit=last
    )
    assert not replace(ran, **after.obeyed(ran, RestartHistory(), runs=False, **about)).finished
    assert replace(full, **after.taken_over(NEW)) == replace(full, run_generation=2)
    assert replace(full, **after.taken_over(Goal("i1", "r1", 3, 5))) == replace(full, run_generation=3, run_restart=5)
    assert replace(full, **after.stopped(last)) == replace(full, process=None, asked=False, ready=False, last_exit=last)
    assert replace(full, **after.left()) == replace(
        full, installed=(), configured="", ports={}, process=None, step="", not_before_s=0.0
    )
    assert replace(full, **after.forgotten(RestartHistory())) == replace(
        full, held=0, finished=False, step="", not_before_s=0.0
    )
    about = {"handle": None, "driver": "podman", "began": 9.0, "history": RestartHistory(failures=2), "now_ms": 9}
    begun = replace(full, **after.started(full, NEW, **about))
    assert begun == replace(
        full, process=None, driver="podman", run_key="r2", install_key="i2", run_generation=2, run_restart=0, started=False,
        ready=False, asked=False, check="", began_s=9.0, step="", not_before_s=0.0, finished=False,
        history=RestartHistory(failures=2), begun={**full.begun, "r2": 9},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "stays"),
    [
        ({"code": 0}, True),
        ({"code": 3}, True),
        ({"signal": "SIGKILL"}, True),
        ({"reason": reason("run.unseen", time="2s")}, True),
        ({"reason": reason("run.vanished")}, True),
        ({"reason": reason("install.command", step="install", code="3", time="2s")}, False),
        ({}, False),
    ],
)
def test_a_program_that_has_ended_stays_so_in_a_new_generation_also_unseen_and_what_never_ran_is_tried(
    how: dict[str, Any], stays: bool
) -> None:
    last = replace(LastExit(code=None, signal=None, at_ms=1, ran_s=2.0, reason=None), **how)
    ended = replace(RUNS, finished=True, last_exit=last)
    about: dict[str, Any] = {"epoch": 2, "generation": 7, "revision": 3, "trigger": ("e",)}
    assert after.obeyed(ended, RestartHistory(), runs=True, **about)["finished"] is stays


@pytest.mark.parametrize(
    ("when", "code", "stays"),
    [("never", 3, True), ("on_failure", 3, False), ("on_failure", 0, True), ("always", 0, False)],
)
def test_what_has_ended_is_run_again_where_the_policy_that_it_is_given_wants_that(when: Any, code: int, stays: bool) -> None:
    last = LastExit(code=code, signal=None, at_ms=1, ran_s=2.0, reason=None)
    record = replace(RUNS, finished=True, last_exit=last)
    assert after.ended(record, OLD, replace(UNKNOWN_POLICY, when=when)) == (OLD if stays else None)


def test_in_a_step_that_follows_one_that_was_cut_off_no_agent_has_ended_yet() -> None:
    cut = replace(RUNS, **after.doing(RUNS, "install"))
    cut = replace(cut, **after.doing(cut, "install"))
    assert (cut.doing, cut.cut) == ("install", 1)
    assert after.doing(cut, "configure") == {"doing": "configure", "cut": 0}


def test_an_operators_word_forgets_what_had_ended_well() -> None:
    record = replace(RUNS, done=FinishedRun(run_key="r1", restart=0, at_ms=1, ran_s=2.0))
    assert after.ended_before(record, OLD) is not None
    assert after.ended_before(replace(record, **after.forgotten(RestartHistory())), OLD) is None


def begin(record: InstanceRecord, run_key: str, now_ms: int) -> InstanceRecord:
    goal, history = replace(OLD, run_key=run_key), RestartHistory()
    changes = after.started(record, goal, handle=None, driver="process", began=1.0, history=history, now_ms=now_ms)
    return replace(record, **changes)


def test_how_a_program_ended_elsewhere_is_left_out_where_it_was_begun_here_since() -> None:
    record, told = begin(RUNS, "r1", 200), Ended(at_ms=199, ran_s=1.0)
    assert after.ended_elsewhere(record, OLD, told) is None
    later = replace(told, at_ms=200)
    assert after.ended_elsewhere(record, OLD, later) == later
    assert after.ended_elsewhere(record, NEW, told) == told
    assert after.ended_elsewhere(record, None, told) == told
    assert after.ended_elsewhere(record, OLD, None) is None


def test_of_the_programs_that_were_begun_last_it_is_known_when_that_was() -> None:
    record = NONE
    for at in range(2 * after.BEGUN_MOST):
        record = begin(record, f"r{at}", at)
    record = begin(record, f"r{after.BEGUN_MOST}", 100)
    known = range(after.BEGUN_MOST + 1, 2 * after.BEGUN_MOST)
    assert list(record.begun.items()) == [*((f"r{at}", at) for at in known), (f"r{after.BEGUN_MOST}", 100)]


@pytest.mark.parametrize(
    ("verdict", "counts", "expected"),
    [
        (TryAgain("restart", 2.0, 1, 3), True, ("", 102.0, 5, False)),
        (TryAgain("restart", 0.0, 1, 3), True, ("", 100.0, 5, False)),
        (TryAgain("reinstall", 2.0, 1, 3), True, ("reinstall", 102.0, 5, False)),
        (TryAgain("recreate", 2.0, 1, 3), False, ("recreate", 102.0, 4, False)),
        (Parked(600.0, 10, 60.0, move=False), True, ("", 700.0, 5, False)),
        (Parked(600.0, 10, 60.0, move=True), True, ("", 700.0, 5, False)),
        (Finished(), True, ("", 100.0, 4, True)),
    ],
)
def test_what_follows_a_failure_is_written_with_its_time_and_counted_where_it_is_tried_again(
    verdict: Verdict, counts: bool, expected: tuple[str, float, int, bool]
) -> None:
    history = RestartHistory(failures=3)
    record = replace(RUNS, restarts=4, step="reinstall", finished=True)
    found = replace(record, **after.failed(record, verdict, history, 100.0, counts=counts))
    step, not_before_s, restarts, finished = expected
    assert found == replace(
        record, step=step, not_before_s=not_before_s, restarts=restarts, finished=finished, history=history
    )
