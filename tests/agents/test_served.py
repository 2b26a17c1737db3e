"""Served: which copy of an instance readers are sent to, and what is said of that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
