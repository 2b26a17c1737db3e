"""What keeps data stays with the disk that holds it, until an operator lets that go."""

import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import DataHome, Slot
from dsmt.event.status import State
from dsmt.view import Fleet, SlotKey

from .build import Attentive, Realm, key, spec, web

DATA = "data: true\n"


def kept(instances: int | str = 1, *, component: str = DATA) -> tuple[Realm, str]:
    """A service with data on one of three nodes that have keys; and that node."""
    realm = Realm()
    for name in ("n1", "n2", "n3"):
        realm.node(name, key=f"key of {name}")
    realm.apply(web(instances, component=component))
    realm.settle(seconds=1)
    return realm.after(100), realm.slot(0).node or ""


def other(node: str) -> str:
    return "n2" if node != "n2" else "n3"


def test_a_slot_with_data_names_the_node_and_the_key_that_have_it() -> None:
    realm, node = kept()
    assert realm.slot(0).home == DataHome(node=node, key=f"key of {node}")


def test_what_waits_for_its_data_goes_on_as_soon_as_its_machine_is_there_again_by_its_key() -> None:
    realm, node = kept()
    controller = Attentive(realm)
    controller.watch(5)
    realm.apply(web(0, component=DATA))
    controller.watch(5)
    realm.attributes(node, key="another machine's")
    realm.apply(web(1, component=DATA))
    controller.watch(5)
    assert (realm.slot(0).node, realm.slot(0).reason.code) == (None, "wait.pinned")
    realm.attributes(node, key=f"key of {node}")
    controller.look()
    assert (realm.slot(0).node, realm.slot(0).home) == (node, DataHome(node=node, key=f"key of {node}"))


def test_what_has_no_data_has_no_home() -> None:
    realm, _ = kept(component="")
    assert realm.slot(0).home is None


def test_neither_death_nor_drain_nor_exclusion_nor_another_node_set_moves_data() -> None:
    for happening in ("dies", "drained", "excluded", "set"):
        realm, node = kept()
        match happening:
            case "dies":
                realm.close(node)
            case "drained":
                realm.control_node(node, "draining")
            case "excluded":
                realm.control_node(node, "excluded")
            case _:
                realm.apply(web(1, component=DATA + f"nodes: minus(all_nodes, {node})"))
        realm.settle(seconds=5)
        assert realm.after(3600).nodes_of() == [node], happening


def test_data_may_be_left_behind_by_a_component_that_says_so() -> None:
    realm, node = kept(component="data: true\non_partition: at_least_one\n")
    realm.control_node(node, "draining")
    realm.settle(seconds=5)
    assert realm.nodes_of() != [node]


def test_a_person_is_told_what_a_lost_instance_with_data_waits_for() -> None:
    realm, node = kept()
    realm.close(node)
    realm.settle(seconds=1)
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0))
    assert why is not None
    assert (why.code, why.who) == ("wait.pinned", "you")
    assert why.message == f"its data is on {node}, which is dead"
    assert why.next == f"bring {node} back, or dsmt move web/app/0 --accept-data-loss"


def test_another_machine_that_comes_up_under_the_name_of_the_home_is_not_home() -> None:
    realm, node = kept()
    realm.attributes(node, key="a new one")
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0))
    assert why is not None
    assert "another machine" in why.message
    realm.apply(web(1, component=DATA + "env: {A: b}"))
    realm.settle(seconds=5)
    assert realm.slot(0).home == DataHome(node=node, key=f"key of {node}"), "its data is still where it was"


def test_a_move_that_does_not_accept_the_loss_of_data_moves_nothing() -> None:
    realm, node = kept()
    realm.after(1).control(key(0), move=other(node))
    realm.settle(seconds=5)
    assert realm.nodes_of() == [node]


def test_an_operator_moves_data_by_accepting_its_loss_once() -> None:
    realm, node = kept()
    realm.after(1).control(key(0), move=other(node), accept_data_loss=True)
    (stopping,) = realm.step()
    assert realm.slot(0).desired == "stopped", "never two copies"
    assert "stops on" in stopping.because
    realm.obey()
    realm.settle(seconds=5)
    assert realm.nodes_of() == [other(node)]
    assert realm.slot(0).home == DataHome(node=other(node), key=f"key of {other(node)}")
    realm.close(other(node))
    realm.settle(seconds=5)
    assert realm.nodes_of() == [other(node)]


def moved_once(component: str = DATA) -> tuple[Realm, str]:
    """A service whose data was left behind once, at an operator's word; and where its data is now."""
    realm, node = kept(component=component)
    realm.after(1).control(key(0), move="", accept_data_loss=True)
    realm.settle(seconds=5)
    home = realm.slot(0).home.node
    assert home != node
    return realm.after(1000), home


@pytest.mark.parametrize("away", [False, True])
def test_the_loss_of_data_that_was_accepted_once_is_accepted_no_more_when_the_slot_is_wanted_again(away: bool) -> None:
    realm, home = moved_once()
    realm.apply(web(0, component=DATA))
    realm.settle(seconds=5)
    if away:
        realm.close(home)
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    assert realm.slot(0).home.node == home
    assert realm.slot(0).node == (None if away else home), "it waits for its data"


