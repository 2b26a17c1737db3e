"""One instance for each node: each has an index of its own and keeps it."""

import msgspec
import pytest

from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.status import Layer, State

from .build import Attentive, Realm, key, web
from .repairs import kill, running


def test_each_node_gets_one_and_new_nodes_too() -> None:
    realm = running("each_node", "n1", "n2")
    assert sorted(realm.nodes_of()) == ["n1", "n2"]
    realm.node("n3")
    realm.settle(seconds=1)
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_stays_on_a_dead_node_and_does_not_move() -> None:
    realm = running("each_node", "n1", "n2", "n3")
    kill(realm, "n2")
    assert realm.step() == []
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_leaves_a_drained_node_and_comes_back_to_its_own_index() -> None:
    realm = running("each_node", "n1", "n2", "n3")
    index = realm.nodes_of().index("n2")
    realm.control_node("n2", "draining")
    realm.settle(seconds=1)
    assert sorted(realm.nodes_of()) == ["n1", "n3"]
    realm.control_node("n2", "active")
    realm.settle(seconds=1)
    assert realm.slot(index).node == "n2"
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_gives_a_node_that_returns_its_own_index_and_not_the_lowest() -> None:
    realm = running("each_node", "n1", "n2", "n3", "n4")
    low, high = sorted(["n1", "n4"], key=realm.nodes_of().index)
    index = realm.nodes_of().index(high)
    for node in (low, high):
        realm.control_node(node, "draining")
    realm.settle(seconds=1)
    realm.control_node(high, "active")
    realm.settle(seconds=1)
    assert (realm.slot(index).node, realm.slot(index).desired) == (high, "running")


@pytest.mark.parametrize("left", ["drained", "gone from the set"])
def test_each_node_keeps_a_hold_for_the_node_that_it_was_of(left: str) -> None:
    realm = running("each_node", "n1", "n2", "n3", component="nodes: minus(all_nodes, n9)")
    held = realm.slot(0).node
    realm.hold(key(0))
    realm.settle(seconds=1)
    if left == "drained":
        realm.control_node(held, "draining")
    else:
        realm.apply(web("each_node", component=f"nodes: minus(all_nodes, {held})"))
    realm.settle(seconds=1)
    realm.node("n4")
    realm.settle(seconds=1)
    by_node = {realm.slot(index).node: realm.slot(index).desired for index in range(1, 4)}
    assert by_node["n4"] == "running", "nobody holds that one"
    realm.control_node(held, "active")
    realm.apply(web("each_node", component="nodes: minus(all_nodes, n9)"))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired) == (held, "stopped")


def test_each_node_gives_the_index_of_a_node_that_left_to_the_next_one() -> None:
    realm = running("each_node", "n1", "n2")
    left = realm.slot(0).node
    realm.control_node(left, "draining")
    realm.settle(seconds=1)
    realm.node("n3")
    realm.settle(seconds=1)
    assert realm.slot(0).node == "n3"


@pytest.mark.parametrize("instances", ["each_node", 2])
def test_named_sets_that_lead_back_to_themselves_end_and_move_nothing(instances: str | int) -> None:
    realm = Realm("n1", "n2", "n3")
    name_set(realm, "a", "all_nodes")
    name_set(realm, "b", "failed")
    realm.apply(web(instances, component="nodes: a"))
    realm.settle(seconds=1)
    before = realm.nodes_of()
    name_set(realm, "b", "minus(all_nodes, a)")
    name_set(realm, "a", "minus(all_nodes, b)")  # said at the same moment, by who saw `b` as it was
    assert realm.settle(seconds=1) == []
    realm.node("n4")
    assert realm.settle(seconds=1) == []
    assert realm.nodes_of() == before
    name_set(realm, "b", "failed")
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == {"n1", "n2", "n3", "n4"} if instances == "each_node" else set(before)


def name_set(realm: Realm, name: str, expression: str) -> None:
    realm.say("operator/alice", f"nodeset/{name}", NodesetFact(expression=expression, by="alice"))


@pytest.mark.parametrize("why", ["drain", "set", "left"])
def test_what_ends_of_each_node_names_the_fact_for_which_its_node_is_not_one_of_them(why: str) -> None:
    realm = Realm("n1", "n2", "n3")
    name_set(realm, "few", "all_nodes")
    name_set(realm, "most", "minus(few, failed)")
    realm.apply(web("each_node", component="nodes: most"))
    realm.settle(seconds=1)
    if why == "drain":
        said = realm.control_node("n2", "draining")
    elif why == "left":
        realm.close("n2")
        said = realm.verdict("n2", state="left")
    else:
        said = realm.say("operator/alice", "nodeset/few", NodesetFact(expression="minus(all_nodes, n2)", by="alice"))
    (ended,) = realm.settle(seconds=1)
    assert (ended.record.node, ended.record.desired, said.id in ended.cause) == ("n2", "gone", True)
    assert "n2" in ended.because
    assert realm.settle(seconds=1) == []


@pytest.mark.parametrize("component", ["", "data: true\n"])
def test_a_move_that_waits_is_not_done_where_there_is_one_on_each_node_by_now(component: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3, component=component))
    realm.settle(seconds=2)
    node = realm.slot(2).node
    for other in {"n1", "n2", "n3"} - {node}:
        realm.control_node(other, "excluded")
    realm.control(key(2), move="", accept_data_loss=True)
    realm.settle(seconds=2)
    realm.apply(web("each_node", component=component))
    realm.settle(seconds=2)
    for other in ("n1", "n2", "n3"):
        realm.control_node(other, "active")
    assert realm.after(100).settle(seconds=2) == []
    assert (realm.slot(2).node, realm.slot(2).desired) == (node, "running")
    realm.apply(web(3, component=component))
    realm.settle(seconds=2)
    assert realm.slot(2).node != node, "it is done when it can be"


