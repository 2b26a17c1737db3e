"""What an agent does next: one situation for each row of the table, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.agents.rules.acts import ACTS, FOREVER, Do, Goal, Situation, next_act, rest_s, rests
from dsmt.agents.rules.reconcile import Duty
from dsmt.event.kinds.slot import Ended

ENDED = Ended(at_ms=5, ran_s=1.0)
OLD = Goal("i1", "r1", 1, 0)
NEW = Goal("i2", "r2", 2, 0)
BESIDE = Goal("i1", "r2", 2, 0)


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
        (at(closing=True, running=OLD, unheeded=True, duty=Duty.LEAVE), Do.END),
        (at(unheeded=True, duty=Duty.LEAVE), Do.OBEY),
        (at(unheeded=True, running=OLD, condemned=True), Do.OBEY),
        (at(unheeded=True, running=OLD, duty=Duty.KEEP), Do.REST),
        (at(ended=OLD), Do.REST),
        (at(ended=OLD, wanted=None), Do.REST),
        (at(ended=OLD, wanted=Goal("i1", "r1", 2, 0)), Do.STAY),
        (at(ended=OLD, wanted=Goal("i1", "r1", 2, 0), duty=Duty.KEEP), Do.REST),
        (at(ended=OLD, wanted=Goal("i1", "r1", 2, 1)), Do.START),
        (at(ended=OLD, wanted=NEW), Do.INSTALL),
        (at(ended=BESIDE, wanted=BESIDE, outgoing=OLD), Do.REST),
        (at(ended=BESIDE, wanted=BESIDE, outgoing=OLD, ended_good=True), Do.RETIRE),
        (at(reinstall=True), Do.INSTALL),
        (at(reinstall=True, not_before=200.0), Do.REST),
        (at(recreate=True), Do.RECREATE),
        (at(outgoing=OLD, wanted=BESIDE, overlaps=True, recreate=True), Do.CONFIGURE),
        (at(outgoing=OLD, wanted=BESIDE, overlaps=True, reinstall=True), Do.CONFIGURE),
        (at(outgoing=OLD, wanted=NEW, installed=("i1", "i2"), reinstall=True), Do.INSTALL),
        (at(outgoing=OLD, wanted=NEW), Do.INSTALL),
        (at(outgoing=OLD, wanted=NEW, installed=("i1", "i2")), Do.RETIRE),
        (at(outgoing=OLD, wanted=NEW, installed=("i1", "i2"), recreate=True), Do.INSTALL),
        (at(held=True), Do.STOP),
        (at(held_here=True), Do.STOP),
        (at(held_here=True, ended=OLD, wanted=OLD), Do.REST),
        (at(held_here=True, ended=OLD, wanted=NEW), Do.STOP),
        (at(held_here=True, duty=Duty.KEEP, running=OLD), Do.STOP),
        (at(duty=Duty.STOP), Do.STOP),
        (at(duty=Duty.LEAVE), Do.LEAVE),
        (at(duty=Duty.LEAVE, running=OLD), Do.LEAVE),
        (at(duty=Duty.KEEP), Do.START),
        (at(came_ended=ENDED), Do.COME_ENDED),
        (at(came_ended=ENDED, wanted=None), Do.AWAIT_SPEC),
        (at(came_ended=ENDED, ended=OLD), Do.REST),
        (at(running=OLD), Do.REST),
        (at(running=OLD, condemned=True), Do.FAIL),
        (at(running=OLD, restart_asked=True), Do.RESTART),
        (at(running=OLD, held=True), Do.STOP),
        (at(running=OLD, wanted=None), Do.REST),
        (at(running=OLD, wanted=NEW), Do.INSTALL),
        (at(running=OLD, wanted=NEW, not_before=200.0), Do.REST),
        (at(running=OLD, wanted=NEW, installed=("i1", "i2")), Do.RESTART),
        (at(running=OLD, wanted=NEW, duty=Duty.KEEP), Do.REST),
        (at(running=OLD, wanted=Goal("i1", "r1", 2, 0)), Do.TAKE_OVER),
        (at(running=OLD, wanted=Goal("i1", "r1", 2, 1)), Do.RESTART),
        (at(running=OLD, wanted=Goal("i1", "r2", 2, 0)), Do.RESTART),
        (at(running=OLD, ended=OLD), Do.REST),
        (at(running=OLD, wanted=BESIDE, ready=True, overlaps=True), Do.HAND_OVER),
        (at(running=OLD, wanted=BESIDE, overlaps=True), Do.RESTART),
        (at(running=OLD, wanted=Goal("i1", "r2", 2, 1), ready=True, overlaps=True), Do.HAND_OVER),
        (at(running=OLD, wanted=Goal("i1", "r1", 2, 1), ready=True, overlaps=True), Do.RESTART),
        (at(running=BESIDE, wanted=BESIDE, outgoing=OLD), Do.REST),
        (at(running=BESIDE, wanted=BESIDE, outgoing=OLD, ready=True), Do.FOLLOW),
        (at(running=BESIDE, wanted=BESIDE, outgoing=OLD, ready=True, followed=True), Do.RETIRE),
        (at(running=BESIDE, wanted=None, outgoing=OLD, ready=True, followed=True), Do.RETIRE),
        (at(running=BESIDE, wanted=OLD, outgoing=OLD), Do.TAKE_BACK),
        (at(running=BESIDE, wanted=Goal("i1", "r1", 3, 1), outgoing=OLD), Do.TAKE_BACK),
        (at(wanted=OLD, outgoing=OLD), Do.TAKE_BACK),
        (at(running=BESIDE, wanted=OLD, outgoing=OLD, condemned=True), Do.TAKE_BACK),
        (at(running=BESIDE, wanted=OLD, outgoing=OLD, duty=Duty.KEEP), Do.REST),
    ],
)
def test_the_next_act_follows_from_what_is_so(situation: Situation, expected: Do) -> None:
    assert next_act(situation) == expected


def test_there_is_a_situation_above_for_each_row_of_the_table() -> None:
    told = [mark.args[1] for mark in test_the_next_act_follows_from_what_is_so.pytestmark]  # type: ignore[attr-defined]
    taken = [next(n for n, act in enumerate(ACTS, 1) if act.holds(one)) for one, _ in told[0]]
    assert sorted(set(taken)) == list(range(1, len(ACTS) + 1))


WANTED = st.builds(Goal, st.sampled_from(["i1", "i2"]), st.sampled_from(["r1", "r2"]), st.integers(1, 3), st.integers(0, 2))
SITUATIONS = st.builds(
    Situation,
    duty=st.sampled_from(list(Duty)),
    wanted=st.none() | WANTED,
    running=st.none() | WANTED,
    installed=st.lists(st.sampled_from(["i1", "i2"]), max_size=2).map(tuple),
    configured=st.sampled_from(["", "r1", "r2"]),
    prepared=st.sampled_from(["", "r1", "r2"]),
    condemned=st.booleans(),
    closing=st.booleans(),
    unheeded=st.booleans(),
    restart_asked=st.booleans(),
    outgoing=st.none() | WANTED,
    ready=st.booleans(),
    followed=st.booleans(),
    overlaps=st.booleans(),
    held=st.booleans(),
    held_here=st.booleans(),
    ended=st.none() | WANTED,
    ended_good=st.booleans(),
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
def test_what_is_held_on_its_node_is_stopped_unless_it_has_ended_ends_leaves_or_takes_note(situation: Situation) -> None:
    if situation.held_here:
        ended = (Do.STAY, Do.REST) if rests(situation) else ()
        assert next_act(situation) in (Do.STOP, Do.END, Do.LEAVE, Do.OBEY, *ended)


@given(SITUATIONS)
def test_what_is_kept_is_never_stopped_but_for_its_own_faults_or_by_hand(situation: Situation) -> None:
    faults = situation.condemned or situation.restart_asked or situation.closing or situation.held_here
    if situation.duty is Duty.KEEP and not faults:
        assert next_act(situation) not in (Do.STOP, Do.RESTART, Do.LEAVE, Do.FAIL)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (at(), FOREVER),
        (at(not_before=100.0), FOREVER),
        (at(not_before=103.0), 3.0),
        (at(not_before=103.0, left_s=2.0), 2.0),
        (at(left_s=0.0), 0.0),
    ],
)
def test_an_agent_rests_until_something_is_due(situation: Situation, expected: float) -> None:
    assert rest_s(situation) == expected


@given(SITUATIONS)
def test_whatever_is_so_there_is_an_act(situation: Situation) -> None:
    assert next_act(situation) in Do


@given(SITUATIONS)
def test_what_was_told_to_end_does_nothing_else_and_what_is_to_be_gone_only_obeys_before(situation: Situation) -> None:
    if situation.closing:
        assert next_act(situation) is Do.END
    elif situation.duty is Duty.LEAVE:
        assert next_act(situation) in (Do.OBEY, Do.LEAVE)


@given(SITUATIONS)
def test_nothing_that_was_put_off_is_done_before_its_time(situation: Situation) -> None:
    if situation.running is None and situation.outgoing is None and situation.now < situation.not_before:
        assert next_act(situation) not in (Do.INSTALL, Do.CONFIGURE, Do.PREPARE, Do.START, Do.RECREATE)


@given(SITUATIONS)
def test_nothing_is_started_beside_the_copy_before_that_may_not_be(situation: Situation) -> None:
    if situation.outgoing is not None and next_act(situation) is Do.START:
        assert situation.overlaps
