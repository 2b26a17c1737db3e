"""What is told of a slot that is not where it is to be, and of which nothing is decided now: why, or that it goes next."""

from __future__ import annotations

import pytest

from dsmt.controllers.brake import brake
from dsmt.controllers.pending import waits_for, waits_for_brake, waits_for_home, waits_for_place
from dsmt.controllers.rollout import Governing
from dsmt.event.reason import Reason
from dsmt.event.status import Layer, State
from dsmt.view import Fleet
from tests.controllers.build import Realm, key, web
from tests.controllers.repairs import running

ALONE = "update: {order: stop_first}"


def governing(realm: Realm) -> Governing:
    return Governing(Fleet(realm.view, realm.now_ms, realm.broker))


def why(realm: Realm, index: int = 0) -> Reason | None:
    return waits_for(governing(realm), key(index))


def other_than(node: str | None, *nodes: str) -> str:
    return next(one for one in nodes if one != node)


def dead(realm: Realm, *nodes: str, road: str = "closed") -> None:
    for node in nodes:
        realm.close(node, how="timeout" if road == "silent" else "peer")
        realm.verdict(node, road=road)


def test_of_what_nobody_wants_or_what_is_where_it_is_to_be_nothing_is_told() -> None:
    realm = running(1, "n1", "n2")
    assert why(realm) is None
    assert waits_for(governing(realm), key(0, service="other")) is None
    assert waits_for_home(governing(realm), key(0, service="other")) is None
    assert waits_for_place(governing(realm), key(0, service="other"), "n1") is None


@pytest.mark.parametrize("component", ["", ALONE])
def test_what_leaves_a_node_next_waits_for_nothing_and_what_is_stopped_to_leave_for_that(component: str) -> None:
    realm = running(1, "n1", "n2", component=component)
    node = realm.slot().node
    realm.control_node(node, "draining")
    assert why(realm) is None, "it is told to go"
    realm.step()
    told = why(realm)
    if not component:
        assert told is None, "its copy may run beside it"
        return
    assert realm.slot().desired == "stopped"
    assert told is not None
    assert (told.code, told.message.partition(" ")[0]) == ("wait.copy", node)
    realm.obey()
    assert why(realm) is None


def test_what_is_held_where_it_was_stopped_does_not_wait_for_its_stop() -> None:
    realm = running(1, "n1", "n2", component=ALONE)
    realm.hold(key())
    realm.step()
    assert (realm.slot().held, realm.slot().desired) == (True, "stopped")
    realm.control_node(realm.slot().node, "draining")
    assert why(realm) is None


@pytest.mark.parametrize("component", ["", ALONE])
def test_a_copy_on_a_third_node_is_waited_for_where_two_may_not_run(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    node = realm.slot().node
    third = other_than(node, "n1", "n2")
    realm.status(key(), third, State.RUNNING, layer=Layer.CONTAINER, generation=1)
    realm.status(key(), third, State.RUNNING, generation=1)
    assert why(realm) is None, "it is where it is to be"
    realm.control_node(node, "draining")
    told = why(realm)
    assert (None if told is None else (told.code, told.message.partition(" ")[0])) == (
        ("wait.copy", third) if component else None
    )


def test_what_has_no_place_says_which_until_there_is_one() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component="reserve: {memory: 100GiB}"))
    realm.step()
    told = why(realm)
    assert told is not None
    assert told.code == "place.no_room"
    realm.node("n2", memory_bytes=200 * 2**30, memory_free_bytes=190 * 2**30)
    assert why(realm) is None


def test_what_a_dead_node_ran_waits_for_a_place_elsewhere_and_for_nothing_where_there_is_one() -> None:
    realm = running(1, "n1", "n2")
    node = realm.slot().node
    other = other_than(node, "n1", "n2")
    dead(realm, node)
    assert why(realm) is None
    assert waits_for_place(governing(realm), key(), node) is None
    realm.control_node(other, "excluded")
    told = why(realm)
    assert told is not None
    assert (told.code, told) == ("place.no_match", waits_for_place(governing(realm), key(), node))
    assert f"{key()}" in told.next


def test_what_waits_for_the_brake_says_so_of_the_dead_node_alone_that_ran_it() -> None:
    realm = running(7, *(f"n{n}" for n in range(7)))
    nodes = [realm.slot(index).node for index in range(7)]
    dead(realm, *nodes[:4], road="silent")
    dead(realm, nodes[4])
    realm.hold(key(1))
    held = brake(Fleet(realm.view, realm.now_ms, realm.broker))
    assert held.on
    told = waits_for_brake(governing(realm), held, key(0), nodes[0])
    assert told is not None
    assert told.message.startswith(f"{nodes[0]} is dead; ")
    assert why(realm) == told
    assert waits_for_brake(governing(realm), held, key(0), nodes[1]) is None, "that ran another one"
    assert waits_for_brake(governing(realm), held, key(1), nodes[1]) is None, "an operator holds it"
    assert waits_for_brake(governing(realm), held, key(4), nodes[4]) is None, "its connections were closed"
    assert waits_for_brake(governing(realm), held, key(5), nodes[5]) is None, "that lives"
    assert why(realm, 5) is None
    off = brake(Fleet(running(1, "n1").view, realm.now_ms, realm.broker))
    assert waits_for_brake(governing(realm), off, key(0), nodes[0]) is None


def test_what_runs_with_no_fact_waits_for_the_brake_where_it_is_an_orphan() -> None:
    realm = running(6, *(f"n{n}" for n in range(6)))
    realm.status(key(0, service="old"), "n5", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    dead(realm, *(f"n{n}" for n in range(4)), road="silent")
    held = brake(Fleet(realm.view, realm.now_ms, realm.broker))
    told = waits_for_brake(governing(realm), held, key(0, service="old"), "n5")
    assert told is not None
    assert told.message.startswith("n5 runs it, and nothing asks for it; once the brake is off it is ended")
    assert waits_for_brake(governing(realm), held, key(0, service="old"), "n4") is None, "nothing is said of it there"


def test_data_whose_node_is_away_is_waited_for_and_the_screens_say_where_it_is() -> None:
    realm = running(1, "n1", "n2", component="data: true")
    node = realm.slot().node
    assert waits_for_home(governing(realm), key()) is None
    dead(realm, node)
    told = waits_for_home(governing(realm), key())
    assert told is not None
    assert (told.code, node in told.message, f"{key()}" in told.next) == ("wait.pinned", True, True)
    assert why(realm) == told
    realm.apply(web(0, component="data: true"))
    realm.settle(seconds=1)
    assert (realm.slot().desired, realm.slot().home.node) == ("gone", node)
    assert waits_for_home(governing(realm), key()) is None
