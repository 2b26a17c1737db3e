"""Entries: what is told of a slot, an instance, a service and a node from the facts that are there (rules A5, A8, R5)."""

import pytest

from dsmt.event.kinds.instance import Endpoint, Health, Status
from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Hold, Slot, SlotControl
from dsmt.event.order import MAX_STEP
from dsmt.event.reason import reason
from dsmt.event.status import Layer, State
from dsmt.view.entries import InstanceEntry, NodeEntry, ServiceEntry, SlotEntry
from dsmt.view.held import Held
from tests.controllers.signing import START_MS, signed

LAYERS = {"container": Layer.CONTAINER, "agent": Layer.AGENT, "application": Layer.APPLICATION}


def status(layer, state=State.RUNNING, generation=1, **about):
    record = Status(
        state=state, layer=LAYERS[layer], node="n1", generation=generation, attempt=1, since_ms=1, emit_rate_s=30.0, **about
    )
    return Held(signed("node/n1", f"service/web/status/app/0/n1/{layer}", record), record)


def instance(**layers):
    """An instance with these layers; each its state, or its state and more."""
    return InstanceEntry(**{layer: status(layer, *said) for layer, said in layers.items()})


def fact(version=1, *, node="n1", desired="running", **about):
    record = Slot(node=node, spec="operator/alice#1-1", revision=1, desired=desired, **about)
    return Held(signed("controller/c1", "service/web/slot/app/0", record, version=version), record)


def control(**about):
    record = SlotControl(**about)
    return Held(signed("operator/alice", "service/web/control/app/0", record, version=1), record)


HEALTH = Health(health="ready", generation=1, check="", evidence="", failures=0, since_ms=1)
ENDPOINT = Endpoint(address="a", ports={}, generation=1, ready=True)


def held(record):
    return Held(signed("agent/n1/web/app/0", "service/web/health/app/0/n1", record), record)


# Instances ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "empty"),
    [
        (InstanceEntry(), True),
        (instance(container=(State.GONE,)), False),
        (instance(agent=(State.GONE,)), False),
        (instance(application=(State.GONE,)), False),
        (InstanceEntry(health=held(HEALTH)), False),
        (InstanceEntry(endpoint=held(ENDPOINT)), False),
    ],
)
def test_an_instance_is_empty_when_nothing_at_all_is_known_of_it(one, empty):
    assert one.empty == empty


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ({}, False),
        ({"container": (State.INSTALLED,)}, True),
        ({"container": (State.GONE,)}, False),
        ({"container": (State.GONE,), "application": (State.RUNNING,)}, False),
        ({"container": (State.INSTALLED,), "application": (State.GONE,)}, True),
        ({"application": (State.GONE,)}, False),
        ({"agent": (State.RUNNING,), "application": (State.GONE,)}, True),
        ({"agent": (State.GONE,), "application": (State.STOPPED,)}, True),
    ],
)
def test_the_container_manager_s_word_decides_whether_anything_is_left_if_it_has_spoken(layers, left):
    assert instance(**layers).left == left


def test_the_generation_of_an_instance_is_the_greatest_that_a_layer_reports():
    assert InstanceEntry().generation == 0
    told = instance(container=(State.INSTALLED, 2), agent=(State.RUNNING, 5), application=(State.RUNNING, 3))
    assert told.generation == 5
    assert [one.record.generation for one in told.statuses] == [2, 5, 3], "from below"


def test_an_orphan_is_told_by_a_status_that_says_so_while_anything_is_left():
    orphan = status("container", State.INSTALLED, orphan=True)
    assert InstanceEntry().orphan is None
    assert InstanceEntry(container=status("container")).orphan is None
    assert InstanceEntry(container=orphan).orphan == orphan
    assert InstanceEntry(container=status("container", State.GONE, orphan=True)).orphan is None
    assert InstanceEntry(container=status("container"), agent=orphan).orphan == orphan


# Slots ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "empty"),
    [
        (SlotEntry(), True),
        (SlotEntry(fact=fact()), False),
        (SlotEntry(control=control()), False),
        (SlotEntry(instances={"n1": InstanceEntry()}), False),
        (SlotEntry(quarantined=True), False),
    ],
)
def test_a_slot_is_empty_when_nothing_at_all_is_known_of_it(entry, empty):
    assert entry.empty == empty


BY_HAND = reason("hold.operator", by="alice", time="noon", their="disk", target="web/app/0")


def test_a_control_says_whether_a_slot_is_held_and_where_there_is_none_the_fact_that_stopped_it():
    hold = Hold(by="bob", at_ms=1, reason="r")
    stopped = fact(desired="stopped", reason=BY_HAND)
    assert SlotEntry(control=control(hold=hold)).hold == hold
    assert SlotEntry(fact=stopped, control=control()).hold is None, "lifted"
    assert SlotEntry(fact=stopped).hold == Hold(by="an operator", at_ms=START_MS, reason=BY_HAND.message)
    for other in (None, fact(), fact(desired="stopped"), fact(desired="gone", reason=BY_HAND)):
        assert SlotEntry(fact=other).hold is None


