"""Slots leave their node for a stated cause only, and then as they should."""

import pytest

from dsmt.controllers.agenda import Agenda
from dsmt.controllers.context import slot_intent
from dsmt.controllers.good import gone
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.order import MAX_STEP
from dsmt.event.records import from_data
from dsmt.event.status import Layer, State

from .build import START_MS, Realm, key, web


def running(instances: int | str = 3, *nodes: str, component: str = "", ran_s: float = 100) -> Realm:
    """A realm where the service has been running for a while."""
    realm = Realm(*(nodes or ("n1", "n2", "n3", "n4")))
    realm.apply(web(instances, component=component))
    realm.settle(seconds=1)
    return realm.after(ran_s)


def kill(realm: Realm, node: str) -> None:
    realm.close(node)
    realm.after(0.3).step()


# --- a dead node -------------------------------------------------------------------------------------------------


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
    assert intent.cause[0] == realm.view.nodes[node].verdict.id
    assert node in intent.because


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


def test_the_count_of_moves_begins_anew_after_a_stable_minute() -> None:
    realm = running(1, *(f"n{i}" for i in range(5)))
    for _ in range(3):
        kill(realm, realm.slot(0).node)
        realm.settle(seconds=1)
        assert realm.slot(0).moves == 1
        realm.after(61)


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


def test_a_node_that_left_is_left_at_once() -> None:
    realm = running(1)
    node = realm.slot(0).node
    realm.verdict(node, road="operator", state="left")
    realm.step()
    assert realm.slot(0).node != node


def test_a_moved_slot_implements_the_newest_spec() -> None:
    realm = running(1)
    realm.close(realm.slot(0).node)
    applied = realm.apply(web(1, component="env: {A: b}"))
    realm.after(0.3).step()
    realm.step()
    assert realm.slot(0).spec == str(applied.id)
    assert realm.slot(0).revision == 2


# --- drain, exclude, move ----------------------------------------------------------------------------------------


def test_a_drained_node_is_left_start_first() -> None:
    realm = running(2, "n1", "n2", "n3")
    node, generation = realm.slot(0).node, realm.generation(0)
    realm.control_node(node, "draining")
    (intent,) = realm.step()
    slot = realm.slot(0)
    assert slot.node not in (node, None)
    assert (slot.previous.node, slot.previous.generation) == (node, generation)
    assert slot.previous.deadline_ms == realm.now_ms + 300_000
    assert slot.reason.code == "node.drained"
    assert slot.moves == 0
    assert f"node/{node}" in intent.to


def test_draining_goes_one_at_a_time_each_waiting_to_be_ready() -> None:
    realm = running(4, "n1", "n2")
    realm.control_node("n1", "draining")
    there = [i for i in range(4) if realm.slot(i).node == "n1"]
    assert len(there) == 2
    assert len(realm.step()) == 1
    assert realm.after(5).step() == []
    realm.obey()
    wake = realm.decide().wake_ms
    assert wake == realm.now_ms + 10_000
    realm.now_ms = wake
    assert len(realm.step()) == 1
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == {"n2"}


def test_a_drain_with_no_other_place_moves_nothing_and_blocks_nothing_else() -> None:
    realm = running(1, "n1")
    realm.control_node("n1", "draining")
    assert realm.step() == []
    realm.hold(key(0))
    realm.step()
    assert realm.slot(0).desired == "stopped"


def test_an_excluded_node_keeps_what_it_has_and_gets_nothing_new() -> None:
    realm = running(4, "n1", "n2")
    realm.control_node("n1", "excluded")
    assert realm.step() == []
    realm.apply(web(8))
    realm.settle(seconds=1)
    assert realm.nodes_of().count("n1") == 2


