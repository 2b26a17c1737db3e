"""The fold is a join, total and incremental."""

import random
from hashlib import sha256
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.node import NodeAttributes
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.order import newer
from dsmt.event.registry import TOPICS, as_pattern, lookup
from dsmt.event.topic import matches
from dsmt.view import PATTERNS, View
from tests.controllers.build import Realm, key, spec, web
from tests.controllers.signing import START_MS, signed

SLOT = "service/web/slot/app/0"
GRAVE = "tombstone/service/web"


def slot_fact(
    version: int, time_ms: int, *, node: str = "n1", source: str = "controller/c1", topic: str = SLOT, epoch: int = 1
) -> SignedEvent:
    record = Slot(node=node, spec="operator/alice#1-1", revision=1, desired="running")
    return signed(source, topic, record, version=version, time_ms=time_ms, epoch=epoch)


def grave(time_ms: int, version: int = 1, epoch: int = 1) -> SignedEvent:
    record = Tombstone(by="alice", reason="x")
    return signed("operator/alice", GRAVE, record, version=version, time_ms=time_ms, epoch=epoch)


def folded(events: list[SignedEvent]) -> View:
    view = View()
    for event in events:
        view.apply(event)
    return view


def state(view: View) -> dict[str, bytes]:
    return {s.event.topic: s.leaf for s in view.winners()}


def attributes_fact(sequence: int, cpus: int) -> SignedEvent:
    record = NodeAttributes(
        cpus=cpus, memory_bytes=1, memory_free_bytes=1, disk_bytes=1, disk_free_bytes=1, load=0.0, address="", version="",
        boot_id="",
    )  # fmt: skip
    return signed("monitor/n1", "node/n1/attributes", record, sequence=sequence, ttl=86_400_000)


facts = st.one_of(
    st.builds(
        slot_fact,
        st.integers(1, 5),
        st.integers(START_MS, START_MS + 8),
        node=st.sampled_from(["n1", "n2"]),
        source=st.sampled_from(["controller/c1", "controller/c2"]),
        topic=st.sampled_from([SLOT, "service/web/slot/app/1", "service/db/slot/app/0"]),
        epoch=st.integers(1, 3),
    ),
    st.builds(grave, st.integers(START_MS, START_MS + 8), st.integers(1, 3), st.integers(1, 3)),
    st.builds(attributes_fact, st.integers(1, 4), st.integers(1, 3)),
    st.builds(
        lambda v, t: signed(
            "operator/alice",
            "service/web/spec",
            SpecFact(spec=spec(web(v)), by="alice", reason=""),
            version=v,
            time_ms=START_MS + t,
        ),
        st.integers(1, 4),
        st.integers(0, 8),
    ),
)


@given(st.lists(facts, max_size=14), st.randoms(use_true_random=False))
def test_any_order_and_any_number_of_times_give_one_state(events: list[SignedEvent], chance: random.Random) -> None:
    shuffled = events + chance.sample(events, len(events) // 2)
    chance.shuffle(shuffled)
    one, other = folded(events), folded(shuffled)
    assert state(one) == state(other)
    assert one.digest == other.digest
    assert slots(one) == slots(other)
    assert rooms(one) == rooms(other)


def slots(view: View) -> dict:
    entries = {(service, *place): slot for service, e in view.services.items() for place, slot in e.slots.items()}
    return {place: slot.fact.record for place, slot in entries.items() if slot.fact is not None}


def rooms(view: View) -> dict:
    return {node: set(view.allocations.node(node).slots) for node in ("n1", "n2")}


@given(st.lists(facts, max_size=14))
def test_the_winner_is_the_greatest_of_those_that_no_tombstone_hides(events: list[SignedEvent]) -> None:
    view = folded(events)
    ended = max((e.event.epoch for e in events if e.event.topic == GRAVE), default=0)
    seen = [e for e in events if e.event.topic == SLOT and e.event.epoch > ended]
    expected = None
    for event in seen:
        if expected is None or newer(event.event, expected.event):
            expected = event
    winner = view.winner(SLOT)
    assert (winner and winner.leaf) == (expected and expected.leaf)


@given(st.lists(facts, max_size=14))
def test_the_digest_is_the_sum_over_the_winners(events: list[SignedEvent]) -> None:
    view = folded(events)
    total = sum(int.from_bytes(sha256(s.event.topic.encode() + b"\0" + s.leaf).digest(), "big") for s in view.winners())
    assert view.digest == (total % 2**256).to_bytes(32, "big")


def test_apply_says_whether_the_view_changed() -> None:
    view = View()
    assert view.apply(slot_fact(2, START_MS))
    assert not view.apply(slot_fact(2, START_MS))
    assert not view.apply(slot_fact(1, START_MS + 5))
    assert view.apply(grave(START_MS + 1))


def test_what_is_made_anew_stands_whatever_came_in_which_order_and_with_which_clock() -> None:
    """A service that was removed and applied again begins at version 1 of the next epoch; a late tombstone harms nobody."""
    old, new = slot_fact(7, START_MS, node="n1"), slot_fact(1, START_MS - 9000, node="n2", epoch=2)
    for order in permutations([old, new, grave(START_MS + 300_000), grave(START_MS + 900_000, version=2)]):
        view = folded(list(order))
        assert view.winner(SLOT) == new
        assert view.slot(key(0)).fact.record.node == "n2"


def test_a_fact_is_said_in_the_epoch_of_its_thing_which_follows_the_last_that_ended() -> None:
    view = View()
    assert view.epoch(SLOT) == 1
    view.apply(grave(START_MS, epoch=4))
    assert view.epoch(SLOT) == view.epoch("service/web/spec") == 5
    assert view.epoch("service/db/spec") == 1
    view.apply(slot_fact(1, START_MS, epoch=7))
    assert view.epoch("service/web/spec") == 7


def test_signals_and_unknown_facts_pass_by() -> None:
    view = View()
    beat = Heartbeat(sequence=1, incarnation=1, lag_s=0.0, emit_rate_s=1.0)
    assert not view.apply(signed("node/n1", "node/n1/heartbeat", beat))
    assert not view.apply(signed("operator/alice", "user/x", {"a": 1}, version=1))
    assert len(view) == 0


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        (SLOT, {"node": 7}),
        ("service/web/spec", {"spec": {"service": 3}, "by": "alice", "reason": ""}),
        ("nodeset/good", {"expression": "minus(", "by": "alice"}),
        ("service/web/slot/app/007", {"node": None, "spec": "", "revision": 1, "desired": "running"}),
    ],
)
def test_what_cannot_be_read_is_quarantined_and_wins_all_the_same(topic: str, data: dict) -> None:
    view = View()
    unreadable = signed("controller/c1", topic, data, version=2)
    assert view.apply(unreadable)
    assert view.winner(topic) == unreadable
    assert topic in view.quarantined


