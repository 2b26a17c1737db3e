"""Restart policy as a machine: delays, escalation, parking, and what is forgotten."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.agents.rules.supervision import JITTER, Finished, Parked, RestartHistory, Supervision, TryAgain, Verdict
from dsmt.spec.keys import GROUPS
from dsmt.spec.records import EscalationStep, Park, RestartPolicy

DEFAULT = (("restart", 5), ("reinstall", 2), ("recreate", 2), ("move", 1))


def policy(*, escalate: Any = DEFAULT, after: int = 10, retry_s: float = 600, **about: Any) -> RestartPolicy:
    told = {"when": "always", "first_s": None, "factor": 2, "cap_s": 60, "reset_s": 60, **about}
    steps = tuple(EscalationStep(action=action, times=times) for action, times in escalate)
    return RestartPolicy(escalate=steps, park=Park(after=after, retry_s=retry_s), **told)


def fail(machine: Supervision, times: int, *, healthy: bool = False, now: float = 0.0) -> list[Verdict]:
    found = []
    for number in range(times):
        if healthy:
            machine.healthy(now + number)
        found.append(machine.failed(now + number, jitter=0.0))
    return found


def delays(verdicts: list[Verdict]) -> list[float]:
    return [v.delay_s for v in verdicts if isinstance(v, TryAgain)]


@pytest.mark.parametrize(
    ("about", "healthy", "expected"),
    [
        ({}, False, [0.1, 0.2, 0.4, 0.8]),
        ({}, True, [0.0, 0.1, 0.2, 0.4]),
        ({"first_s": 3.0}, True, [3.0, 6.0, 12.0, 24.0]),
        ({"first_s": 0.0}, False, [0.0, 0.1, 0.2, 0.4]),
        ({"factor": 1}, False, [0.1, 0.1, 0.1, 0.1]),
        ({"cap_s": 0.3}, False, [0.1, 0.2, 0.3, 0.3]),
        ({"cap_s": 0.0}, True, [0.0, 0.0, 0.0, 0.0]),
        ({"first_s": 9.0, "cap_s": 4.0}, False, [4.0, 4.0, 4.0, 4.0]),
    ],
)
def test_delays_begin_and_grow_as_the_policy_says(about: Any, healthy: bool, expected: list[float]) -> None:
    assert delays(fail(Supervision(policy(**about)), 4, healthy=healthy)) == pytest.approx(expected)


def test_that_a_run_was_ready_counts_for_its_own_end_alone() -> None:
    machine = Supervision(policy())
    assert delays(fail(machine, 1, healthy=True) + fail(machine, 1)) == pytest.approx([0.0, 0.2])


def test_each_failure_takes_its_step_and_the_last_one_asks_for_another_node() -> None:
    found = fail(Supervision(policy()), 12)
    assert [v.action for v in found if isinstance(v, TryAgain)] == ["restart"] * 5 + ["reinstall"] * 2 + ["recreate"] * 2
    assert all(isinstance(v, Parked) and v.move for v in found[9:])
    assert found[8] == TryAgain("recreate", found[8].delay_s, 9, 10)  # type: ignore[union-attr]


def test_without_a_move_it_is_parked_where_it_is() -> None:
    found = fail(Supervision(policy(escalate=(("restart", 2),))), 3)
    assert found[2] == Parked(600, 3, 2.0, move=False)


def test_park_after_comes_before_the_end_of_escalation() -> None:
    found = fail(Supervision(policy(after=3)), 4)
    assert isinstance(found[2], TryAgain)
    assert isinstance(found[3], Parked)
    assert GROUPS["park"]["after"].text == "so many failures are answered with another try; the next one parks it"


def test_what_was_healthy_long_enough_is_forgiven() -> None:
    machine = Supervision(policy())
    fail(machine, 5)
    for at in (100.0, 130.0, 159.0):  # each check that passes says so
        machine.healthy(at)
    assert machine.failed(160.0, jitter=0.0) == TryAgain("restart", 0.0, 1, 10)


def test_healthy_for_a_shorter_time_is_not_forgiven() -> None:
    machine = Supervision(policy())
    fail(machine, 3)
    machine.healthy(100.0)
    assert machine.failed(159.0, jitter=0.0) == TryAgain("restart", pytest.approx(0.4), 4, 10)


def test_after_a_long_delay_stability_takes_ten_times_as_long() -> None:
    machine = Supervision(policy(first_s=20.0))
    machine.failed(0.0, jitter=0.0)
    machine.healthy(10.0)
    late = machine.failed(209.0, jitter=0.0)
    assert isinstance(late, TryAgain)
    assert late.attempt == 2
    machine.healthy(300.0)
    assert machine.failed(300.0 + 400.0, jitter=0.0) == TryAgain("restart", 20.0, 1, 10)


def test_an_instance_that_lost_its_health_is_not_stable() -> None:
    machine = Supervision(policy())
    fail(machine, 3)
    machine.healthy(10.0)
    machine.unhealthy()
    machine.healthy(100.0)
    verdict = machine.failed(130.0, jitter=0.0)
    assert isinstance(verdict, TryAgain)
    assert verdict.attempt == 4


@pytest.mark.parametrize(
    ("when", "clean", "finished"),
    [
        ("always", True, False),
        ("always", False, False),
        ("on_failure", True, True),
        ("on_failure", False, False),
        ("never", False, True),
        ("never", True, True),
    ],
)
def test_when_says_which_ends_are_answered(when: str, clean: bool, finished: bool) -> None:
    verdict = Supervision(policy(when=when)).failed(0.0, jitter=0.0, clean=clean)
    assert isinstance(verdict, Finished) == finished


def test_a_changed_cause_begins_anew_but_remembers_what_was_recent() -> None:
    machine = Supervision(policy())
    fail(machine, 11)
    assert machine.history.parked
    machine.cause_changed()
    assert not machine.history.parked
    assert machine.failed(20.0, jitter=0.0) == TryAgain("restart", 0.1, 1, 10)
    assert machine.recent(20.0) == 12


def test_a_history_that_was_kept_goes_on() -> None:
    machine = Supervision(policy())
    fail(machine, 6)
    follower = Supervision(policy(), machine.history)
    assert follower.failed(10.0, jitter=0.0) == machine.failed(10.0, jitter=0.0)


def test_it_is_parked_with_the_span_since_its_first_failure() -> None:
    machine = Supervision(policy(escalate=(("restart", 1),)))
    machine.failed(100.0, jitter=0.0)
    assert machine.failed(130.0, jitter=0.0) == Parked(600, 2, 30.0, move=False)
    machine.cause_changed()
    machine.failed(200.0, jitter=0.0)
    assert not machine.history.parked
    assert machine.failed(210.0, jitter=0.0) == Parked(600, 2, 10.0, move=False)
    assert machine.history.parked


def test_the_last_sixteen_failures_of_ten_minutes_are_recent() -> None:
    machine = Supervision(policy())
    for number in range(20):
        machine.failed(1000.0 + number, jitter=0.0)
    assert machine.recent(1019.0) == 16
    assert machine.recent(1004.0 + 600.0) == 16
    assert machine.recent(1005.0 + 600.0) == 15


def test_jitter_lengthens_or_shortens_a_delay_that_grew() -> None:
    for jitter, expected in ((0.2, 0.24), (-0.2, 0.16)):
        machine = Supervision(policy())
        machine.failed(0.0, jitter=jitter)
        assert delays([machine.failed(1.0, jitter=jitter)]) == pytest.approx([expected])


def test_jitter_lengthens_no_delay_beyond_the_cap() -> None:
    machine = Supervision(policy(first_s=1.0, cap_s=3.0))
    found = [machine.failed(float(now), jitter=JITTER) for now in range(4)]
    assert delays(found) == pytest.approx([1.0, 2.4, 3.0, 3.0])


def test_an_end_is_a_failure_unless_it_is_said_to_be_a_success() -> None:
    assert isinstance(Supervision(policy(when="on_failure")).failed(0.0, jitter=0.0), TryAgain)


def test_that_a_run_was_ready_counts_no_more_once_it_has_ended_and_is_not_run_again() -> None:
    machine = Supervision(policy(when="on_failure"))
    machine.healthy(0.0)
    assert isinstance(machine.failed(1.0, jitter=0.0, clean=True), Finished)
    assert delays(fail(machine, 1, now=2.0)) == pytest.approx([0.1])


def test_the_only_step_that_asks_for_another_node_is_asked_for_when_its_turn_comes() -> None:
    steps = (("restart", 1), ("move", 1), ("restart", 1))
    found = fail(Supervision(policy(escalate=steps)), 4)
    assert [one.move if isinstance(one, Parked) else None for one in found] == [None, True, None, True]


POLICIES = st.builds(
    policy,
    escalate=st.lists(
        st.tuples(st.sampled_from(["restart", "reinstall", "recreate", "move"]), st.integers(1, 5)), max_size=4
    ),
    after=st.integers(1, 30),
    first_s=st.none() | st.floats(0, 100),
    factor=st.floats(1, 10),
    cap_s=st.floats(0, 3600),
    reset_s=st.floats(0, 3600),
    when=st.just("always"),
)


@given(POLICIES, st.lists(st.tuples(st.floats(0, 1000), st.booleans(), st.floats(-JITTER, JITTER)), max_size=80))
def test_it_is_never_silent_and_never_waits_longer_than_it_may(rule: RestartPolicy, lives: Any) -> None:
    machine, now = Supervision(rule, RestartHistory()), 0.0
    for lived, healthy, jitter in lives:
        if healthy:
            machine.healthy(now)
        now += lived
        verdict = machine.failed(now, jitter=jitter)
        assert isinstance(verdict, TryAgain | Parked)
        if isinstance(verdict, TryAgain):
            assert 0 <= verdict.delay_s <= rule.cap_s
            assert verdict.attempt <= rule.park.after
            assert verdict.action != "move"
        else:
            assert verdict.retry_s == rule.park.retry_s
            assert verdict.failures >= 1
        now += verdict.delay_s if isinstance(verdict, TryAgain) else verdict.retry_s


@given(POLICIES, st.integers(1, 100))
def test_failures_in_a_row_are_parked_in_the_end(rule: RestartPolicy, extra: int) -> None:
    machine = Supervision(rule)
    found = fail(machine, machine.tries + extra)
    assert isinstance(found[-1], Parked)
