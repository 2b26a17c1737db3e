"""Whom a broker names to probe a node that nobody hears, and to whom it says so."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.observers import FORMER, Observers, observers
from dsmt.view.liveness import OBSERVERS

NODES = st.lists(st.from_regex(r"n[0-9]{1,3}", fullmatch=True), unique=True, max_size=30)
ROLES = ("node", "monitor")


def both(node: str, state: Any) -> list[tuple[str, Any]]:
    return [(f"{role}/{node}", state) for role in ROLES]


def fleet(*nodes: str) -> Observers:
    machine = Observers()
    assert told(machine, [word for node in nodes for word in both(node, "open")]) == {}
    return machine


def told(machine: Observers, words: list[Any]) -> dict[str, tuple[str, ...]]:
    """By node whose words are said for others than before, for whom: after these words, and names for all of them."""
    ended = machine.noted(words)
    return ended | {node: machine.addressed(f"node/{node}") for node in machine.due()}


def monitors(*nodes: str) -> tuple[str, ...]:
    return tuple(f"monitor/{node}" for node in nodes)


@given(NODES, st.randoms())
def test_observers_are_alike_everywhere_and_change_little(nodes: list[str], chance: Any) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)
    found = observers("target", nodes)
    assert found == observers("target", shuffled)
    assert len(found) == min(OBSERVERS, len([node for node in nodes if node != "target"]))
    for gone in nodes:
        left = observers("target", [node for node in nodes if node != gone])
        assert set(found) - {gone} <= set(left)


def test_each_node_is_probed_by_others_so_that_nobody_probes_all() -> None:
    nodes = [f"n{number}" for number in range(20)]
    named = [one for node in nodes for one in observers(node, nodes)]
    assert len(set(named)) >= len(nodes) / 2
    assert max(map(named.count, nodes)) <= 3 * OBSERVERS


def test_a_node_is_unheard_only_when_manager_and_monitor_are_and_three_are_told() -> None:
    nodes = [f"n{number}" for number in range(1, 10)]
    machine = fleet(*nodes)
    assert told(machine, [("node/n9", "silent")]) == {}
    assert machine.addressed("node/n9") == ()
    named = monitors(*observers("n9", nodes))
    assert len(named) == OBSERVERS
    assert told(machine, [("monitor/n9", "silent")]) == {"n9": named}
    assert machine.addressed("node/n9") == machine.addressed("monitor/n9") == named
    assert told(machine, [("monitor/n9", "closed")]) == {}, "nothing has changed for them"
    assert told(machine, [("node/n9", "open")]) == {"n9": named}, "they are told of the end"
    assert machine.addressed("node/n9") == ()


def test_of_many_that_vanish_at_once_none_is_named_for_another() -> None:
    nodes = [f"n{number}" for number in range(20)]
    machine, gone = fleet(*nodes), nodes[5:]
    changed = told(machine, [word for node in gone for word in both(node, "silent")])
    assert set(changed) == set(gone)
    for node, to in changed.items():
        assert to == monitors(*observers(node, nodes[:5]))


def test_of_many_that_vanish_or_come_one_after_the_other_each_is_named_for_once() -> None:
    nodes = [f"n{number}" for number in range(20)]
    machine = fleet(*nodes)
    for state in ("closed", "open"):
        for word in [word for node in nodes[5:] for word in both(node, state)]:
            machine.noted([word])
        if state == "closed":
            assert sorted(machine.due()) == sorted(nodes[5:])
            assert machine.due() == []
            assert all(machine.addressed(f"node/{node}") == monitors(*observers(node, nodes[:5])) for node in nodes[5:])
    assert machine.due() == []


def test_who_goes_and_is_back_before_names_are_given_stays_named() -> None:
    machine = fleet("n1", "n2")
    told(machine, both("n2", "silent"))
    machine.noted([("monitor/n1", "closed")])
    machine.noted([("monitor/n1", "open")])
    assert machine.due() == []
    assert machine.addressed("node/n2") == monitors("n1")


def test_a_node_that_is_heard_before_anybody_was_named_needs_nobody() -> None:
    machine = fleet("n1", "n2")
    assert machine.noted(both("n2", "closed")) == machine.noted([("node/n2", "open")]) == {}
    assert machine.due() == []


def test_when_an_observer_goes_another_is_named_and_it_is_told_when_it_is_no_more_one() -> None:
    nodes = [f"n{number}" for number in range(8)]
    machine = fleet(*nodes)
    (to,) = told(machine, both("n7", "silent")).values()
    first = to[0].removeprefix("monitor/")
    left = [node for node in nodes if node not in (first, "n7")]
    assert told(machine, [(f"monitor/{first}", "closed")]) == {"n7": monitors(*observers("n7", left), first)}
    changed = told(machine, [(f"monitor/{first}", "open")])
    assert changed["n7"][:OBSERVERS] == to
    assert set(changed["n7"]) == {*to, *monitors(*observers("n7", left))}


def test_of_those_who_were_named_before_the_last_are_told_of_the_end() -> None:
    machine = fleet("n0", "target")
    told(machine, both("target", "silent"))
    for number in range(FORMER + 4):  # each is the only one that is left, and named alone
        told(machine, [(f"monitor/n{number + 1}", "open")])
        told(machine, [(f"monitor/n{number}", "closed")])
    last = [f"n{number}" for number in range(FORMER + 4, 3, -1)]
    assert set(machine.addressed("node/target")) == set(monitors(*last))


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(ROLES), st.sampled_from(["open", "silent"])), max_size=40))
def test_at_any_time_the_three_next_of_those_whose_monitors_are_open_are_named(words: list[Any]) -> None:
    machine = Observers()
    now: dict[str, str] = {}
    hear: dict[str, set[str]] = {}
    for number, role, state in words:
        source = f"{role}/n{number}"
        now[source] = state
        for node, to in told(machine, [(source, state)]).items():
            heard = "open" in (now.get(f"node/{node}"), now.get(f"monitor/{node}"))
            assert hear.get(node, set()) <= set(to) or len(to) >= FORMER, "who was told of a silence is told of its end"
            hear[node] = set() if heard else set(to)
        probing = [one.removeprefix("monitor/") for one, state in now.items() if one[0] == "m" and state == "open"]
        for node in {one.partition("/")[2] for one in now}:
            heard = "open" in (now.get(f"node/{node}"), now.get(f"monitor/{node}"))
            expected = () if heard else monitors(*observers(node, probing))
            assert machine.addressed(f"node/{node}")[: len(expected)] == expected


def test_who_was_named_in_an_earlier_life_of_the_broker_is_told_of_the_end() -> None:
    machine = Observers()
    machine.restore("node/n2", monitors("n4"))
    machine.restore("monitor/n2", monitors("n1", "n3"))
    told(machine, [*both("n2", "silent"), *both("n3", "open")])
    assert machine.addressed("monitor/n2") == monitors("n3", "n4", "n1")
    assert told(machine, [("node/n2", "open")]) == {"n2": monitors("n3", "n4", "n1")}


def test_who_was_told_in_an_earlier_life_hears_of_the_end_though_it_comes_at_once() -> None:
    machine = Observers()
    machine.restore("node/n2", monitors("n4"))
    assert machine.noted([("node/n2", "open")]) == {"n2": monitors("n4")}
    assert machine.noted([("node/n2", "open")]) == {}


def test_who_is_forgotten_is_not_named_for_what_was_noted_before() -> None:
    machine = fleet("n1")
    told(machine, both("n2", "silent"))
    machine.noted([("node/n2", "closed")])
    machine.keep(lambda _source: False)
    assert machine.due() == []


def test_words_on_other_sources_and_to_nobody_are_passed_over_and_those_behind_them_are_not() -> None:
    machine = Observers()
    machine.restore("agent/n2/web/app/0", monitors("n4"))
    machine.restore("node/n2", ())
    assert machine.noted([("operator/o", "silent"), ("node/n2", "open")]) == {}
    assert told(machine, [("agent/n2/web/app/0", "closed"), *both("n3", "open"), ("node/n2", "silent")]) == {
        "n2": monitors("n3")
    }
    assert machine.addressed("agent/n2/web/app/0") == machine.addressed("node/n3") == ()
    assert told(machine, [("monitor/n2", "open")]) == {"n2": monitors("n3")}
    assert machine._former == {}, "who was told of the end is told of nothing more"


def test_other_sources_are_no_nodes_and_what_nobody_knows_is_forgotten() -> None:
    machine = fleet("n1")
    assert told(machine, [("agent/n2/web/app/0", "silent"), ("operator/n1", "closed"), ("broker/b2", "closed")]) == {}
    assert machine.addressed("operator/n1") == ()
    told(machine, both("n2", "closed"))
    machine.keep(lambda source: source == "node/n2")
    assert machine.addressed("node/n2") == monitors("n1")
    machine.keep(lambda _source: False)
    assert machine.addressed("node/n2") == ()
    assert "n2" not in machine._open
