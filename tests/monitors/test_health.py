"""The health monitor: start-up, readiness and liveness of one run, as a machine."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.monitors.rules.health import (
    EAGER_S,
    FOREVER,
    Broken,
    Effect,
    HealthMonitor,
    Live,
    NotLive,
    Ready,
    Role,
    Started,
    Starting,
    TimedOut,
    Unready,
)
from dsmt.spec.health import HealthSpec
from dsmt.spec.parsing import parse

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


@pytest.mark.parametrize("passes", [True, False])
def test_who_has_stood_still_over_the_deadline_looks_before_the_start_has_failed(passes: bool) -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0)
    (tried,) = machine.tries(0.0)
    assert not machine.result(tried, passed=False, evidence="bad", broken=False, now=0.1)
    found = drive(machine, 60.0, lambda role, _now: passes, now=60.0)
    assert kinds(found) == ([(60.0, "Started")] if passes else [(60.0, "TimedOut")])


def test_not_ready_by_the_deadline_is_a_failed_start_with_the_last_evidence() -> None:
    found = drive(HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0), 100, lambda *_: False)
    assert kinds(found) == [(5.55, "Starting"), (10.0, "TimedOut")]
    assert [effect for _, effect in found] == [Starting("bad"), TimedOut("bad", 10.0)]


def test_what_keeps_it_from_starting_is_told_and_what_else_is_seen_after_twice_as_long() -> None:
    machine = HealthMonitor(spec(LONG.replace("10s", "60s")), healthy_after_s=10, now=0.0)
    told: list[tuple[float, Effect]] = []
    while (now := machine.due()) < 60:
        for tried in machine.tries(now):
            seen = "refused" if now < 8 else f"no page at {now // 10:.0f}0 s"
            told += [(now, one) for one in machine.result(tried, passed=False, evidence=seen, broken=False, now=now)]
    assert [(round(when, 2), one) for when, one in told] == [
        (5.55, Starting("refused")),
        (11.55, Starting("no page at 10 s")),
        (23.55, Starting("no page at 20 s")),
        (47.55, Starting("no page at 40 s")),
    ]


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


def test_what_is_not_live_is_not_ready_and_is_tried_on_until_it_is_ended() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0)
    found = drive(machine, 100, lambda role, now: role is not Role.LIVENESS or now < 10)
    assert found[-2:] == [(18.0, Unready("tcp", "bad", 3)), (18.0, NotLive("tcp", "bad", 3))], "once, though it is tried on"
    assert not machine.is_ready
    machine.end()
    assert machine.due() == FOREVER
    assert machine.tries(200) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LONG, ["Started", "Ready", "Unready", "NotLive", "Live", "Ready", "Unready", "NotLive"]),
        (
            "{startup: {tcp: {port: http}}, liveness: {tcp: {port: http}, failures: 3}}",
            ["Started", "Ready", "Unready", "NotLive", "Live", "Ready", "Unready", "NotLive"],
        ),
    ],
)
def test_what_passes_again_before_it_is_ended_is_live_and_ready_again(text: str, told: list[str]) -> None:
    found = drive(
        HealthMonitor(spec(text), healthy_after_s=10, now=0.0),
        200,
        lambda role, now: role is not Role.LIVENESS or not (10 <= now < 60 or now > 100),
    )
    assert [kind for _, kind in kinds(found)] == told


def test_what_is_live_again_is_not_ready_while_readiness_fails() -> None:
    found = drive(
        HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0),
        100,
        lambda role, now: now < 10 or (role is Role.LIVENESS and now > 40),
    )
    assert [kind for _, kind in kinds(found)] == ["Started", "Ready", "Unready", "NotLive", "Live"]


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
    failing = HealthMonitor(spec(LONG), healthy_after_s=10, now=50.0, resumed=True)
    found = kinds(drive(failing, 80, lambda *_: False, now=50.0))
    assert found == [(52.0, "Unready"), (56.0, "NotLive")], "its liveness waits for no start"
    again = HealthMonitor(None, healthy_after_s=10, now=50.0, resumed=False)
    assert kinds(drive(again, 80, None, now=50.0)) == [(60.0, "Ready")]


@given(st.lists(st.sampled_from([True, False, "broken"]), max_size=60), st.sampled_from([SHORT, LONG]))
def test_effects_alternate_and_nothing_follows_an_end(answers: list[Any], text: str) -> None:
    told = iter(answers)
    machine = HealthMonitor(spec(text), healthy_after_s=10, now=0.0)
    found = [effect for _, effect in drive(machine, 100, lambda *_: next(told, True))]
    turns = [type(effect) for effect in found if isinstance(effect, Ready | Unready)]
    assert all(a is not b for a, b in pairwise(turns))
    ends = [n for n, effect in enumerate(found) if isinstance(effect, TimedOut)]
    assert ends in ([], [len(found) - 1])
    lives = [type(effect) for effect in found if isinstance(effect, NotLive | Live)]
    assert lives == [NotLive, Live, NotLive, Live, NotLive, Live, NotLive, Live][: len(lives)]
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
    assert kinds(found) == [(2.0, "Ready"), (11.0, "Unready"), (11.0, "NotLive")]


def test_what_ran_under_other_checks_passes_that_of_a_start_where_there_is_no_other() -> None:
    only = spec("{startup: {tcp: {port: http}, deadline: 10s, interval: 1s}}")
    passing = HealthMonitor(only, healthy_after_s=10, now=0.0, resumed=True, anew=True)
    assert kinds(drive(passing, 60, lambda _, now: now > 3)) == [(3.55, "Ready")]
    failing = HealthMonitor(only, healthy_after_s=10, now=0.0, resumed=True, anew=True)
    (told,) = kinds(drive(failing, 60, lambda *_: False))
    assert told[1] == "TimedOut"
    assert 10 <= told[0] <= 11


def machine(text: str | None, **about: Any) -> HealthMonitor:
    return HealthMonitor(None if text is None else spec(text), **{"healthy_after_s": 10, "now": 100.0, **about})


def answered(one: HealthMonitor, now: float, passed: bool = True, **about: Any) -> list[Effect]:
    """What follows when all that is due is tried now."""
    found: list[Effect] = []
    for tried in one.tries(now):
        found += one.result(tried, **{"passed": passed, "evidence": "seen", "broken": False, "now": now, **about})
    return found


def test_what_is_to_be_done_next_is_known_at_each_step_of_a_run() -> None:
    one = machine(LONG)
    assert (one.started, one.is_ready, one.due()) == (False, False, 100.0)
    (tried,) = one.tries(100.0)
    assert tried.roles == (Role.STARTUP,)
    assert one.tries(100.0) == [], "asked once, answered once"
    assert one.due() == 110.0, "only its deadline is left"
    assert one.result(tried, passed=False, evidence="no", broken=False, now=101.0) == []
    assert one.due() == 101.0 + EAGER_S
    assert answered(one, 102.0) == [Started("seen")]
    assert (one.started, one.is_ready, one.due()) == (True, False, 102.0)
    assert [tried.roles for tried in one.tries(102.0)] == [(Role.READINESS,), (Role.LIVENESS,)]


def test_without_checks_it_is_due_when_it_began_and_when_it_has_lived_long_enough() -> None:
    one = machine(None)
    assert one.due() == 100.0
    assert one.timer(100.0) == [Started("it has no start-up check")]
    assert (one.due(), one.timer(109.9), one.is_ready) == (110.0, [], False)
    assert one.timer(110.0) == [Ready("none", "alive for 10 s; no health check", checked=False)]
    assert (one.due(), one.timer(111.0), one.is_ready) == (FOREVER, [], True)
    assert one.tries(200.0) == []


READY_ONLY = "\n      readiness: {http: {port: http}, interval: 2s}"
LIVE_ONLY = "\n      liveness: {tcp: {port: http}, interval: 3s}"


@pytest.mark.parametrize(
    ("text", "effects", "roles"),
    [
        (READY_ONLY, [Started, Ready], [Role.READINESS]),
        (LIVE_ONLY, [Started, Ready], [Role.LIVENESS]),
        (LONG, [Started], [Role.READINESS, Role.LIVENESS]),
        (SHORT, [Started, Ready], [Role.READINESS, Role.LIVENESS]),
    ],
)
def test_who_has_passed_its_start_is_ready_at_once_unless_readiness_looks_at_another_thing(
    text: str, effects: list, roles: list
) -> None:
    one = machine(text)
    told = answered(one, 100.0)
    assert [type(effect) for effect in told] == effects
    assert all(effect.checked and effect.evidence == "seen" for effect in told if isinstance(effect, Ready))
    assert one.is_ready == (Ready in effects)
    watched = [role for tried in one.tries(100.0 + 30) for role in tried.roles]
    assert watched == roles


def test_checks_that_were_just_answered_wait_for_their_interval() -> None:
    one = machine(READY_ONLY)
    answered(one, 100.0)
    assert one.due() == 102.0


SAME = (
    "\n      startup: {tcp: {port: http}}\n      readiness: {http: {port: http}%s}\n      liveness: {http: {port: http}%s}"
)


@pytest.mark.parametrize(
    ("readiness", "liveness", "tries"),
    [
        (", interval: 2s", ", interval: 2s", 1),
        (", interval: 2s", ", interval: 3s", 2),
        (", interval: 2s, timeout: 1s", ", interval: 2s, timeout: 2s", 2),
        (", interval: 2s, failures: 2", ", interval: 2s, failures: 9", 1),
    ],
)
def test_checks_that_look_at_the_same_thing_in_the_same_way_are_tried_once(
    readiness: str, liveness: str, tries: int
) -> None:
    one = machine(SAME % (readiness, liveness))
    answered(one, 100.0)
    assert len(one.tries(100.0)) == tries


def test_one_result_for_two_counts_for_each_by_its_own_measure() -> None:
    one = machine(SAME % (", interval: 2s, failures: 2", ", interval: 2s, failures: 3"))
    answered(one, 100.0)
    assert [type(effect) for effect in answered(one, 100.0)] == [Ready]
    told = [answered(one, now, passed=False) for now in (102.0, 104.0, 106.0)]
    assert told == [[], [Unready("http", "seen", 2)], [NotLive("http", "seen", 3)]]
    one.end()
    assert (one.due(), one.timer(300.0), one.tries(300.0)) == (FOREVER, [], [])


def test_a_check_that_cannot_run_is_told_once_for_all_its_roles_and_anew_when_it_had_run_or_says_another_thing() -> None:
    one = machine(SHORT)
    answered(one, 100.0)
    told = [
        answered(one, now, passed=False, broken=broken, evidence=evidence)
        for now, broken, evidence in (
            (110.0, True, "a"), (120.0, True, "a"), (130.0, True, "b"), (140.0, False, "no"), (150.0, True, "b"),
        )
    ]  # fmt: skip
    assert told == [[Broken("http", "a")], [], [Broken("http", "b")], [], [Broken("http", "b")]]


def test_a_start_that_is_answered_after_its_deadline_has_failed_unless_it_passed() -> None:
    late, good = machine(LONG), machine(LONG)
    (tried,), (other,) = late.tries(100.0), good.tries(100.0)
    assert late.result(tried, passed=False, evidence="no", broken=False, now=110.0) == [TimedOut("no", 10.0)]
    assert (late.due(), late.timer(120.0), late.tries(120.0)) == (FOREVER, [], [])
    assert good.result(other, passed=True, evidence="yes", broken=False, now=111.0) == [Started("yes")]
    silent = machine(LONG)
    silent.tries(100.0)
    assert silent.timer(109.9) == []
    assert silent.timer(110.0) == [TimedOut("no check has ended yet", 10.0)]
    assert silent.timer(120.0) == []


def test_a_result_that_comes_after_the_end_says_nothing() -> None:
    one = machine(LONG)
    (tried,) = one.tries(100.0)
    one.timer(110.0)
    assert one.result(tried, passed=True, evidence="yes", broken=False, now=111.0) == []
    assert not one.started


def test_what_was_taken_over_unready_is_ready_after_its_checks_and_not_before() -> None:
    one = machine(LONG, resumed=False)
    assert (one.started, one.is_ready, one.due()) == (True, False, 100.0)
    assert answered(one, 100.0) == []
    assert answered(one, 102.0) == [Ready("http", "seen", checked=True)]
    bare = machine(None, resumed=True)
    assert (bare.is_ready, bare.due()) == (True, FOREVER)


def test_what_was_taken_over_unready_and_has_no_readiness_check_is_ready_when_it_is_live() -> None:
    alone = "{liveness: {tcp: {port: http}, interval: 3s, failures: 2}}"
    found = drive(machine(alone, resumed=False, now=0.0), 13, lambda _, now: now != 0)
    assert kinds(found) == [(3, "Ready")]
    dead = drive(machine(alone, resumed=False, now=0.0), 13, lambda _, __: False)
    assert kinds(dead) == [(3, "NotLive")]


def test_no_try_is_made_beside_one_that_is_still_made_though_it_gets_ready_meanwhile() -> None:
    machine = HealthMonitor(spec(LONG), healthy_after_s=10, now=0.0, resumed=False)
    readiness, liveness = machine.tries(0.0)
    assert (readiness.roles, liveness.roles) == ((Role.READINESS,), (Role.LIVENESS,))
    for now in range(0, 20, 2):
        machine.result(readiness, passed=True, evidence="ok", broken=False, now=float(now))
        assert [tried.roles for tried in machine.tries(now + 2.0)] == [(Role.READINESS,)]
    assert machine.is_ready
