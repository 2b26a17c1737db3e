"""While a revision that keeps no data is tried each slot stays with the data that it may go back to, and no longer."""

import msgspec
import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.replacing import replaced
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.slot import Good
from dsmt.event.status import State
from dsmt.view import Fleet

from .build import Attentive, Realm, key, web
from .rollouts import refused

POLICY = "restart: {escalate: [restart: 3]}\nupdate: {deadline: 60s, healthy_after: 5s}\n"
DATA = POLICY + "data: true\n"
NONE = POLICY + "env: {A: b}\n"


def good(instances: int = 1) -> tuple[Realm, Attentive, list[str]]:
    """A service with data that has run for a while, and where."""
    realm = Realm("n1", "n2", "n3", "n4")
    controller = Attentive(realm)
    realm.apply(web(instances, component=DATA))
    controller.watch(60)
    return realm, controller, [node or "" for node in realm.nodes_of()]


def tried(realm: Realm, controller: Attentive, instances: int = 1) -> None:
    """A revision that keeps no data begins, and is not good yet."""
    realm.apply(web(instances, component=NONE))
    controller.look()
    realm.obey()
    controller.look()


def homes(realm: Realm) -> list[str | None]:
    slots = sorted(realm.view.services["web"].slots.items())
    facts = [slot.fact.record for _, slot in slots if slot.fact is not None]
    return [None if fact.home is None else fact.home.node for fact in facts]


# --- a slot that was gone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("emptied", [DATA, NONE], ids=["scaled to 0", "applied with none"])
def test_a_slot_that_is_wanted_again_by_a_revision_that_keeps_no_data_begins_where_its_data_is(emptied: str) -> None:
    realm, controller, (node,) = good()
    realm.apply(web(0, component=emptied))
    controller.watch(30)
    realm.apply(web(2, service="other", component=f"nodes: {node}\n"))
    controller.watch(30)
    tried(realm, controller)
    assert (realm.slot().node, homes(realm)) == (node, [node])
    realm.status(key(), node, State.FAILED, parked=True)
    controller.watch(60)
    assert (refused(realm.slot()), realm.slot().node, homes(realm)) == (
        realm.view.services["web"].spec.version,
        node,
        [node],
    )
    assert controller.overlooked() == []


def test_a_slot_that_was_scaled_to_none_goes_back_to_one_event_whoever_says_what_was_good() -> None:
    """Its agent knows it by the event of revision 1; a slot that is gone keeps the one of revision 2 alone."""
    realm, controller, (node,) = good()
    first = Good(spec=realm.slot().spec, revision=1)
    realm.apply(web(0, component=DATA))
    controller.look()
    realm.status(key(), node, State.GONE, good=first)
    controller.watch(30)
    kept = realm.slot()
    assert (kept.names, kept.implements, kept.good) == ((kept.spec,), kept.good, Good(spec=kept.spec, revision=2))
    realm.apply(web(1, component=NONE))
    controller.look()
    realm.status(key(), node, State.INITIATED, good=first)
    controller.look()
    realm.status(key(), node, State.FAILED, parked=True, good=first)
    controller.watch(30)
    assert (realm.slot().spec, refused(realm.slot()), homes(realm)) == (kept.spec, 3, [node])
    realm.control_node(node, "draining")
    controller.watch(60)
    assert (realm.slot().node, homes(realm), controller.overlooked()) == (node, [node], [])


def test_what_a_slot_had_when_it_ended_is_brought_along_though_nobody_has_said_that_it_was_good() -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(1, component=DATA))
    controller.look()
    node, first = realm.slot().node, realm.slot().spec
    for more in ("c", "d", "e"):
        realm.apply(web(0, component=POLICY + f"env: {{A: {more}}}\n"))
        controller.look()
    assert realm.view.services["web"].component_of("app", first).on_partition == "pinned"
    tried(realm, controller)
    assert homes(realm) == [node]


def test_what_an_agent_says_only_when_its_slot_has_ended_is_gone_back_to_with_its_data() -> None:
    """The slot was scaled to 0 before anybody said that revision 1 was good."""
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(1, component=DATA))
    controller.look()
    node, first = realm.slot().node or "", realm.slot().implements
    realm.apply(web(0, component=DATA))
    controller.look()
    realm.status(key(), node, State.GONE, good=first)
    controller.look()
    assert realm.slot().good is None
    tried(realm, controller)
    realm.status(key(), node, State.FAILED, parked=True, good=first)
    controller.watch(30)
    assert (realm.slot().implements, refused(realm.slot()), homes(realm)) == (first, 3, [node])
    realm.control_node(node, "draining")
    controller.watch(30)
    assert realm.slot().node == node


# --- what nobody has said ----------------------------------------------------------------------------------------


def test_data_stays_where_nobody_has_said_yet_that_the_revision_before_was_good() -> None:
    """The broker's disk was lost, and the agent is late."""
    before, _, (node,) = good()
    realm = Realm("n1", "n2", "n3", "n4")
    controller = Attentive(realm)
    realm.now_ms = before.now_ms
    first = Good(spec=str(realm.apply(web(1, component=DATA)).id), revision=1)
    realm.say("controller/c1", "service/web/slot/app/0", msgspec.structs.replace(before.slot(), spec=first.spec))
    realm.apply(web(1, component=NONE))
    controller.look()
    assert (realm.slot().revision, realm.slot().good, homes(realm)) == (2, None, [node])
    realm.after(2).status(key(), node, State.INITIATED, good=first)
    controller.look()
    realm.control_node(node, "draining")
    controller.look()
    realm.status(key(), node, State.FAILED, parked=True, good=first)
    controller.watch(30)
    assert (realm.slot().revision, realm.slot().node, homes(realm)) == (1, node, [node])


