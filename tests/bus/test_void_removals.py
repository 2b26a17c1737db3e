"""A service that a revoked key has removed on one side of a partition: when the sides meet it is removed on both (J3)."""

from __future__ import annotations

from tests.bus.meshes import at
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_leaf import cut
from tests.bus.test_void import GRAVE, read, revoke, sides, stands
from tests.waiting import until


@scenario
async def test_a_service_that_it_had_ended_and_made_anew_is_ended_and_can_be_made_anew(r: TestRealm) -> None:
    async with sides(r) as s:
        spec, topic = {"spec": {}, "by": "bob", "reason": ""}, "service/web/spec"
        await s.bob.publish(topic, spec)
        await s.alike()
        await s.eve.publish("tombstone/service/web", GRAVE)
        await s.eve.publish(topic, spec | {"by": "eve"}, epoch=2)
        await s.alike()
        await revoke(r, s.eve, s.b1)
        key = s.eve._client._identity.key.key_id
        await until(lambda: s.b1._trust.is_revoked(key) and s.b2._trust.is_revoked(key))
        assert stands(s.b1, topic) == stands(s.b2, topic) == ("operator/eve", spec | {"by": "eve"})
        late = Facts(await r.client("operator/late", brokers=at(s.b2)))
        assert await read(late._client, topic) == []
        await late.publish(topic, spec | {"by": "late"}, epoch=2, version=2)
        await until(lambda: stands(s.b1, topic) == stands(s.b2, topic) == ("operator/late", spec | {"by": "late"}))


@scenario
async def test_a_service_that_it_had_ended_is_ended_at_the_other_side_too_once_a_controller_has_said_that_again_there(
    r: TestRealm,
) -> None:
    topic, grave = "service/web/spec", "tombstone/service/web"
    async with sides(r) as s:
        await s.bob.publish(topic, {"spec": {}, "by": "bob", "reason": ""})
        await s.alike()
        carol = Facts(await r.client("controller/carol", brokers=at(s.b1)))
        async with cut(r, s.b2, [s.b1]):
            carol._last[grave] = await s.eve.publish(grave, GRAVE)  # as who has begun anew, since its broker is down
            await revoke(r, s.eve, s.b1)
            await until(lambda: s.b1._trust.is_revoked(s.eve._client._identity.key.key_id))
            await carol.publish(grave, GRAVE)
            assert stands(s.b1, topic) is None
        await until(lambda: all(stands(one, grave) == ("controller/carol", GRAVE) for one in (s.b1, s.b2)))
        assert stands(s.b2, topic) is None
