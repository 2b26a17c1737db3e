"""An operator holds a slot or restarts it: that is done once, and only an operator ends a hold."""

from typing import Any

import pytest

from dsmt.event.kinds.slot import Hold, SlotControl
from dsmt.event.status import State

from .build import Realm, key, web
from .repairs import running


def test_a_hold_stops_and_only_its_end_starts_again() -> None:
    realm = running(1)
    node = realm.slot(0).node
    held = realm.hold(key(0))
    (intent,) = realm.step()
    assert (realm.slot(0).desired, realm.slot(0).node) == ("stopped", node)
    assert (realm.slot(0).reason.code, realm.slot(0).reason.next) == ("hold.operator", "dsmt start web/app/0")
    assert "alice" in realm.slot(0).reason.message
    assert intent.cause == (held.id,)
    realm.settle(seconds=1)
    realm.apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).revision) == ("stopped", 2)
    realm.control(key(0))
    realm.step()
    assert (realm.slot(0).desired, realm.slot(0).reason, realm.slot(0).node) == ("running", None, node)


def test_a_hold_without_a_reason_says_so() -> None:
    realm = running(1)
    realm.control(key(0), hold=Hold(by="alice", at_ms=realm.now_ms, reason=""))
    realm.step()
    assert realm.slot(0).reason.message.endswith(": no reason given")


def test_a_hold_outlives_a_time_in_which_its_slot_is_not_wanted() -> None:
    realm = running(3)
    realm.hold(key(2))
    for instances in (2, 3):
        realm.apply(web(instances))
        realm.settle(seconds=5)
    assert (realm.slot(2).desired, realm.slot(2).reason.code) == ("stopped", "hold.operator")
    realm.control(key(2))
    realm.settle(seconds=5)
    assert realm.slot(2).desired == "running"


def test_a_slot_that_a_hold_stopped_stays_so_where_its_control_is_not_known() -> None:
    before = running(1, "n1", "n2")
    before.hold(key(0))
    before.settle(seconds=1)
    realm = Realm()
    realm.now_ms, realm._sequences = before.now_ms, before._sequences
    for _, event in before.rows:
        if "/control/" not in event.event.topic:
            realm.view.apply(event)
    assert realm.after(60).settle(seconds=1) == []
    realm.apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).revision) == ("stopped", 2)
    assert realm.slot(0).reason == before.slot(0).reason
    realm.control_node(realm.slot(0).node, "draining")
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).reason) == ("stopped", before.slot(0).reason), "it moves, held"
    realm.say("operator/alice", key(0).control_topic, SlotControl(by="alice"), version=2)
    realm.step()
    assert realm.slot(0).desired == "running", "only an operator's word starts it"


def test_a_held_slot_leaves_a_node_that_lives_and_that_it_does_not_fit_any_more_and_stays_held() -> None:
    realm = running(1, "n1", "n2")
    node = realm.slot(0).node
    other = "n2" if node == "n1" else "n1"
    realm.hold(key(0))
    realm.settle(seconds=1)
    realm.apply(web(1, component=f"nodes: {other}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired, realm.slot(0).reason.code) == (other, "stopped", "hold.operator")


def test_a_restart_is_a_new_generation_on_the_same_node_once() -> None:
    realm = running(1)
    node, generation = realm.slot(0).node, realm.generation(0)
    realm.control(key(0), restart=1)
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).restart, realm.generation(0)) == (node, 1, generation + 1)
    assert realm.settle(seconds=1) == []


def test_all_that_was_stopped_begins_at_once_though_its_start_asks_for_a_restart_too() -> None:
    realm = running(3)
    for index in range(3):
        realm.hold(key(index))
    realm.settle(seconds=1)
    for index in range(3):
        realm.control(key(index), restart=1)
    realm.step()
    assert [realm.slot(index).desired for index in range(3)] == ["running"] * 3


def test_all_that_is_held_is_given_another_revision_at_once_though_a_restart_waits_until_it_is_let_go() -> None:
    realm = running(3)
    for index in range(3):
        realm.control(key(index), hold=Hold(by="alice", at_ms=realm.now_ms, reason=""), restart=1)
    realm.settle(seconds=1)
    realm.apply(web(3, component="env: {A: b}"))
    realm.step()
    slots = [realm.slot(index) for index in range(3)]
    assert [(slot.revision, slot.desired, slot.restart) for slot in slots] == [(2, "stopped", 0)] * 3


