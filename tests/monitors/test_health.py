"""The health monitor: start-up, readiness and liveness of one run, as a machine."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dsmt.monitors.rules.health import (
    FOREVER,
    Broken,
    Effect,
    HealthMonitor,
    NotLive,
    Ready,
    Role,
    Started,
    TimedOut,
    Unready,
)
from dsmt.spec.parsing import parse
from dsmt.spec.records import HealthSpec

SHORT = "{http: {port: http, path: /}}"
LONG = """
      startup: {tcp: {port: http}, deadline: 10s, interval: 1s}
      readiness: {http: {port: http}, interval: 2s, failures: 2, passes: 2}
      liveness: {tcp: {port: http}, interval: 3s, failures: 3}"""


def spec(text: str) -> HealthSpec | None:
    source = f"service: web\ncomponents:\n  app:\n    run: serve\n    ports: {{http: auto}}\n    health: {text}\n"
    return parse(source, file="t")[0].components["app"].health


def drive(machine: HealthMonitor, until: float, answer: Any, now: float = 0.0) -> list[tuple[float, Effect]]:
    """Run the machine with checks that take no time; `answer(role, now)` is True, False or an error."""
    found: list[tuple[float, Effect]] = []
    while (due := machine.due()) <= until:
        now = max(now, due)
        found += [(now, effect) for effect in machine.timer(now)]
        for tried in machine.tries(now):
            told = answer(tried.roles[0], now)
            broken = isinstance(told, str)
            evidence = told if broken else ("ok" if told else "bad")
            effects = machine.result(tried, passed=told is True, evidence=evidence, broken=broken, now=now)
            found += [(now, effect) for effect in effects]
    return found


def kinds(found: list[tuple[float, Effect]]) -> list[tuple[float, str]]:
    return [(round(when, 3), type(effect).__name__) for when, effect in found]


def test_without_checks_it_runs_at_once_and_is_ready_when_it_has_lived_long_enough() -> None:
    found = drive(HealthMonitor(None, healthy_after_s=10, now=5.0), 100, None, now=5.0)
    assert kinds(found) == [(5.0, "Started"), (15.0, "Ready")]
    ready = found[1][1]
    assert isinstance(ready, Ready)
    assert not ready.checked


def test_one_check_for_all_roles_is_tried_once_and_counts_for_each() -> None:
    asked: list[float] = []

    def answer(role: Role, now: float) -> bool:
        asked.append(now)
        return now >= 3

    found = drive(HealthMonitor(spec(SHORT), healthy_after_s=10, now=0.0), 20, answer)
    assert kinds(found) == [(asked[7], "Started"), (asked[7], "Ready")]
    assert [round(at, 2) for at in asked] == [0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 8.55, 13.55, 18.55]


def test_not_ready_by_the_deadline_is_a_failed_start_with_the_last_evidence() -> None:
    found = drive(HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0), 100, lambda *_: False)
    assert kinds(found) == [(10.0, "TimedOut")]
    assert found[0][1] == TimedOut("bad", 10.0)


def test_until_start_up_has_passed_the_others_do_not_run() -> None:
    roles: list[Role] = []

    def answer(role: Role, now: float) -> bool:
        roles.append(role)
        return now >= 5

    drive(HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0), 5, answer)
    assert roles[:5] == [Role.STARTUP] * 5


def test_readiness_turns_both_ways_after_enough_in_a_row() -> None:
    def answer(role: Role, now: float) -> bool:
        return role is not Role.READINESS or not 10 <= now < 20

    found = drive(HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0), 40, answer)
    assert kinds(found) == [(0.0, "Started"), (2.0, "Ready"), (12.0, "Unready"), (22.0, "Ready")]
    unready = found[2][1]
    assert isinstance(unready, Unready)
    assert unready.failures == 2


def test_not_live_ends_the_machine() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0)
    found = drive(machine, 100, lambda role, now: role is not Role.LIVENESS or now < 10)
    assert found[-1] == (18.0, NotLive("tcp", "bad", 3))
    assert machine.due() == FOREVER
    assert machine.tries(200) == []


def test_one_good_result_forgives_liveness() -> None:
    found = drive(
        HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0),
        200,
        lambda role, now: role is not Role.LIVENESS or round(now / 3) % 3 == 0,
    )
    assert not [effect for _, effect in found if isinstance(effect, NotLive)]


def test_a_check_that_cannot_run_says_so_once_and_counts_neither_way() -> None:
    def answer(role: Role, now: float) -> Any:
        return True if now < 10 else "no such program"

    found = drive(HealthMonitor(spec(SHORT), healthy_after_s=10, now=0.0), 300, answer)
    assert kinds(found) == [(0.0, "Started"), (0.0, "Ready"), (10.0, "Broken")]
    assert found[-1][1] == Broken("http", "no such program")


def test_a_check_broken_from_the_start_ends_in_a_failed_start() -> None:
    found = drive(HealthMonitor(spec(SHORT), healthy_after_s=10, now=0.0), 300, lambda *_: "no such program")
    assert kinds(found) == [(0.0, "Broken"), (60.0, "TimedOut")]


def test_a_run_that_was_taken_over_goes_on_where_it_was() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=50.0, resumed=True)
    assert machine.started
    assert drive(machine, 80, lambda *_: True, now=50.0) == []
    again = HealthMonitor(None, healthy_after_s=10, now=50.0, resumed=False)
    assert kinds(drive(again, 80, None, now=50.0)) == [(60.0, "Ready")]


@given(st.lists(st.sampled_from([True, False, "broken"]), max_size=60), st.sampled_from([SHORT, LONG]))
def test_effects_alternate_and_nothing_follows_an_end(answers: list[Any], text: str) -> None:
    told = iter(answers)
    machine = HealthMonitor(spec(text), healthy_after_s=10, now=0.0)
    found = [effect for _, effect in drive(machine, 100, lambda *_: next(told, True))]
    turns = [type(effect) for effect in found if isinstance(effect, Ready | Unready)]
    assert all(a is not b for a, b in pairwise(turns))
    ends = [n for n, effect in enumerate(found) if isinstance(effect, NotLive | TimedOut)]
    assert ends in ([], [len(found) - 1])
    if turns:
        assert Started in [type(effect) for effect in found[: found.index(next(e for e in found if type(e) is turns[0]))]]


def test_what_ran_under_other_checks_is_served_until_readiness_fails_and_its_liveness_waits() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0, resumed=True, anew=True)
    assert (machine.started, machine.is_ready, machine.serves) == (True, False, True)
    assert kinds(drive(machine, 1.9, lambda *_: False)) == []
    assert machine.serves
    found = drive(machine, 30, lambda *_: False, now=1.9)
    assert kinds(found) == [(2.0, "Unready"), (16.0, "NotLive")], "three times in a row, once a start may take no longer"
    assert not machine.serves


def test_what_ran_under_other_checks_is_ready_when_these_have_passed_and_is_watched_from_then_on() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0, resumed=True, anew=True)
    found = drive(machine, 60, lambda role, now: now < 3 or role is not Role.LIVENESS)
    assert kinds(found) == [(2.0, "Ready"), (11.0, "NotLive")]


def test_what_ran_under_other_checks_passes_that_of_a_start_where_there_is_no_other() -> None:
    only = spec("{startup: {tcp: {port: http}, deadline: 10s, interval: 1s}}")
    passing = HealthMonitor(only, healthy_after_s=10, now=0.0, resumed=True, anew=True)
    assert kinds(drive(passing, 60, lambda _, now: now > 3)) == [(3.55, "Ready")]
    failing = HealthMonitor(only, healthy_after_s=10, now=0.0, resumed=True, anew=True)
    (told,) = kinds(drive(failing, 60, lambda *_: False))
    assert told[1] == "TimedOut"
    assert 10 <= told[0] <= 11
