"""Keeping: when a program that must live is started, started again, and ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.agents.rules.keeping import (
    LONGEST_DELAY_S,
    TRANSITIONS,
    Effect,
    Input,
    Keeping,
    Policy,
    State,
)


def running(now: float = 0.0, *, policy: Policy | None = None) -> Keeping:
    keeping = Keeping(policy or Policy(), now=now)
    assert keeping.tick(now) == [Effect.START]
    assert keeping.started(now) == []
    return keeping


def test_it_is_started_at_once_and_only_once():
    keeping = Keeping(now=5.0)
    assert keeping.tick(5.0) == [Effect.START]
    assert keeping.tick(5.1) == []
    keeping.started(5.2)
    assert keeping.tick(99.0) == []
    assert keeping.due is None


def test_after_a_life_of_a_second_it_is_started_again_at_once():
    keeping = running()
    assert keeping.ended(1.0) == []
    assert keeping.tick(1.0) == [Effect.START]


def test_short_lives_wait_twice_as_long_each_time_up_to_5_s_and_a_long_one_forgives():
    keeping, now, delays = running(), 0.0, []
    for _ in range(8):
        now += 0.01
        keeping.ended(now)
        delays.append(keeping.delay)
        assert keeping.tick(now + keeping.delay - 0.001) == []
        now += keeping.delay
        assert keeping.tick(now) == [Effect.START]
        keeping.started(now)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    keeping.ended(now + 1.5)
    assert keeping.tick(now + 1.5) == [Effect.START]
    keeping.started(now + 1.5)
    keeping.ended(now + 1.6)
    assert keeping.delay == 0.1


def test_a_start_that_fails_counts_as_a_short_life():
    keeping = Keeping(now=0.0)
    assert keeping.tick(0.0) == [Effect.START]
    keeping.start_failed(0.0)
    assert keeping.due == 0.1
    assert keeping.tick(0.1) == [Effect.START]
    keeping.start_failed(0.1)
    assert keeping.due == pytest.approx(0.3)


def test_an_adopted_process_has_lived_since_it_began_and_is_not_started():
    keeping = Keeping(now=100.0)
    assert keeping.started(100.0, began=40.0) == []
    assert keeping.tick(100.0) == []
    keeping.ended(100.2)
    assert keeping.tick(100.2) == [Effect.START]


def test_a_policy_may_pause_before_each_restart():
    keeping = running(policy=Policy(pause_s=0.1))
    keeping.ended(60.0)
    assert keeping.tick(60.05) == []
    assert keeping.tick(60.1) == [Effect.START]


def test_who_does_not_end_in_time_is_killed_until_it_has():
    keeping = running()
    assert keeping.stop(10.0) == [Effect.ASK_TO_END]
    assert keeping.stop(10.5) == []
    assert keeping.tick(12.9) == []
    assert keeping.tick(13.0) == [Effect.KILL]
    assert keeping.tick(13.01) == []
    assert keeping.tick(13.1) == [Effect.KILL]
    keeping.ended(13.2)
    assert keeping.state is State.STOPPED
    assert keeping.tick(99.0) == []


def test_what_waits_for_its_next_start_is_stopped_at_once():
    keeping = running()
    keeping.ended(0.1)
    assert keeping.stop(0.1) == []
    assert keeping.state is State.STOPPED
    assert keeping.tick(99.0) == []


def test_what_was_started_while_a_stop_came_in_is_asked_to_end():
    keeping = Keeping(now=0.0)
    keeping.tick(0.0)
    keeping.stop(0.0)
    assert keeping.started(0.1) == [Effect.ASK_TO_END]
    keeping.ended(0.2)
    assert keeping.state is State.STOPPED


def test_an_input_that_the_table_does_not_list_changes_nothing():
    keeping = Keeping(now=0.0)
    for state in State:
        for what in Input:
            if (state, what) in TRANSITIONS or what is Input.TICK:
                continue
            keeping.state = state
            before = (keeping.due, keeping.delay)
            assert getattr(keeping, what.value)(1.0) == []
            assert (keeping.state, keeping.due, keeping.delay) == (state, *before)


@given(st.lists(st.tuples(st.sampled_from(["tick", "started", "start_failed", "ended"]), st.floats(0, 3)), max_size=60))
def test_whatever_happens_a_wanted_program_that_does_not_run_is_started_within_the_longest_delay(steps):
    keeping, now = Keeping(now=0.0), 0.0
    for what, later in steps:
        now += later
        getattr(keeping, what)(now)
        if keeping.state is State.WAITING:
            assert keeping.due is not None
            assert keeping.due <= now + LONGEST_DELAY_S
        assert keeping.state not in (State.STOPPING, State.STOPPED)