@pytest.mark.parametrize("said", ["where there is one", "where it is not to be", "that it is gone"])
def test_what_another_controller_says_of_one_of_each_node_is_looked_at_beside_the_others(said: str) -> None:
    realm = Realm("n1", "n2", "n3", "n4")
    controller = Attentive(realm)
    realm.control_node("n3", "draining")
    realm.apply(web("each_node"))
    controller.watch(60)
    assert [realm.slot(index).node for index in range(3)] == ["n1", "n2", "n4"]
    slot = msgspec.structs.replace(realm.slot(2), node="n3" if said == "where it is not to be" else "n4")
    if said == "that it is gone":
        realm.say("controller/c2", "service/web/slot/app/2", msgspec.structs.replace(slot, desired="gone"), version=9)
    else:
        realm.say("controller/c2", "service/web/slot/app/3", slot, version=9)
    controller.look()
    assert controller.overlooked() == []
    slots = (realm.slot(index) for index in range(4) if not realm.view.slot(key(index)).empty)
    assert sorted(slot.node for slot in slots if slot.desired == "running") == ["n1", "n2", "n4"]


@pytest.mark.parametrize("leaves", ["drain", "removal"])
def test_a_node_that_is_back_is_given_the_index_that_was_there_last_and_its_data(leaves: str) -> None:
    """Another one ended there before, when there was to be one on each node: its data is older."""
    realm, each = Realm("n1", "n2"), web("each_node", component="data: true")
    realm.apply(web(3, component="data: true"))
    realm.settle(seconds=1)
    realm.after(60).apply(each)
    realm.settle(seconds=1)
    realm.after(600)
    had = [(index, realm.slot(index).node) for index in range(3) if realm.slot(index).desired == "running"]
    node = realm.slot(2).node or ""
    assert (realm.slot(2).desired, [there for _, there in had].count(node)) == ("gone", 1)
    if leaves == "drain":
        realm.control_node(node, "draining")
        realm.settle(seconds=1)
        realm.control_node(node, "active")
    else:
        realm.apply(each, removed=True)
        realm.settle(seconds=1)
        realm.after(10).settle(seconds=1)
        assert realm.view.winner("tombstone/service/web") is not None
        realm.apply(each)
    realm.settle(seconds=1)
    slots = ((index, realm.view.slot(key(index))) for index in range(3))
    facts = [(index, slot.fact.record) for index, slot in slots if slot is not None and slot.fact is not None]
    assert [(index, fact.node) for index, fact in facts if fact.desired == "running"] == had


@pytest.mark.parametrize("leaves", ["drained", "removed"])
def test_a_node_is_given_the_data_of_before_a_refused_revision_and_not_what_that_one_has_left_there(leaves: str) -> None:
    realm, about = Realm("n1", "n2"), "data: true\nupdate: {healthy_after: 5s, deadline: 20s, max_parallel: 3}\n"
    realm.apply(web("each_node", component=about))
    realm.settle(seconds=1)
    realm.after(60).settle(seconds=1)
    before = {realm.slot(index).node: index for index in (0, 1)}
    realm.apply(web(3, component=about + "env: {A: b}"))
    realm.settle(seconds=1)
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True, good=realm.slot(0).former)
    realm.after(1).settle(seconds=1)
    trial = realm.slot(2)
    assert (trial.desired, trial.revision, realm.slot(1).revision) == ("gone", 2, 1), "what was tried is refused"
    if leaves == "drained":
        for node in ("n1", "n2"):
            realm.control_node(node, "draining")
        realm.settle(seconds=1)
        for node in ("n1", "n2"):
            realm.control_node(node, "active")
    else:
        realm.apply(web("each_node", component=about), removed=True)
        realm.settle(seconds=1)
        realm.after(10).settle(seconds=1)
        realm.apply(web("each_node", component=about))
    realm.settle(seconds=1)
    slots = {index: slot.fact.record for (_, index), slot in realm.view.services["web"].slots.items() if slot.fact}
    assert {told.node: index for index, told in slots.items() if told.desired == "running"} == before


@pytest.mark.parametrize("component", ["", "update: {order: stop_first}"])
def test_what_runs_with_no_fact_stays_where_it_is_when_a_node_comes_that_has_none(component: str) -> None:
    realm = Realm("n1", "n2", "n3")
    for index, node in enumerate(("n2", "n3")):
        realm.status(key(index), node, State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    realm.apply(web("each_node", component=component))
    said = {intent.record.node: intent.because for intent in realm.step()}
    assert realm.nodes_of() == ["n2", "n3", "n1"]
    assert [said[node].endswith(f"{node} runs it already") for node in ("n1", "n2", "n3")] == [False, True, True]


def test_what_runs_with_no_fact_on_another_node_than_its_own_ends_there_first() -> None:
    realm = Realm("n1", "n2")
    realm.status(key(), "n2", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    realm.attributes("n2", memory_bytes=2**20)
    realm.apply(web("each_node", component="update: {order: stop_first}"))
    realm.step()
    assert (realm.slot().node, realm.slot().waited) == ("n1", True)
    realm.status(key(), "n2", State.GONE)
    (intent,) = realm.step()
    assert (realm.slot().node, realm.slot().desired) == ("n1", "running")
    assert intent.because.endswith("no other copy of it runs")
