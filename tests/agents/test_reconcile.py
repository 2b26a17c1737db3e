"""What a node owes a slot, and what an agent does next: one row for each situation."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.agents.rules.reconcile import (
    Do,
    Duty,
    Owed,
    Situation,
    Task,
    Wanted,
    is_successor_ready,
    next_act,
    owed,
    task,
)
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.slot import Home, Previous, Slot


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
    ("fact", "exists", "expected"),
    [
        (None, False, Task.NOTHING),
        (None, True, Task.ORPHAN),
        (slot(), False, Task.CREATE),
        (slot(desired="stopped"), False, Task.CREATE),
        (slot(desired="gone"), False, Task.NOTHING),
        (slot(node="n2"), False, Task.NOTHING),
        (slot(node="n2", previous=BEFORE), False, Task.NOTHING),
        (slot(node="n2"), True, Task.WATCH),
        (slot(desired="gone"), True, Task.WATCH),
        (slot(), True, Task.WATCH),
    ],
)
def test_what_a_manager_does_follows_from_the_fact(fact: Slot | None, exists: bool, expected: Task) -> None:
    assert task("n1", fact, exists=exists) == expected


OLD = Wanted("i1", "r1", 1, 0)
NEW = Wanted("i2", "r2", 2, 0)
BESIDE = Wanted("i1", "r2", 2, 0)


def at(**about: Any) -> Situation:
    told: dict[str, Any] = {
        "duty": Duty.RUN,
        "wanted": OLD,
        "running": None,
        "installed": ("i1",),
        "configured": "r1",
        "prepared": "r1",
        "now": 100.0,
    }
    return Situation(**{**told, **about})


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (at(), Do.START),
        (at(installed=()), Do.INSTALL),
        (at(configured=""), Do.CONFIGURE),
        (at(prepared=""), Do.PREPARE),
        (at(prepared="r2"), Do.PREPARE),
        (at(wanted=None), Do.AWAIT_SPEC),
        (at(wanted=None, duty=Duty.KEEP), Do.REST),
        (at(not_before=101.0), Do.REST),
        (at(not_before=100.0), Do.START),
        (at(finished=True), Do.REST),
        (at(reinstall=True), Do.INSTALL),
        (at(reinstall=True, not_before=200.0), Do.REST),
        (at(recreate=True), Do.RECREATE),
        (at(outgoing=OLD, wanted=BESIDE, recreate=True), Do.CONFIGURE),
        (at(outgoing=OLD, wanted=BESIDE, reinstall=True), Do.CONFIGURE),
        (at(outgoing=OLD, wanted=NEW, installed=("i1", "i2"), reinstall=True), Do.INSTALL),
        (at(outgoing=OLD, wanted=NEW, installed=("i1", "i2"), recreate=True), Do.INSTALL),
        (at(held=True), Do.STOP),
        (at(duty=Duty.STOP), Do.STOP),
        (at(duty=Duty.LEAVE), Do.LEAVE),
        (at(duty=Duty.LEAVE, running=OLD), Do.LEAVE),
        (at(duty=Duty.KEEP), Do.START),
        (at(running=OLD), Do.REST),
        (at(running=OLD, condemned=True), Do.FAIL),
        (at(running=OLD, restart_asked=True), Do.RESTART),
        (at(running=OLD, held=True), Do.STOP),
        (at(running=OLD, wanted=None), Do.REST),
        (at(running=OLD, wanted=NEW), Do.INSTALL),
        (at(running=OLD, wanted=NEW, not_before=200.0), Do.REST),
        (at(running=OLD, wanted=NEW, installed=("i1", "i2")), Do.RESTART),
        (at(running=OLD, wanted=NEW, duty=Duty.KEEP), Do.REST),
        (at(running=OLD, wanted=Wanted("i1", "r1", 2, 0)), Do.TAKE_OVER),
        (at(running=OLD, wanted=Wanted("i1", "r1", 2, 1)), Do.RESTART),
        (at(running=OLD, wanted=Wanted("i1", "r2", 2, 0)), Do.RESTART),
        (at(running=OLD, finished=True), Do.REST),
    ],
)
def test_the_next_act_follows_from_what_is_so(situation: Situation, expected: Do) -> None:
    assert next_act(situation) == expected


WANTED = st.builds(
    Wanted, st.sampled_from(["i1", "i2"]), st.sampled_from(["r1", "r2"]), st.integers(1, 3), st.integers(0, 2)
)
SITUATIONS = st.builds(
    Situation,
    duty=st.sampled_from(list(Duty)),
    wanted=st.none() | WANTED,
    running=st.none() | WANTED,
    installed=st.lists(st.sampled_from(["i1", "i2"]), max_size=2).map(tuple),
    configured=st.sampled_from(["", "r1", "r2"]),
    prepared=st.sampled_from(["", "r1", "r2"]),
    condemned=st.booleans(),
    restart_asked=st.booleans(),
    held=st.booleans(),
    finished=st.booleans(),
    reinstall=st.booleans(),
    recreate=st.booleans(),
    not_before=st.sampled_from([0.0, 200.0]),
    now=st.just(100.0),
)


@given(SITUATIONS)
def test_nothing_is_started_that_is_not_installed_configured_prepared_and_owed(situation: Situation) -> None:
    if next_act(situation) is Do.START:
        assert situation.running is None
        assert situation.duty in (Duty.RUN, Duty.KEEP)
        assert situation.wanted is not None
        assert situation.wanted.install_key in situation.installed
        assert situation.wanted.run_key == situation.configured == situation.prepared
        assert situation.now >= situation.not_before


@given(SITUATIONS)
def test_what_is_kept_is_never_stopped_but_for_its_own_faults(situation: Situation) -> None:
    if situation.duty is Duty.KEEP and not (situation.condemned or situation.restart_asked):
        assert next_act(situation) not in (Do.STOP, Do.RESTART, Do.LEAVE, Do.FAIL)


def test_a_slot_that_is_pinned_to_another_machine_of_this_name_starts_nothing_here() -> None:
    pinned = replace(slot(node="n1"), home=Home(node="n1", key="old"))
    assert task("n1", pinned, exists=False, data_key="old") is Task.CREATE
    assert task("n1", pinned, exists=False, data_key="new") is Task.NOTHING
