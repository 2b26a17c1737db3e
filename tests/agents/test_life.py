"""Life: one run of a program, from its start to its end; and that there are never two at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

import dsmt.agents.rules.life as module
from dsmt.agents.rules.acts import Do, Goal, Situation, next_act
from dsmt.agents.rules.life import (
    ALIVE,
    STUCK_S,
    TRANSITIONS,
    Failed,
    Input,
    Kill,
    Life,
    RunStopCommand,
    Signal,
    State,
    Stays,
    StopWay,
)
from dsmt.agents.rules.reconcile import Duty
from dsmt.agents.rules.supervision import JITTER, UNKNOWN_POLICY, Finished, Supervision, TryAgain

TERM = 15
WAY = StopWay(0.0, asks=False, signal=TERM, grace_s=10.0)
SLOW = StopWay(2.0, asks=True, signal=TERM, grace_s=10.0)


def life(state: State = State.STARTING, **about: Any) -> Life:
    return Life(about.pop("supervision", Supervision(UNKNOWN_POLICY)), state, **about)


INPUTS: dict[Input, Callable[[Life, float], list[Any] | None]] = {
    Input.STARTED: lambda at, _: at.started(),
    Input.NOT_STARTED: lambda at, _: at.not_started(),
    Input.UP: lambda at, _: at.up(),
    Input.READY: lambda at, now: at.ready(now),
    Input.UNREADY: lambda at, _: at.unready(),
    Input.CONDEMN: lambda at, _: at.condemn(),
    Input.EXIT: lambda at, now: at.exit(now, jitter=0.0),
    Input.STOP: lambda at, now: at.stop(SLOW, now),
    Input.FAIL: lambda at, now: at.fail(SLOW, now, jitter=0.0),
    Input.TIMER: lambda at, now: at.timer(now),
    Input.ANSWERED: lambda at, now: at.answered(now),
    Input.GONE: lambda at, now: at.killed((), now),
    Input.STAYS: lambda at, now: at.killed((7,), now),
}
"""Any input, in its usual form."""


@pytest.mark.parametrize("before", State, ids=str)
@pytest.mark.parametrize("what", Input, ids=str)
def test_every_input_in_every_state_does_what_the_table_says_and_no_more(before: State, what: Input) -> None:
    at = life(before)
    at._way = SLOW
    if what is Input.TIMER:
        at.due = 0.0
    effects = INPUTS[what](at, 0.0) or []
    assert at.state is TRANSITIONS.get((before, what), before)
    if (before, what) not in TRANSITIONS:
        assert effects == []


def test_each_rule_has_its_test_here() -> None:
    rules = re.findall(r"^Rule (\d+)", module.__doc__ or "", re.MULTILINE)
    tested = re.findall(r"_rule_(\d)", " ".join(globals()))
    assert sorted({"1", "2", *tested}) == sorted(rules), "rules 1 and 2 are the table's test, and what may be imported there"


@pytest.mark.parametrize("state", sorted(ALIVE, key=lambda one: one.value), ids=str)
def test_what_ends_unasked_has_failed_and_is_swept_up_rule_3(state: State) -> None:
    (failed, kill) = life(state).exit(5.0, jitter=0.0)
    assert isinstance(failed, Failed)
    assert isinstance(failed.verdict, TryAgain)
    assert kill == Kill()


def test_what_is_condemned_fails_when_it_is_ended_for_that_and_only_then_rule_3() -> None:
    at = life(State.READY)
    at.condemn()
    (failed, signal) = at.fail(WAY, 5.0, jitter=0.0)
    assert isinstance(failed, Failed)
    assert signal == Signal(TERM)
    assert at.exit(6.0, jitter=0.0) == [Kill()], "its end is no second failure"
    unwanted = life(State.CONDEMNED)
    assert unwanted.stop(WAY, 5.0) == [Signal(TERM)], "who is not wanted does not fail"


def test_a_stop_goes_its_way_rule_4() -> None:
    at = life(State.READY)
    assert at.stop(SLOW, 100.0) == []
    assert (at.due, at.timer(101.9)) == (102.0, [])
    assert at.timer(102.0) == [RunStopCommand()]
    assert at.due is None
    assert at.answered(103.0) == [Signal(TERM)]
    assert at.due == 113.0
    assert at.timer(113.0) == [Kill()]
    assert at.overdue
    assert at.killed((42, 43), 118.0) == [Stays(42)]
    assert at.due == 118.0 + STUCK_S
    assert at.timer(at.due) == [Kill()]
    assert at.killed((), 130.0) == []
    assert (at.state, at.overdue) == (State.ENDED, True), "however often it had to be killed, its grace was over"


def test_who_ends_within_its_grace_is_killed_with_its_tree_and_is_not_overdue_rule_4() -> None:
    at = life(State.RUNNING)
    assert at.stop(WAY, 0.0) == [Signal(TERM)]
    assert at.exit(3.0, jitter=0.0) == [Kill()]
    assert (at.overdue, at.due) == (False, None)
    at.killed((7,), 4.0)
    at.timer(99.0)
    assert not at.overdue


def test_what_is_being_started_cannot_be_stopped_rule_5() -> None:
    at = life()
    assert at.stop(WAY, 0.0) == []
    at.started()
    assert at.stop(WAY, 0.0) == [Signal(TERM)]


def test_what_was_healthy_is_started_again_at_once_and_what_was_not_waits_rule_6() -> None:
    delays = []
    for ready in (True, False):
        at = life(State.STARTED)
        at.up()
        if ready:
            at.ready(1.0)
        failed = at.exit(2.0, jitter=0.0)[0]
        assert isinstance(failed, Failed)
        assert isinstance(failed.verdict, TryAgain)
        delays.append(failed.verdict.delay_s)
    assert delays == [0.0, 0.1]


@given(st.lists(st.sampled_from(Input), max_size=30), st.booleans())
def test_whatever_came_before_a_stop_ends(inputs: list[Input], stubborn: bool) -> None:
    at, now = life(), 0.0
    for what in inputs:
        now += 1.0
        INPUTS[what](at, now)
    if at.state is State.STARTING:
        at.started()
    effects = at.stop(SLOW, now)
    for _ in range(20):
        for effect in effects:
            effects = at.answered(now) if effect == RunStopCommand() else at.killed((), now) if effect == Kill() else []
        if at.state is State.ENDED:
            return
        if at.state is State.ASKED and at.due is None:  # its stop command is under way
            effects = at.answered(now)
        elif at.state is State.KILLED:  # as its killing is
            effects = at.killed((), now)
        elif at.due is not None:
            now = at.due
            effects = at.exit(now, jitter=0.0) if at.state is State.SIGNALLED and not stubborn else at.timer(now)
    assert at.state is State.ENDED


@given(st.lists(st.sampled_from(Input), max_size=40))
def test_a_signal_comes_once_and_a_failure_at_most_once(inputs: list[Input]) -> None:
    at, seen = life(), []
    for now, what in enumerate(inputs):
        if at.due is not None and what is Input.TIMER:
            seen += at.timer(at.due)
        else:
            seen += INPUTS[what](at, float(now)) or []
    assert len([one for one in seen if isinstance(one, Signal)]) <= 1
    assert len([one for one in seen if isinstance(one, Failed)]) <= 1


def test_every_state_is_reached_and_leads_to_the_end() -> None:
    ways = {state: {after for (before, _), after in TRANSITIONS.items() if before is state} for state in State}
    reached, ends = {State.STARTING}, {State.ENDED}
    for _ in State:
        reached |= {after for state in reached for after in ways[state]}
        ends |= {state for state in State if ways[state] & ends}
    assert reached == ends == set(State)
    assert ways[State.ENDED] == set()


OLD, NEW = Goal("i", "r1", 1, 0), Goal("i", "r2", 2, 0)


class OneInstance(RuleBasedStateMachine):
    """What is decided and what a run does, together: never two programs at once, and no run without an end."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.supervision = Supervision(UNKNOWN_POLICY)
        self.run: tuple[Life, Goal] | None = None
        self.alive: list[Life] = []
        self.wanted, self.duty, self.not_before = OLD, Duty.RUN, 0.0

    def do(self, at: Life, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Failed(verdict):
                    self.not_before = self.now + getattr(verdict, "delay_s", getattr(verdict, "retry_s", 0.0))
                case RunStopCommand():
                    self.do(at, at.answered(self.now))
                case Kill():
                    self.alive = [one for one in self.alive if one is not at]
                    self.do(at, at.killed((), self.now))
        if at.state is State.ENDED and self.run is not None and self.run[0] is at:
            self.run = None

    @rule()
    def act(self) -> None:
        running = None if self.run is None else self.run[1]
        condemned = self.run is not None and self.run[0].state is State.CONDEMNED
        if self.run is not None and not self.run[0].alive:
            return  # one act at a time: the stop is under way
        at = Situation(
            duty=self.duty, wanted=self.wanted, running=running, installed=("i",), configured=self.wanted.run_key,
            prepared=self.wanted.run_key, condemned=condemned, not_before=self.not_before, now=self.now,
        )  # fmt: skip
        match next_act(at):
            case Do.START:
                one = Life(self.supervision)
                self.run, self.alive = (one, self.wanted), [*self.alive, one]
                one.started()
                one.up()
            case Do.STOP | Do.RESTART | Do.LEAVE if self.run is not None:
                self.do(self.run[0], self.run[0].stop(SLOW, self.now))
            case Do.FAIL if self.run is not None:
                self.do(self.run[0], self.run[0].fail(SLOW, self.now, jitter=JITTER))
            case Do.TAKE_OVER if self.run is not None:
                self.run = (self.run[0], self.wanted)

    @precondition(lambda self: self.run is not None)
    @rule(what=st.sampled_from([Input.READY, Input.UNREADY, Input.CONDEMN, Input.EXIT]))
    def happens(self, what: Input) -> None:
        assert self.run is not None
        at = self.run[0]
        if what is Input.EXIT:
            self.alive = [one for one in self.alive if one is not at]
        self.do(at, INPUTS[what](at, self.now) or [])

    @rule(seconds=st.floats(0.1, 700.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.run is not None:
            self.do(self.run[0], self.run[0].timer(self.now))

    @rule(wanted=st.sampled_from([OLD, NEW]), duty=st.sampled_from(Duty))
    def another_fact(self, wanted: Goal, duty: Duty) -> None:
        self.wanted, self.duty = wanted, duty

    @invariant()
    def one_at_most(self) -> None:
        assert len(getattr(self, "alive", ())) <= 1


def test_there_are_never_two_programs_of_an_instance_at_once() -> None:
    run_state_machine_as_test(OneInstance)


@pytest.mark.parametrize(("clean", "expected"), [(True, Finished), (False, TryAgain)])
def test_an_end_that_is_a_success_is_judged_as_one_rule_3(clean: bool, expected: type) -> None:
    policy = replace(UNKNOWN_POLICY, when="on_failure")
    at = life(State.RUNNING, supervision=Supervision(policy))
    (failed, kill) = at.exit(5.0, jitter=0.0, clean=clean)
    assert isinstance(failed, Failed)
    assert isinstance(failed.verdict, expected)
    assert isinstance(kill, Kill)


def test_since_when_it_is_ready_is_what_supervision_goes_by_rule_6() -> None:
    supervision = Supervision(UNKNOWN_POLICY)
    at = life(State.RUNNING, supervision=supervision)
    at.ready(7.0)
    assert supervision.healthy_since == 7.0
    at.unready()
    assert supervision.healthy_since is None


def test_that_the_run_before_was_ready_makes_the_next_one_neither_stable_nor_healthy_rule_6() -> None:
    supervision = Supervision(UNKNOWN_POLICY)
    supervision.failed(0.0, jitter=0.0)
    before = life(supervision=supervision)
    before.started()
    before.up()
    before.ready(1.0)
    before.stop(WAY, 2.0)
    after = life(supervision=supervision)
    after.started()
    (failed, _) = after.exit(2.0 + UNKNOWN_POLICY.reset_s, jitter=0.0)
    assert isinstance(failed.verdict, TryAgain)
    assert (failed.verdict.attempt, failed.verdict.delay_s) == (2, pytest.approx(0.2))
