"""Orphans, removed services, and their one tombstone."""

from typing import Any

import pytest

from dsmt.controllers.endings import ORPHAN_MS, ORPHANS_AT_ONCE
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.status import Layer, State
from dsmt.view import SlotKey

from .build import Realm, key, web


def orphaned(*, generation: int = 7, nodes: tuple[str, ...] = ("n1",)) -> Realm:
    realm = Realm("n1", "n2", "n3")
    for node in nodes:
        realm.status(key(0), node, State.INSTALLED, layer=Layer.CONTAINER, generation=generation, orphan=True)
    return realm


def test_what_runs_with_no_slot_fact_and_no_spec_is_told_to_be_gone() -> None:
    realm = orphaned(nodes=("n1", "n3"))
    (intent,) = realm.step()
    assert (intent.next_version, intent.record.desired) == (8, "gone")
    assert intent.to == ("node/n1", "node/n3")
    assert len(intent.cause) == 2
    assert intent.because == "n1 reports that it runs web/app/0 with no slot fact, and no spec wants it"
    assert realm.step() == []


@pytest.mark.parametrize("fact", [Slot(node="n1", spec="operator/alice#1-1", revision=1, desired="running"), {"node": 7}])
def test_what_has_a_fact_is_not_ended_for_want_of_one_though_its_node_lacks_it_or_nobody_here_can_read_it(fact: Any) -> None:
    realm = orphaned()
    realm.say("controller/c9", "service/web/slot/app/0", fact)
    assert realm.step() == []


@pytest.mark.parametrize("gone", [False, True], ids=["its manager is there", "its manager does not come back"])
def test_an_orphan_that_a_spec_wants_is_adopted_where_it_runs(gone: bool) -> None:
    realm = orphaned(nodes=("n3",))
    if gone:
        realm.session("node/n3", "closed")
        realm.after(31)
    realm.apply(web(1))
    (intent,) = realm.step()
    assert (intent.record.node, intent.record.desired, intent.next_version) == ("n3", "running", 8)
    assert intent.cause[0] == realm.view.slot(key()).instances["n3"].orphan.id


@pytest.mark.parametrize("component", ["", "nodes: union(n1, n2)"])
@pytest.mark.parametrize("mode", ["excluded", "draining", "active"])
def test_an_orphan_is_not_adopted_where_nothing_of_its_component_would_be_placed(mode: str, component: str) -> None:
    realm = orphaned(nodes=("n3",))
    realm.control_node("n3", mode)
    realm.apply(web(1, component=component))
    realm.step()
    adopted = mode == "active" and not component
    assert (realm.slot().node == "n3") == adopted
    assert realm.settle(seconds=5) == [], "it is where it may stay"


def test_less_room_than_it_takes_keeps_no_orphan_from_being_adopted_for_it_runs_there() -> None:
    realm = orphaned(nodes=("n3",))
    realm.apply(web(1, component="reserve: {memory: 100GiB}"))
    realm.step()
    assert realm.slot().node == "n3"


@pytest.mark.parametrize("mode", ["excluded", "draining", "active"])
def test_an_orphan_with_data_is_adopted_where_its_data_is(mode: str) -> None:
    realm = orphaned(nodes=("n3",))
    realm.control_node("n3", mode)
    realm.apply(web(1, component="data: true\nnodes: union(n1, n2)"))
    realm.settle(seconds=1)
    assert realm.slot().node == "n3"


def test_each_node_adopts_its_orphans_under_their_index() -> None:
    realm = Realm("n1", "n2")
    realm.status(key(5), "n2", State.INSTALLED, layer=Layer.CONTAINER, generation=3, orphan=True)
    realm.apply(web("each_node"))
    realm.settle(seconds=1)
    assert realm.slot(5).node == "n2"
    assert realm.nodes_of() == ["n1", "n2"]


