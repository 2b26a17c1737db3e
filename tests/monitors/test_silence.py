"""Who is silent, and who probes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import Session
from dsmt.event.kinds.node import NodeAttributes
from dsmt.monitors.rules.silence import OBSERVERS, Silence, observers
from dsmt.view import Fleet
from dsmt.view.liveness import REATTACH_GRACE_MS
from dsmt.view.sessions import is_open
from tests.controllers.build import Realm as Controllers

NODES = st.lists(st.from_regex(r"n[0-9]{1,3}", fullmatch=True), unique=True, max_size=30)


def attributes(address: str = "10.0.0.1", port: int | None = 700) -> NodeAttributes:
    return NodeAttributes(
        cpus=1,
        memory_bytes=1,
        memory_free_bytes=1,
        disk_bytes=1,
        disk_free_bytes=1,
        load=0.0,
        address=address,
        version="1",
        boot_id="b",
        udp_port=port,
    )


def session(state: Any, attachment: int = 1, *, how: Any = None, since_ms: int = 0) -> Session:
    return Session(
        attachment=attachment,
        state=state,
        how=how,
        since_ms=since_ms,
        incarnation=1,
        pid=1,
        version="1",
        address="",
    )


def cause(number: int) -> EventId:
    return EventId("broker/b1", 1, number)


def fleet(own: str = "n1", *nodes: str) -> Silence:
    machine = Silence(own)
    for node in (own, *nodes):
        machine.attributes(node, attributes(), b"k" * 16)
        for role in ("node", "monitor"):
            machine.session("b1", f"{role}/{node}", session("open"), cause(1))
    return machine


def targets(machine: Silence, attached: str = "b1") -> list[str]:
    return [target.node for target in machine.targets(attached)]


def test_a_node_is_silent_only_when_manager_and_monitor_are() -> None:
    machine = fleet("n1", "n2")
    machine.session("b1", "node/n2", session("silent"), cause(2))
    assert targets(machine) == []
    machine.session("b1", "monitor/n2", session("silent"), cause(3))
    (target,) = machine.targets("b1")
    assert (target.node, target.address, target.cause, target.episode) == ("n2", "10.0.0.1:700", cause(3), 1)
    machine.session("b1", "node/n2", session("open", 2), cause(4))
    assert targets(machine) == []


def test_a_node_that_fell_silent_is_still_probed_when_its_connections_end() -> None:
    machine = fleet("n1", "n2")
    for role in ("node", "monitor"):
        machine.session("b1", f"{role}/n2", session("silent"), cause(2))
    before = machine.targets("b1")
    for role in ("node", "monitor"):
        machine.session("b1", f"{role}/n2", session("closed", how="timeout"), cause(3))
    assert machine.targets("b1") == before
    assert [target.node for target in before] == ["n2"]


def test_a_node_that_closed_its_sessions_itself_is_probed_only_after_the_grace() -> None:
    machine = fleet("n1", "n2")
    machine.session("b1", "node/n2", session("closed", how="peer", since_ms=500), cause(2))
    machine.session("b1", "monitor/n2", session("closed", how="peer", since_ms=600), cause(2))
    assert [target.since_ms for target in machine.targets("b1")] == [600 + REATTACH_GRACE_MS]
    machine.session("b1", "monitor/n2", session("silent", 2), cause(3))
    assert [target.since_ms for target in machine.targets("b1")] == [0]


def test_the_nodes_of_a_lost_broker_are_probed_after_the_grace() -> None:
    machine = fleet("n1", "n2")
    for role in ("node", "monitor"):
        machine.session("b2", f"{role}/n2", session("open", 2), cause(2))
    machine.session("b1", "broker/b2", session("open"), cause(3))
    assert targets(machine) == []
    machine.session("b1", "broker/b2", session("closed", how="peer", since_ms=700), cause(4))
    assert [(t.node, t.since_ms) for t in machine.targets("b1")] == [("n2", 700 + REATTACH_GRACE_MS)]
    assert targets(machine, "b2") == []


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["b1", "b2", "b3"]),
        st.sampled_from(["open", "silent", "closed"]),
        st.integers(1, 2),
        st.sampled_from(["peer", "timeout"]),
        st.integers(0, 3),
    ),
    max_size=6,
)


@given(WORDS, WORDS)
def test_a_node_is_probed_exactly_when_controllers_see_neither_manager_nor_monitor_open(manager: Any, monitor: Any) -> None:
    realm, machine = Controllers("n1"), fleet("n1")
    machine.attributes("n2", attributes(), b"k" * 16)
    for role, words in (("node", manager), ("monitor", monitor)):
        for broker, state, attachment, how, since_ms in words:
            told = session(state, attachment, how=how if state == "closed" else None, since_ms=since_ms)
            said = realm.say(f"broker/{broker}", f"broker/{broker}/session/{role}/n2", told)
            machine.session(broker, f"{role}/n2", told, said.id)
    seen = Fleet(realm.view, realm.now_ms, "b1").words("n2")
    assert targets(machine) == (["n2"] if seen and not is_open(seen) else [])


def test_the_greater_attachment_counts_whoever_wrote_of_it() -> None:
    machine = fleet("n1", "n2")
    machine.session("b1", "monitor/n2", session("open", 5), cause(2))
    machine.session("b1", "node/n2", session("silent", 1), cause(3))
    machine.session("b2", "monitor/n2", session("silent", 4), cause(4))
    assert targets(machine) == []


def test_a_new_silence_is_a_new_episode() -> None:
    machine = fleet("n1", "n2")
    for number, state in enumerate(["silent", "open", "silent"]):
        for role in ("node", "monitor"):
            machine.session("b1", f"{role}/n2", session(state), cause(number + 10))
    assert [target.episode for target in machine.targets("b1")] == [2]


def test_who_is_not_among_the_observers_does_not_probe() -> None:
    nodes = [f"n{number}" for number in range(1, 10)]
    probing = []
    for own in nodes[:8]:
        machine = fleet(own, *[node for node in nodes if node != own])
        for role in ("node", "monitor"):
            machine.session("b1", f"{role}/n9", session("silent"), cause(2))
        probing += [own] if targets(machine) == ["n9"] else []
    assert len(probing) == OBSERVERS
    assert set(probing) == set(observers("n9", nodes))


def test_the_silent_probe_nobody_and_nobody_probes_itself() -> None:
    machine = fleet("n1", "n2")
    for node in ("n1", "n2"):
        for role in ("node", "monitor"):
            machine.session("b1", f"{role}/{node}", session("silent"), cause(2))
    assert targets(machine) == []


@pytest.mark.parametrize("source", ["agent/n2/web/app/0", "controller/c1", "node", "broker/b2"])
def test_other_sources_say_nothing_of_a_node(source: str) -> None:
    machine = fleet("n1", "n2")
    machine.session("b1", source, session("silent"), cause(2))
    assert targets(machine) == []


@given(NODES, st.randoms())
def test_observers_are_alike_on_every_node_and_change_little(nodes: list[str], chance: Any) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)
    found = observers("target", nodes)
    assert found == observers("target", shuffled)
    assert len(found) == min(OBSERVERS, len([node for node in nodes if node != "target"]))
    for gone in nodes:
        left = observers("target", [node for node in nodes if node != gone])
        assert set(found) - {gone} <= set(left)


def silenced(machine: Silence, node: str, number: int, state: Any = "silent") -> None:
    """Manager and monitor of a node say this, by events of this number and the next."""
    machine.session("b1", f"node/{node}", session(state), cause(number))
    machine.session("b1", f"monitor/{node}", session(state), cause(number + 1))


def test_a_target_is_where_its_monitor_says_now_and_by_the_key_that_it_says_it_with() -> None:
    machine = fleet("n1", "n2")
    silenced(machine, "n2", 2)
    for address, port, key, where in (
        ("10.0.0.1", 700, b"k", "10.0.0.1:700"), ("10.0.0.2", 700, b"k", "10.0.0.2:700"),
        ("10.0.0.2", 701, b"k", "10.0.0.2:701"), ("10.0.0.2", 701, b"l", "10.0.0.2:701"), ("10.0.0.2", None, b"l", None),
    ):  # fmt: skip
        machine.attributes("n2", attributes(address, port), key)
        (target,) = machine.targets("b1")
        assert (target.node, target.address, target.key_id) == ("n2", where, key)


def test_targets_are_in_order_of_their_names_and_stay_while_nothing_changes() -> None:
    machine = fleet("n1", "n2", "n3", "n4")
    for node in ("n4", "n2", "n3"):
        silenced(machine, node, 2)
    found = machine.targets("b1")
    assert [target.node for target in found] == ["n2", "n3", "n4"]
    assert machine.targets("b1") is found
    machine.attributes("n2", attributes(), b"k" * 16)
    assert machine.targets("b1") is found
    silenced(machine, "n3", 4, "open")
    assert targets(machine) == ["n2", "n4"]


def test_the_cause_is_the_word_by_which_nobody_heard_it_any_more() -> None:
    machine = fleet("n1", "n2")
    silenced(machine, "n2", 2)
    silenced(machine, "n2", 8)
    (target,) = machine.targets("b1")
    assert (target.cause, target.episode, target.since_ms) == (cause(3), 1, 0)
    lost = fleet("n1", "n2")
    lost.session("b2", "node/n2", session("open", 2), cause(5))
    lost.session("b2", "monitor/n2", session("open", 2), cause(6))
    lost.session("b1", "broker/b2", session("closed", how="peer", since_ms=700), cause(7))
    (target,) = lost.targets("b1")
    assert target.cause == cause(5), "where its broker was lost: the last word on its manager"


def test_a_node_that_has_said_nothing_of_itself_is_probed_but_probes_nobody() -> None:
    machine = Silence("n1")
    machine.session("b1", "node/n1", session("open"), cause(1))
    machine.session("b1", "node/n2", session("silent"), cause(2))
    assert targets(machine) == []
    machine.attributes("n1", attributes(), b"k")
    (target,) = machine.targets("b1")
    assert (target.node, target.address, target.key_id) == ("n2", None, b"")


def test_one_of_its_sources_is_enough_for_a_node_to_be_heard_and_who_was_never_there_is_not_probed() -> None:
    machine = fleet("n1")
    machine.attributes("n2", attributes(), b"k")
    assert targets(machine) == []
    machine.session("b1", "monitor/n2", session("open"), cause(2))
    machine.session("b1", "node/n2", session("closed", how="timeout"), cause(3))
    assert targets(machine) == []