def test_where_two_copies_must_not_run_it_stops_first() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    realm.control_node(node, "draining")
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).desired, realm.slot(0).previous) == (node, "stopped", None)
    assert realm.step() == []
    realm.obey()
    realm.step()
    assert realm.slot(0).node not in (node, None)
    assert (realm.slot(0).desired, realm.slot(0).previous) == ("running", None)


def test_a_stop_first_move_whose_cause_goes_away_starts_again_where_it_was() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    realm.control_node(node, "draining")
    realm.step()
    realm.control_node(node, "active")
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).desired) == (node, "running")


def test_an_operator_moves_a_slot_once() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    target = next(n for n in ("n1", "n2", "n3") if n != node)
    realm.control(key(0), move=target)
    realm.step()
    assert realm.slot(0).node == target
    assert realm.slot(0).previous.node == node
    realm.settle(seconds=1)
    realm.after(100)
    kill(realm, target)
    realm.settle(seconds=1)
    realm.attach(target)
    assert realm.after(100).settle(seconds=1) == []


def test_a_done_move_is_not_done_again_when_the_slot_is_wanted_again() -> None:
    realm = running(3, "n1", "n2", "n3")
    realm.control(key(2), move="")
    realm.settle(seconds=5)
    assert realm.slot(2).move_number == 1
    for instances in (2, 3):
        realm.after(1000).apply(web(instances))
        said = realm.settle(seconds=5)
    assert not any("asked for a move" in intent.because for intent in said)


@pytest.mark.parametrize("component", ["", "data: true\n"])
@pytest.mark.parametrize("room", ["nowhere else", "elsewhere", "nowhere for a while"])
def test_a_move_to_any_other_node_is_not_done_where_the_slot_comes_up_again(component: str, room: str) -> None:
    """It waits for room elsewhere, and the service is scaled to 0 and to 1 meanwhile."""
    realm = running(1, "n1", component=component)
    realm.control(key(0), move="", leave="n1", accept_data_loss=bool(component))
    assert realm.settle(seconds=1) == []
    realm.after(100).apply(web(0, component=component))
    realm.settle(seconds=1)
    if room == "elsewhere":
        realm.node("n2")
    if room == "nowhere for a while":
        realm.control_node("n1", "excluded")
    realm.after(100).apply(web(1, component=component))
    realm.settle(seconds=1)
    if room == "nowhere for a while":
        assert realm.slot().node is None
        realm.control_node("n1", "active")
        realm.settle(seconds=1)
    told = realm.slot()
    assert (told.node, told.move_number) == (("n2", 1) if room == "elsewhere" else ("n1", 0))
    assert told.home is None or told.home.node == told.node
    realm.node("n2")
    realm.after(100).settle(seconds=1)
    assert (realm.slot().node, realm.slot().move_number) == ("n2", 1)
    assert realm.after(100).settle(seconds=1) == []


def test_a_move_to_where_the_slot_is_already_is_done_at_once_and_never_later() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    realm.control(key(0), move=node)
    (intent,) = realm.settle(seconds=1)
    assert "where it is" in intent.because
    assert (realm.slot(0).node, realm.slot(0).move_number, realm.slot(0).moved_at_ms) == (node, 1, None)
    realm.control_node(node, "draining")
    realm.settle(seconds=1)
    realm.control_node(node, "active")
    assert realm.after(100).settle(seconds=1) == [], "it does not move back"


def test_a_move_of_the_former_form_that_has_no_number_is_not_done() -> None:
    realm = running(1, "n1", "n2")
    realm.control(key(0), move="n2" if realm.slot(0).node == "n1" else "n1", move_number=0)
    assert realm.step() == []


def test_a_move_outlives_what_moves_the_slot_elsewhere_meanwhile() -> None:
    realm = running(1, "n1", "n2", "n3", "n4", "n5")
    node = realm.slot(0).node
    target = next(n for n in ("n5", "n4") if n != node)
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target)
    kill(realm, node)
    realm.settle(seconds=1)
    assert realm.slot(0).node not in (node, target)
    assert realm.slot(0).move_number == 0
    realm.control_node(target, "active")
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).move_number) == (target, 1)