def test_an_orphan_beyond_the_spec_is_told_to_be_gone() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.status(key(4), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    (intent,) = realm.step()
    assert (intent.subject, intent.record.desired, intent.next_version) == ("web/app/4", "gone", 3)


def test_what_a_node_reported_as_an_orphan_is_no_revision_to_go_back_to() -> None:
    realm = orphaned()
    realm.step()
    told = realm.slot(0)
    made_up = Good(spec=told.spec, revision=told.revision)
    realm.status(key(0), "n1", State.RUNNING, good=made_up)
    applied = realm.apply(web(1, component="restart: {escalate: [restart: 3]}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True, good=made_up)
    assert realm.step() == []
    assert realm.slot(0).spec == str(applied.id)


def test_orphans_wait_while_the_brake_is_on() -> None:
    realm = Realm(*(f"n{i}" for i in range(8)))
    realm.apply(web(8))
    realm.settle(seconds=1)
    for node in ("n0", "n1", "n2"):
        realm.close(node, how="timeout")
        realm.verdict(node, road="silent")
    realm.status(key(0, service="old"), "n5", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    assert realm.step() == []
    realm.after(1).attach("n0")
    assert realm.step() == []
    realm.after(10)
    assert "old/app/0" in {i.subject for i in realm.step()}


def made_up(realm: Realm, services: range, *, node: str = "n2", state: State = State.INSTALLED) -> None:
    for number in services:
        place = key(0, service=f"z{number:04}")
        realm.status(place, node, state, layer=Layer.CONTAINER, generation=1, orphan=state is State.INSTALLED)


def said(realm: Realm) -> list[str]:
    """What stands of services that nobody applied."""
    return [one.event.topic for one in realm.view.winners() if one.event.topic.startswith("service/z")]


def test_whatever_a_node_makes_up_only_so_many_facts_of_it_live_at_once_and_no_other_node_waits_for_it() -> None:
    realm, most = Realm("n1", "n2", "n3"), ORPHANS_AT_ONCE
    made_up(realm, range(3 * most))
    assert len(realm.step()) == most
    made_up(realm, range(3 * most), state=State.GONE)
    made_up(realm, range(3 * most, 4 * most))
    assert realm.step() == []
    realm.status(key(0), "n3", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    assert [intent.to for intent in realm.step()] == [("node/n3",)]
    realm.after(ORPHAN_MS / 1000)
    assert {intent.topic.split("/")[1] for intent in realm.step()} == {
        "web",
        *(f"z{n:04}" for n in range(3 * most, 4 * most)),
    }


def test_nothing_is_left_of_orphans_that_are_gone() -> None:
    realm = Realm("n1", "n2")
    for day in range(3):
        made_up(realm, range(50 * day, 50 * day + 50))
        realm.settle(seconds=1, obey=False)
        made_up(realm, range(50 * day, 50 * day + 50), state=State.GONE)
        realm.after(25 * 3600)
    assert said(realm) == []
    assert not realm.view.services
    assert not realm.view.ended_orphans
    assert not realm.view.orphans


def test_an_orphan_that_is_still_there_is_told_to_be_gone_again_once_the_fact_has_ended_by_itself() -> None:
    realm = orphaned()
    realm.step()
    assert realm.after(ORPHAN_MS / 1000 - 1).step() == []
    (again,) = realm.after(1).step()
    assert (again.record.desired, again.to, again.next_version) == ("gone", ("node/n1",), 8)
    realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=8, orphan=True)
    (later,) = realm.after(ORPHAN_MS / 1000).step()
    assert later.next_version == 9


def test_a_node_that_does_not_live_is_told_what_it_may_not_run_when_it_is_back() -> None:
    realm = orphaned()
    realm.close("n1")
    assert [intent.topic for intent in realm.after(1).step()] == ["node/n1/verdict"]
    assert realm.step() == []
    realm.attach("n1")
    (intent,) = realm.step()
    assert (intent.record.desired, intent.record.node) == ("gone", "n1")


def test_what_ended_an_orphan_gives_way_to_a_spec() -> None:
    realm = orphaned()
    realm.step()
    realm.apply(web(1))
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.view.slot(key(0)).fact.signed.event.ttl) == ("running", None)
    assert not realm.view.ended_orphans
    assert realm.after(2 * ORPHAN_MS / 1000).slot(0).desired == "running"


def removed(*, obey: bool = True) -> Realm:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.after(100).apply(web(2), removed=True)
    realm.step()
    if obey:
        realm.obey()
    return realm


def test_a_removed_service_ends_in_one_tombstone_when_nothing_is_left() -> None:
    realm = removed()
    assert [realm.slot(i).desired for i in range(2)] == ["gone", "gone"]
    assert realm.step() == []
    assert realm.decide().wake_ms == realm.now_ms + 5_000
    (intent,) = realm.after(5).step()
    assert (intent.topic, intent.subject, intent.next_version) == ("tombstone/service/web", "web", 1)
    assert intent.because.startswith("web was removed by ")
    assert realm.view.winner("service/web/spec") is None
    assert realm.view.slot(key(0)).fact is None
    assert realm.after(100).step() == []


def test_a_removed_service_is_buried_so_long_after_its_slots_were_told_to_be_gone_however_late_that_was() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.apply(web(2), removed=True)
    realm.after(60).step()
    realm.obey()
    assert realm.after(4.9).step() == []
    assert [intent.topic for intent in realm.after(0.1).step()] == ["tombstone/service/web"]


def test_a_removed_service_of_which_nothing_is_left_is_not_buried_before_its_slots_were_told_to_be_gone() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.close("n1")
    realm.verdict("n1")
    realm.apply(web(1), removed=True)
    assert [(intent.subject, intent.data["desired"]) for intent in realm.after(60).step()] == [("web/app/0", "gone")]
    assert realm.after(4.9).step() == []
    assert [intent.topic for intent in realm.after(0.1).step()] == ["tombstone/service/web"]


def test_there_is_no_tombstone_while_a_node_that_may_live_has_something_left() -> None:
    realm = removed(obey=False)
    realm.silence("n1", "n2")
    assert realm.after(600).step(may_accuse=False) == []


def test_a_dead_node_does_not_keep_the_service_from_its_grave_and_is_cleaned_when_it_returns() -> None:
    realm = removed(obey=False)
    realm.obey()
    realm.status(key(0), "n1", State.RUNNING)
    realm.close("n1")
    realm.verdict("n1")
    assert [i.topic for i in realm.after(10).step()] == ["tombstone/service/web"]
    realm.attach("n1")
    realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=2, orphan=True)
    (intent,) = realm.step()
    assert (intent.record.desired, intent.record.node) == ("gone", "n1")


def test_a_removed_service_is_not_buried_while_what_is_said_of_a_slot_cannot_be_read() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.say("controller/c9", "service/web/slot/app/0", {"node": 7})
    realm.status(key(0), "n1", State.GONE)
    realm.apply(web(1), removed=True)
    assert [realm.after(10).step() for _ in range(3)] == [[]] * 3, "who can read it may have something there"
    realm.say("controller/c9", "service/web/slot/app/0", Slot(node="n1", spec="s", revision=1, desired="gone"))
    assert realm.after(10).step() == [], "its node has not answered to that"
    assert [intent.topic for intent in realm.after(50).step()] == ["tombstone/service/web"]


def test_a_slot_of_which_nothing_can_be_read_keeps_no_other_one_from_its_end() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.say("controller/c9", "service/web/slot/app/0", {"node": 7})
    realm.apply(web(2), removed=True)
    assert [(intent.subject, intent.record.desired) for intent in realm.step()] == [("web/app/1", "gone")]


def test_a_service_applied_again_after_its_removal_begins_anew() -> None:
    realm = removed()
    realm.after(5).step()
    realm.after(1).apply(web(1))
    realm.settle(seconds=1)
    assert realm.slot(0).desired == "running"
    assert realm.slot(0).revision == 1
    realm.after(1).apply(web(1), removed=True)
    realm.settle()
    (intent,) = realm.after(60).step()
    assert (intent.topic, intent.next_version) == ("tombstone/service/web", 2)


@pytest.mark.parametrize("layer", [Layer.APPLICATION, Layer.CONTAINER])
def test_what_only_an_agent_s_key_tells_of_keeps_what_may_run_once_only_from_no_repair(layer: Layer) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component="update: {order: stop_first}"))
    realm.settle()
    at = realm.slot().node
    other, _ = sorted({"n1", "n2", "n3"} - {at})
    realm.status(key(), other, State.RUNNING, layer=layer, generation=1, alone=True)
    realm.status(key(), other, State.RUNNING, generation=1, alone=True)
    realm.close(at, how="timeout")
    realm.verdict(at)
    realm.settle(seconds=10)
    assert (realm.slot().node == at) is (layer is Layer.CONTAINER), "what the node itself tells of is waited for"


def test_what_only_an_agent_s_key_tells_of_keeps_no_removed_service_from_its_end() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    realm.status(SlotKey("web", "app", 7), "n2", State.RUNNING, generation=1, alone=True)
    realm.apply(web(1), removed=True)
    realm.settle(seconds=10)
    assert realm.view.services.get("web") is None or realm.view.winner("tombstone/service/web") is not None