def test_what_says_a_done_move_again_moves_no_data() -> None:
    realm, home = moved_once()
    will = realm.view.winner("service/web/control/app/0")
    realm.say("operator/bob", "service/web/control/app/0", dict(will.event.data), cause=(will.id,))
    realm.settle(seconds=5)
    assert realm.slot(0).home.node == home


def test_an_accepted_loss_waits_for_the_node_that_it_was_accepted_for() -> None:
    realm, node = kept()
    target = other(node)
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target, accept_data_loss=True)
    for instances in (0, 1):
        realm.apply(web(instances, component=DATA))
        realm.settle(seconds=5)
    assert realm.slot(0).home.node == node, "its data is not left behind for a third node"
    realm.control_node(target, "active")
    realm.settle(seconds=5)
    assert realm.slot(0).home.node == target


def test_data_of_a_dead_node_is_given_up_at_an_operators_word() -> None:
    realm, node = kept()
    realm.close(node)
    realm.settle(seconds=1)
    realm.after(1).control(key(0), move="", accept_data_loss=True)
    realm.settle(seconds=1)
    assert realm.nodes_of() != [node]
    assert realm.slot(0).home.node == realm.slot(0).node


def test_a_slot_that_is_wanted_again_comes_back_to_its_data_and_waits_for_it() -> None:
    realm, node = kept(2)
    second = realm.slot(1).node or ""
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    assert realm.slot(1).desired == "gone"
    realm.close(second)
    realm.settle(seconds=5)
    realm.apply(web(2, component=DATA))
    realm.settle(seconds=5)
    assert realm.slot(1).node is None
    assert realm.slot(1).reason.code == "wait.pinned"
    realm.attach(second)
    realm.settle(seconds=5)
    assert realm.slot(1).node == second
    assert node


@pytest.mark.parametrize("mode", ["draining", "excluded"])
def test_what_waits_for_its_home_says_why_that_takes_nothing(mode: str) -> None:
    realm, node = kept()
    realm.apply(web(0, component=DATA))
    realm.settle(seconds=5)
    realm.control_node(node, mode)
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    why = realm.slot(0).reason
    assert (why.code, why.message) == ("wait.pinned", f"its data is on {node}, which does not take it: {node} is {mode}")
    assert f"dsmt move {key(0)} " in why.next


def test_a_slot_that_is_wanted_again_begins_on_no_other_machine_of_the_name_of_its_home() -> None:
    realm, node = kept()
    realm.apply(web(0, component=DATA))
    realm.settle(seconds=5)
    realm.attributes(node, key="a new one")
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    assert (realm.slot().node, realm.slot().home.key) == (None, f"key of {node}")
    assert realm.slot().reason.message == f"its data is on {node}, which is another machine now, with another key"
    realm.attributes(node, key=f"key of {node}")
    realm.settle(seconds=5)
    assert realm.slot().node == node


def test_an_instance_with_data_that_is_parked_stays() -> None:
    realm, node = kept()
    realm.status(key(0), node, State.FAILED, parked=True)
    realm.settle(seconds=5)
    assert realm.nodes_of() == [node]


EACH = DATA + "ports: {http: 8080}\n"


def made_anew() -> tuple[Realm, SlotKey]:
    """One of each node with data, of which one node is another machine now; and the slot of that."""
    realm = Realm()
    for name in ("n1", "n2"):
        realm.node(name, key=f"key of {name}")
    realm.apply(web("each_node", component=EACH))
    realm.settle(seconds=1)
    realm.after(100).close("n2")
    realm.settle(seconds=1)
    realm.attach("n2")
    realm.attributes("n2", key="a new one")
    realm.settle(obey=False)
    return realm, next(key(i) for i in (0, 1) if realm.slot(i).node == "n2")


@pytest.mark.parametrize("drained", [False, True])
def test_one_of_each_node_begins_on_another_machine_of_its_name_only_by_an_operators_word(drained: bool) -> None:
    realm, slot = made_anew()
    if drained:
        realm.control_node("n2", "draining")
        realm.settle(obey=False)
        assert realm.slot(slot.index).desired == "gone"
        realm.control_node("n2", "active")
        realm.settle(obey=False)
    assert realm.slot(slot.index).home.key == "key of n2"
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), slot)
    assert why is not None
    assert why.message == "its data is on n2, which is another machine now, with another key"
    assert why.next == f"bring n2 back, or dsmt move {slot} --accept-data-loss"
    realm.control(slot, move="n2")
    realm.settle(obey=False)
    assert realm.slot(slot.index).home.key == "key of n2"
    realm.control(slot, move="n2", accept_data_loss=True)
    realm.settle(obey=False)
    assert realm.slot(slot.index).home == DataHome(node="n2", key="a new one")
    assert realm.slot(slot.index).move_number == 2
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), slot) is None


