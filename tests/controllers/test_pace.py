"""Whom what takes a working instance away waits for, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.status import State
from tests.controllers.build import Realm, key, web

DEADLINE_S = 20
OWN = "nodes: good\nupdate: {healthy_after: 10s, deadline: 20s}\n"
Asks = Callable[[Realm, str], object]


def drain(realm: Realm, node: str) -> None:
    realm.control_node(node, "draining")


def restart(realm: Realm, _node: str) -> None:
    realm.control(key(1), restart=realm.now_ms)


def leave_out(realm: Realm, node: str) -> None:
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression=f"minus(all_nodes, {node})", by="alice"))


def update(realm: Realm, _node: str) -> None:
    realm.apply(web(2, component="env: {A: b}\n" + OWN))


def good_instances() -> Realm:
    realm = Realm("n1", "n2", "n3", "n4")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="all_nodes", by="alice"))
    realm.apply(web(2, component=OWN))
    realm.settle(seconds=3)
    return realm.after(100)


def says(realm: Realm, since_ms: int) -> None:
    """An agent says of its instance, in the generation that it is to have, that it has run since then."""
    realm.status(key(0), realm.slot(0).node or "", State.RUNNING, since_ms=since_ms, alone=True)


@pytest.mark.parametrize("ahead_ms", [0, 10**10], ids=["since now, again and again", "since a time that is to come"])
@pytest.mark.parametrize("asks", [drain, restart, leave_out])
def test_whatever_an_agent_says_of_its_instance_holds_up_no_word_for_longer_than_its_deadline(
    asks: Asks, ahead_ms: int
) -> None:
    realm = good_instances()
    said = realm.slot(1)
    says(realm, realm.now_ms + ahead_ms)
    asks(realm, said.node or "")
    waited_s = 0
    while (realm.slot(1).node, realm.slot(1).restart) == (said.node, said.restart):
        says(realm, realm.now_ms + ahead_ms)
        realm.step()
        realm.after(2)
        waited_s += 2
        assert waited_s <= DEADLINE_S + 2
    assert waited_s > 2, "it is waited for"


def test_a_revision_goes_no_further_while_one_that_has_it_is_never_ready_for_long_enough() -> None:
    realm = good_instances()
    update(realm, "")
    realm.step()
    (first,) = (index for index in range(2) if realm.slot(index).revision == 2)
    for _ in range(2 * DEADLINE_S):
        realm.status(key(first), realm.slot(first).node or "", State.RUNNING, since_ms=realm.now_ms)
        realm.after(2)
        realm.step()
    assert realm.slot(1 - first).revision == 1
    for _ in range(8):
        realm.after(2)
        realm.step()
    assert realm.slot(1 - first).revision == 2, "now it is"