def test_restarting_all_goes_one_at_a_time() -> None:
    realm = running(3)
    for i in range(3):
        realm.control(key(i), restart=1)
    assert len(realm.step()) == 1
    realm.obey()
    assert realm.after(9).step() == []
    assert len(realm.after(1).step()) == 1


@pytest.mark.parametrize("word", ["", "hold", "hold and release", "move"])
def test_restarts_of_one_command_go_no_further_than_one_that_is_not_ready_in_time_and_those_of_the_next_one_do(
    word: str,
) -> None:
    realm = running(3)
    asked: dict[str, Any] = {"restart": 1, "restart_of": "operator/alice.1"}
    for i in range(3):
        realm.control(key(i), **asked)
    (first,) = realm.step()
    hung = int(first.topic.rsplit("/", 1)[1])
    node = realm.slot(hung).node or ""
    realm.status(key(hung), node, State.STOPPED, generation=realm.generation(hung))
    assert realm.after(3600).settle(obey=False) == []
    if word.startswith("hold"):
        realm.control(key(hung), hold=Hold(by="bob", at_ms=realm.now_ms, reason="it hangs"), **asked)
        realm.after(10).settle(obey=False)
    if word == "hold and release":
        realm.control(key(hung), **asked)
    elif word == "move":
        realm.control(key(hung), move="", leave=node, **asked)
    realm.after(3600).settle(obey=False)
    realm.after(3600).settle(obey=False)
    assert sorted(realm.slot(i).restart for i in range(3)) == [0, 0, 1]
    other = next(i for i in range(3) if i != hung)
    will = SlotControl(by="bob", reason="this one all the same", restart=1, restart_of="operator/bob.2")
    realm.say("operator/bob", f"service/web/control/app/{other}", will)
    assert [intent.topic for intent in realm.step()] == [key(other).topic]


@pytest.mark.parametrize("command", ["operator/alice.1", ""], ids=["which never was good", "each of a word of its own"])
def test_restarts_go_on_though_one_is_not_ready_in_time(command: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.step()
    if not command:
        realm.obey()
        realm.after(100)
    for index in range(3):
        if command:
            realm.status(key(index), realm.slot(index).node or "", State.FAILED, parked=True)
        realm.control(key(index), restart=1, restart_of=command)
    for number in (1, 2, 3):
        realm.after(3600).step()
        restarted = [index for index in range(3) if realm.slot(index).restart]
        assert len(restarted) == number
        for index in restarted:
            state = State.FAILED if command else State.STOPPED
            realm.status(key(index), realm.slot(index).node or "", state, parked=bool(command))


def test_restarts_of_one_command_go_no_further_once_one_is_parked_though_another_one_is_ready() -> None:
    realm = running(4, component="update: {max_parallel: 2, deadline: 1h}\nrestart: {escalate: [restart: 5]}")
    for index in range(4):
        realm.control(key(index), restart=1, restart_of="operator/alice.1")
    realm.step()
    first, _ = [index for index in range(4) if realm.slot(index).restart]
    realm.obey()
    realm.status(key(first), realm.slot(first).node or "", State.FAILED, parked=True)
    for _ in range(10):
        realm.after(60).step()
    assert sum(realm.slot(index).restart for index in range(4)) == 2


def test_a_hold_of_what_has_no_place_is_said_at_once() -> None:
    realm = Realm()
    realm.apply(web(1))
    realm.step()
    assert realm.slot(0).node is None
    realm.hold(key(0))
    realm.after(1).step()
    assert realm.slot(0).desired == "stopped"


@pytest.mark.parametrize("first", [True, False])
def test_what_is_stopped_before_its_turn_stops_no_restart_of_the_others_and_is_restarted_when_it_is_started(
    *, first: bool
) -> None:
    realm = running(3)
    asked: dict[str, Any] = {"restart": 1, "restart_of": "operator/alice.1"}
    for i in range(3):
        realm.control(key(i), **asked)
    if not first:
        assert [intent.topic for intent in realm.step()] == [key(0).topic]
        realm.obey()
    realm.control(key(1), hold=Hold(by="bob", at_ms=realm.now_ms, reason="its disk is slow"), **asked)
    for _ in range(4):
        realm.after(10).settle()
    slots = [realm.slot(i) for i in range(3)]
    assert [(slot.restart, slot.desired) for slot in slots] == [(1, "running"), (0, "stopped"), (1, "running")]
    assert realm.after(3600).settle() == []
    realm.control(key(1), **asked)
    realm.settle()
    assert (realm.slot(1).restart, realm.slot(1).desired) == (1, "running")
