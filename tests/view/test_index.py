"""The index: what each fact changes in what decisions read, what it marks as changed, and that all of it goes again."""

import pytest

from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Endpoint
from dsmt.event.kinds.realm import BrakeWord, NodesetFact, Tombstone
from dsmt.event.kinds.slot import Slot
from dsmt.event.registry import TOPICS
from dsmt.event.status import Layer, State
from dsmt.spec import nodeset
from dsmt.view import SlotKey, View
from dsmt.view.allocation import NOTHING
from dsmt.view.dirty import Dirty
from tests.controllers.build import Realm, key, web
from tests.controllers.signing import DAY_MS, signed

WEB = "service/web/slot/app/0"


def changes(realm, act, *told, **about):
    """What an act marks as changed."""
    realm.view.take_dirty()
    act(*told, **about)
    return realm.view.take_dirty()


def slot(realm, node="n1", *, desired="running", index=0, **about):
    record = Slot(node=node, spec="operator/alice#1-1", revision=1, desired=desired)
    return realm.say("controller/c1", f"service/web/slot/app/{index}", record, **about)


def nothing_left(realm):
    """After ten days without a word all owned facts are gone, and what was known by them."""
    realm.after(10 * DAY_MS / 1000)
    return realm.view


# Nodes ----------------------------------------------------------------------------------------------------------------


def test_attributes_mark_a_node_only_when_placement_would_read_another_thing():
    realm = Realm()
    assert changes(realm, realm.attributes, "n1") == Dirty(nodes={"n1"})
    assert realm.view.allocations.node("n1").attributes == realm.view.nodes["n1"].attributes.record
    for same in ({"load": 9.0}, {"memory_free_bytes": 1}, {"disk_free_bytes": 1}, {"clock_offset_s": 3.0}):
        assert changes(realm, realm.attributes, "n1", **same) == Dirty()
        assert realm.view.nodes["n1"].attributes.record.load == same.get("load", 0.5)
    for other in (
        {"cpus": 5}, {"memory_bytes": 1}, {"disk_bytes": 1}, {"labels": {"a": "b"}}, {"drivers": {}}, {"accepts": "none"},
    ):  # fmt: skip
        realm.attributes("n1")
        assert changes(realm, realm.attributes, "n1", **other) == Dirty(nodes={"n1"})
    view = nothing_left(realm)
    assert (view.nodes, view.allocations.node("n1").attributes) == ({}, None)


def test_a_probe_marks_a_node_when_it_failed_or_when_the_node_s_manager_is_not_open():
    realm = Realm("n1", "n2")
    assert changes(realm, realm.probe, "n1", "n2", "passed") == Dirty()
    assert changes(realm, realm.probe, "n1", "n2", "failed") == Dirty(nodes={"n1"})
    assert set(realm.view.nodes["n1"].probes) == {"n2"}
    realm.session("node/n1", "closed", how="peer")
    assert changes(realm, realm.probe, "n1", "n2", "passed") == Dirty(nodes={"n1"})
    realm.after(600)
    assert realm.view.nodes["n1"].probes == {}


def test_a_verdict_and_a_control_mark_a_node_and_those_with_a_verdict_are_known():
    realm = Realm("n1", "n2")
    assert realm.view.standing == {}
    assert changes(realm, realm.verdict, "n1", road="silent") == Dirty(nodes={"n1"})
    assert (set(realm.view.standing), realm.view.silenced) == ({"n1"}, {"n1"})
    assert changes(realm, realm.control_node, "n2", "draining") == Dirty(nodes={"n2"}, realm=True)
    assert (realm.view.nodes["n2"].mode, set(realm.view.standing)) == ("draining", {"n1"})
    realm.control_node("n2", "excluded")
    assert realm.view.excluded == {"n2"}
    realm.control_node("n2", "active")
    assert realm.view.excluded == set()
    ended = Tombstone(by="alice", reason="x")
    assert changes(realm, realm.say, "operator/alice", "tombstone/node/n1", ended, epoch=1) == Dirty(
        nodes={"n1"}, realm=True
    )
    assert (realm.view.standing, realm.view.silenced, realm.view.nodes["n1"].verdict) == ({}, set(), None)


