"""A service that a revoked key has removed on one side of a partition: when the sides meet both have the same of it (J3)."""

from __future__ import annotations

from tests.bus.meshes import at
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_leaf import cut
from tests.bus.test_void import GRAVE, read, revoke, sides, stands
from tests.waiting import until


@scenario
async def test_a_service_that_it_had_ended_and_made_anew_stands_again_on_both_sides(r: TestRealm) -> None:
    spec, barrier = {"spec": {}, "by": "bob", "reason": ""}, "service/web/barrier/begin/released"
    async with sides(r) as s:
        carol = Facts(await r.client("controller/carol", brokers=at(s.b1)))
        await s.bob.publish("service/web/spec", spec)
        await carol.publish(barrier, {"at_ms": 1})
        await s.alike()
        async with cut(r, s.b2, [s.b1]):
            await s.eve.publish("tombstone/service/web", GRAVE)
            await s.eve.publish("service/web/spec", spec | {"by": "eve"}, epoch=2)
            assert stands(s.b2, barrier) is None
            await revoke(r, s.eve, s.b1)
        key = s.eve._client._identity.key.key_id
        await until(lambda: s.b1._trust.is_revoked(key) and s.b2._trust.is_revoked(key))
        for one in (s.b1, s.b2):
            assert stands(one, "service/web/spec") == ("operator/bob", spec)
            assert stands(one, barrier) == ("controller/carol", {"at_ms": 1})
        late = await r.client("operator/late", brokers=at(s.b2))
        assert await read(late, "service/web/") == [{"at_ms": 1}, spec]
        await carol.publish(barrier, {"at_ms": 2})
        await until(lambda: stands(s.b1, barrier) == stands(s.b2, barrier) == ("controller/carol", {"at_ms": 2}))


@scenario
async def test_a_service_that_a_revoked_controller_had_ended_is_ended_on_both_sides_once_another_one_has_said_so_at_either(
    r: TestRealm,
) -> None:
    topic, grave = "service/web/spec", "tombstone/service/web"
    async with sides(r) as s:
        await s.bob.publish(topic, {"spec": {}, "by": "bob", "reason": ""})
        await s.alike()
        mallory = Facts(await r.client("controller/mallory", brokers=at(s.b2)))
        carol = Facts(await r.client("controller/carol", brokers=at(s.b1)))
        async with cut(r, s.b2, [s.b1]):
            carol._last[grave] = await mallory.publish(grave, GRAVE)  # as who was at b2, and is here since that has ended
            await revoke(r, mallory, s.b1)
            await until(lambda: s.b1._trust.is_revoked(mallory._client._identity.key.key_id))
            await carol.publish(grave, GRAVE)
            assert stands(s.b1, topic) is None
        await until(lambda: all(stands(one, grave) == ("controller/carol", GRAVE) for one in (s.b1, s.b2)))
        assert stands(s.b2, topic) is None


@scenario
async def test_what_a_revoked_controller_had_ended_does_not_stand_again_when_a_void_word_is_displaced(r: TestRealm) -> None:
    topic, spec = "service/web/spec", {"spec": {}, "by": "bob", "reason": ""}
    b1 = await r.broker()
    bob, eve, mallory = [Facts(await r.client(name)) for name in ("operator/bob", "operator/eve", "controller/mallory")]
    await bob.publish(topic, spec)
    await mallory.publish("tombstone/service/web", GRAVE)
    await eve.publish(topic, spec | {"by": "eve"}, epoch=2)
    await revoke(r, mallory, b1)
    await revoke(r, eve, b1)
    assert stands(b1, topic) == ("operator/eve", spec | {"by": "eve"}), "nothing else does, and nobody believes this one"
    assert await read(await r.client("operator/late"), topic) == []
