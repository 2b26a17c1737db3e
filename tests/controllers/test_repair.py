"""Slots leave their node for a stated cause only, and then as they should."""

import pytest

from dsmt.controllers.context import slot_intent
from dsmt.controllers.good import gone
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.order import MAX_STEP
from dsmt.event.status import Layer, State
from dsmt.view import Fleet

from .build import Realm, key, web
from .repairs import kill, running
from .signing import START_MS


def test_an_instance_of_a_dead_node_runs_on_another_one() -> None:
    realm = running()
    node = realm.slot(0).node
    kill(realm, node)
    (intent,) = realm.step()
    assert intent.subject == "web/app/0"
    assert realm.slot(0).node not in (node, None)
    assert realm.slot(0).moves == 1
    assert realm.slot(0).moved_at_ms == realm.now_ms
    assert realm.slot(0).reason.code == "node.lost"
    assert realm.slot(0).previous is None
    verdict = realm.view.nodes[node].verdict
    assert intent.cause[0] == verdict.id
    assert intent.because == f"web/app/0 moves from {node} to {realm.slot(0).node}: {node} is dead: {verdict.record.message}"


def test_the_fact_is_addressed_to_the_new_node_the_old_one_and_all_that_have_anything_left() -> None:
    realm = running()
    node = realm.slot(0).node
    third = next(n for n in ("n1", "n2", "n3", "n4") if n != node)
    realm.status(key(0), third, State.STOPPED, layer=Layer.CONTAINER)
    kill(realm, node)
    (intent,) = realm.step()
    assert set(intent.to) == {f"node/{node}", f"node/{third}", f"node/{realm.slot(0).node}"}


@pytest.mark.parametrize("claimed", [MAX_STEP + 1, 2**62, 2**63 - 1])
def test_a_generation_that_nobody_could_have_had_is_no_reason_to_say_nothing_more_of_a_slot(claimed: int) -> None:
    realm = running()
    node, version = realm.slot(0).node, realm.generation(0)
    liar = next(n for n in ("n1", "n2", "n3", "n4") if n not in realm.nodes_of())
    realm.status(key(0), liar, generation=claimed)
    kill(realm, node)
    (intent,) = realm.step()
    assert realm.slot(0).node not in (node, None)
    assert intent.next_version == version + 1


def test_a_suspect_node_keeps_its_instances() -> None:
    realm = running()
    realm.silence(realm.slot(0).node)
    assert realm.after(60).step() == []


def test_with_no_other_place_the_slot_stays_and_moves_when_there_is_one() -> None:
    realm = running(1, "n1")
    kill(realm, "n1")
    assert realm.step() == []
    assert realm.slot(0).node == "n1"
    realm.node("n2")
    realm.step()
    assert realm.slot(0).node == "n2"


def test_a_node_that_returns_before_there_was_another_place_goes_on() -> None:
    realm = running(1, "n1")
    kill(realm, "n1")
    realm.attach("n1")
    realm.node("n2")
    assert realm.step() == []
    assert realm.slot(0).node == "n1"


def test_nothing_moves_back_when_the_node_returns() -> None:
    realm = running()
    node = realm.slot(0).node
    kill(realm, node)
    realm.settle(seconds=1)
    realm.attach(node)
    assert realm.settle(seconds=1) == []


def test_pinned_and_held_slots_do_not_move() -> None:
    realm = running(1, component="on_partition: pinned")
    kill(realm, realm.slot(0).node)
    assert realm.step() == []
    realm = running(1)
    realm.hold(key(0))
    realm.settle(seconds=1)
    kill(realm, realm.slot(0).node)
    assert realm.step() == []


def test_lost_after_is_waited_for_when_it_is_written_out() -> None:
    realm = running(1, component="lost_after: 20s")
    kill(realm, realm.slot(0).node)
    closed = realm.view.nodes[realm.slot(0).node].verdict.record.since_ms
    assert realm.step() == []
    assert realm.decide().wake_ms == closed + 20_000
    realm.now_ms = closed + 20_000
    assert len(realm.step()) == 1