@pytest.mark.parametrize("component", ["", "data: true\n"])
def test_a_held_slot_is_moved_off_a_dead_node_by_an_operator_and_by_nothing_else(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    node = realm.slot(0).node
    hold = from_data(SlotControl, realm.hold(key(0)).event.data).hold
    realm.settle(seconds=1)
    kill(realm, node)
    realm.settle(seconds=1)
    assert realm.slot(0).node == node
    realm.control(key(0), hold=hold, move="", accept_data_loss=bool(component))
    realm.settle(seconds=1)
    assert realm.slot(0).node != node
    assert (realm.slot(0).desired, realm.slot(0).move_number) == ("stopped", 1)


def test_a_move_to_any_other_node_is_done_by_what_moves_the_slot_meanwhile() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    realm.close(node)
    realm.control(key(0), move="")
    said = realm.settle(seconds=1)
    assert realm.slot(0).node != node
    assert (len(said), realm.slot(0).move_number) == (2, 1), "the verdict, and one move"


def test_a_move_to_a_node_that_does_not_fit_waits_until_it_does() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    target = next(n for n in ("n1", "n2", "n3") if n != node)
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target)
    assert realm.step() == []
    realm.control_node(target, "active")
    realm.step()
    assert realm.slot(0).node == target


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
    assert "driver" in intent.because


def test_less_room_than_before_is_no_cause_to_leave() -> None:
    realm = running(2, "n1", "n2")
    for node in ("n1", "n2"):
        realm.attributes(node, memory_bytes=2**20)
    assert realm.step() == []


def park(realm: Realm) -> None:
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True)


def test_a_parked_instance_whose_escalation_ends_in_a_move_moves_to_where_it_is_not_parked() -> None:
    realm = running(1, "n1", "n2", "n3")
    seen = [realm.slot(0).node]
    for _ in range(2):
        park(realm)
        realm.after(3).step()
        seen.append(realm.slot(0).node)
    assert len(set(seen)) == 3
    assert realm.slot(0).moves == 2
    park(realm)
    assert realm.after(1000).step() == []


@pytest.mark.parametrize(
    ("takes", "needs", "frees"),
    [
        ("reserve: {memory: 7GiB}", "reserve: {memory: 4GiB}", "reserve: {memory: 1GiB}"),
        ("ports: {http: 8080}", "ports: {http: 8080}", ""),
    ],
    ids=["room", "a port"],
)
def test_who_waits_for_what_another_spec_frees_is_looked_at(takes: str, needs: str, frees: str) -> None:
    realm, agenda = Realm("n1"), Agenda()

    def look() -> None:
        for _ in range(5):
            scope = agenda.scope(realm.view, realm.view.take_dirty(), realm.now_ms)
            decided = realm.decide(scope=scope, before=agenda.brake)
            agenda.note(decided, scope)
            realm.publish(decided.intents)
            realm.obey()

    realm.apply(web(1, service="db", component=takes))
    look()
    realm.apply(web(1, component=needs))
    look()
    assert realm.slot().node is None
    realm.apply(web(1, service="db", component=frees))
    look()
    assert realm.slot().node == "n1"


@pytest.mark.parametrize("component", ["", "restart: {escalate: [restart: 5]}"], ids=["moves", "stays"])
@pytest.mark.parametrize("parkings", [1, 2, 3, 12])
def test_a_parked_instance_whose_node_dies_runs_elsewhere_once_its_next_forced_move_is_due(
    component: str, parkings: int
) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    agenda = Agenda()

    def look() -> None:
        scope = agenda.scope(realm.view, realm.view.take_dirty(), realm.now_ms)
        decided = realm.decide(scope=scope, before=agenda.brake)
        agenda.note(decided, scope)
        realm.publish(list(decided.intents))

    for _ in range(parkings):
        park(realm)
        look()
        while (wake := agenda.wake_ms) is not None:
            realm.after((wake - realm.now_ms) / 1000)
            look()
    node = realm.slot(0).node
    realm.close(node)
    look()
    for _ in range(4):
        if agenda.wake_ms is not None:
            realm.after(max(0, agenda.wake_ms - realm.now_ms) / 1000)
        look()
    assert realm.slot(0).node not in (node, None)


