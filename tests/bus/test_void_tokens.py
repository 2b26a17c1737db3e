"""A token that a stolen issuer's key calls used on one side of a cut: it is good at both brokers again (J2, J3)."""

from __future__ import annotations

from tests.bus.meshes import at
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_leaf import cut
from tests.bus.test_void import read, revoke, sides, stands
from tests.waiting import until

TOPIC = "trust/token/abababababababab"
GOOD = {"role": "node", "name": "db-*", "labels": {}, "expires_ms": 1 << 42, "by": "bob"}


@scenario
async def test_who_comes_later_finds_it_unused_at_either_and_may_use_it(r: TestRealm) -> None:
    async with sides(r) as s:
        eve = Facts(await r.client("issuer/eve", brokers=at(s.b2)))
        eve._last[TOPIC] = await s.bob.publish(TOPIC, GOOD)
        await s.alike()
        async with cut(r, s.b2, [s.b1]):
            await eve.publish(TOPIC, GOOD | {"key": "aa", "member": "node/db-1"})
            await revoke(r, eve, s.b1)
        await until(lambda: s.b2._trust.is_revoked(eve._client._identity.key.key_id))
        await until(lambda: stands(s.b1, TOPIC) == stands(s.b2, TOPIC) == ("operator/bob", GOOD))
        carol = await r.client("issuer/carol", brokers=at(s.b2))
        assert await read(carol, "trust/token/") == [GOOD]
        used = GOOD | {"key": "bb", "member": "node/db-1"}
        later = Facts(carol)
        later._last[TOPIC] = s.bob._last[TOPIC]
        await later.publish(TOPIC, used)
        await until(lambda: stands(s.b1, TOPIC) == stands(s.b2, TOPIC) == ("issuer/carol", used))


@scenario
async def test_what_another_issuer_had_said_stands_again_in_the_place_of_a_stolen_one_s(r: TestRealm) -> None:
    used = GOOD | {"key": "bb", "member": "node/db-1"}
    async with sides(r) as s:
        eve = Facts(await r.client("issuer/eve", brokers=at(s.b2)))
        carol = Facts(await r.client("issuer/carol", brokers=at(s.b1)))
        eve._last[TOPIC] = await carol.publish(TOPIC, used)
        await s.alike()
        async with cut(r, s.b2, [s.b1]):
            await eve.publish(TOPIC, used | {"key": "aa"})
            await revoke(r, eve, s.b1)
        await until(lambda: stands(s.b1, TOPIC) == stands(s.b2, TOPIC) == ("issuer/carol", used))