def test_the_wait_between_forced_moves_doubles_and_is_in_the_fact() -> None:
    realm = running(1, *(f"n{i}" for i in range(9)), ran_s=0)
    realm.obey()
    waits = []
    for _ in range(4):
        since = realm.slot(0).moved_at_ms or START_MS
        kill(realm, realm.slot(0).node)
        wake = realm.decide().wake_ms
        if wake is not None:
            waits.append(wake - since)
            realm.now_ms = wake
        realm.settle()
    assert waits == [2_000, 4_000, 8_000]
    assert realm.slot(0).moves == 4


def test_a_restart_that_is_asked_for_makes_no_forced_move_due_sooner() -> None:
    realm = running(1, *(f"n{i}" for i in range(5)), ran_s=0)
    realm.obey()
    kill(realm, realm.slot(0).node)
    realm.settle()
    moved_at_ms = realm.slot(0).moved_at_ms
    realm.control(key(0), restart=1)
    realm.settle()
    assert realm.slot(0).restart == 1
    kill(realm, realm.slot(0).node)
    assert realm.decide().wake_ms == moved_at_ms + 2_000


def test_the_count_of_moves_begins_anew_after_a_stable_minute() -> None:
    realm = running(1, *(f"n{i}" for i in range(5)))
    for _ in range(3):
        kill(realm, realm.slot(0).node)
        realm.settle(seconds=1)
        assert realm.slot(0).moves == 1
        realm.after(61)


def test_the_count_of_moves_begins_anew_with_another_revision() -> None:
    realm = running(1, ran_s=0)
    kill(realm, realm.slot(0).node)
    realm.settle(seconds=1)
    assert realm.slot(0).moves == 1
    realm.apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).revision, realm.slot(0).moves) == (2, 0)


def test_after_a_stable_minute_nothing_is_waited_for_however_long_the_last_wait_was() -> None:
    realm = running(1, *(f"n{i}" for i in range(12)), ran_s=0)
    for _ in range(7):
        kill(realm, realm.slot(0).node)
        realm.now_ms = max(realm.now_ms, realm.decide().wake_ms or 0)
        realm.settle()
    assert realm.slot(0).moves == 7, "the next one would wait for two minutes"
    node = realm.slot(0).node
    kill(realm.after(61), node)
    realm.step()
    assert realm.slot(0).node != node
    assert realm.slot(0).moves == 1


def test_the_time_that_is_waited_after_a_death_is_no_time_that_it_has_run() -> None:
    realm = running(1, *(f"n{i}" for i in range(12)), component="lost_after: 61s", ran_s=0)
    for _ in range(8):
        kill(realm, realm.slot(0).node)
        realm.now_ms = max(realm.now_ms, realm.decide().wake_ms or 0)
        realm.settle()
    assert realm.slot(0).moves == 8
    moved_at_ms = realm.slot(0).moved_at_ms
    kill(realm, realm.slot(0).node)
    assert realm.decide().wake_ms == moved_at_ms + 256_000


def test_a_node_that_left_is_left_at_once_whatever_is_waited_for_where_one_is_dead() -> None:
    realm = running(7, *(f"n{i}" for i in range(7)), component="lost_after: 20s")
    node = realm.slot(0).node
    for other in [one for one in sorted(realm.view.nodes) if one != node][:4]:
        realm.close(other, how="timeout")
        realm.verdict(other, road="silent")
    assert realm.decide().brake.on
    realm.verdict(node, road="operator", state="left")
    (intent,) = realm.step()
    assert intent.because.endswith(f": {node} has left")
    assert realm.slot(0).node != node
    assert realm.slot(0).moves == 1


def test_a_moved_slot_implements_the_newest_spec() -> None:
    realm = running(1)
    realm.close(realm.slot(0).node)
    applied = realm.apply(web(1, component="env: {A: b}"))
    realm.after(0.3).step()
    realm.step()
    assert realm.slot(0).spec == str(applied.id)
    assert realm.slot(0).revision == 2