@pytest.mark.parametrize("away", ["drained", "out of the set"])
def test_one_of_each_node_comes_back_to_its_data_though_another_node_joined_meanwhile(away: str) -> None:
    realm = Realm()
    for name in ("n1", "n2", "n3"):
        realm.node(name, key=f"key of {name}")
    controller = Attentive(realm)

    def nodes(expression: str) -> None:
        realm.say("operator/alice", "nodeset/good", NodesetFact(expression=expression, by="alice"))

    def running() -> dict[str, tuple[int, str]]:
        facts = {i: slot.fact.record for (_, i), slot in realm.view.services["web"].slots.items()}
        return {one.node: (i, one.home.node) for i, one in sorted(facts.items()) if one.desired == "running"}

    nodes("all_nodes")
    realm.apply(web("each_node", component="data: true\nnodes: good\n"))
    controller.watch(30)
    before = running()
    realm.control_node("n2", "draining") if away == "drained" else nodes("minus(all_nodes, n2)")
    controller.watch(30)
    assert running() == {node: where for node, where in before.items() if node != "n2"}
    realm.node("n4", key="key of n4")
    controller.watch(30)
    assert running()["n4"][0] not in {index for index, _ in before.values()}
    realm.control_node("n2", "active") if away == "drained" else nodes("all_nodes")
    controller.watch(30)
    assert {node: where for node, where in running().items() if node != "n4"} == before
    assert controller.overlooked() == []


def test_one_of_each_node_whose_node_is_dead_waits_for_no_word() -> None:
    realm, slot = made_anew()
    realm.attributes("n2", key="key of n2")
    realm.close("n2")
    realm.settle(seconds=1)
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), slot) is None


def all_lost() -> Realm:
    """The disk of the broker and all controllers were lost: n1 and n2 have brought back what they act on, n3 is late."""
    realm = Realm()
    applied = realm.apply(web(2, component=DATA))
    here = Slot(node="n1", spec=str(applied.id), revision=1, desired="running", home=DataHome(node="n1", key="key of n1"))
    realm.say("controller/c1", "service/web/slot/app/0", here)
    realm.after(60)
    for name in ("n1", "n2"):
        realm.node(name, key=f"key of {name}")
    realm.obey()
    return realm.after(20)


def test_data_of_which_no_fact_is_known_is_placed_nowhere_while_its_node_may_yet_bring_it_back() -> None:
    realm = all_lost()
    assert realm.settle() == []
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(1))
    assert why is not None
    assert (why.code, f"dsmt move {key(1)} " in why.next) == ("wait.pinned", True)
    assert why.message.startswith("its data is on an unknown node, which has until 2")
    realm.apply(web(2, component=DATA + "env: {A: b}"))
    for _ in range(20):
        realm.step()
        realm.obey()
        realm.after(1)
    assert realm.slot(0).revision == 2
    assert realm.view.slot(key(1)).empty, "whatever else is said: a fact of it would win over the one that comes"
    assert realm.decide().wake_ms is not None
    realm.after(100)
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(1)) is None
    realm.settle()
    assert realm.slot(1).node in ("n1", "n2")


def test_what_is_known_to_be_gone_waits_for_no_node_that_would_bring_it_back() -> None:
    realm = all_lost()
    realm.apply(web(0, component=DATA))
    realm.settle(seconds=1)
    assert realm.slot(0).desired == "gone"
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)) is None


def test_data_whose_node_is_late_is_where_it_was() -> None:
    realm = all_lost()
    here = Slot(node="n3", spec=realm.slot(0).spec, revision=1, desired="running", home=DataHome(node="n3", key="key of n3"))
    realm.say("controller/c1", "service/web/slot/app/1", here, time_ms=realm.now_ms - 80_000)
    realm.node("n3", key="key of n3")
    realm.settle(seconds=30)
    assert realm.nodes_of() == ["n1", "n3"]


def test_an_operator_who_accepts_the_loss_of_data_waits_for_no_node() -> None:
    realm = all_lost()
    realm.control(key(1), move="n2", accept_data_loss=True)
    realm.settle()
    assert realm.slot(1).node == "n2"


def test_what_began_after_all_was_lost_waits_for_nobody() -> None:
    realm = all_lost()
    for instances in (2, 3):
        applied = SpecFact(spec=spec(web(instances, service="db", component=DATA)), by="bob", reason="")
        realm.say("operator/bob", "service/db/spec", applied, incarnation=realm.now_ms)
        realm.settle()
        assert len(realm.nodes_of("db")) == instances
        assert None not in realm.nodes_of("db")


def test_one_of_each_node_waits_for_no_other_node() -> None:
    realm = Realm()
    realm.apply(web("each_node", component=DATA))
    realm.after(60).node("n1", key="key of n1")
    realm.settle()
    assert realm.nodes_of() == ["n1"]


def test_where_a_node_had_told_no_key_when_its_data_was_made_its_machine_is_taken_for_the_one_that_has_it() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component=DATA))
    controller = Attentive(realm)
    controller.watch(5)
    home = DataHome(node=realm.slot(0).node or "", key="")
    assert realm.slot(0).home == home
    realm.apply(web(0, component=DATA))
    controller.watch(5)
    realm.attributes(home.node, key="its key")
    realm.apply(web(1, component=DATA))
    controller.watch(5)
    assert (realm.slot(0).node, realm.slot(0).home, realm.slot(0).reason) == (home.node, home, None)
