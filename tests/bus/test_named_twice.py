"""Two machines that joined under one name on two sides of a partition, when the key of the second has ended (J2, J3)."""

from __future__ import annotations

from typing import Any

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.ended_keys import NAMESAKE
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import topic_of
from tests.bus.meshes import at, linked, mesh
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.test_leaf import cut
from tests.waiting import until

FOLLOWING = "node/n1/following"


def told(*brokers: Broker) -> set[Any]:
    """What each broker holds to be the node's word."""
    facts = [one._ingest._held(FOLLOWING) for one in brokers]
    return {None if one is None else one.event.data["word"] for one in facts}


async def say(node: BusClient, word: str) -> None:
    await node.publish(Draft(FOLLOWING, {"word": word}))


async def revoke(r: TestRealm, who: Identity, at_one: Broker) -> None:
    root = await r.client("root", identity=r.identity("root"), brokers=at(at_one))
    await root.publish(Draft(topic_of(who.key.key_id, "root"), {"by": "root", "name": who.name}, subject=who.name))


@scenario
async def test_the_first_is_told_and_what_it_says_again_stands(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    second = r.identity("node/n1")
    async with cut(r, b2, [b1]):
        first = await r.client("node/n1", brokers=at(b1))
        await say(first, "first")
        await say(await r.client("node/n1", identity=second, brokers=at(b2)), "second")
    await until(lambda: linked(b1) == linked(b2) == 1 and told(b1, b2) == {"second"})
    async with reading(first, "node/n1/") as seen:
        await say(first, "in vain")
        assert told(b1) == {"second"}
        await revoke(r, second, b2)
        await seen.until(lambda one: NAMESAKE in one.notices)
    await say(first, "first")
    await until(lambda: told(b1, b2) == {"first"})


@scenario
async def test_who_is_no_node_s_has_no_name_that_two_are_given(r: TestRealm) -> None:
    b1 = await r.broker()
    controller = await r.client("controller/c1")
    began = controller._publisher.signer.incarnation
    async with reading(controller, "node/n1/") as seen:
        await revoke(r, r.identity("controller/c1"), b1)
        await revoke(r, r.identity("node/n1"), b1)
        await until(lambda: len(controller._certificates._ended_keys._known) == 2)
        assert NAMESAKE not in seen.notices
    assert controller._publisher.signer.incarnation == began


@scenario
async def test_agents_of_the_first_are_told_too_and_each_once(r: TestRealm) -> None:
    b1 = await r.broker()
    node, second, other = r.identity("node/n1"), r.identity("node/n1"), r.identity("node/n2")
    agent = await r.client("agent/n1/web/app/0", identity=r.identity("agent/n1/web/app/0", parent=node))
    began = agent._publisher.signer.incarnation
    async with reading(agent, "node/n1/") as seen:
        await revoke(r, other, b1)
        await revoke(r, second, b1)
        await seen.until(lambda one: NAMESAKE in one.notices)
    begun = agent._publisher.signer.incarnation
    assert begun > began
    b1._disconnect(b1._sessions.by_name[agent.source].peer)
    await until(lambda: not agent.attached)
    await until(lambda: agent.attached)
    async with reading(agent, "node/n1/") as again:
        await again.complete()
    assert agent._publisher.signer.incarnation == begun