# --- one slot, and the others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("happens", ["dies", "drained"])
@pytest.mark.parametrize("other", ["held", "dead"])
def test_a_slot_that_refuses_nothing_keeps_no_other_one_where_its_data_was(other: str, happens: str) -> None:
    realm, controller, nodes = good(3)
    if other == "held":
        realm.hold(key(2))
    else:
        realm.close(nodes[2])
    controller.watch(10)
    realm.apply(web(3, component=NONE))
    controller.watch(120)
    if happens == "dies":
        realm.close(nodes[0])
    else:
        realm.control_node(nodes[0], "draining")
    controller.watch(60)
    assert (realm.slot(0).node in (None, *nodes), realm.slot(0).home) == (False, None)
    assert (realm.slot(2).node, realm.slot(2).home.node) == (nodes[2], nodes[2]), "it was never good there"
    assert controller.overlooked() == []


@pytest.mark.parametrize("ends", ["refused", "good"])
@pytest.mark.parametrize("happens", ["dies", "drained"])
def test_a_slot_with_a_good_revision_stays_with_its_data_while_another_one_may_bring_it_back(
    happens: str, ends: str
) -> None:
    realm, controller, nodes = good(2)
    realm.apply(web(2, component=NONE))
    controller.watch(7)
    assert [realm.slot(i).revision for i in (0, 1)] == [2, 2]
    first, other = sorted((0, 1), key=lambda i: realm.view.slot(key(i)).fact.time_ms)
    if happens == "dies":
        realm.close(nodes[first])
    else:
        realm.control_node(nodes[first], "draining")
    controller.watch(2)
    assert realm.slot(first).node == nodes[first]
    if ends == "refused":
        realm.status(key(other), nodes[other], State.FAILED, parked=True)
        controller.watch(10)
        if happens == "dies":
            realm.attach(nodes[first])
        controller.watch(60)
        assert ([realm.slot(i).revision for i in (0, 1)], realm.nodes_of(), homes(realm)) == ([1, 1], nodes, nodes)
    else:
        controller.watch(30)
        assert (realm.slot(first).node != nodes[first], realm.slot(first).home) == (True, None)
    assert controller.overlooked() == []


def test_a_revision_that_is_never_rolled_back_keeps_no_slot_in_which_it_is_good() -> None:
    realm, controller, nodes = good(2)
    realm.apply(web(2, component=POLICY.replace("5s}", "5s, rollback: false}") + "env: {A: b}\n"))
    controller.watch(7)
    first, other = sorted((0, 1), key=lambda i: realm.view.slot(key(i)).fact.time_ms)
    realm.status(key(other), nodes[other], State.FAILED, parked=True)
    realm.close(nodes[first])
    controller.watch(5, obey=False)
    assert realm.slot(first).node != nodes[first]
    assert homes(realm)[other] == nodes[other]


def test_data_that_was_let_go_is_not_kept_for_a_later_revision() -> None:
    realm, controller, (node,) = good()
    for more in ("c", "d"):
        realm.apply(web(1, component=POLICY + f"env: {{A: {more}}}\n"))
        controller.watch(2)
        assert homes(realm) == [node if more == "c" else None]
        controller.watch(10)


@pytest.mark.parametrize("instances", [1, "each_node"])
def test_what_is_good_and_keeps_no_data_begins_on_another_machine_of_its_nodes_name(instances: int | str) -> None:
    realm = Realm()
    for name in ("n1", "n2"):
        realm.node(name, key=f"key of {name}")
    controller = Attentive(realm)
    realm.apply(web(instances, component=DATA))
    controller.watch(60)
    realm.apply(web(instances, component=NONE))
    controller.watch(60)
    node, told = realm.slot().node or "", realm.slot()
    assert told.home.key == f"key of {node}"
    realm.attributes(node, key="a new one")
    controller.watch(5)
    assert realm.slot() == msgspec.structs.replace(told, home=None, good=realm.slot().good)
    assert controller.overlooked() == []


# --- everybody knows it ------------------------------------------------------------------------------------------


def test_a_slot_on_a_dead_node_says_that_it_waits_for_data_that_it_may_go_back_to_and_is_not_replaced() -> None:
    realm, controller, (node,) = good()
    realm.close(node)
    controller.watch(5)
    tried(realm, controller)
    controller.watch(3600, step=60)
    fleet = Fleet(realm.view, realm.now_ms, realm.broker)
    why = waits_for(Governing(fleet), key())
    assert why is not None
    assert why.message == f"its data is on {node}, which is dead"
    assert replaced(Governing(fleet), key()) is None
    realm.control(key(), move="", accept_data_loss=True)
    controller.watch(30)
    assert realm.slot().node not in (node, None)
    fleet = Fleet(realm.view, realm.now_ms, realm.broker)
    assert (replaced(Governing(fleet), key()) is None, waits_for(Governing(fleet), key())) == (False, None)
