"""A service that keeps data, is removed and applied again: it comes back to where its data is (A17.3)."""

import pytest

from dsmt.controllers.left_data import DATA_MOST
from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import DataHome
from dsmt.event.records import from_data
from dsmt.event.status import Layer, State
from dsmt.view import Fleet

from .build import Realm, key, web
from .test_pinning import DATA, kept, other

TOMBSTONE = "tombstone/service/web"


def homes(realm: Realm) -> dict[tuple[str, int], DataHome | None]:
    return {place: slot.fact.record.home for place, slot in realm.view.services["web"].slots.items() if slot.fact}


def remove(realm: Realm, instances: int | str) -> None:
    """End the service of `kept`, and wait for its tombstone."""
    before = realm.view.winner(TOMBSTONE)
    realm.apply(web(instances, component=DATA), removed=True)
    realm.settle(seconds=10)
    realm.after(60).settle(seconds=10)
    assert realm.view.winner(TOMBSTONE) != before


@pytest.mark.parametrize("instances", [2, "each_node"])
def test_a_service_that_was_removed_and_is_applied_again_comes_back_to_its_data(instances: int | str) -> None:
    realm, _ = kept(instances)
    before = homes(realm)
    remove(realm, instances)
    realm.node("n0", key="key of n0")  # the emptiest, and the first by name
    realm.apply(web(instances, component=DATA))
    realm.settle(seconds=5)
    assert {place: homes(realm)[place] for place in before} == before
    nodes = {index: realm.slot(index).node for _, index in before}
    assert nodes == {index: home.node for (_, index), home in before.items() if home is not None}


def test_data_that_was_left_twice_is_where_it_was_left_last_and_what_was_not_wanted_meanwhile_where_it_was() -> None:
    realm, _ = kept(2)
    before = homes(realm)
    remove(realm, 2)
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    elsewhere = other(realm.slot(0).node or "")
    realm.control(key(), move=elsewhere, move_number=1, accept_data_loss=True)
    realm.settle(seconds=5)
    remove(realm, 1)
    realm.apply(web(2, component=DATA))
    realm.settle(seconds=5)
    assert homes(realm) == {
        ("app", 0): DataHome(node=elsewhere, key=f"key of {elsewhere}"),
        ("app", 1): before["app", 1],
    }


def test_what_is_applied_again_waits_for_a_dead_node_that_has_its_data_and_for_none_that_has_left_the_realm() -> None:
    realm, node = kept()
    realm.close(node)
    realm.settle(seconds=5)
    remove(realm, 1)
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    assert (realm.slot(0).node, waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)).code) == (
        None,
        "wait.pinned",
    )
    realm.control(key(), move="", move_number=1, accept_data_loss=True)
    realm.settle(seconds=5)
    assert realm.nodes_of() != [node]

    realm, node = kept()
    remove(realm, 1)
    realm.verdict(node, state="left")
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    assert realm.slot(0).node not in (None, node)


def test_what_keeps_no_data_any_more_is_begun_anywhere_when_it_is_applied_again() -> None:
    realm, node = kept()
    remove(realm, 1)
    realm.control_node(node, "draining")
    realm.apply(web(1))
    realm.settle(seconds=5)
    assert (realm.slot(0).home, realm.nodes_of() != [node]) == (None, True)


def test_a_tombstone_names_so_many_homes_as_fit_into_one_event() -> None:
    realm = Realm()
    for number in range(8):
        realm.node(f"n{number}", key=f"key of n{number}")
    realm.apply(web(DATA_MOST + 5, component=DATA))
    realm.settle(seconds=1)
    assert len(homes(realm)) == DATA_MOST + 5
    remove(realm, DATA_MOST + 5)
    said = realm.view.winner(TOMBSTONE)
    assert said is not None
    told = from_data(Tombstone, said.event.data)
    assert [one.index for one in told.data] == list(range(DATA_MOST))
    other = web(1, component=DATA).replace("app:", "pg:")  # its own data is named before what another revision has left
    realm.apply(other)
    realm.settle(seconds=1)
    home = homes(realm)[("pg", 0)]
    realm.apply(other, removed=True)
    realm.settle(seconds=10)
    realm.after(60).settle(seconds=10)
    said = realm.view.winner(TOMBSTONE)
    assert said is not None
    told = from_data(Tombstone, said.event.data)
    assert ((told.data[0].component, told.data[0].home), len(told.data)) == (("pg", home), DATA_MOST)


def test_what_an_orphan_of_before_was_told_hides_no_home() -> None:
    realm, _ = kept(2)
    before = homes(realm)
    node = realm.slot(1).node or ""
    realm.close(node)
    realm.settle(seconds=1)
    remove(realm, 2)
    realm.attach(node)
    realm.status(key(1), node, State.RUNNING, generation=2, layer=Layer.CONTAINER, orphan=True)
    (ended,) = realm.step()
    assert (ended.record.desired, ended.record.home) == ("gone", None)
    realm.status(key(1), node, State.GONE, generation=3, layer=Layer.CONTAINER)
    realm.control_node(node, "excluded")
    realm.apply(web(2, component=DATA))
    realm.settle(seconds=5)
    assert (realm.slot(1).node, homes(realm)[("app", 1)]) == (None, before["app", 1])
    remove(realm, 2)
    realm.apply(web(2, component=DATA))
    realm.settle(seconds=5)
    assert homes(realm) == before


def test_data_of_before_that_runs_elsewhere_with_no_fact_is_not_taken_for_that_which_the_tombstone_names() -> None:
    realm, node = kept()
    realm.close(node)
    realm.settle(seconds=1)
    realm.control(key(0), move=other(node), accept_data_loss=True)
    realm.settle(seconds=1)
    remove(realm, 1)
    realm.attach(node)
    for layer in (Layer.CONTAINER, Layer.APPLICATION):
        realm.status(key(0), node, State.RUNNING, generation=1, layer=layer, orphan=True)
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=1)
    assert realm.slot(0).node == other(node)


def test_a_home_of_which_nothing_is_known_yet_is_waited_for() -> None:
    realm, node = kept()
    remove(realm, 1)
    said = realm.view.winner(TOMBSTONE)
    assert said is not None
    blank = Realm()
    blank.now_ms = realm.now_ms + 60_000
    blank.rows.append((1, said))
    blank.view.apply(said)
    for name in {"n1", "n2", "n3"} - {node}:
        blank.node(name, key=f"key of {name}")
    blank.apply(web(1, component=DATA))
    blank.settle(seconds=10)
    assert blank.slot(0).node is None
    blank.node(node, key=f"key of {node}")
    blank.settle(seconds=1)
    assert blank.slot(0).node == node


def test_data_is_not_forgotten_while_the_service_keeps_none_for_a_life() -> None:
    realm, node = kept()
    remove(realm, 1)
    realm.apply(web(1))
    realm.settle(seconds=5)
    remove(realm, 1)
    realm.control_node(node, "excluded")
    realm.apply(web(1, component=DATA))
    realm.settle(seconds=5)
    told = realm.slot(0)
    assert (told.node, told.home) == (None, DataHome(node=node, key=f"key of {node}"))
