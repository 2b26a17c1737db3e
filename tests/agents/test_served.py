"""Served: which copy of an instance readers are sent to, and what is said of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.agents.instance.serving import Serving
from dsmt.agents.rules.served import TRANSITIONS, Input, Said, Served, State

ENDPOINTS = (Said.HERE, Said.BEFORE, Said.NOWHERE)


@pytest.mark.parametrize("before", State, ids=str)
@pytest.mark.parametrize("what", Input, ids=str)
def test_every_input_in_every_state_does_what_the_table_says_and_no_more(before: State, what: Input) -> None:
    at = Served(before)
    said = [one for one in at.happens(what) if one in ENDPOINTS]
    after, expected = TRANSITIONS.get((before, what), (before, None))
    assert at.state is after
    assert said == ([] if expected is None else [expected])


@given(st.lists(st.sampled_from(Input), max_size=30))
def test_what_was_said_last_of_the_endpoint_is_what_is_served(inputs: list[Input]) -> None:
    """But that a hand-over and what takes it back say nothing: it is the same copy."""
    at, last = Served(), State.NOBODY
    for what in inputs:
        for said in at.happens(what):
            last = {Said.HERE: State.PRESENT, Said.BEFORE: State.BEFORE, Said.NOWHERE: State.NOBODY}.get(said, last)
        if what in (Input.HAND_OVER, Input.TAKE_BACK):
            last = at.state
        assert at.state is last


SETBACKS = st.sampled_from([Input.UNREADY, Input.WITHDRAW, Input.GO_ON])


@given(st.lists(st.sampled_from(Input), max_size=30), st.lists(SETBACKS))
def test_what_is_held_stays_served_whatever_becomes_of_its_successor_rule_2(inputs: list[Input], more: list[Input]) -> None:
    at = Served()
    for what in inputs:
        at.happens(what)
    at.happens(Input.GO_BACK)
    for what in more:
        assert not set(at.happens(what)) & set(ENDPOINTS)
    assert at.state is State.BEFORE


def test_that_what_was_healthy_is_not_is_said_once_and_after_its_endpoint_rule_3() -> None:
    at = Served()
    assert at.happens(Input.READY) == [Said.HEALTH, Said.HERE]
    assert at.happens(Input.WITHDRAW) == [Said.NOWHERE, Said.HEALTH]
    assert at.happens(Input.WITHDRAW) == []


@pytest.mark.parametrize(
    ("what", "said", "healthy"),
    [
        (Input.READY, True, True),
        (Input.GO_ON, True, False),
        (Input.UNREADY, True, False),
        (Input.WITHDRAW, None, False),
        (Input.HAND_OVER, False, False),
        (Input.TAKE_BACK, False, True),
        (Input.GO_BACK, False, None),
        (Input.ABSENT, True, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", State, ids=str)
@pytest.mark.parametrize("was", [False, True])
def test_health_is_that_of_the_present_copy_and_said_when_it_may_have_changed(
    what: Input, said: bool | None, healthy: bool | None, before: State, was: bool
) -> None:
    """None: as it was; of a withdrawal it is said only of what was healthy."""
    at = Served(before)
    at.healthy = was
    assert (Said.HEALTH in at.happens(what)) == (was if said is None else said)
    assert at.healthy == (was if healthy is None else healthy)


@pytest.mark.parametrize(
    ("before", "was", "said", "healthy"),
    [
        (State.BEFORE, True, [Said.NOWHERE, Said.HEALTH], False),
        (State.BEFORE, False, [Said.NOWHERE], False),
        (State.PRESENT, True, [], True),
        (State.NOBODY, True, [], True),
    ],
)
def test_a_copy_that_is_let_go_and_is_not_served_changes_nothing(
    before: State, was: bool, said: list[Said], healthy: bool
) -> None:
    at = Served(before)
    at.healthy = was
    assert at.happens(Input.LET_GO) == said
    assert at.healthy is healthy
    assert repr(at) == f"<Served {at.state.value} healthy={healthy}>"


def test_who_was_unready_and_is_stopped_tells_its_siblings_that_it_fails_no_more() -> None:
    said: list[Any] = []
    record = SimpleNamespace(run_generation=3, ports={})
    memory: Any = SimpleNamespace(record=record, save_soon=lambda **_: None)
    reporter: Any = SimpleNamespace(fact=lambda _, told, **__: said.append(told), why=lambda *_, **__: None)
    bus: Any = SimpleNamespace(now_ms=lambda: 0)
    serving = Serving("127.0.0.1", bus, memory, reporter)
    serving.ready(check="http", evidence="200")
    serving.unready(check="http", evidence="503", failures=4)
    said.clear()
    serving.withdraw("it is being stopped")
    (told,) = said
    assert (told.health, told.failures, told.evidence) == ("unready", 0, "it is being stopped")
    serving.withdraw("it is being stopped")
    assert len(said) == 1, "it was said"