@pytest.mark.parametrize("component", ["update: {order: stop_first}", "ports: {http: 8080}"])
def test_a_parked_instance_that_must_stop_first_stops_and_starts_elsewhere(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    seen = [realm.slot(0).node]
    for _ in range(2):
        park(realm)
        stopping = [intent.because for intent in realm.after(3).step()]
        assert (realm.slot(0).node, realm.slot(0).desired) == (seen[-1], "stopped"), "never two copies"
        assert "stops on" in stopping[0]
        assert realm.step() == [], "it waits for the stop, and does not start where it was"
        realm.obey()
        (moving,) = realm.step()
        assert "parked" in moving.because
        seen.append(realm.slot(0).node)
        assert realm.slot(0).desired == "running"
    assert (len(set(seen[:2])), len(set(seen[1:]))) == (2, 2)
    assert (realm.slot(0).moves, realm.slot(0).parked) == (2, False)


def test_an_instance_that_stops_to_leave_where_it_was_parked_stays_there_when_it_is_held() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    park(realm)
    realm.step()
    realm.hold(key(0))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired, realm.slot(0).reason.code) == (node, "stopped", "hold.operator")
    realm.control(key(0))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired) == (node, "running")


def test_a_parked_instance_stays_when_its_escalation_has_no_move() -> None:
    realm = running(1, "n1", "n2", component="restart: {escalate: [restart: 5]}")
    park(realm)
    assert realm.after(600).step() == []


# --- an operator's will ------------------------------------------------------------------------------------------


def test_a_hold_stops_and_only_its_end_starts_again() -> None:
    realm = running(1)
    node = realm.slot(0).node
    held = realm.hold(key(0))
    (intent,) = realm.step()
    assert (realm.slot(0).desired, realm.slot(0).node) == ("stopped", node)
    assert realm.slot(0).reason.code == "hold.operator"
    assert "alice" in realm.slot(0).reason.message
    assert intent.cause == (held.id,)
    realm.settle(seconds=1)
    realm.apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).revision) == ("stopped", 2)
    realm.control(key(0))
    realm.step()
    assert (realm.slot(0).desired, realm.slot(0).reason, realm.slot(0).node) == ("running", None, node)


def test_a_hold_outlives_a_time_in_which_its_slot_is_not_wanted() -> None:
    realm = running(3)
    realm.hold(key(2))
    for instances in (2, 3):
        realm.apply(web(instances))
        realm.settle(seconds=5)
    assert (realm.slot(2).desired, realm.slot(2).reason.code) == ("stopped", "hold.operator")
    realm.control(key(2))
    realm.settle(seconds=5)
    assert realm.slot(2).desired == "running"


def test_a_slot_that_a_hold_stopped_stays_so_where_its_control_is_not_known() -> None:
    before = running(1, "n1", "n2")
    before.hold(key(0))
    before.settle(seconds=1)
    realm = Realm()
    realm.now_ms, realm._sequences = before.now_ms, before._sequences
    for _, event in before.rows:
        if "/control/" not in event.event.topic:
            realm.view.apply(event)
    assert realm.after(60).settle(seconds=1) == []
    realm.apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).revision) == ("stopped", 2)
    assert realm.slot(0).reason == before.slot(0).reason
    realm.control_node(realm.slot(0).node, "draining")
    realm.settle(seconds=1)
    assert (realm.slot(0).desired, realm.slot(0).reason) == ("stopped", before.slot(0).reason), "it moves, held"
    realm.control(key(0))
    realm.step()
    assert realm.slot(0).desired == "running", "only an operator's word starts it"


