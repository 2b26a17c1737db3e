"""Stream F takes nothing over from stream H: who attaches, reads and replaces retained facts sees no difference."""

from __future__ import annotations

import pytest

from dsmt.errors import RefusedError
from dsmt.ports.bus import Draft, Start
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import Facts, reading
from tests.bus.saying import numbers
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


async def stall(e: NatsEngine) -> None:
    """From now on stream F is as it is."""
    link = await e._servers.administrator()
    config = (await link.api(f"STREAM.INFO.{e._subjects.facts}"))["config"]
    del config["sources"]
    await link.api(f"STREAM.UPDATE.{e._subjects.facts}", config)
    await link.close()


@on_nats
async def test_retained_facts_are_what_stream_f_holds_and_what_it_lacks(e: NatsEngine) -> None:
    alice = await e.bus("operator/alice")
    facts = Facts(alice)
    for topic in ("user/old", "user/changed"):
        await facts.publish(topic, {"n": 1}, version=1)
    async with reading(alice, "user/", follow=False) as before:
        assert numbers(before, "user/old") == [1]
    await stall(e)
    await facts.publish("user/changed", {"n": 2}, version=2)
    new = alice.emit(Draft("user/new", {"n": 3}, version=1, to=("operator/bob",)))
    await new.acknowledged()
    bob = await e.bus("operator/bob")
    async with reading(bob, "user/", inbox=True) as got:
        assert [numbers(got, f"user/{one}") for one in ("old", "changed", "new")] == [[1], [2], [3]]
        await bob.publish(Draft("user/new", {"n": 4}, replaces=new))
        with pytest.raises(RefusedError) as stale:
            await alice.publish(Draft("user/new", {"n": 5}, replaces=new))
        assert stale.value.code == "stale"
        await facts.publish("user/old", {"n": 6}, version=2)
        await got.until(lambda g: numbers(g, "user/old") == [1, 6])
        assert numbers(got, "user/new") == [3, 4]
        assert got.types() == []
    carol = await e.bus("operator/carol")
    async with reading(carol, "user/", follow=False) as whole:
        assert [numbers(whole, f"user/{one}") for one in ("old", "changed", "new")] == [[6], [2], [4]]
    async with reading(carol, "user/", start=Start.HISTORY, follow=False) as past:
        assert numbers(past, "user/new") == [3, 4]


@on_nats
async def test_a_revocation_that_stream_f_lacks_is_known_to_who_attaches(e: NatsEngine) -> None:
    mallory, root = await e.bus("operator/mallory"), await e.bus("root")
    await stall(e)
    await Facts(mallory).publish("user/t", {"n": 1}, version=1)
    key = mallory._identity.key.key_id
    await root.publish(Draft(f"trust/revoked/{key.hex()}/root", {"by": "root", "reason": "stolen"}))
    bob = await e.bus("operator/bob")
    assert bob._trust.is_revoked(key)
    async with reading(bob, "user/") as got:
        assert numbers(got) == []


@on_nats
async def test_a_revocation_that_stream_f_lacks_is_known_to_who_attaches_again_within_a_minute(e: NatsEngine) -> None:
    """The mark of its last attachment stands there still: with that it took what F holds for all there is."""
    mallory, root, bob = [await e.bus(name) for name in ("operator/mallory", "root", "operator/bob")]
    await stall(e)
    key = mallory._identity.key.key_id
    await root.publish(Draft(f"trust/revoked/{key.hex()}/root", {"by": "root", "reason": "stolen"}))
    before = bob.attachment
    await (await bob.held()).close()
    await until(lambda: bob.attached and bob.attachment > before)
    assert bob._trust.is_revoked(key)
