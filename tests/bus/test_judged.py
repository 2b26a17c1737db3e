"""Who is judged dead and lives attaches anew, so that the verdict ends (rule F4)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from dsmt.bus.rules.judged import judged, must_attach_anew
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from tests.bus.realm import TestRealm, reading, scenario
from tests.waiting import until

SESSIONS = "broker/+/session/"


def verdict(state: str = "dead", **attachments: int) -> NodeVerdict:
    named = {source.replace("_", "/"): number for source, number in attachments.items()}
    return NodeVerdict(state=state, road="silent", attachments=named, evidence=(), message="", since_ms=1)  # type: ignore[arg-type]


def test_only_a_session_that_was_judged_must_be_begun_anew() -> None:
    said = verdict(node_n1=7, monitor_n1=8)
    assert must_attach_anew("n1", said, "node/n1", 7)
    assert must_attach_anew("n1", said, "monitor/n1", 5)
    assert not must_attach_anew("n1", said, "node/n1", 8)
    assert not must_attach_anew("n1", said, "agent/n1/web/app/0", 7), "it was not judged"
    assert not must_attach_anew("n1", verdict(node_n2=9, controller_n1=9), "node/n2", 9), "it is another node's"
    assert not must_attach_anew("n1", verdict(controller_n1=9), "controller/n1", 9), "a verdict is on nodes"


@dataclass
class Stored:
    """A row of which only the topic and the data count."""

    topic: str
    data: dict[str, Any]

    def read(self) -> Any:
        return SimpleNamespace(event=SimpleNamespace(data=self.data))


def test_of_what_was_stored_only_verdicts_of_death_end_sessions() -> None:
    dead, left = verdict(node_n1=7), verdict("left", node_n2=7)
    rows = [
        Stored("user/verdict", {}),
        Stored("tombstone/node/verdict", {}),
        Stored("node/n0/heartbeat", to_data(dead)),
        Stored("node/n0/probe/verdict", to_data(dead)),
        Stored("service/web/verdict", to_data(dead)),
        Stored("node/n9/verdict", {"state": 5}),
        Stored("node/n2/verdict", to_data(left)),
        Stored("node/n1/verdict", to_data(dead)),
    ]
    assert judged(rows) == [("n1", dead)]  # type: ignore[arg-type]


def test_a_verdict_on_a_node_judges_all_that_belongs_to_it() -> None:
    agent = "agent/n1/web/app/0"
    said = NodeVerdict(state="dead", road="silent", attachments={agent: 3}, evidence=(), message="", since_ms=1)
    assert must_attach_anew("n1", said, agent, 3)
    assert not must_attach_anew("n1", said, agent, 4)
    assert not must_attach_anew("n1", said, "node/n1", 1), "a session of which it says nothing"


@scenario
async def test_a_node_that_speaks_while_it_is_judged_dead_attaches_anew_once(r: TestRealm):
    await r.broker()
    bob, controller = await r.client("operator/bob"), await r.client("controller/c1")
    node, other = await r.client("node/n1"), await r.client("node/n2")
    before, others = node.attachment, other.attachment
    async with reading(bob, SESSIONS, "node/") as got:
        said = verdict(node_n1=before)
        first = controller.emit(Draft("node/n1/verdict", to_data(said), subject="n1"))
        await got.until(lambda g: g.of("broker/b1/session/node/n1")[-1]["attachment"] > before)
        await until(lambda: node.attached and node.attachment > before)
        again = node.attachment
        await controller.publish(Draft("node/n1/verdict", to_data(said), subject="n1", replaces=first.signed))
        await node.publish(Draft("node/n1/heartbeat", node._publisher.signer.heartbeat(0.0, 1.0)))
        assert (node.attachment, other.attachment) == (again, others)


@scenario
async def test_a_verdict_on_an_attachment_that_is_yet_to_come_ends_as_well(r: TestRealm):
    """The broker that gave the node its number had a clock that was ahead."""
    await r.broker()
    controller, node = await r.client("controller/c1"), await r.client("node/n1")
    ahead = node.attachment + BOUND_MS // 2
    await controller.publish(Draft("node/n1/verdict", to_data(verdict(node_n1=ahead)), subject="n1"))
    await until(lambda: node.attached and node.attachment > ahead)


@scenario
async def test_a_node_that_an_operator_removed_is_not_asked_to_come_back(r: TestRealm):
    await r.broker()
    bob, node = await r.client("operator/bob"), await r.client("node/n1")
    before = node.attachment
    await bob.publish(Draft("node/n1/verdict", to_data(verdict("left", node_n1=before)), subject="n1"))
    await node.publish(Draft("node/n1/heartbeat", node._publisher.signer.heartbeat(0.0, 1.0)))
    assert node.attachment == before
