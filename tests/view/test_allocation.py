"""The ledger is the same whether it is kept up to date or counted anew, and a trial on top of it leaves it as it is."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.event.kinds.node import NodeAttributes
from dsmt.event.slots import SlotKey
from dsmt.spec.parsing import parse
from dsmt.view.allocation import RING, AllocationLedger, Need, need_of, place_on_ring
from tests.controllers.build import web

NODES = ["n1", "n2", "n3"]


def attributes(memory: int) -> NodeAttributes:
    return NodeAttributes(
        cpus=2, memory_bytes=memory, memory_free_bytes=0, disk_bytes=9, disk_free_bytes=0, load=0.0, address="", version="",
        boot_id="",
    )  # fmt: skip


def told(ledger: AllocationLedger) -> tuple:
    each = [(n, sorted(ledger.node(n).slots.items()), ledger.node(n).free(), dict(ledger.node(n).ports)) for n in NODES]
    return each, {c: dict(ledger.own("web", c)) for c in "ab"}, list(ledger.in_order(0))


puts = st.tuples(
    st.builds(SlotKey, st.just("web"), st.sampled_from("ab"), st.integers(0, 2)),
    st.sampled_from([*NODES, None]),
    st.builds(Need, st.integers(0, 4), st.just(1), st.just(0), st.sampled_from([(), (("tcp", 80),)])),
)


@given(st.lists(puts, max_size=20))
def test_kept_up_to_date_is_the_same_as_counted_anew(sequence: list) -> None:
    kept, last = AllocationLedger(), {}
    for node, memory in zip(NODES, (5, 9, 9), strict=True):
        kept.equip(node, attributes(memory))
    for key, node, need in sequence:
        kept.put(key, node, need)
        last[key] = (node, need)
    anew = AllocationLedger()
    for key, (node, need) in sorted(last.items(), reverse=True):
        anew.put(key, node, need)
    for node, memory in zip(NODES, (5, 9, 9), strict=True):
        anew.equip(node, attributes(memory))
    assert told(kept) == told(anew)


@given(st.lists(puts, max_size=10), st.lists(puts, max_size=10))
def test_a_trial_tells_what_would_be_and_leaves_its_ledger_as_it_is(before: list, tried: list) -> None:
    ledger, changed = AllocationLedger(), AllocationLedger()
    for node in NODES:
        ledger.equip(node, attributes(5))
        changed.equip(node, attributes(5))
    for put in before:
        ledger.put(*put)
        changed.put(*put)
    was, trial = told(ledger), ledger.trial()
    for put in tried:
        assert trial.put(*put) == changed.put(*put)
    assert told(trial) == told(changed)
    assert told(ledger) == was


def test_nodes_are_tried_with_the_fewest_instances_then_the_most_memory_first() -> None:
    ledger = AllocationLedger()
    for node, memory in (("n1", 5), ("n2", 9), ("n3", 7)):
        ledger.equip(node, attributes(memory))
    assert list(ledger.in_order(0)) == ["n2", "n3", "n1"]
    ledger.put(SlotKey("web", "a", 0), "n2", Need(memory=1))
    assert list(ledger.in_order(0)) == ["n3", "n1", "n2"]


def test_what_an_instance_takes_is_its_reserve_in_whole_amounts_and_its_fixed_ports() -> None:
    text = "reserve: {memory: 1MiB, cpu: 0.3, disk: 1GiB}\nports: {b: {port: 81, protocol: udp}, a: 80, c: auto}"
    component = parse(web(1, component=text), file="f")[0].components["app"]
    assert need_of(component) == Need(2**20, 300, 2**30, (("tcp", 80), ("udp", 81)))


def test_a_node_has_what_its_node_says_less_what_its_slots_take() -> None:
    ledger, first, second = AllocationLedger(), SlotKey("web", "a", 0), SlotKey("web", "a", 1)
    ledger.put(first, "n1", Need(1, 500, 2, (("tcp", 80),)))
    assert ledger.node("n1").free() == Need(), "nothing is known of the node yet"
    ledger.equip("n1", attributes(5))
    ledger.put(second, "n1", Need(2, 700, 3, (("tcp", 80), ("udp", 81))))
    n1 = ledger.node("n1")
    assert n1.free() == Need(2, 800, 4)
    assert n1.ports == {("tcp", 80): 2, ("udp", 81): 1}
    assert ledger.own("web", "a") == {"n1": 2}
    assert n1.order() == (2, -2, place_on_ring("n1"), "n1")
    ledger.release(second)
    assert (n1.free(), n1.ports, ledger.own("web", "a")) == (Need(4, 1500, 7), {("tcp", 80): 1}, {"n1": 1})
    ledger.equip("n1", None)
    assert (n1.free(), list(ledger.in_order(0)), ledger.unequipped) == (Need(), [], {"n1"})
    ledger.release(first)
    assert ledger.unequipped == set()
    assert ledger.own("web", "a") == ledger.own("db", "a") == {}
    assert ledger.node("n1") is not n1, "of a node of which nothing is known nothing is kept"
    assert (ledger.node("n1").node, ledger.node("n1").slots) == ("n1", {})


@pytest.mark.parametrize("name", ["n1", "", "größer"])
def test_a_name_s_place_on_the_ring_is_64_bits_of_its_hash(name: str) -> None:
    assert place_on_ring(name) == int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
    assert 0 <= place_on_ring(name) < RING


def test_equals_are_tried_round_a_ring_from_where_the_slot_stands() -> None:
    ledger = AllocationLedger()
    for i in range(50):
        ledger.equip(f"n{i}", attributes(5))
    orders = [list(ledger.in_order(start)) for start in (0, 2**62, 2**63, 2**64 - 1)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({order[0] for order in orders}) > 2
    turn = orders[0].index(orders[1][0])
    assert orders[1] == orders[0][turn:] + orders[0][:turn]
