"""What a stolen key said while it was its owner's is said again on NATS, though the thief's words have taken its place."""

from __future__ import annotations

import pytest

from dsmt.errors import RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Bus, Draft
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import reading
from tests.bus.saying import numbers

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
TOPICS = {"user/alone": 3, "user/above": 3, "user/alone-9": 11, "user/above-9": 11}
"""The version that the thief's word has; `above` another one's earlier fact, which is believed, there is the owner's."""


async def owned(owner: Bus, other: Bus, topic: str) -> SignedEvent:
    """What the owner of the key has said on a topic."""
    first = other.emit(Draft(topic, {"n": 0}, version=1)) if "above" in topic else None
    if first is not None:
        await first.acknowledged()
    said = owner.emit(Draft(topic, {"n": 1}, replaces=first, version=2))
    await said.acknowledged()
    assert said.signed is not None
    return said.signed


@on_nats
async def test_what_a_later_word_of_its_key_has_taken_the_place_of_is_said_again_and_once(e: NatsEngine) -> None:
    alice, bob, carol, root = [await e.bus(name) for name in ("operator/alice", "operator/bob", "operator/carol", "root")]
    good = {topic: await owned(alice, bob, topic) for topic in TOPICS}
    for topic, version in TOPICS.items():
        await alice.publish(Draft(topic, {"n": 2}, replaces=good[topic], version=version))
    async with reading(bob, "trust/revoked/") as got, reading(carol, "trust/revoked/") as too:
        revoked = f"trust/revoked/{good['user/alone'].key_id.hex()}/root"
        await root.publish(Draft(revoked, {"by": "root", "reason": "stolen"}))
        await got.until(lambda g: g.arrived)
        await too.until(lambda g: g.arrived)
    for topic, said in good.items():
        await bob.publish(Draft(topic, {"n": 3}, replaces=said))
        with pytest.raises(RefusedError, match=f"operator/bob changed {topic} at the same moment, and was first"):
            await carol.publish(Draft(topic, {"n": 4}, replaces=said))
    dave = await e.bus("operator/dave")
    async with reading(dave, "user/") as later:
        assert {topic: numbers(later, topic)[-1] for topic in TOPICS} == dict.fromkeys(TOPICS, 3)
