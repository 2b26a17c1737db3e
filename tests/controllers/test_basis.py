"""What is gone back to says where its slots may be, and not what was refused: data, nodes, room, ports, how many."""

from itertools import permutations

import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.slot import DataHome
from dsmt.event.status import State
from dsmt.view import Fleet, View

from .build import Attentive, Realm, key, web

POLICY = "restart: {escalate: [restart: 3]}\n"
BAD = POLICY + "env: {A: b}\n"
GIB = 2**30


def refused(first: str, second: str, *, instances: int | str = 1, then: int | str | None = None) -> tuple[Realm, Attentive]:
    """A service whose second revision, of `then` instances, was refused: the first one runs again."""
    realm = Realm()
    for name in ("n1", "n2", "n3"):
        realm.node(name, key=f"key of {name}")
    controller = Attentive(realm)
    realm.apply(web(instances, component=POLICY + first))
    controller.watch(30)
    realm.after(200).apply(web(instances if then is None else then, component=BAD + second))
    controller.look()
    failing = next(i for i in range(5) if realm.slot(i).revision == 2)
    realm.status(key(failing), realm.slot(failing).node or "", State.FAILED, parked=True)
    controller.watch(120)
    assert {realm.slot(i).revision for i in range(len(realm.nodes_of()))} == {1}
    assert controller.overlooked() == []
    return realm, controller


DATA = "data: true\n"


@pytest.mark.parametrize("second", ["", "data: true\non_partition: at_least_one\n"], ids=["none", "left behind"])
@pytest.mark.parametrize("happens", ["dies", "drained", "excluded", "left the set"])
def test_data_stays_with_what_is_gone_back_to(second: str, happens: str) -> None:
    realm, controller = refused(DATA, second)
    node = realm.slot().node or ""
    assert realm.slot().home == DataHome(node=node, key=f"key of {node}")
    match happens:
        case "dies":
            realm.close(node)
        case "drained":
            realm.control_node(node, "draining")
        case "excluded":
            realm.control_node(node, "excluded")
        case _:
            realm.apply(web(2, component=BAD + second))
            controller.watch(30)
            realm.control_node(node, "draining")
    controller.watch(60)
    assert (realm.slot().node, realm.slot().home) == (node, DataHome(node=node, key=f"key of {node}"))
    if happens == "dies":
        why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
        assert why is not None
        assert why.code == "wait.pinned"


def test_what_kept_no_data_is_not_pinned_by_what_was_refused() -> None:
    realm, controller = refused("", DATA)
    node = realm.slot().node or ""
    assert realm.slot().home is None
    realm.close(node)
    controller.watch(30)
    assert realm.slot().node not in (node, None)


def test_another_revision_that_keeps_no_data_lets_it_go() -> None:
    realm, controller = refused(DATA, "")
    node = realm.slot().node or ""
    realm.apply(web(1, component=POLICY + "env: {A: c}\n"))
    controller.watch(30)
    realm.control_node(node, "draining")
    controller.watch(30)
    assert (realm.slot().revision, realm.slot().node != node, realm.slot().home) == (3, True, None)


@pytest.mark.parametrize("happens", ["drained", "dies"])
def test_data_stays_while_a_revision_that_keeps_none_is_tried(happens: str) -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(1, component=POLICY + DATA))
    controller.watch(30)
    node = realm.slot().node or ""
    realm.after(200).apply(web(1, component=BAD))
    controller.look()
    realm.obey()
    controller.look()
    assert (realm.slot().revision, realm.slot().node) == (2, node)
    if happens == "dies":
        realm.close(node)
    else:
        realm.control_node(node, "draining")
    controller.watch(5, obey=False)
    assert (realm.slot().revision, realm.slot().node) == (2, node), "it may be gone back to the one that keeps data"
    if happens == "dies":
        realm.attach(node)
    realm.status(key(), node, State.FAILED, parked=True)
    controller.watch(60)
    assert (realm.slot().revision, realm.slot().node, controller.overlooked()) == (1, node, [])


def test_data_is_left_behind_once_a_revision_that_keeps_none_is_good() -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(2, component=POLICY + DATA))
    controller.watch(30)
    nodes = [realm.slot(index).node for index in range(2)]
    realm.after(200).apply(web(2, component=POLICY))
    realm.control_node(nodes[1] or "", "draining")
    controller.watch(90)
    assert (realm.slot(0).node, realm.slot(1).node == nodes[1]) == (nodes[0], False)
    assert ([realm.slot(index).revision for index in range(2)], realm.slot(1).home) == ([2, 2], None)
    assert controller.overlooked() == []


def test_the_nodes_of_what_is_gone_back_to_are_its_nodes() -> None:
    realm, controller = refused("nodes: union(n1, n2)\n", "nodes: union(n3)\n")
    assert realm.slot().node in ("n1", "n2")
    realm.control_node(realm.slot().node or "", "draining")
    controller.watch(30)
    assert realm.slot().node in ("n1", "n2")


def test_it_comes_back_to_its_nodes_though_what_was_refused_moved_it() -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(1, component=POLICY + "nodes: union(n1)\n"))
    controller.watch(30)
    realm.after(200).apply(web(1, component=BAD + "nodes: union(n3)\n"))
    controller.look()
    realm.obey()
    controller.look()
    assert (realm.slot().node, realm.slot().revision) == ("n3", 2)
    realm.status(key(), "n3", State.FAILED, parked=True)
    controller.watch(60)
    assert (realm.slot().node, realm.slot().revision, controller.overlooked()) == ("n1", 1, [])