def test_a_greater_attachment_of_any_source_undoes_a_verdict_whichever_comes_first():
    realm = Realm("n1", "n2")
    realm.verdict("n1", road="silent")
    realm.verdict("n2")
    assert (set(realm.view.standing), realm.view.silenced) == ({"n1", "n2"}, {"n1"})
    realm.attach("n1", sources=["monitor/n1"])
    assert (set(realm.view.standing), realm.view.silenced) == ({"n2"}, set())
    assert realm.view.nodes["n1"].verdict is not None
    late = View()
    for _, event in reversed(realm.rows):
        late.apply(event)
    assert (set(late.standing), late.silenced) == ({"n2"}, set())


def test_a_session_of_a_node_s_source_marks_its_node_and_one_of_a_broker_the_realm():
    realm = Realm()
    assert changes(realm, realm.session, "node/n1", "open") == Dirty(nodes={"n1"})
    assert changes(realm, realm.session, "monitor/n1", "open") == Dirty(nodes={"n1"})
    assert changes(realm, realm.session, "agent/n1/web/app/0", "open") == Dirty(nodes={"n1"})
    assert set(realm.view.nodes["n1"].sources) == {"node/n1", "monitor/n1", "agent/n1/web/app/0"}
    assert changes(realm, realm.session, "broker/b2", "open") == Dirty(realm=True)
    for other in ("controller/c1", "operator/alice"):
        assert changes(realm, realm.session, other, "open") == Dirty()
        assert other in realm.view.sessions.of
    assert set(realm.view.nodes) == {"n1"}
    view = nothing_left(realm)
    assert (view.nodes, view.sessions.of, view.sessions.brokers) == ({}, {}, set())


def test_where_a_node_s_manager_is_attached_and_whether_it_is_open_is_known():
    realm = Realm(brokers=("b1", "b2"))
    realm.session("node/n1", "open")
    realm.session("node/n2", "open", broker="b2")
    realm.session("monitor/n1", "closed")
    view = realm.view
    assert (view.managers_by_broker, view.not_open) == ({"b1": {"n1"}, "b2": {"n2"}}, set())
    for state in ("silent", "closed"):
        realm.session("node/n1", state)
        assert view.not_open == {"n1"}
    realm.session("node/n1", "open", broker="b2", attachment=2)
    assert (view.managers_by_broker, view.not_open) == ({"b1": set(), "b2": {"n1", "n2"}}, set())
    nothing_left(realm)
    assert (view.managers_by_broker, view.not_open) == ({"b1": set(), "b2": set()}, set())


# The realm ------------------------------------------------------------------------------------------------------------


def test_a_controller_is_known_while_it_says_its_state():
    realm = Realm()
    state = ControllerState(version="1", ruleset=6, pid=1, decisions=0)
    assert changes(realm, realm.say, "controller/c1", "controller/c1/state", state) == Dirty()
    assert realm.view.controllers["c1"].record == state
    assert nothing_left(realm).controllers == {}


def test_a_node_set_and_the_brake_mark_the_realm():
    realm = Realm()

    def said(expression, **about):
        return realm.say("operator/alice", "nodeset/good", NodesetFact(expression=expression, by="alice"), **about)

    assert changes(realm, said, "minus(all_nodes, failed)") == Dirty(realm=True)
    assert realm.view.nodesets == {"good": nodeset.parse("minus(all_nodes, failed)")}
    assert changes(realm, said, "minus(") == Dirty(realm=True)
    assert realm.view.nodesets == {}, "a set that cannot be read is none"
    assert "good" in realm.view.quarantined["nodeset/good"]
    brake = BrakeWord(held=True, released_ms=0, by="alice", reason="")
    assert changes(realm, realm.say, "operator/alice", "config/brake", brake) == Dirty(realm=True)
    assert realm.view.brake.record == brake


# Services -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "roams"),
    [
        (web(3), False),
        (web("each_node"), True),
        (web(1, component="nodes: minus(all_nodes, failed)"), True),
        (web(1, component="nodes: all_nodes"), False),
    ],
)
def test_a_spec_marks_its_service_and_one_that_follows_the_set_of_nodes_is_known(text, roams):
    realm = Realm()
    assert changes(realm, realm.apply, text) == Dirty(services={"web"})
    assert realm.view.roaming == ({"web"} if roams else set())
    assert realm.view.services["web"].parsed.service == "web"
    realm.apply(web(2))
    assert realm.view.roaming == ({"web"} if roams else set()), "slots may go back to what was before"
    realm.say("operator/alice", "tombstone/service/web", Tombstone(by="alice", reason="x"), epoch=1)
    assert (realm.view.services, realm.view.roaming) == ({}, set())