MOVES = [
    # the move that the control asks for; the slot's node and the last move that it did; where it is asked to move, and
    # which node it is to leave
    ({"move": None, "move_number": 1}, {}, None, None),
    ({"move": "n2", "move_number": 1}, {}, "n2", None),
    ({"move": "n2", "move_number": 1}, {"move_number": 1}, None, None),
    ({"move": "n2", "move_number": 2}, {"move_number": 1}, "n2", None),
    ({"move": "", "move_number": 1, "leave": "n1"}, {}, "", "n1"),
    ({"move": "", "move_number": 1, "leave": "n3"}, {}, "", "n3"),
    ({"move": "", "move_number": 1}, {}, "", "n1"),
    ({"move": "", "move_number": 1, "leave": "n1"}, {"node": "n2", "move_number": 1}, None, None),
]


@pytest.mark.parametrize(("will", "done", "asked", "leaves"), MOVES)
def test_a_move_is_asked_for_until_the_slot_s_fact_names_its_number(will, done, asked, leaves):
    entry = SlotEntry(fact=fact(**done), control=control(**will))
    assert (entry.move_asked, entry.leaves) == (asked, leaves)


def test_a_move_of_a_slot_without_a_fact_leaves_what_the_control_names():
    assert SlotEntry().move_asked is None
    assert SlotEntry().leaves is None
    assert SlotEntry(fact=fact()).leaves is None
    assert SlotEntry(control=control(move="", move_number=1)).leaves is None
    assert SlotEntry(control=control(move="", move_number=1, leave="n1")).leaves == "n1"


def test_those_hold_a_slot_that_have_anything_left_of_it():
    left, gone = instance(container=(State.INSTALLED,)), instance(container=(State.GONE,))
    assert SlotEntry(instances={"n3": left, "n1": left, "n2": gone}).holders == ["n1", "n3"]


@pytest.mark.parametrize(
    ("version", "reported", "generation"),
    [
        (None, [], 0),
        (None, [3], 3),
        (2, [], 2),
        (2, [1], 2),
        (2, [7, 5], 7),
        (2, [2 + MAX_STEP - 1], 2 + MAX_STEP - 1),
        (2, [2 + MAX_STEP], 2),
        (2, [2**62, 4], 4),
        (None, [MAX_STEP], 0),
    ],
)
def test_a_slot_s_generation_is_the_greatest_that_a_fact_could_have_had(version, reported, generation):
    instances = {f"n{i}": instance(agent=(State.RUNNING, one)) for i, one in enumerate(reported)}
    assert SlotEntry(fact=None if version is None else fact(version), instances=instances).generation == generation


# Services and nodes ---------------------------------------------------------------------------------------------------


def spec_held(version, same=()):
    record = SpecFact(spec={}, by="alice", reason="", same=same)
    return Held(signed("operator/alice", "service/web/spec", record, version=version, sequence=version), record)


def test_what_stands_now_says_again_what_the_specs_said_that_it_names_and_itself():
    own, before = str(spec_held(4).id), str(spec_held(3).id)
    assert not ServiceEntry("web").says_again(own)
    assert ServiceEntry("web", spec=spec_held(4)).says_again(own)
    assert not ServiceEntry("web", spec=spec_held(4)).says_again(before)
    assert ServiceEntry("web", spec=spec_held(4, same=(before,))).says_again(before)


def test_a_refusal_is_a_slot_that_was_rolled_back_from_what_stands_now_one_that_is_there_first():
    def service(spec, **slots):
        places = {("app", 0): slots.get("first"), ("app", 1): slots.get("second"), ("db", 0): slots.get("third")}
        entry = ServiceEntry("web", spec=spec, slots={place: SlotEntry(fact=one) for place, one in places.items()})
        for place, one in places.items():
            entry.count_refusal(place, None, one)
        return entry

    third, fourth, fifth = (Good(spec=str(spec_held(number).id), revision=number) for number in (3, 4, 5))
    old, now, gone = fact(refuses=third), fact(refuses=fourth), fact(refuses=fifth, desired="gone")
    lost = fact(refuses=Good(spec="operator/bob#1-4", revision=4))
    assert service(spec_held(4)).refusal() is None
    assert service(None, first=now).refusal() is None
    assert service(spec_held(4), first=old).refusal() is None
    assert service(spec_held(4), first=old, second=now).refusal() == now
    assert service(spec_held(4), first=lost).refusal() is None
    assert service(spec_held(5, same=(fourth.spec,)), first=now).refusal() == now
    assert service(spec_held(4), first=gone, second=now).refusal() == now
    assert service(spec_held(5), first=gone).refusal() == gone
    assert service(spec_held(4), first=gone).refusal() is None
    assert service(spec_held(4), third=now).refusal("app") is None
    assert service(spec_held(4), third=now).refusal("db") == now


def test_a_node_is_active_until_an_operator_says_otherwise():
    record = NodeControl(mode="draining", by="alice", reason="disk")
    said = Held(signed("operator/alice", "node/n1/control", record, version=1), record)
    assert (NodeEntry("n1").mode, NodeEntry("n1", control=said).mode) == ("active", "draining")
    assert NodeEntry("n1").empty
    for word in ("attributes", "control", "verdict"):
        assert not NodeEntry("n1", **{word: said}).empty
    assert not NodeEntry("n1", probes={"n2": said}).empty
    assert not NodeEntry("n1", sources={"node/n1": said}).empty