def test_a_readable_fact_ends_the_quarantine() -> None:
    view = folded([signed("controller/c1", SLOT, {"node": 7}, version=2)])
    assert view.slot(key(0)).quarantined
    view.apply(slot_fact(3, START_MS))
    assert not view.quarantined
    assert not view.slot(key(0)).quarantined
    assert view.slot(key(0)).fact.version == 3


def test_a_quarantined_fact_can_be_buried() -> None:
    view = folded([signed("controller/c1", SLOT, {"node": 7}, version=2), grave(START_MS + 1)])
    assert not view.quarantined
    assert view.winner(SLOT) is None


def test_a_fact_dies_when_its_time_to_live_has_passed_and_not_before() -> None:
    realm = Realm("n1")
    before = realm.view.digest
    realm.after(86_399)
    assert not realm.view.expire(realm.now_ms)
    assert realm.view.nodes["n1"].attributes is not None
    assert realm.view.expire(realm.now_ms + 1_000)
    assert "n1" not in realm.view.nodes
    assert realm.view.digest != before
    assert len(realm.view) == 0
    assert realm.view.allocations.node("n1").attributes is None


def test_a_renewed_fact_lives_on() -> None:
    realm = Realm("n1")
    realm.after(80_000).attributes("n1")
    realm.after(80_000)
    assert realm.view.nodes["n1"].attributes is not None
    assert not realm.view.nodes["n1"].sources
    realm.after(6_399)
    assert realm.view.nodes["n1"].attributes is not None
    realm.after(2)
    assert "n1" not in realm.view.nodes, "it dies of the time that it was renewed for, and not never"


def test_the_typed_entries_follow_the_facts() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    realm.health(key(0), realm.slot(0).node, "ready")
    entry = realm.view.slot(key(0))
    assert realm.view.services["web"].parsed.components["app"].instances == 1
    assert entry.holders == [realm.slot(0).node]
    assert entry.instances[realm.slot(0).node].health.record.health == "ready"
    assert entry.generation == 1


def test_what_changed_is_told_once() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    realm.view.take_dirty()
    assert not realm.view.take_dirty()
    realm.status(key(0), "n1", pid=7)
    assert realm.view.take_dirty().slots == {key(0)}
    realm.attributes("n1", load=3.0, memory_free_bytes=1)
    assert not realm.view.take_dirty()
    realm.attributes("n1", labels={"rack": "r1"})
    assert realm.view.take_dirty().nodes == {"n1"}


def test_a_copy_has_the_same_facts() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    copy = realm.view.copy()
    assert (copy.digest, copy.changed) == (realm.view.digest, False)
    copy.apply(slot_fact(9, START_MS))
    assert copy.digest != realm.view.digest


def test_the_patterns_take_exactly_the_facts_that_are_folded() -> None:
    levels = dict.fromkeys(
        (
            "node",
            "observer",
            "broker",
            "other",
            "controller",
            "service",
            "component",
            "name",
            "stream",
            "key",
            "token",
            "id",
        ),
        "x",
    )
    for row in TOPICS:
        if "<name/>" in row.template and row.template != "config/<name/>":
            continue
        topic = as_pattern(row.template, {**levels, "index": "0", "source": "node/x", "name": "x"})
        assert lookup(topic) is not None, topic
        taken = any(matches(pattern, topic) for pattern in PATTERNS)
        assert taken == View().apply(signed("node/n1", topic, {})), topic