def test_a_slot_takes_its_room_by_its_spec_whichever_comes_first():
    realm, reserve = Realm("n1", "n2"), "reserve: {memory: 1MiB, cpu: 0.5, disk: 2MiB}"
    room = realm.view.allocations.node("n1")
    slot(realm)
    assert room.slots == {key(0): NOTHING}
    realm.apply(web(1, component=reserve))
    assert (room.memory, room.cpu, room.disk) == (2**20, 500, 2**21)
    assert realm.view.allocations.own("web", "app") == {"n1": 1}
    realm.apply(web(1, component="reserve: {memory: 3MiB}"))
    assert room.memory == 3 * 2**20
    assert changes(realm, slot, realm, "n2") == Dirty(slots={key(0)}, nodes={"n1"})
    assert (room.memory, room.slots, realm.view.allocations.own("web", "app")) == (0, {}, {"n2": 1})
    assert changes(realm, slot, realm, "n2") == Dirty(slots={key(0)})
    assert changes(realm, slot, realm, "n2", desired="stopped") == Dirty(slots={key(0)})
    assert realm.view.allocations.own("web", "app") == {"n2": 1}, "what is stopped keeps its room"
    assert changes(realm, slot, realm, "n2", desired="gone") == Dirty(slots={key(0)}, nodes={"n2"})
    assert realm.view.allocations.own("web", "app") == {}
    assert changes(realm, slot, realm, None) == Dirty(slots={key(0)})
    assert realm.view.allocations.own("web", "app") == {}


def test_a_slot_that_a_tombstone_hides_gives_its_room_back():
    realm = Realm("n1")
    realm.apply(web(1))
    slot(realm)
    ended = Tombstone(by="alice", reason="x")
    told = changes(realm, realm.say, "operator/alice", "tombstone/service/web", ended, epoch=1)
    assert told == Dirty(slots={key(0)}, services={"web"}, nodes={"n1"})
    assert (realm.view.services, realm.view.allocations.node("n1").slots) == ({}, {})


def test_a_control_marks_its_slot_and_is_known_before_any_fact():
    realm = Realm()
    assert changes(realm, realm.hold, key(0)) == Dirty(slots={key(0)})
    assert realm.view.slot(key(0)).hold.by == "alice"
    assert realm.view.slot(SlotKey("web", "app", 1)).empty
    assert realm.view.slot(SlotKey("db", "app", 0)).empty


def test_a_fact_that_ends_by_itself_is_known_by_the_node_on_which_it_ended_an_orphan():
    realm = Realm("n1", "n2")
    slot(realm, desired="gone", ttl=600_000)
    assert realm.view.ended_orphans == {"n1": {key(0)}}
    slot(realm, desired="gone", ttl=600_000, index=1)
    assert realm.view.ended_orphans == {"n1": {key(0), key(1)}}
    assert changes(realm, slot, realm, "n2", desired="gone", ttl=600_000) == Dirty(slots={key(0)}, nodes={"n1"})
    assert realm.view.ended_orphans == {"n1": {key(1)}, "n2": {key(0)}}
    slot(realm, "n2", ttl=None)
    assert realm.view.ended_orphans == {"n1": {key(1)}}
    assert changes(realm, realm.after, 600) == Dirty(slots={key(1)}, nodes={"n1"})
    assert realm.view.ended_orphans == {}


# Instances ------------------------------------------------------------------------------------------------------------


def test_a_status_marks_its_slot_and_an_orphan_is_known_by_its_node_until_it_is_gone():
    realm = Realm("n1", "n2")
    told = changes(realm, realm.status, key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, orphan=True)
    assert told == Dirty(slots={key(0)})
    realm.status(key(1), "n1", State.INSTALLED, layer=Layer.CONTAINER, orphan=True)
    realm.status(key(2), "n2", State.INSTALLED, layer=Layer.CONTAINER)
    assert realm.view.orphans == {"n1": {key(0), key(1)}}
    realm.status(key(0), "n1", State.GONE, layer=Layer.CONTAINER, orphan=True)
    assert realm.view.orphans == {"n1": {key(1)}}
    realm.status(key(1), "n1", State.INSTALLED, layer=Layer.CONTAINER)
    assert realm.view.orphans == {}
    assert nothing_left(realm).services == {}


