"""`nodes: minus(all_nodes, failed)`: a node where it is parked is not of the set: that it leaves is a forced move (A10)."""

from itertools import pairwise

import pytest

from dsmt.event.status import State

from .build import Attentive, Realm, key, web

FAILED = "nodes: minus(all_nodes, failed)\n"
STAYS = FAILED + "restart: {escalate: [restart: 3]}\n"
ALONE = "update: {order: stop_first}\n"


def begun(instances: int | str, component: str, *, lives: int, seconds: int) -> dict[int, list[int]]:
    """By index, at which second a program is begun that parks after `lives` seconds, wherever it is."""
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(instances, component=component))
    starts: dict[int, list[int]] = {}
    for second in range(seconds):
        controller.look()
        for (_, index), slot in sorted(realm.view.services["web"].slots.items()):
            assert slot.fact is not None
            fact = slot.fact.record
            for other in slot.holders:
                if fact.desired == "gone" or other not in fact.nodes:
                    realm.status(key(index), other, State.GONE)
            said = slot.application(fact.node)
            if fact.node is None or fact.desired != "running":
                if fact.desired == "stopped" and said is not None and said.record.state is not State.STOPPED:
                    realm.status(key(index), fact.node or "", State.STOPPED)
                continue
            if said is None or said.record.generation < slot.fact.version:
                starts.setdefault(index, []).append(second)
                realm.status(key(index), fact.node)
            elif said.record.state is State.RUNNING and realm.now_ms >= said.record.since_ms + lives * 1000:
                realm.status(key(index), fact.node, State.FAILED, parked=True)
        realm.after(1)
    assert controller.overlooked() == []
    return starts


@pytest.mark.parametrize(
    ("instances", "component"), [(1, FAILED), (1, STAYS), (1, FAILED + ALONE), (1, STAYS + ALONE), ("each_node", FAILED)]
)
@pytest.mark.parametrize("lives", [5, 65])
def test_a_program_that_always_fails_is_begun_elsewhere_or_anew_in_growing_times(
    instances: int | str, component: str, lives: int
) -> None:
    starts = begun(instances, component, lives=lives, seconds=7200)
    assert starts
    for times in starts.values():
        waits = [after - before for before, after in pairwise(times)]
        assert len(times) < 40
        assert min(waits[-10:]) >= 300


def test_a_node_that_cannot_run_it_any_more_is_left_at_once_by_what_works() -> None:
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.apply(web(1))
    controller.watch(5)
    for _ in range(6):
        node = realm.slot().node or ""
        realm.attributes(node, drivers={})
        controller.watch(2)
        assert realm.slot().node != node
        realm.attributes(node)
        controller.watch(61)


def test_what_moved_just_before_waits_until_it_has_run_for_long_enough() -> None:
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.apply(web(1, component="restart: {escalate: [restart: 5, move: 20]}"))
    controller.watch(5)
    for _ in range(8):
        realm.status(key(), realm.slot().node or "", State.FAILED, parked=True)
        controller.watch(300)
    node = realm.slot().node or ""
    controller.watch(301)
    realm.status(key(), node, State.FAILED, parked=True)
    controller.watch(2)
    second = realm.slot().node or ""
    assert second != node
    realm.attributes(second, drivers={})
    controller.watch(50)
    assert realm.slot().node == second
    controller.watch(20)
    assert realm.slot().node == node


def parked_again_and_again() -> tuple[Realm, Attentive]:
    """One of each node that has been parked twelve times."""
    realm = Realm("n1")
    controller = Attentive(realm)
    realm.apply(web("each_node", component=FAILED))
    for _ in range(12):
        controller.watch(10)
        realm.status(key(), "n1", State.FAILED, parked=True)
        controller.watch(60)
    return realm, controller


def test_another_revision_of_one_of_each_node_waits_for_nothing() -> None:
    realm, controller = parked_again_and_again()
    moves = realm.slot().moves
    realm.apply(web("each_node", component=FAILED + "env: {A: b}\n"))
    controller.watch(3)
    assert (moves > 3, realm.slot().revision, realm.slot().desired, realm.slot().moves) == (True, 2, "running", 0)


def test_one_of_each_node_that_ran_for_long_since_it_was_begun_again_waits_no_longer_than_at_first() -> None:
    realm, controller = parked_again_and_again()
    moves = realm.slot().moves
    realm.status(key(), "n1")
    controller.watch(900)
    realm.status(key(), "n1", State.FAILED, parked=True)
    controller.watch(60)
    assert (moves > 3, realm.slot().desired, realm.slot().moves) == (True, "running", 1)


@pytest.mark.parametrize("instances", [3, "each_node"])
@pytest.mark.parametrize("front", ["limit(all_nodes, 4)", "limit(minus(all_nodes, failed), 4)"])
def test_what_runs_outside_of_a_limit_stays_where_it_is(instances: int | str, front: str) -> None:
    realm = Realm(*(f"n{number}" for number in range(1, 8)))
    realm.apply(web(instances, component=f"nodes: minus(all_nodes, {front})\n"))
    realm.settle()
    before = realm.nodes_of()
    assert len(before) == 3
    for _ in range(5):
        assert realm.after(300).settle() == []
    assert realm.nodes_of() == before
