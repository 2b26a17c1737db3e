"""Statuses: the tables use the words of each layer, and nobody is stuck in a state."""

from itertools import pairwise

import pytest

from dsmt.event.status import Layer, State, allowed, transitions

WORDS = {
    Layer.CONTAINER: {"selected", "installing", "installed", "failed", "deselected", "gone"},
    Layer.AGENT: {
        "requested", "initiated", "instantiated", "running", "failed", "terminated", "stopped", "gone",
    },
}  # fmt: skip
WORDS[Layer.APPLICATION] = WORDS[Layer.AGENT]

ORDINARY_LIVES = {
    Layer.CONTAINER: [
        "selected installing installed deselected gone selected",
        "selected installing failed installing installed",
        "selected failed deselected gone",
        "installed failed selected",
    ],
    Layer.APPLICATION: [
        "requested initiated instantiated running terminated stopped gone requested",
        "requested initiated failed initiated instantiated running",
        "running failed instantiated running",
        "running failed requested initiated instantiated running",
        "instantiated terminated stopped instantiated running",
        "terminated failed stopped gone",
        "requested stopped",
    ],
}

FORBIDDEN = {
    Layer.CONTAINER: ["selected gone", "gone installed", "installed gone", "deselected installed", "selected installed"],
    Layer.APPLICATION: [
        "running gone", "gone running", "stopped running", "requested running", "failed running", "terminated running",
        "running stopped", "terminated gone", "initiated running",
    ],
}  # fmt: skip


def reachable(table, start):
    found, left = set(), [start]
    while left:
        for state in table[left.pop()] - found:
            found.add(state)
            left.append(state)
    return found


@pytest.mark.parametrize("layer", Layer)
def test_a_layer_uses_its_own_words_and_all_of_them(layer):
    table = transitions(layer)
    assert {str(state) for state in table if state} == WORDS[layer]
    assert {str(state) for targets in table.values() for state in targets} <= WORDS[layer]


@pytest.mark.parametrize("layer", Layer)
def test_every_state_is_reached_and_leads_on_to_every_other(layer):
    table = transitions(layer)
    everything = set(table) - {None}
    assert reachable(table, None) == everything
    for state in everything:
        assert reachable(table, state) == everything, f"from {state} some state of the {layer} is never reached"


@pytest.mark.parametrize("layer", Layer)
def test_nothing_is_its_own_successor_in_the_table_and_undefined_is_never_emitted(layer):
    for state, targets in transitions(layer).items():
        assert state not in targets
        assert None not in targets
        assert State.UNDEFINED not in targets


@pytest.mark.parametrize("layer", Layer)
def test_a_state_may_be_renewed_and_one_of_another_layer_may_not(layer):
    for state in State:
        assert allowed(layer, state, state) == (str(state) in WORDS[layer])


@pytest.mark.parametrize(("layer", "life"), [(k, life) for k, lives in ORDINARY_LIVES.items() for life in lives])
def test_an_ordinary_life_is_allowed(layer, life):
    states = [State(word) for word in life.split()]
    for before, after in pairwise(states):
        assert allowed(layer, before, after), f"{before} -> {after}"


@pytest.mark.parametrize(("layer", "step"), [(k, step) for k, steps in FORBIDDEN.items() for step in steps])
def test_a_step_that_leaves_something_out_is_not_allowed(layer, step):
    before, after = (State(word) for word in step.split())
    assert not allowed(layer, before, after)


@pytest.mark.parametrize("layer", Layer)
def test_a_new_instance_begins_at_its_first_word_and_after_gone_as_well(layer):
    first = State.SELECTED if layer is Layer.CONTAINER else State.REQUESTED
    for before in (None, State.GONE):
        assert transitions(layer)[before] == {first}


def test_what_is_no_state_of_a_layer_is_left_for_none_of_its_states():
    assert not allowed(Layer.CONTAINER, State.RUNNING, State.INSTALLED)
    assert not allowed(Layer.APPLICATION, State.SELECTED, State.RUNNING)