@pytest.mark.parametrize(("text", "marked"), [(web("each_node"), {"web"}), (web(1), set())])
def test_an_application_that_is_parked_or_not_any_more_marks_a_service_that_follows_the_set_of_nodes(text, marked):
    realm = Realm("n1")
    realm.apply(text)
    realm.status(key(0), "n1", State.RUNNING)
    for state, parked, differs in (
        (State.FAILED, True, True),
        (State.FAILED, True, False),
        (State.RUNNING, False, True),
        (State.FAILED, False, False),
        (State.FAILED, True, True),
        (State.GONE, True, True),
    ):
        told = changes(realm, realm.status, key(0), "n1", state, parked=parked)
        assert told == Dirty(slots={key(0)}, services=marked if differs else set())
    told = changes(realm, realm.status, key(0), "n1", State.FAILED, layer=Layer.AGENT, parked=True)
    assert told == Dirty(slots={key(0)}), "only the application counts"


def test_health_marks_its_slot_and_so_does_where_it_is_reached():
    realm = Realm("n1")
    slot(realm)
    assert changes(realm, realm.health, key(0), "n1", "ready") == Dirty(slots={key(0)})
    at = Endpoint(address="a", ports={"http": 80}, generation=1, ready=True)
    told = changes(realm, realm.say, "agent/n1/web/app/0", "service/web/endpoint/app/0/n1", at)
    assert told == Dirty(slots={key(0)}), "a node with nothing that could be served keeps no copy"
    instance = realm.view.slot(key(0)).instances["n1"]
    assert (instance.health.record.health, instance.endpoint.record) == ("ready", at)
    realm.after(90)
    assert realm.view.slot(key(0)).instances["n1"].endpoint is None
    nothing_left(realm)
    assert realm.view.slot(key(0)).instances == {}


# Topics ---------------------------------------------------------------------------------------------------------------


UNREADABLE = [
    ("service/web/slot/app/00", Slot(node=None, spec="", revision=1, desired="running"), "'00'"),
    ("service/web/slot/app/x", Slot(node=None, spec="", revision=1, desired="running"), "'x'"),
    ("service/web/slot/app/1234567", Slot(node=None, spec="", revision=1, desired="running"), "'1234567'"),
]


@pytest.mark.parametrize(("topic", "record", "says"), UNREADABLE)
def test_a_slot_whose_index_is_none_is_quarantined_and_makes_no_entry(topic, record, says):
    view = View()
    assert view.apply(signed("controller/c1", topic, record, version=1))
    assert says in view.quarantined[topic]
    assert view.services.get("web") is None or not view.services["web"].slots


@pytest.mark.parametrize("mark", [{"slots": {key(0)}}, {"services": {"web"}}, {"nodes": {"n1"}}, {"realm": True}])
def test_any_one_mark_is_a_change(mark):
    assert Dirty(**mark)
    assert not Dirty()


def test_the_largest_index_is_read():
    view = View()
    record = Slot(node=None, spec="", revision=1, desired="running")
    view.apply(signed("controller/c1", "service/web/slot/app/999999", record, version=1))
    assert not view.quarantined
    assert view.slot(SlotKey("web", "app", 999_999)).fact.record == record


FOLDED = [
    # a topic, and whether what is said on it is folded
    ("node/n1/attributes", True),
    ("node/n1/attributes/x", False),
    ("node/n1", False),
    ("node/n1/heartbeat", False),
    ("node/n1/probe/n2", True),
    ("node/n1/probe", False),
    ("broker/b1/session/node/n1", True),
    ("broker/b1/session/agent/n1/web/app/0", True),
    ("broker/b1/session/root", True),
    ("broker/b1/session", False),
    ("service/web/spec", True),
    ("service/web/slot/app", False),
    ("service/web/slot/app/0", True),
    ("service/web/slot/app/0/x", False),
    ("service/web/status/app/0/n1/application", True),
    ("service/web/status/app/0/n1/x", False),
    ("nodeset/good", True),
    ("nodeset/good/x", False),
    ("config/brake", True),
    ("config/other", False),
    ("tombstone/service/web", True),
    ("tombstone/service", False),
    ("tombstone/config/brake", False),
    ("trust/revoked/00/root", True),
    ("trust/revoked/00", False),
    ("trust/certificate/00", False),
    ("trust", False),
    ("x", False),
]


@pytest.mark.parametrize(("topic", "folded"), FOLDED)
def test_what_is_said_on_a_topic_is_folded_exactly_if_its_row_says_so(topic, folded):
    view = View()
    assert view.apply(signed("node/n1", topic, {})) == folded
    assert (view.winner(topic) is not None) == folded


def test_each_row_that_is_folded_has_a_handler_and_no_handler_is_without_a_row():
    assert set(View().handlers) == {row.event_type for row in TOPICS if row.folded}
