"""What a node owes a slot, and what its manager does: one row for each situation."""

from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.reconcile import (
    Duty,
    Owed,
    is_successor_ready,
    is_to_be_made,
    owed,
)
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.slot import DataHome, Previous, Slot


def slot(node: str | None = "n1", desired: str = "running", previous: Previous | None = None) -> Slot:
    return Slot(node=node, spec="operator/op#1-1", revision=1, desired=desired, previous=previous)  # type: ignore[arg-type]


BEFORE = Previous(node="n1", generation=1, deadline_ms=1000)


@pytest.mark.parametrize(
    ("fact", "now_ms", "ready", "expected"),
    [
        (None, 0, False, Owed(Duty.KEEP)),
        (slot(), 0, False, Owed(Duty.RUN)),
        (slot(desired="stopped"), 0, False, Owed(Duty.STOP)),
        (slot(desired="gone"), 0, False, Owed(Duty.LEAVE)),
        (slot(node=None), 0, False, Owed(Duty.LEAVE)),
        (slot(node="n2"), 0, False, Owed(Duty.LEAVE)),
        (slot(node="n2", previous=BEFORE), 0, False, Owed(Duty.KEEP, 1000)),
        (slot(node="n2", previous=BEFORE), 0, True, Owed(Duty.LEAVE)),
        (slot(node="n2", previous=BEFORE), 1000, False, Owed(Duty.LEAVE)),
        (slot(node="n2", desired="stopped", previous=BEFORE), 0, False, Owed(Duty.LEAVE)),
        (slot(node="n2", desired="gone", previous=BEFORE), 0, False, Owed(Duty.LEAVE)),
        (slot(node=None, previous=BEFORE), 0, False, Owed(Duty.KEEP, 1000)),
        (slot(node="n1", previous=BEFORE), 0, False, Owed(Duty.RUN)),
    ],
)
def test_what_a_node_owes_follows_from_the_fact(fact: Slot | None, now_ms: int, ready: bool, expected: Owed) -> None:
    assert owed("n1", fact, now_ms=now_ms, successor_ready=ready) == expected


@pytest.mark.parametrize(
    ("node", "generation", "word", "expected"),
    [
        ("n2", 2, "ready", True),
        ("n2", 2, "none", True),
        ("n2", 3, "ready", True),
        ("n2", 2, "unready", False),
        ("n2", 1, "ready", False),
        ("n3", 2, "ready", False),
    ],
)
def test_only_the_new_generation_on_the_named_node_is_a_successor(
    node: str, generation: int, word: Any, expected: bool
) -> None:
    told = Health(health=word, generation=generation, check="http", evidence="", failures=0, since_ms=0)
    assert is_successor_ready(slot(node="n2"), 2, {node: told}) == expected


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (None, False),
        (slot(), True),
        (slot(desired="stopped"), True),
        (slot(desired="gone"), False),
        (slot(node="n2"), False),
        (slot(node="n2", previous=BEFORE), False),
    ],
)
def test_whether_a_manager_makes_a_container_follows_from_the_fact(fact: Slot | None, expected: bool) -> None:
    assert is_to_be_made("n1", fact, data_key="k") is expected


def test_a_slot_that_is_pinned_to_another_machine_of_this_name_starts_nothing_here() -> None:
    pinned = replace(slot(node="n1"), home=DataHome(node="n1", key="old"))
    assert is_to_be_made("n1", pinned, data_key="old")
    assert not is_to_be_made("n1", pinned, data_key="new")
