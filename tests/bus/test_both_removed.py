"""Each side of a partition has removed the brokers of the other one (rule R8)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import former
from dsmt.bus.client.client import BusClient
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.records import to_data
from dsmt.operations.write import brokers as writing_brokers
from dsmt.operations.write.brokers import announce, announced, remove
from dsmt.operations.write.writing import Acknowledged, say
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.revocations import topic_of
from tests.bus.meshes import at, held, linked, mesh
from tests.bus.realm import TestRealm, scenario
from tests.bus.test_leaf import cut
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "ASK_S", 0.5)


async def leaves_out(who: BusClient, *names: str) -> None:
    for name in names:
        await remove(who, name, {}, by="a", reason="it is gone")


def asked(broker: Broker) -> set[bytes]:
    """The keys of those that were removed, and that it asks for words on brokers."""
    return {one.public for one in broker._others._former._known}


async def names(who: BusClient, *, removed: bool = False) -> set[str]:
    return set(await announced(who, removed=removed))


async def both_removed(r: TestRealm) -> tuple[tuple[Broker, Broker], tuple[BusClient, BusClient]]:
    """Two brokers, each of which was removed on the side of the other one, healed; an operator at each."""
    b1, b2 = every = await mesh(r, "b1", "b2")
    one, two = await r.client("operator/a", brokers=at(b1)), await r.client("operator/b", brokers=at(b2))
    await announce(one, {broker._identity.name.removeprefix("broker/"): at(broker)[0] for broker in every}, by="a")
    await until(lambda: held(b1) == held(b2))
    async with cut(r, b1, [b2]):
        await leaves_out(one, "b2")
        await leaves_out(two, "b1")
    await until(lambda: held(b1) == held(b2) and linked(b1) == linked(b2) == 1, 30)
    return (b1, b2), (one, two)


@scenario
async def test_where_all_were_removed_none_was_and_all_have_what_each_was_told(r: TestRealm) -> None:
    b1, b2, b3 = every = await mesh(r, "b1", "b2", "b3")
    one, two = await r.client("operator/a", brokers=at(b1)), await r.client("operator/b", brokers=at(b2))
    await announce(one, {broker._identity.name.removeprefix("broker/"): at(broker)[0] for broker in every}, by="a")
    await until(lambda: held(b1) == held(b2) == held(b3))
    async with cut(r, b1, [b2, b3]):
        await leaves_out(one, "b2", "b3")
        await leaves_out(two, "b1")
        await until(lambda: linked(b1) == 0 and linked(b2) == linked(b3) == 1)
        await one.publish(Draft("config/x", {"n": 1}))
        await two.publish(Draft("config/y", {"n": 2}))
    await until(lambda: held(b1) == held(b2) == held(b3) and all(linked(broker) == 2 for broker in every), 30)
    assert [broker._others.refusal for broker in every] == [None] * 3
    assert await names(one) == await names(two) == {"b1", "b2", "b3"}

    await leaves_out(one, "b3")
    await until(lambda: b3._others.refusal is not None and held(b1) == held(b2))
    assert await names(two) == {"b1", "b2"}
    assert await names(two, removed=True) == {"b3"}
    gone = BrokerWord(address="10.9.9.7:4000", public=b"9" * 32, by="a", removed=True)
    await one.publish(Draft(f"{BROKERS}b9", to_data(gone)))
    await until(lambda: all(f"{BROKERS}b9" in broker._others._words.rows for broker in every))
    both = {gone.public, at(b3)[0].public}
    await until(lambda: [asked(broker) for broker in every] == [both, both, set()])
    server = BrokerWord(address="10.9.9.8:4222", public=bytes(32), by="a", route="10.9.9.8:6222", removed=True)
    await one.publish(Draft(f"{BROKERS}s1", to_data(server)))
    await until(lambda: f"{BROKERS}s1" in b2._others._words.rows)
    assert asked(b2) == both, "a NATS server has no words to give"
    key = b3._identity.key.key_id
    await (await r.client("root", brokers=at(b1))).publish(Draft(topic_of(key, "root"), {"by": "root", "name": "broker/b3"}))
    await until(lambda: asked(b1) == asked(b2) == {gone.public})
    assert await announce(two, {"b4": BrokerAddress("10.9.9.9:4000", bytes(32))}, by="a") == []
    assert await names(two) == {"b1", "b2", "b4"}


@scenario
async def test_another_broker_is_added_to_all_of_which_none_counts_as_removed(r: TestRealm) -> None:
    (b1, b2), (one, two) = every, _ = await both_removed(r)
    await announce(one, {"b3": BrokerAddress("10.9.9.9:4000", bytes(32))}, by="a")
    await until(lambda: held(b1) == held(b2))
    assert await names(two) == {"b1", "b2", "b3"}
    assert [broker._others.refusal for broker in every] == [None] * 2


async def cut_short(r: TestRealm, said: int) -> None:
    """The new one was named first: all that there were left at once, each to that one, and the other words never came."""
    (b1, b2), (one, two) = every, _ = await both_removed(r)
    third = {"b3": BrokerAddress("10.9.9.9:4000", bytes(32))}

    async def killed(bus: Bus, drafts: Sequence[Draft]) -> Acknowledged:
        await say(bus, drafts[:said])
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writing_brokers, "say", killed)
        with pytest.raises(asyncio.CancelledError):
            await announce(one, third, by="a")
    await until(lambda: held(b1) == held(b2) and all(broker._others._obeys_at == math.inf for broker in every), 30)
    assert b1._others.refusal is None, "who was cut short was there"
    await until(lambda: one.attached and two.attached, 30)
    assert await announce(two, third, by="a") == []
    await until(lambda: held(b1) == held(b2), 30)
    assert "b3" in await names(two)


@scenario
async def test_adding_one_that_is_cut_short_after_its_first_word_leaves_a_realm_that_has_brokers(r: TestRealm) -> None:
    await cut_short(r, 1)


@scenario
async def test_adding_one_that_is_cut_short_before_its_last_word_leaves_a_realm_that_has_brokers(r: TestRealm) -> None:
    await cut_short(r, 2)


@scenario
async def test_who_was_removed_by_a_stolen_key_on_one_side_is_a_broker_again_when_its_end_is_heard(
    r: TestRealm,
) -> None:
    b1, b2, b3 = every = await mesh(r, "b1", "b2", "b3")
    one, eve = await r.client("operator/a", brokers=at(b1)), await r.client("operator/eve", brokers=at(b2))
    late = await r.client("operator/late", brokers=at(b2))
    await announce(one, {broker._identity.name.removeprefix("broker/"): at(broker)[0] for broker in every}, by="a")
    await until(lambda: held(b1) == held(b2) == held(b3))
    async with cut(r, b1, [b2, b3]):
        await leaves_out(eve, "b1")
        await until(lambda: asked(b2) == asked(b3) == {at(b1)[0].public} and "b1" in late.brokers._words.removed)
        key = eve._identity.key.key_id
        said = Draft(topic_of(key, "root"), {"by": "root", "name": eve.source})
        await (await r.client("root", identity=r.identity("root"), brokers=at(b1))).publish(said)
    await until(lambda: all(broker._trust.is_revoked(key) for broker in every), 30)
    await until(lambda: all(linked(broker) == 2 for broker in every), 30)
    await one.publish(Draft("config/x", {"n": 1}))
    await until(lambda: held(b1) <= held(b2) == held(b3))
    assert asked(b2) == asked(b3) == set()
    await until(lambda: "b1" in late.brokers._words.present)
    again = await r.restarted(b2)
    await until(lambda: linked(again) == 2, 30)
    assert asked(again) == set()
