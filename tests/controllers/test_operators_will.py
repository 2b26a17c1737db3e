"""What an operator asked for stands until it is done, keeps nothing else waiting, and is not lost with its control."""

import pytest

from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Previous, SlotControl
from dsmt.event.status import Layer, State

from .build import Attentive, Realm, key, spec, web

CHECKED = "ports: {http: auto}\nhealth: {tcp: {port: http}}\n"


def running(*nodes: str, component: str = "") -> tuple[Realm, str]:
    """A realm where one instance has been running for a while, and where."""
    realm = Realm(*nodes)
    realm.apply(web(1, component=component))
    realm.settle(seconds=1)
    return realm.after(100), realm.slot().node or ""


@pytest.mark.parametrize("why", ["excluded", "draining", "dead", "no room", "not in its set"])
@pytest.mark.parametrize("data", [False, True])
def test_a_move_that_was_said_before_there_was_a_place_waits_where_it_cannot_be_done(why: str, data: bool) -> None:
    realm = Realm("n1", "n2")
    if why in ("excluded", "draining"):
        realm.control_node("n2", why)
    elif why == "dead":
        realm.close("n2")
        realm.after(1).settle()
    elif why == "no room":
        realm.attributes("n2", memory_bytes=1)
    nodes = "nodes: n1\n" if why == "not in its set" else ""
    realm.apply(web(1, component="reserve: {memory: 1MiB}\n" + nodes + ("data: true\n" if data else "")))
    realm.control(key(), move="n2")
    Attentive(realm).watch(5)
    assert realm.slot().node == "n1"


@pytest.mark.parametrize("component", ["", "update: {order: stop_first}"], ids=["two copies", "one copy"])
@pytest.mark.parametrize("cause", ["drain", "node set", "escalation"])
def test_a_move_that_cannot_be_done_now_keeps_no_other_cause_from_moving_the_slot(cause: str, component: str) -> None:
    realm, node = running("n1", "n2", "n3", component=component)
    asked, free = (name for name in ("n1", "n2", "n3") if name != node)
    realm.control_node(asked, "excluded")
    realm.control(key(), move=asked)
    assert realm.settle(seconds=1) == [], "it waits for the node that was asked for"
    match cause:
        case "drain":
            realm.control_node(node, "draining")
        case "node set":
            realm.apply(web(1, component=f"{component}\nnodes: minus(all_nodes, {node})"))
        case _:
            realm.status(key(), node, State.FAILED, parked=True)
    realm.step()
    realm.obey()
    realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().desired) == (free, "running")
    realm.control_node(asked, "active")
    realm.settle(seconds=1)
    assert realm.slot().node == asked, "the move stands, and is done when it can be"


def test_a_move_to_any_other_node_is_done_by_what_else_moves_the_slot() -> None:
    realm, node = running("n1", "n2")
    asked = "n2" if node == "n1" else "n1"
    realm.control_node(asked, "excluded")
    realm.control(key(), move="", leave=node)
    realm.settle(seconds=1)
    realm.control_node(node, "draining")
    realm.settle(seconds=1)
    realm.control_node(asked, "active")
    realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().move_number) == (asked, 1)


@pytest.mark.parametrize("fewer", [1, 0])
def test_the_restart_number_never_goes_back_though_who_asked_for_it_is_not_known_any_more(fewer: int) -> None:
    before, node = running("n1")
    before.control(key(), restart=1)
    before.settle(seconds=1)
    realm = Realm()
    realm.now_ms, realm._sequences = before.now_ms, before._sequences
    for _, event in before.rows:
        if "/control/" not in event.event.topic:
            realm.view.apply(event)
    assert realm.after(100).settle(seconds=1) == []
    for instances in (fewer, 2):
        realm.apply(web(instances))
        realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().restart) == (node, 1)


# --- previous ----------------------------------------------------------------------------------------------------


def moved() -> tuple[Realm, str, str]:
    """An instance that left a node for another one, where it is ready; its fact names both."""
    realm, first = running("n1", "n2", "n3", component=CHECKED)
    realm.health(key(), first, "ready")
    realm.control_node(first, "draining")
    realm.step()
    second = realm.slot().node or ""
    realm.status(key(), second)
    realm.health(key(), second, "ready")
    return realm, first, second


@pytest.mark.parametrize("moment", ["unready", "started again"])
@pytest.mark.parametrize("left", ["nothing", "a program that has ended"])
def test_a_node_that_has_nothing_left_to_serve_is_not_previous_any_more(moment: str, left: str) -> None:
    realm, first, second = moved()
    if left == "nothing":
        realm.status(key(), first, State.GONE)
        realm.status(key(), first, State.GONE, layer=Layer.CONTAINER)
    else:
        realm.status(key(), first, State.STOPPED)
    realm.after(60)
    if moment == "unready":
        realm.health(key(), second, "unready")
    else:
        realm.status(key(), second, State.INSTANTIATED)
    generation = realm.generation()
    realm.after(1).control_node(second, "draining")
    realm.step()
    assert realm.slot().node not in (first, second)
    assert realm.slot().previous == Previous(node=second, generation=generation, deadline_ms=realm.now_ms + 300_000)


def test_a_previous_copy_that_runs_stays_while_the_new_one_is_not_ready() -> None:
    realm, first, second = moved()
    realm.health(key(), second, "unready")
    realm.after(1).control_node(second, "draining")
    realm.step()
    assert realm.slot().previous is not None
    assert realm.slot().previous.node == first


@pytest.mark.parametrize("instances", [1, "each_node"])
def test_what_is_done_for_an_operator_names_who_has_signed_it(instances: int | str) -> None:
    """One operator's name could stand for what another one had asked for."""
    realm = Realm("n1")
    realm.say("operator/eve", "service/web/spec", SpecFact(spec=spec(web(instances)), by="alice", reason=""))
    (placed,) = realm.step()
    assert placed.because == "web/app/0 goes to n1: alice, signed by eve applied revision 1 of web"
    hold = Hold(by="alice", at_ms=realm.now_ms, reason="a test")
    realm.say("operator/eve", "service/web/control/app/0", SlotControl(by="alice", reason="", hold=hold))
    (stopped,) = realm.step()
    assert "alice, signed by eve stopped it" in stopped.because
    assert stopped.record.reason.message.startswith("stopped by alice, signed by eve")
    realm.say("operator/eve", "service/web/control/app/0", SlotControl(by="alice", reason=""))
    realm.say("operator/eve", "node/n1/control", NodeControl(mode="draining", by="alice", reason=""))
    realm.node("n2")
    (drained,) = [intent for intent in realm.step() if "drained" in intent.because]
    assert "n1 is drained by alice, signed by eve" in drained.because