def test_the_good_copy_stays_previous_when_its_successor_dies_before_it_is_ready() -> None:
    realm = running(1, "n1", "n2", "n3")
    good = realm.slot(0).node
    realm.control_node(good, "draining")
    realm.step()
    second = realm.slot(0).node
    kill(realm, second)
    realm.step()
    assert realm.slot(0).node not in (good, second)
    assert realm.slot(0).previous.node == good


def test_a_slot_leaves_a_node_that_can_no_longer_run_it() -> None:
    realm = running(1, "n1", "n2")
    node = realm.slot(0).node
    realm.attributes(node, drivers={})
    (intent,) = realm.step()
    assert realm.slot(0).node != node
    assert realm.slot(0).moves == 1
    assert "driver" in intent.because


@pytest.mark.parametrize("why", ["its node", "its set"])
def test_slots_leave_a_node_where_they_cannot_stay_one_at_a_time_and_name_the_words_that_say_so(why: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/near", NodesetFact(expression="all_nodes", by="alice"))
    applied = realm.apply(web(6, component="nodes: near"))
    realm.settle(seconds=1)
    realm.after(100)
    before = realm.view.nodes["n1"].attributes
    if why == "its node":
        words = [realm.attributes("n1", drivers={})]
    else:
        words = [realm.say("operator/alice", "nodeset/near", NodesetFact(expression="minus(all_nodes, n1)", by="alice"))]
        words += [before.signed] if before is not None else []
    (intent,) = realm.step()
    assert intent.cause == (applied.id, *(word.id for word in words))
    assert realm.nodes_of().count("n1") == 1


def test_less_room_than_before_is_no_cause_to_leave() -> None:
    realm = running(2, "n1", "n2")
    for node in ("n1", "n2"):
        realm.attributes(node, memory_bytes=2**20)
    assert realm.step() == []


def test_a_quarantined_slot_is_left_alone() -> None:
    realm = running(2)
    realm.say("controller/c9", "service/web/slot/app/0", {"node": 7})
    assert "service/web/slot/app/0" in realm.view.quarantined
    assert realm.step() == []
    realm.apply(web(1))
    assert {i.subject for i in realm.step()} == {"web/app/1"}


def test_a_spec_that_cannot_be_read_stops_nothing() -> None:
    realm = running(2)
    realm.say("operator/alice", "service/web/spec", {"spec": {"service": 3}, "by": "alice", "reason": ""})
    assert realm.step() == []


def test_a_view_with_slots_and_no_spec_stops_nothing() -> None:
    """The bus was refilled in an order that brought the slots first."""
    realm, other = running(3), Realm("n1", "n2", "n3", "n4")
    for _, event in realm.rows:
        if "/slot/" in event.event.topic or "/status/" in event.event.topic:
            other.view.apply(event)
    assert other.decide().intents == ()


def test_what_the_winner_says_already_is_not_said_again() -> None:
    realm = running(1)
    entry, fleet = realm.view.slot(key(0)), Fleet(realm.view, realm.now_ms)
    assert slot_intent(fleet, key(0), entry, realm.slot(0), (), because="again", spec=None) is None
    assert (
        slot_intent(fleet, key(0), entry, gone(realm.slot(0)), (), because="other", spec=None).next_version
        == realm.generation(0) + 1
    )


@pytest.mark.parametrize("killed", [1, 2])
def test_good_nodes_only_ten_keeps_selecting_until_ten_are_running(killed: int) -> None:
    realm = Realm(*(f"n{i:02}" for i in range(16)))
    realm.apply(web("each_node", component="nodes: limit(minus(all_nodes, failed), 10)"))
    realm.settle(seconds=1)
    before = realm.nodes_of()
    assert len(before) == 10
    for node in before[:killed]:
        realm.close(node)
    realm.after(0.3)
    realm.settle(seconds=1)
    after = realm.nodes_of()
    assert len(after) == 10
    assert set(before[killed:]) <= set(after)
    assert not set(before[:killed]) & set(after)
    realm.attach(before[0])
    assert realm.settle(seconds=1) == []
