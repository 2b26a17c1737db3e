"""What a stolen controller's key said where no other controller was: it stands nowhere when nobody says it again (J3)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker import void
from dsmt.bus.store.elections import Elections
from tests.bus.meshes import at
from tests.bus.realm import Facts, TestRealm, reading, scenario
from tests.bus.test_leaf import cut
from tests.bus.test_void import FOLDS, GRAVE, Sides, read, revoke, sides, stands
from tests.waiting import until

SPEC = {"spec": {}, "by": "bob", "reason": ""}
FIRST, EVIL = {"at_ms": 1}, {"at_ms": 9}
WEB, DB = (f"service/{name}/barrier/begin/released" for name in ("web", "db"))


async def robbed(r: TestRealm, s: Sides) -> tuple[Facts, Facts]:
    """Mallory, with a controller's key, is at the second broker, and carol at the first; what had stood at both."""
    mallory = Facts(await r.client("controller/mallory", brokers=at(s.b2)))
    carol = Facts(await r.client("controller/carol", brokers=at(s.b1)))
    await s.bob.publish("service/db/spec", SPEC)
    for topic in (WEB, DB):
        await carol.publish(topic, FIRST)
        mallory._last[topic] = carol._last[topic]
    await s.alike()
    return mallory, carol


@scenario
async def test_what_nobody_has_said_again_in_time_stands_nowhere_and_what_it_displaced_or_hid_stands(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(void, "LEFT_MS", 600_000)
        async with sides(r) as s:
            mallory, carol = await robbed(r, s)
            async with cut(r, s.b2, [s.b1]):
                for _ in range(3):
                    await mallory.publish(WEB, EVIL)
                await mallory.publish("tombstone/service/db", GRAVE)
                await revoke(r, mallory, s.b1)
            key = mallory._client._identity.key.key_id
            await until(lambda: s.b2._trust.is_revoked(key))
            assert stands(s.b2, WEB) == ("controller/mallory", EVIL), "others have time to say it again"
            assert stands(s.b2, DB) is None
            patch.setattr(void, "LEFT_MS", 0)
            for one in (s.b1, s.b2):
                await until(lambda one=one: stands(one, WEB) == stands(one, DB) == ("controller/carol", FIRST))
                assert stands(one, "service/db/spec") == ("operator/bob", SPEC)
            late = await r.client("operator/late", brokers=at(s.b2))
            assert sorted(await read(late, "service/"), key=str) == sorted([FIRST, FIRST, SPEC], key=str)
            await carol.publish(WEB, {"at_ms": 2})
            await until(lambda: stands(s.b1, WEB) == stands(s.b2, WEB) == ("controller/carol", {"at_ms": 2}))


@scenario
async def test_who_has_read_it_may_say_it_again_also_when_the_time_is_over_and_that_stands_everywhere(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(void, "LEFT_MS", 0)
        async with sides(r) as s:
            mallory, _ = await robbed(r, s)
            dave = Facts(await r.client("controller/dave", brokers=at(s.b2)))
            async with cut(r, s.b2, [s.b1]):
                for _ in range(3):
                    dave._last[WEB] = await mallory.publish(WEB, EVIL)
                await revoke(r, mallory, s.b1)
            await until(lambda: stands(s.b2, WEB) == ("controller/carol", FIRST))
            await dave.publish(WEB, EVIL)
            await until(lambda: stands(s.b1, WEB) == stands(s.b2, WEB) == ("controller/dave", EVIL))


@scenario
async def test_a_reader_that_holds_it_no_more_is_told_what_stands_again(r: TestRealm) -> None:
    """Who had begun in the meantime has nothing there: it believed none of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(void, "LEFT_MS", 600_000)
        async with sides(r) as s:
            mallory, _ = await robbed(r, s)
            async with cut(r, s.b2, [s.b1]):
                await mallory.publish(WEB, EVIL)
                await revoke(r, mallory, s.b1)
            await until(lambda: s.b2._trust.is_revoked(mallory._client._identity.key.key_id))
            late = await r.client("operator/late", brokers=at(s.b2))
            async with reading(late, WEB, **FOLDS) as got:
                assert not got.arrived
                patch.setattr(void, "LEFT_MS", 0)
                await until(lambda: [one.signed.event.data for one in got.arrived] == [FIRST])


@scenario
async def test_no_slot_is_looked_at_when_another_key_ends(r: TestRealm) -> None:
    """Agents' keys end all the time, and there may be 20,000 slots."""
    asked: list[str] = []
    signers = Elections.signers

    def note(self: Elections, role: str) -> list[bytes]:
        asked.append(role)
        return signers(self, role)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(void, "LEFT_MS", 0)
        patch.setattr(Elections, "signers", note)
        async with sides(r) as s:
            mallory, carol = await robbed(r, s)
            eve = Facts(await r.client("operator/eve", brokers=at(s.b2)))
            await mallory.publish(WEB, EVIL)
            await s.alike()
            await revoke(r, mallory, s.b1)
            await until(lambda: stands(s.b2, WEB) == stands(s.b1, WEB) == ("controller/carol", FIRST))
            await carol.publish(WEB, {"at_ms": 2})
            await s.alike()
            asked.clear()
            await revoke(r, eve, s.b1)
            await until(lambda: asked.count("operator") >= len((s.b1, s.b2)))
            assert "controller" not in asked


def test_when_the_time_of_a_key_is_over_that_is_seen_to_once() -> None:
    """And not at each tick from then on: each looks through all that operators have said."""
    elections = SimpleNamespace(signers=lambda _: [b"k"], standing=lambda *_: [], elect=lambda _: None)
    store, trust = SimpleNamespace(elections=elections), SimpleNamespace(is_revoked=lambda *_: True, names=lambda _: ())
    held = void.Void(cast(Any, store), cast(Any, trust))
    held.displace(0)
    assert [held.is_late(at_ms) for at_ms in (void.LEFT_MS - 1, void.LEFT_MS)] == [False, True]
    held.displace(void.LEFT_MS)
    assert not held.is_late(10 * void.LEFT_MS)
