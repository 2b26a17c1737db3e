"""A broker that no other one reaches, and clients that reach others: what they say is heard (rule R8)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import isolation
from dsmt.bus.broker.others.attached import AttachedBrokers
from dsmt.bus.client import homing
from dsmt.bus.client.client import BusClient
from dsmt.ports.bus import Draft
from dsmt.ports.realm import BrokerAddress
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import TestRealm, scenario
from tests.bus.test_leaf import cut, site
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "ISOLATED_S", 0.5)
    monkeypatch.setattr(homing, "HOME_S", 0.2)
    monkeypatch.setattr(homing, "JITTER_S", 0.2)


async def announced(r: TestRealm, *every: Broker) -> None:
    """An operator has named these brokers."""
    operator = await r.client("operator/words", brokers=at(every[0]))
    for topic, word in words(list(every)).items():
        await operator.publish(Draft(topic, word, version=1))


async def attached(r: TestRealm, there: Broker) -> BusClient:
    """A client that was given one broker, and has been told of others."""
    client = await r.client("operator/eve", brokers=at(there))
    await until(lambda: len(client.brokers.all) > 1)
    return client


def sessions(broker: Broker, name: str) -> int:
    return sum(one.name == name for one in broker._sessions.all())


@scenario
async def test_who_is_at_a_broker_that_no_other_one_reaches_goes_to_one_that_others_reach(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolation, "ISOLATED_S", 60.0)
        b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
        await announced(r, b1, b2, b3)
        client = await attached(r, b1)
        async with cut(r, b1, [b2, b3]):
            await client.publish(Draft("config/x", {"n": 1}))
            assert b1._others.isolated is False, "others may be back in a moment"
            patch.setattr(isolation, "ISOLATED_S", 0.5)
            await until(lambda: client.attached and client.broker != b1._identity.name, 20)
            assert (b1._others.isolated, b2._others.isolated, b3._others.isolated) == (True, False, False)
            await client.publish(Draft("config/x", {"n": 2}))
            await until(lambda: held(b2) == held(b3) != set())
            await until(lambda: not sessions(b1, "operator/eve"))
    await until(lambda: held(b1) == held(b2) == held(b3) and not b1._others.isolated, 20)


@scenario
async def test_who_reaches_no_better_one_stays_where_it_is(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await announced(r, b1, b2)
    asked, lost = list[bool](), list[object]()
    welcome, disconnect = b2._admission.welcome, b1._disconnect

    def welcomes(*args: Any, isolated: bool, **more: Any) -> Any:
        asked.append(isolated)
        return welcome(*args, isolated=isolated, **more)

    def disconnects(peer: Any) -> None:
        lost.append(peer)
        disconnect(peer)

    async with cut(r, b1, [b2]):
        await until(lambda: b1._others.isolated and b2._others.isolated)
        client = await attached(r, b1)
        b2._admission.welcome, b1._disconnect = welcomes, disconnects  # type: ignore[assignment,method-assign]
        await until(lambda: asked.count(True) >= 3)
        assert (client.broker, client.attached, lost) == (b1._identity.name, True, [])
    await until(lambda: not client.brokers.isolated and linked(b1) == 1)
    assert client.brokers.better is None


@scenario
async def test_a_leaf_is_never_isolated_and_a_broker_with_leaves_alone_is_not(r: TestRealm) -> None:
    leaf, b1 = await site(r, "b1")
    async with cut(r, leaf, [b1]):
        await until(lambda: linked(leaf) == linked(b1) == 0)
        for one in (leaf, b1):
            assert one._others.attached.is_meshed(leaf=one._others.copying.leaf)


def test_a_broker_is_isolated_when_it_was_linked_with_none_for_a_while_and_that_is_news_once() -> None:
    one, after_s = isolation.Isolation(100.0), isolation.ISOLATED_S
    assert [one.look(100.0 + after_s - 0.1, linked=False), one.stands] == [False, False]
    assert [one.look(100.0 + after_s, linked=False), one.stands] == [True, True]
    assert [one.look(101.0 + after_s, linked=False), one.stands] == [False, True]
    assert [one.look(102.0 + after_s, linked=True), one.stands] == [True, False]
    assert [one.look(101.9 + 2 * after_s, linked=False), one.stands] == [False, False]


@pytest.mark.parametrize(
    ("reads", "by", "state", "refused", "lacks", "meshed"),
    [
        (True, True, "open", False, False, True),
        (True, False, "open", False, False, False),
        (False, True, "open", False, False, False),
        (True, True, "silent", False, False, False),
        (True, True, "open", True, False, False),
        (True, True, "silent", False, True, True),
        (True, True, "silent", True, True, False),
    ],
    ids=[
        "both",
        "is read by none",
        "reads none",
        "its reader is silent",
        "its reader is sent away",
        "full",
        "full and sent away",
    ],
)
def test_a_broker_is_linked_with_others_where_it_reads_one_and_is_read_by_one(
    *, reads: bool, by: bool, state: str, refused: bool, lacks: bool, meshed: bool
) -> None:
    other = BrokerAddress("", bytes(32))
    session = SimpleNamespace(name="broker/b2", certificate=SimpleNamespace(public=other.public), refused=refused)
    presence = SimpleNamespace(record_of=lambda _: SimpleNamespace(state=state))
    readings = SimpleNamespace(known=[other], linked={other.public} if reads else set(), lacks=lambda _: lacks)
    parts: Any = (
        None,
        SimpleNamespace(sessions=SimpleNamespace(presence=presence)),
        SimpleNamespace(readings=readings),
        SimpleNamespace(copying=[session] if by else []),
    )
    assert AttachedBrokers(*parts).is_meshed(leaf=False) is meshed
    assert AttachedBrokers(*parts).is_meshed(leaf=True)