def test_a_restart_is_a_new_generation_on_the_same_node_once() -> None:
    realm = running(1)
    node, generation = realm.slot(0).node, realm.generation(0)
    realm.control(key(0), restart=1)
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).restart, realm.generation(0)) == (node, 1, generation + 1)
    assert realm.settle(seconds=1) == []


def test_restarting_all_goes_one_at_a_time() -> None:
    realm = running(3)
    for i in range(3):
        realm.control(key(i), restart=1)
    assert len(realm.step()) == 1
    realm.obey()
    assert realm.after(9).step() == []
    assert len(realm.after(1).step()) == 1


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
    entry = realm.view.slot(key(0))
    assert slot_intent(key(0), entry, realm.slot(0), (), "again") is None
    assert slot_intent(key(0), entry, gone(realm.slot(0)), (), "other").next_version == realm.generation(0) + 1


# --- each_node ---------------------------------------------------------------------------------------------------


def test_each_node_gets_one_and_new_nodes_too() -> None:
    realm = running("each_node", "n1", "n2")
    assert sorted(realm.nodes_of()) == ["n1", "n2"]
    realm.node("n3")
    realm.settle(seconds=1)
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_stays_on_a_dead_node_and_does_not_move() -> None:
    realm = running("each_node", "n1", "n2", "n3")
    kill(realm, "n2")
    assert realm.step() == []
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_leaves_a_drained_node_and_comes_back_to_its_own_index() -> None:
    realm = running("each_node", "n1", "n2", "n3")
    index = realm.nodes_of().index("n2")
    realm.control_node("n2", "draining")
    realm.settle(seconds=1)
    assert sorted(realm.nodes_of()) == ["n1", "n3"]
    realm.control_node("n2", "active")
    realm.settle(seconds=1)
    assert realm.slot(index).node == "n2"
    assert sorted(realm.nodes_of()) == ["n1", "n2", "n3"]


def test_each_node_gives_a_node_that_returns_its_own_index_and_not_the_lowest() -> None:
    realm = running("each_node", "n1", "n2", "n3", "n4")
    low, high = sorted(["n1", "n4"], key=realm.nodes_of().index)
    index = realm.nodes_of().index(high)
    for node in (low, high):
        realm.control_node(node, "draining")
    realm.settle(seconds=1)
    realm.control_node(high, "active")
    realm.settle(seconds=1)
    assert (realm.slot(index).node, realm.slot(index).desired) == (high, "running")


@pytest.mark.parametrize("left", ["drained", "gone from the set"])
def test_each_node_keeps_a_hold_for_the_node_that_it_was_of(left: str) -> None:
    realm = running("each_node", "n1", "n2", "n3", component="nodes: minus(all_nodes, n9)")
    held = realm.slot(0).node
    realm.hold(key(0))
    realm.settle(seconds=1)
    if left == "drained":
        realm.control_node(held, "draining")
    else:
        realm.apply(web("each_node", component=f"nodes: minus(all_nodes, {held})"))
    realm.settle(seconds=1)
    realm.node("n4")
    realm.settle(seconds=1)
    by_node = {realm.slot(index).node: realm.slot(index).desired for index in range(1, 4)}
    assert by_node["n4"] == "running", "nobody holds that one"
    realm.control_node(held, "active")
    realm.apply(web("each_node", component="nodes: minus(all_nodes, n9)"))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired) == (held, "stopped")


def test_each_node_gives_the_index_of_a_node_that_left_to_the_next_one() -> None:
    realm = running("each_node", "n1", "n2")
    left = realm.slot(0).node
    realm.control_node(left, "draining")
    realm.settle(seconds=1)
    realm.node("n3")
    realm.settle(seconds=1)
    assert realm.slot(0).node == "n3"


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
