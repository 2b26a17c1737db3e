"""Nodes whose managers are at a broker of which this side hears nothing: what is placed there would not start (F1)."""

from __future__ import annotations

import pytest

from dsmt.controllers.placement import Chooser
from dsmt.view import Fleet
from tests.controllers.build import Attentive, Realm, key, web


def test_a_node_whose_manager_is_at_a_broker_that_is_lost_is_not_taken_though_an_agent_of_it_is_heard() -> None:
    realm = Realm(brokers=("b1", "b2"))
    for one, other in (("b1", "b2"), ("b2", "b1")):
        realm.session(f"broker/{other}", "open", broker=one)
    for node in ("n1", "n2"):
        realm.node(node, broker="b1")
    realm.attach("n2", broker="b2")
    realm.session("agent/n2/web/app/9", "open", broker="b1")
    realm.session("broker/b2", "silent", broker="b1")
    realm.after(60).apply(web(4))
    realm.settle(seconds=1)
    assert realm.nodes_of() == ["n1"] * 4
    realm.attach("n2", broker="b1")
    realm.apply(web(6))
    realm.settle(seconds=1)
    assert realm.nodes_of()[4:] == ["n2"] * 2


@pytest.mark.parametrize(("state", "away_s"), [("closed", 30), ("silent", 90)])
def test_a_node_whose_manager_does_not_come_back_is_not_taken_though_its_monitor_is_there(state: str, away_s: int) -> None:
    """What was placed there waited for ever."""
    realm = Realm("n1", "n2")
    realm.session("node/n2", state)
    realm.after(away_s).apply(web(2))
    realm.settle(seconds=1)
    first = realm.nodes_of()
    assert sorted(map(str, first)) == ["n1", "n2"], "it may come back yet"
    realm.apply(web(4))
    realm.settle(seconds=1)
    assert realm.nodes_of() == [*first, "n1", "n1"]
    realm.control(key(2), move="n2")
    realm.settle(seconds=1)
    why = Chooser(Fleet(realm.view, realm.now_ms, "b1"), "web", realm.view.services["web"].component("app")).misfit("n2")
    assert why == ("unheard", "the manager of n2 does not come back: nothing starts there")
    assert realm.nodes_of()[2] == "n1"
    realm.attach("n2", sources=["node/n2"])
    realm.step()
    assert realm.nodes_of()[2] == "n2"


def test_what_has_no_place_says_that_managers_do_not_come_back_as_soon_as_that_is_so() -> None:
    """Nothing woke a controller for it: the reason of before stood for a minute."""
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.apply(web(3, component="ports: {http: 8080}"))
    controller.watch(120)
    for node in ("n1", "n2"):
        realm.session(f"node/{node}", "closed")
    controller.watch(32)
    assert controller.overlooked() == []
    why = realm.slot(2).reason
    assert why is not None
    assert "unheard" in why.message


@pytest.mark.parametrize(("at", "node"), [("b1", "n1"), ("b2", "n2")])
def test_of_two_brokers_that_do_not_reach_each_other_the_one_is_lost_at_which_the_controller_is_not(
    at: str, node: str
) -> None:
    realm = Realm(brokers=("b1", "b2"))
    for one, other in (("b1", "b2"), ("b2", "b1")):
        realm.session(f"broker/{other}", "open", broker=one)
    for name, broker in (("n1", "b1"), ("n2", "b2")):
        realm.node(name, broker=broker)
    for one, other in (("b1", "b2"), ("b2", "b1")):
        realm.session(f"broker/{other}", "silent", broker=one)
    realm.after(60).apply(web(2))
    realm.broker = at
    slots = [intent.record.node for intent in realm.decide().intents if "/slot/" in intent.topic]
    assert slots == [node] * 2


def between(realm: Realm, linked: bool) -> None:
    """b1 and b2 do not reach each other; b3 reaches both, or not."""
    for one, other in (("b1", "b2"), ("b2", "b1"), ("b1", "b3"), ("b3", "b1"), ("b3", "b2")):
        realm.session(f"broker/{other}", "open", broker=one)
    realm.session("broker/b2", "silent", broker="b1")
    if not linked:
        realm.session("broker/b2", "silent", broker="b3")
    realm.after(60)


@pytest.mark.parametrize("linked", [True, False])
def test_a_node_whose_manager_is_at_a_broker_to_which_another_one_passes_on_is_taken(linked: bool) -> None:
    realm = Realm(brokers=("b1", "b2", "b3"))
    realm.node("n1", broker="b2")
    realm.attach("n1", sources=["monitor/n1"], broker="b3")
    between(realm, linked)
    realm.apply(web(1))
    realm.settle(seconds=1)
    assert realm.nodes_of() == (["n1"] if linked else [None])