def test_room_is_kept_for_what_is_gone_back_to_and_not_for_what_was_refused() -> None:
    realm, controller = refused("reserve: {memory: 1GiB}\n", "reserve: {memory: 100GiB}\n")
    node = realm.slot().node or ""
    assert realm.view.allocations.node(node).memory == GIB
    realm.close(node)
    controller.watch(30)
    assert realm.slot().node not in (node, None)
    assert realm.view.allocations.node(realm.slot().node or "").memory == GIB


def test_a_port_is_kept_for_what_is_gone_back_to() -> None:
    realm, controller = refused("ports: {http: 8080}\n", "")
    realm.apply(web(3, service="other", component="ports: {http: 8080}\n"))
    controller.watch(30)
    assert realm.slot().node not in realm.nodes_of("other")
    assert realm.nodes_of("other").count(None) == 1


def test_who_waits_for_what_a_refused_revision_took_is_looked_at() -> None:
    realm = Realm("n1")
    controller = Attentive(realm)
    realm.apply(web(1, component=POLICY))
    controller.watch(30)
    realm.after(200).apply(web(1, component=BAD + "reserve: {memory: 7GiB}\n"))
    controller.look()
    realm.apply(web(1, service="other", component="reserve: {memory: 4GiB}\n"))
    controller.watch(5)
    assert realm.nodes_of("other") == [None]
    realm.status(key(), "n1", State.FAILED, parked=True)
    controller.watch(30)
    assert realm.nodes_of("other") == ["n1"]


@pytest.mark.parametrize(("first", "then", "found"), [("each_node", 1, 3), (2, "each_node", 2), (2, 3, 3)])
def test_what_ran_on_each_node_does_so_again_and_who_scales_scales_what_runs(
    first: int | str, then: int | str, found: int
) -> None:
    realm, controller = refused("", "", instances=first, then=then)
    nodes = realm.nodes_of()
    assert (len(nodes), len(set(nodes))) == (found, found)
    realm.node("n4", key="key of n4")
    controller.watch(30)
    assert len(realm.nodes_of()) == found + (first == "each_node")


def test_an_instance_that_is_gone_back_to_is_ready_as_its_own_revision_says() -> None:
    checked = "ports: {http: auto}\nhealth: {tcp: {port: http}}\n"
    realm, controller = refused("", checked, instances=3)
    realm.apply(web(4, component=BAD + checked))
    controller.watch(30)
    for index in range(4):
        realm.control(key(index), restart=1)
    controller.watch(120)
    assert [realm.slot(index).restart for index in range(4)] == [1, 1, 1, 1], "each waits for the one before to be ready"


def test_one_copy_at_a_time_where_what_is_gone_back_to_says_so() -> None:
    realm, controller = refused("update: {order: stop_first}\n", "")
    node = realm.slot().node or ""
    realm.control_node(node, "draining")
    controller.look()
    assert (realm.slot().node, realm.slot().desired, realm.slot().previous) == (node, "stopped", None)


@pytest.mark.parametrize("more", [1, 2])
def test_it_is_kept_through_revisions_that_only_scale_and_through_others_that_fail(more: int) -> None:
    realm, controller = refused(DATA, "")
    node = realm.slot().node or ""
    realm.apply(web(2, component=BAD))
    controller.watch(60)
    for revision in range(more):
        realm.after(200).apply(web(2, component=POLICY + f"env: {{C: '{revision}'}}\n"))
        controller.look()
        failing = next(i for i in (0, 1) if realm.slot(i).revision == 4 + revision)
        realm.status(key(failing), realm.slot(failing).node or "", State.FAILED, parked=True)
        controller.watch(120)
    assert realm.slot().revision == 1
    realm.close(node)
    controller.watch(60)
    assert (realm.slot().node, realm.slot().home) == (node, DataHome(node=node, key=f"key of {node}"))


# --- all its slots follow ----------------------------------------------------------------------------------------


def test_a_slot_whose_node_was_away_goes_back_when_it_returns() -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(3, component=POLICY + DATA))
    controller.watch(60)
    realm.after(100).apply(web(3, component=BAD + DATA))
    controller.watch(13)
    (there,) = (i for i in range(3) if realm.slot(i).revision == 2 and i != 1) if realm.slot(1).revision == 1 else (0,)
    node = realm.slot(there).node or ""
    realm.close(node)
    realm.after(1)
    controller.watch(20)
    failing = next(i for i in range(3) if i != there and realm.slot(i).revision == 2)
    realm.status(key(failing), realm.slot(failing).node or "", State.FAILED, parked=True)
    controller.watch(60)
    realm.attach(node)
    realm.status(key(there), node)
    controller.watch(30)
    assert [realm.slot(i).revision for i in range(3)] == [1, 1, 1]
    assert controller.overlooked() == []


def test_what_governs_is_the_same_in_whatever_order_facts_come() -> None:
    realm, _ = refused("reserve: {memory: 1GiB}\n", "reserve: {memory: 2GiB}\n", instances=2)
    winners = [signed for signed in realm.view.winners() if signed.event.topic.startswith("service/web/s")]
    specs = [event for _, event in realm.rows if event.event.topic == "service/web/spec"]
    slots = [signed for signed in winners if "/slot/" in signed.event.topic]
    early = [event for _, event in realm.rows if event.event.topic == "service/web/slot/app/0"][:2]
    for order in permutations([*specs, *slots, *early]):
        view = folded(order)
        assert {view.allocations.node(slot.event.data["node"]).memory for slot in slots} == {GIB}
        assert view.services["web"].refusal("app").id == realm.view.services["web"].refusal("app").id


def folded(events: tuple[SignedEvent, ...]) -> View:
    view = View()
    for event in events:
        view.apply(event)
    return view
