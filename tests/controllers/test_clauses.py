"""Each clause that a node may fail, with the sentence that `why-not` shows of it; and what `spread` counts."""

from __future__ import annotations

import pytest

from dsmt.controllers.placement import Chooser, Misfit
from dsmt.event.kinds.node import DriverAttributes
from dsmt.event.kinds.slot import Slot
from dsmt.view import Fleet
from dsmt.view.allocation import MOST_ON_A_NODE
from tests.controllers.build import Realm, key, web

PLAIN = DriverAttributes(fence="none", enforces=("memory",))


def chooser(realm: Realm) -> Chooser:
    component = realm.view.services["web"].component("app")
    assert component is not None
    return Chooser(Fleet(realm.view, realm.now_ms, realm.broker), "web", component)


def realm_of(component: str, *nodes: str) -> Realm:
    realm = Realm(*(nodes or ("n1", "n2")))
    realm.apply(web(1, component=component))
    return realm


SAYS = {
    "nodes: n2": ("nodes", "n1 is not in n2"),
    "requires: node.labels.gpu == 'yes'": (
        "requires",
        "`requires: node.labels.gpu == 'yes'` cannot be evaluated by this version",
    ),
    "driver: bubblewrap": ("driver", "n1 has no driver bubblewrap"),
    "user: www-data": (
        "user",
        "n1 cannot run programs as www-data, only as its own user: it does not run as root",
    ),
    "on_partition: at_most_one\nfence: kernel": ("fence", "driver process on n1 has no kernel fence"),
    "limits: {cpu: 1}": ("limits", "driver process on n1 cannot enforce limits.cpu"),
    "limits: {disk: 1GiB}": ("limits", "driver process on n1 cannot enforce limits.disk"),
    "reserve: {cpu: 5}": ("cpu", "needs 5 cores, 4 are free on n1"),
    "reserve: {disk: 101GiB}": ("disk", "needs 101 GiB disk, 100 GiB is free on n1"),
}


@pytest.mark.parametrize("component", SAYS)
def test_what_a_component_wants_and_a_node_has_not_is_said_in_full(component: str) -> None:
    assert chooser(realm_of(component)).misfit("n1") == SAYS[component]


def test_what_a_node_is_keeps_all_off_it_and_is_said_in_full() -> None:
    realm = realm_of("", "n1", "n2", "n3")
    assert chooser(realm).misfit("n1") is None
    assert chooser(realm).misfit("n1", avoid=("n1",)) == ("avoid", "it is to leave n1, or is parked there")
    realm.control_node("n1", "excluded")
    realm.attributes("n2", accepts="self.owner == 'me'")
    realm.close("n3")
    realm.verdict("n3")
    assert chooser(realm).why_not() == {
        "n1": ("mode", "n1 is excluded"),
        "n2": ("accepts", "n2 accepts only self.owner == 'me', which this version cannot evaluate"),
        "n3": ("dead", "n3 is dead"),
    }
    assert [fault.clause for fault in chooser(realm).faults("n3", avoid=("n3",))] == ["dead", "avoid"]


def test_a_node_whose_manager_is_at_a_lost_broker_hears_nothing() -> None:
    realm = Realm("n1", brokers=("b1", "b2"))
    realm.node("n2", broker="b2")
    realm.apply(web(1))
    realm.session("broker/b2", "closed")
    realm.attach("n2", sources=["monitor/n2"], broker="b1")
    realm.after(60)
    said = "the manager of n2 is at a broker that is lost: nothing that is said here starts there"
    assert chooser(realm).misfit("n2") == Misfit("unheard", said)


def test_of_several_users_each_is_named() -> None:
    realm = realm_of("user: www-data")
    realm.attributes("n1", drivers={"process": DriverAttributes(fence="none", users=("dsmt", "1000"))})
    told = chooser(realm).misfit("n1")
    assert told is not None
    assert told.says == "n1 cannot run programs as www-data, only as dsmt or 1000: it does not run as root"


def test_what_is_beside_it_keeps_it_off_a_node() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, service="db", component="ports: {http: 8080}\nnodes: n1"))
    realm.step()
    realm.apply(web(1, component="apart: db/app\nports: {http: 8080}"))
    assert [*chooser(realm).faults("n1")] == [("apart", "db/app is on n1"), ("ports", "port 8080 is taken on n1")]
    assert chooser(realm).misfit("n2") is None


def test_a_node_takes_so_many_instances_and_no_more() -> None:
    realm = realm_of("", "n1")
    for index in range(MOST_ON_A_NODE):
        slot = Slot(node="n1", spec="operator/alice#1-1", revision=1, desired="running")
        realm.say("controller/c1", key(index, service="db").topic, slot)
    said = f"n1 has {MOST_ON_A_NODE} instances, and {MOST_ON_A_NODE} are the most"
    assert chooser(realm).misfit("n1") == ("number", said)


@pytest.mark.parametrize(("by", "full"), [("node", {"n1"}), ("label:rack", {"n1", "n2"}), ("none", set())])
def test_a_strict_spread_counts_where_it_looks(by: str, full: set[str]) -> None:
    realm = Realm()
    for node, rack in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        realm.node(node, labels={"rack": rack})
    realm.node("n4", labels={})
    realm.apply(web(1, component="nodes: n1"))
    realm.step()
    realm.apply(web(2, component=f"spread: {{by: '{by}', strict: true}}"))
    chosen = chooser(realm)
    found = {node: chosen.misfit(node) for node in ("n1", "n2", "n3", "n4")}
    assert {node for node, fault in found.items() if fault is not None} == full
    assert {fault for fault in found.values() if fault is not None} <= {
        ("spread", f"{node} already has more than its share, and `spread` is strict") for node in full
    }


def test_limits_that_cannot_be_enforced_name_five_of_the_nodes() -> None:
    nodes = [f"n{n}" for n in range(1, 8)]
    realm = realm_of("limits: {cpu: 1}", *nodes)
    told = chooser(realm).reason(key())
    assert (
        told.message
        == f"limits cannot be enforced on {', '.join(nodes[:5])}: driver process on n1 cannot enforce limits.cpu"
    )


def test_with_no_spread_the_emptiest_is_taken_and_of_these_the_next_on_the_ring_of_the_slot() -> None:
    nodes = [f"n{n}" for n in range(1, 9)]
    realm = realm_of("spread: none", *nodes)
    assert len({chooser(realm).choose(key(index)) for index in range(16)}) > 3
    first = chooser(realm).choose(key())
    assert first is not None
    second = chooser(realm).choose(key(), avoid=(first,))
    assert second not in (first, None)
    realm.apply(web(1, component=f"spread: none\nnodes: union({first}, {second})"))
    assert chooser(realm).choose(key(), avoid=(first,)) == second
    assert chooser(realm).choose(key(), avoid=(first, second)) is None
