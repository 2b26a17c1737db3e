"""Shared facts are compared where they are said, and never said again blindly (rules A3, A6)."""

from __future__ import annotations

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.errors import FailedError, RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.source import Started
from dsmt.event.records import from_data
from dsmt.ports.bus import Draft, Start
from tests.bus.realm import TestRealm, reading, scenario
from tests.waiting import until

SPEC = {"spec": {}, "by": "alice", "reason": ""}
GRAVE = {"by": "alice", "reason": "over"}


async def fact_on(client: BusClient, topic: str) -> SignedEvent:
    async with reading(client, topic) as got:
        return got.arrived[-1].signed


@scenario
async def test_what_was_not_acknowledged_when_the_link_was_lost_is_not_said_again_and_all_else_is(r: TestRealm):
    """A controller's word, stopped on its way, came late and moved a slot back: of two siblings the earlier wins."""
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    before = alice._publisher.signer.incarnation
    came: list[object] = []
    broker._publishing.store = came.extend  # it dies between what came and its commit
    lost = alice.emit(Draft("user/f", {"n": 2}, replaces=first))
    signal = alice.emit(Draft("user/s", {"n": 3}))
    await until(lambda: came)
    await r.stop(broker)
    with pytest.raises(FailedError, match="the link was lost") as told:
        await lost.acknowledged()
    assert told.value.code == "unanswered"
    assert told.value.next == "see what it says now, and try again"
    identity, address = r.identities[broker], broker.address
    broker._store.close()
    await r.broker(identity=identity, address=address)
    await signal.acknowledged()
    assert signal.id.incarnation == before, "it is sent again as it was signed"
    await bob.publish(Draft("user/f", {"n": 4}, replaces=first.signed))
    await alice.publish(Draft("user/s", {"n": 5}))
    assert (await fact_on(bob, "user/f")).event.data == {"n": 4}
    async with reading(bob, "user/", "source/operator/alice", "broker/+/notice", start=Start.HISTORY) as got:
        assert [d["n"] for d in got.of("user/s")] == [3, 5]
        assert [d["n"] for d in got.of("user/f")] == [1, 4]
        assert got.types() == got.of("broker/b1/notice") == [], "what was given up is no gap"
        said = [from_data(Started, data) for data in got.of("source/operator/alice")]
    assert [one.previous_incarnation for one in said] == [None, before]
    assert said[1].previous_sequence == first.id.sequence


@scenario
async def test_what_was_refused_last_is_missed_by_no_broker_that_begins_anew(r: TestRealm):
    """Of two issuers that answer a token one is refused: its broker began anew, and told of a gap in what that had said."""
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    await bob.publish(Draft("user/f", {"n": 2}, replaces=first.signed))
    with pytest.raises(RefusedError):
        await alice.publish(Draft("user/f", {"n": 3}, replaces=first))
    broker = await r.restarted(broker)
    await alice.publish(Draft("user/s", {"n": 4}))
    with pytest.raises(RefusedError):
        await alice.publish(Draft("user/f", {"n": 5}, replaces=first))
    await alice.publish(Draft("user/s", {"n": 6}))
    await r.restarted(broker)
    await alice.publish(Draft("user/s", {"n": 7}))
    async with reading(bob, "user/s", "source/operator/alice", "broker/+/notice", start=Start.HISTORY) as got:
        assert [d["n"] for d in got.of("user/s")] == [4, 6, 7]
        assert got.types() == got.of("broker/b1/notice") == []
        said = [from_data(Started, data) for data in got.of("source/operator/alice")]
    assert [one.previous_sequence for one in said] == [None, first.id.sequence], "what is stored behind it is as good"


@scenario
async def test_a_tombstone_and_what_is_made_anew_come_in_one_batch(r: TestRealm):
    await r.broker()
    alice, bob, late = [await r.client(f"operator/{name}") for name in ("alice", "bob", "late")]
    old = alice.emit(Draft("service/web/spec", SPEC, version=7))
    await old.acknowledged()
    async with reading(bob, "service/", "tombstone/") as live:
        grave = alice.emit(Draft("tombstone/service/web", GRAVE))
        anew = alice.emit(Draft("service/web/spec", SPEC | {"reason": "again"}, epoch=2))
        await grave.acknowledged()
        await anew.acknowledged()
        await live.until(lambda g: len(g.arrived) == 3)
    async with reading(late, "service/") as got:
        assert [one.signed.id for one in got.arrived] == [anew.id]


@scenario
async def test_a_late_tombstone_of_an_epoch_that_has_ended_changes_nothing(r: TestRealm):
    """A controller that was stopped buried a service that had been made anew meanwhile."""
    await r.broker()
    alice, stopped = await r.client("operator/alice"), await r.client("controller/c1")
    await alice.publish(Draft("service/web/spec", SPEC))
    await alice.publish(Draft("tombstone/service/web", GRAVE))
    anew = alice.emit(Draft("service/web/spec", SPEC, epoch=2))
    await anew.acknowledged()
    with pytest.raises(RefusedError) as told:
        await stopped.publish(Draft("tombstone/service/web", GRAVE))
    assert told.value.code == "stale"
    async with reading(alice, "service/") as got:
        assert [one.signed.id for one in got.arrived] == [anew.id]


@scenario
async def test_an_epoch_that_nobody_could_follow_is_refused(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    with pytest.raises(RefusedError, match="epoch 4611686018427387904 of user/f is far above 0") as told:
        await alice.publish(Draft("user/f", {}, epoch=2**62, version=1))
    assert told.value.code == "event.version"
