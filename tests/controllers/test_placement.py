"""Where instances go, and what is said when there is no place."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.controllers.placement import Chooser
from dsmt.event.kinds.node import DriverAttributes
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.status import State
from dsmt.view import Fleet
from dsmt.view.allocation import Need

from .build import Realm, key, web


def chooser(realm: Realm) -> Chooser:
    component = realm.view.services["web"].parsed.components["app"]
    return Chooser(Fleet(realm.view, realm.now_ms, realm.broker), "web", component)


def test_instances_are_spread_evenly() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(7))
    realm.step()
    assert sorted(Counter(realm.nodes_of()).values()) == [2, 2, 3]


@pytest.mark.parametrize("nodes", ["all_nodes", "union(n1, n2)"])
def test_the_emptier_node_is_taken_though_another_one_has_more_memory(nodes: str) -> None:
    realm = Realm("n1")
    realm.apply(web(1, service="db"))
    realm.step()
    realm.attributes("n1", memory_bytes=64 * 2**30)
    realm.node("n2")
    realm.apply(web(1, component=f"nodes: {nodes}"))
    realm.step()
    assert realm.nodes_of("web") == ["n2"]


def test_among_equally_empty_nodes_the_one_with_more_memory_is_taken() -> None:
    realm = Realm("n1")
    realm.node("n2", memory_bytes=16 * 2**30)
    realm.apply(web(1))
    realm.step()
    assert realm.nodes_of() == ["n2"]


@pytest.mark.parametrize(
    ("reserve", "says"),
    [
        ("cpu: 5", "needs 5 cores, 3 are free on n1"),
        ("memory: 9GiB", "needs 9 GiB memory, 7 GiB is free on n1"),
        ("disk: 200GiB", "needs 200 GiB disk, 90 GiB is free on n1"),
    ],
)
def test_what_there_is_too_little_of_is_said_with_what_is_needed_and_what_is_free(reserve: str, says: str) -> None:
    realm = Realm("n1")
    realm.apply(web(1, service="db", component="reserve: {cpu: 1, memory: 1GiB, disk: 10GiB}"))
    realm.step()
    realm.apply(web(1, component=f"reserve: {{{reserve}}}"))
    assert chooser(realm).misfit("n1").says == says


@pytest.mark.parametrize("nodes", ["all_nodes", "union(n1, n2)"])
def test_spread_none_fills_by_instances_alone(nodes: str) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2, service="db", component="nodes: n1"))
    realm.step()
    realm.apply(web(2, component=f"spread: none\nnodes: {nodes}"))
    realm.step()
    assert realm.nodes_of() == ["n2", "n2"]


def test_spread_by_label_is_even_over_its_values() -> None:
    realm = Realm()
    for i in range(6):
        realm.node(f"n{i}", labels={"rack": "a" if i < 4 else "b"})
    realm.apply(web(4, component="spread: label:rack"))
    realm.step()
    racks = Counter(realm.view.nodes[node].attributes.record.labels["rack"] for node in realm.nodes_of())
    assert racks == {"a": 2, "b": 2}


def test_within_a_value_of_a_label_a_node_with_fewer_instances_of_its_own_is_taken_though_others_run_there() -> None:
    realm = Realm()
    realm.node("n1", labels={"rack": "a"})
    realm.apply(web(1, component="spread: label:rack"))
    realm.step()
    realm.node("n2", labels={"rack": "a"})
    realm.apply(web(3, service="db", component="nodes: minus(all_nodes, n1)"))
    realm.step()
    realm.apply(web(2, component="spread: label:rack"))
    realm.step()
    assert realm.nodes_of("web") == ["n1", "n2"]


@pytest.mark.parametrize("gone", ["dead", "without the driver", "draining", "excluded"])
def test_a_node_that_can_take_nothing_has_no_share_in_a_strict_spread(gone: str) -> None:
    realm = Realm("n1", "n2", "n3")
    if gone == "dead":
        realm.close("n3")
        realm.after(1).step()
    elif gone == "without the driver":
        realm.attributes("n3", drivers={})
    else:
        realm.control_node("n3", gone)
    realm.apply(web(3, component="spread: {by: node, strict: true}"))
    realm.step()
    assert sorted(Counter(realm.nodes_of()).items()) in ([("n1", 1), ("n2", 2)], [("n1", 2), ("n2", 1)])


def test_strict_spread_leaves_the_rest_without_a_place() -> None:
    realm = Realm("n1", "n2")
    realm.attributes("n2", memory_bytes=2**27)
    realm.apply(web(4, component="spread: {by: node, strict: true}\nreserve: {memory: 128MiB}"))
    realm.step()
    assert sorted(map(str, realm.nodes_of())) == ["None", "n1", "n1", "n2"]


@pytest.mark.parametrize(
    ("expression", "nodes"),
    [
        ("minus(all_nodes, n1)", {"n2", "n3", "n4"}),
        ("intersect(all_nodes, union(n1, n2))", {"n1", "n2"}),
        ("n3", {"n3"}),
        ("good", {"n2", "n4"}),
        ("minus(all_nodes, failed)", {"n1", "n2", "n3", "n4"}),
    ],
)
def test_only_nodes_of_the_set_are_taken(expression: str, nodes: set[str]) -> None:
    realm = Realm("n1", "n2", "n3", "n4")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="union(n2, n4)", by="alice"))
    realm.apply(web(8, component=f"nodes: {expression}"))
    realm.step()
    assert set(realm.nodes_of()) == nodes


def test_a_set_of_named_sets_that_go_round_in_a_circle_selects_nothing() -> None:
    realm = Realm("n1")
    realm.say("operator/alice", "nodeset/a", NodesetFact(expression="b", by="alice"))
    realm.say("operator/alice", "nodeset/b", NodesetFact(expression="a", by="alice"))
    realm.apply(web(1, component="nodes: a"))
    realm.step()
    assert realm.slot(0).reason.code == "place.empty_set"


def test_a_limit_keeps_its_members_when_a_node_comes() -> None:
    realm = Realm(*(f"n{i}" for i in range(6)))
    realm.apply(web(3, component="nodes: limit(minus(all_nodes, failed), 3)"))
    realm.settle(seconds=1)
    before = set(realm.nodes_of())
    for i in range(6, 30):
        realm.node(f"n{i}")
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == before
    assert len(before) == 3


def make_unfit(realm: Realm, case: str) -> None:
    match case:
        case "mode":
            realm.control_node("n1", "excluded")
        case "driver":
            realm.attributes("n1", drivers={})
        case "accepts":
            realm.attributes("n1", accepts="self.owner == 'me'")
        case "memory":
            realm.attributes("n1", memory_bytes=2**20)
        case "cpu":
            realm.attributes("n1", cpus=0)
        case "suspect":
            realm.close("n1")
        case "kept out":
            realm.session("node/n1", "closed", how="local", kept_out="ab" * 16)
        case "dead":
            realm.close("n1")
            realm.verdict("n1")


def test_only_a_node_that_can_run_programs_as_the_wanted_user_is_taken_and_the_others_say_why() -> None:
    realm = Realm("n1", "n2")
    realm.attributes("n1", drivers={"process": DriverAttributes(fence="none", users=("dsmt", "1000"))})
    realm.attributes("n2", drivers={"process": DriverAttributes(fence="none", users=("any",))})
    realm.apply(web(2, component="user: www-data"))
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == {"n2"}
    realm.attributes("n2", drivers={"process": DriverAttributes(fence="none", users=("www-data", "33"))})
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == {"n2"}


@pytest.mark.parametrize("case", ["mode", "driver", "accepts", "memory", "cpu", "suspect", "kept out", "dead"])
def test_a_node_that_fails_a_clause_is_not_taken_and_is_told_by_it(case: str) -> None:
    realm = Realm("n1", "n2")
    make_unfit(realm, case)
    realm.apply(web(2))
    realm.step()
    assert set(realm.nodes_of()) == {"n2"}
    component = realm.view.services["web"].parsed.components["app"]
    faults = Chooser(Fleet(realm.view, realm.now_ms, "b1"), "web", component).why_not()
    assert faults["n2"] is None
    assert faults["n1"].clause == case
    assert "n1" in faults["n1"].says


def test_what_runs_on_a_node_that_is_kept_out_stays_there_and_what_waits_for_it_is_placed_when_it_is_back() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.session("node/n1", "closed", how="local", kept_out="ab" * 16)
    realm.apply(web(2))
    realm.settle(seconds=60)
    assert realm.nodes_of() == ["n1", None]
    realm.attach("n1", sources=["node/n1"])
    realm.settle(seconds=1)
    assert realm.nodes_of() == ["n1", "n1"]


def test_a_node_whose_manager_is_away_while_its_monitor_is_heard_is_taken() -> None:
    realm = Realm("n1")
    realm.session("node/n1", "silent")
    realm.apply(web(1))
    realm.step()
    assert realm.nodes_of() == ["n1"]


def test_two_that_see_other_reasons_why_a_slot_has_no_place_say_them_in_turn_no_sooner_than_a_minute_later() -> None:
    realm = Realm("n1")
    realm.attributes("n1", drivers={})
    realm.apply(web(1))
    realm.settle(seconds=1)
    reasons = [realm.slot(0).reason.code]
    for number in range(40):
        if number % 2:
            realm.attributes("n1", drivers={})
        else:
            realm.attributes("n1", memory_bytes=2**20)
        realm.settle()
        if realm.slot(0).reason.code != reasons[-1]:
            reasons.append(realm.slot(0).reason.code)
        realm.after(5)
    assert 2 <= len(reasons) <= 1 + 40 * 5 // 60


def test_limits_that_must_be_enforced_need_a_driver_that_can() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component="limits: {cpu: 1}"))
    realm.step()
    assert realm.slot(0).reason.code == "place.unenforceable"
    realm.apply(web(1, component="limits: {cpu: 1, enforce: best_effort}"))
    realm.step()
    assert realm.nodes_of() == ["n1"]


def test_a_fixed_port_is_taken_once_on_a_node() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(3, component="ports: {http: 8080}"))
    realm.step()
    assert sorted(map(str, realm.nodes_of())) == ["None", "n1", "n2"]
    waiting = next(i for i in range(3) if realm.slot(i).node is None)
    assert realm.slot(waiting).reason.code == "place.port_taken"
    assert "8080" in realm.slot(waiting).reason.message


@pytest.mark.parametrize("admin", ["9090", "{port: 9090, protocol: udp}"])
def test_of_several_fixed_ports_that_is_named_which_is_taken(admin: str) -> None:
    realm = Realm("n1", "n2")
    for service in ("a", "b"):
        realm.apply(web(1, service=service, component=f"ports: {{admin: {admin}}}"))
        realm.step()
    realm.apply(web(1, component=f"ports: {{http: 8080, admin: {admin}}}"))
    realm.step()
    told = realm.slot(0).reason
    assert (told.message, told.next) == ("port 9090 is taken on all 2 nodes that fit", "ports: {admin: auto}")


def test_components_that_are_apart_share_no_node() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, service="db"))
    realm.step()
    realm.apply(web(2, component="apart: db/app"))
    realm.step()
    assert set(realm.nodes_of("web")) == {"n1", "n2"} - set(realm.nodes_of("db"))


@pytest.mark.parametrize(
    ("component", "code", "says"),
    [
        ("reserve: {memory: 9GiB}", "place.no_room", "9 GiB memory, the most that is free is 8 GiB"),
        ("reserve: {cpu: 5}", "place.no_room", "5 cores, the most that is free is 4 cores"),
        ("reserve: {disk: 101GiB}", "place.no_room", "101 GiB disk, the most that is free is 100 GiB"),
        ("nodes: elsewhere", "place.empty_set", "elsewhere"),
        ("requires: node.labels.gpu == 'yes'", "place.no_match", "0 of 2 pass every clause; requires alone removes 2"),
        ("user: www-data", "place.no_match", "user alone removes 2"),
        ("driver: bubblewrap", "place.no_match", "0 of 2 pass every clause; driver alone removes 2"),
    ],
)
def test_a_slot_with_no_place_says_why(component: str, code: str, says: str) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component=component))
    realm.step()
    slot = realm.slot(0)
    assert (slot.node, slot.desired, slot.reason.code) == (None, "running", code)
    assert says in slot.reason.message


def test_what_finds_no_room_is_told_which_node_has_the_most() -> None:
    realm = Realm("n2")
    realm.node("n1", memory_bytes=16 * 2**30)
    realm.apply(web(1, component="reserve: {memory: 20GiB}"))
    realm.step()
    assert "the most that is free is 16 GiB memory on n1" in realm.slot(0).reason.message


def test_why_there_is_no_place_is_told_as_things_are_now_though_it_was_told_of_another_slot_before() -> None:
    realm = Realm("n1")
    realm.apply(web(2, component="reserve: {memory: 6GiB}\nports: {http: 8080}"))
    choosing = chooser(realm)
    choosing.allocations.put(key(0, service="db"), "n1", Need(memory=3 * 2**30))
    assert "the most that is free is 5 GiB" in choosing.reason(key(0)).message
    choosing.allocations.put(key(0, service="db"), "n1", Need(ports=(("tcp", 8080),)))
    assert choosing.reason(key(1)).code == "place.port_taken"


def test_what_has_no_place_is_told_once_and_placed_when_there_is_one() -> None:
    realm = Realm("n1")
    realm.control_node("n1", "excluded")
    realm.apply(web(1))
    assert len(realm.step()) == 1
    assert realm.step() == []
    realm.node("n2")
    realm.step()
    assert realm.nodes_of() == ["n2"]
    assert realm.slot(0).reason is None


def test_reserves_of_what_is_placed_in_one_decision_add_up() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(5, component="reserve: {memory: 3GiB}"))
    realm.step()
    assert Counter(realm.nodes_of()) == {"n1": 2, "n2": 2, None: 1}


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=12),
    st.integers(0, 30),
)
def test_walking_in_order_finds_what_looking_at_all_nodes_finds(nodes: list, taken: list[int], index: int) -> None:
    realm = Realm()
    for i, (memory, cpus, dies) in enumerate(nodes):
        realm.node(f"n{i}", memory_bytes=memory * 2**28, cpus=cpus)
        if dies:
            realm.close(f"n{i}")
            realm.verdict(f"n{i}")
    realm.apply(web(40))
    for number, at in enumerate(taken):
        slot = Slot(node=f"n{at % len(nodes)}", spec="x", revision=1, desired="running")
        realm.say("controller/c1", f"service/web/slot/app/{number}", slot)
    chosen = chooser(realm)
    best = chosen._best_of(chosen.candidates(), key(index + 50), frozenset())
    assert chosen.choose(key(index + 50)) == best


@pytest.mark.parametrize("component", ["", "spread: {by: none}"])
def test_nodes_that_are_dead_are_not_asked_one_by_one_whether_they_fit(component: str, monkeypatch) -> None:
    realm = Realm(*(f"n{i}" for i in range(9)))
    realm.apply(web(2, component=component))
    for i in range(8):
        realm.close(f"n{i}")
        realm.verdict(f"n{i}")
    chosen, asked = chooser(realm), []
    monkeypatch.setattr(chosen, "misfit", lambda node, _avoid: asked.append(node))
    assert (chosen.choose(key(0)), asked) == ("n8", ["n8"])


def test_a_slot_with_nowhere_to_go_says_nothing_about_the_next() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    chosen = chooser(realm)
    assert chosen.choose(key(0), avoid=("n1", "n2")) is None
    assert chosen.choose(key(1)) in ("n1", "n2")


def test_where_a_parked_instance_is_gone_the_component_is_parked_no_more() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    node = realm.slot(0).node or ""
    realm.status(key(0), node, State.FAILED, parked=True)
    assert chooser(realm).parked == {node}
    realm.status(key(0), node, State.GONE, parked=True)
    assert chooser(realm).parked == set()
