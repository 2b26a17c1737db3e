"""What a gate counts, and of whom: its accounts, with a server and streams that say what the test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import accounts, opener
from dsmt.bus.nats.accounts import NatsAccounts
from dsmt.bus.nats.streams import StreamMessage
from dsmt.bus.rules.nats_quota import BURST, LENIENCE, RATE, UNIT_BYTES
from dsmt.bus.rules.nats_sessions import ServerConnection
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError
from dsmt.event.payload import canonical
from dsmt.trust.grants import QUOTAS
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, TestRealm, memory_network, realm

AGENT = "agent/n1/web/app/0"
MANY = LENIENCE * QUOTAS["agent"] + 1


class Gate:
    """A gate's accounts. Its server has been sent so much over each connection; so much stands in stream F."""

    def __init__(self, made: TestRealm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.trust, self.subjects = made, made.trust(), Subjects(made.name)
        self.node = self.identity("node/n1")
        self.agent = self.identity(AGENT, self.node)
        self.now = 10.0
        self.sent: dict[str, tuple[int, int]] = {}
        self.sessions: dict[ServerConnection, Any] = {}
        self.facts: list[StreamMessage] = []
        self.listed, self.asked, self.removed, self.purged = 0, list[str](), list[int](), list[dict[str, Any]]()
        bus: Any = SimpleNamespace(source="broker/b1", held=self.held)
        clock: Any = SimpleNamespace(boottime=lambda: self.now)
        self.link: Any = SimpleNamespace(server_id="S", request=self.request, api=self.api)
        self.patch = monkeypatch
        monkeypatch.setattr(accounts, "head", self.head)
        monkeypatch.setattr(accounts, "all_of", self.all_of)
        monkeypatch.setattr(accounts, "last_on", self.last_on)
        for module in (accounts, opener):
            monkeypatch.setattr(module, "held_on", self.held_on)
        self.accounts = NatsAccounts(bus, self.trust, clock)

    def identity(self, name: str, parent: Identity | None = None) -> Identity:
        made = self.made.identity(name, parent=parent)
        self.trust.add_all([one.raw for one in made.chain])
        return made

    async def held(self) -> Any:
        return self.link

    async def request(self, asked: Any) -> Any:
        what = asked.subject.rpartition(".")[2]
        self.asked.append(what)
        total = {"msgs": sum(m for m, _ in self.sent.values()), "bytes": sum(b for _, b in self.sent.values())}
        each = [{"cid": n, "in_msgs": m, "in_bytes": b} for n, (m, b) in enumerate(self.sent.values())]
        told = {"statsz": {"received": total}} if what == "STATSZ" else {"data": {"connections": each}}
        return SimpleNamespace(data=json.dumps(told).encode())

    async def api(self, name: str, body: dict[str, Any]) -> None:
        if name.startswith("STREAM.PURGE."):
            self.purged.append(body)
        else:
            self.removed.append(body["seq"])

    async def head(self, *_: Any) -> Any:
        return SimpleNamespace(messages=len(self.facts), size=sum(one.size for one in self.facts))

    async def all_of(self, _link: Any, _stream: str, filters: Sequence[str], *, sizes: bool = False) -> Any:
        self.listed += sizes
        for one in self.facts:
            if any(one.subject.startswith(each.removesuffix(">")) for each in filters):
                yield one

    async def last_on(self, _link: Any, _stream: str, subject: str) -> StreamMessage | None:
        return next((one for one in self.facts if one.subject == subject), None)

    async def held_on(self, _link: Any, _stream: str, filters: Sequence[str]) -> list[StreamMessage]:
        return [one for one in self.facts if fnmatch(one.subject, filters[0])]

    def connected(self, name: str, payer: str) -> None:
        at = ServerConnection("S", len(self.sessions))
        self.sent[name] = (0, 0)
        self.sessions[at] = SimpleNamespace(at=at, name=name, payer=payer)

    def stands(self, subject: str, raw: bytes) -> None:
        self.facts.append(StreamMessage(subject, 1, int(time.time() * 1000), raw, 0, len(self.facts) + 1, 1, len(raw)))

    def says(self, identity: Identity, count: int, *, offered_by: str = "") -> None:
        pen = Pen(identity)
        for n in range(count):
            topic = f"app/web/t{n}"
            raw = pen.write(topic, {"n": n}, version=1).raw
            own = self.subjects.event(identity.name, topic, fact=True)
            self.stands(self.subjects.offered(offered_by, identity.name, topic) if offered_by else own, raw)

    def revoke(self, identity: Identity) -> None:
        topic = f"trust/revoked/{identity.key.key_id.hex()}/root"
        self.trust.revoke(self.trust.open(Pen(self.identity("root")).write(topic, {"by": "root"}, version=1).raw))

    async def work(self) -> None:
        self.now += 1.0
        await self.accounts._count_work(self.link, self.sessions)

    def over(self, identity: Identity) -> str:
        return self.accounts.over(identity.key.key_id, identity.name)


def at_a_gate(test: Callable[[Gate], Awaitable[None]]) -> Callable[..., None]:
    def run(tmp_path, monkeypatch) -> None:
        async def within() -> None:
            async with realm(memory_network(), tmp_path) as made:
                await test(Gate(made, monkeypatch))

        asyncio.run(within())

    run.__name__ = test.__name__
    return run


@at_a_gate
async def test_a_server_is_asked_of_its_connections_only_where_it_was_sent_more_than_one_party_may_send(gate: Gate) -> None:
    gate.connected("node/n1", "node/n1")
    for messages in (0, 100, 200, int(RATE), int(RATE) + 300):
        gate.sent["node/n1"] = (messages, 0)
        await gate.work()
    assert gate.asked.count("CONNZ") == 1, "the first time"
    gate.sent["node/n1"] = (3 * int(RATE), 0)
    await gate.work()
    assert gate.asked.count("CONNZ") == 2


@at_a_gate
async def test_what_an_agent_sends_is_its_nodes_and_of_an_operator_messages_count_and_bytes_do_not(gate: Gate) -> None:
    alice, broker = gate.identity("operator/alice"), gate.identity("broker/b2")
    program = gate.identity("operator/alice.x1", alice)
    for name, payer in ((AGENT, "node/n1"), (program.name, "operator/alice"), ("broker/b2", "broker/b2")):
        gate.connected(name, payer)
    await gate.work()
    much = int(BURST + 2 * RATE) + 1
    for name in gate.sent:
        gate.sent[name] = (1, much * UNIT_BYTES)
    await gate.work()
    assert [bool(gate.over(one)) for one in (gate.node, gate.agent, alice, program, broker)] == [True, True, *[False] * 3]
    assert gate.over(gate.agent).startswith("node/n1 has said far more than")
    for name in gate.sent:
        gate.sent[name] = (2 * much, much * UNIT_BYTES)
    await gate.work()
    assert [bool(gate.over(one)) for one in (alice, program, broker)] == [True, True, False]


@at_a_gate
async def test_what_was_sent_over_a_connection_that_has_ended_keeps_out_who_has_sent_it_for_as_long_as_it_takes(
    gate: Gate,
) -> None:
    gate.connected("node/n1", "node/n1")
    await gate.work()
    (session,) = gate.sessions.values()
    gate.accounts.ended(session, {"msgs": int(BURST + 30 * RATE), "bytes": 0})
    assert gate.over(gate.node)
    gate.now += 31.0
    assert not gate.over(gate.node)


@at_a_gate
async def test_what_is_retained_is_looked_at_when_a_tenth_of_it_has_changed(gate: Gate) -> None:
    gate.says(gate.node, 1000)
    for expected, more in ((1, 0), (1, 90), (2, 20), (2, 0)):
        gate.says(gate.node, more)
        await gate.accounts._count_held()
        assert gate.listed == expected
    del gate.facts[500:]
    await gate.accounts._count_held()
    assert gate.listed == 3


@at_a_gate
async def test_who_has_signed_more_than_it_may_is_over_and_with_its_ancestor_all_below_that(gate: Gate) -> None:
    other = gate.identity("agent/n1/web/app/1", gate.node)
    gate.says(gate.agent, MANY)
    assert await gate.accounts._count_held()
    assert gate.over(gate.agent) == f"{AGENT} has {MANY} retained facts, and its certificate allows {QUOTAS['agent']}"
    assert gate.over(gate.node) == gate.over(other) == ""
    gate.accounts._held["node/n1"] = gate.accounts._held[AGENT]._replace(facts=LENIENCE * QUOTAS["node"] + 1)
    assert gate.over(other).startswith("node/n1 has ")
    assert gate.removed == []


@at_a_gate
async def test_of_what_stands_under_a_name_only_its_own_words_count_and_what_nobody_can_believe_goes(gate: Gate) -> None:
    neighbour = gate.identity("node/n2")
    gate.says(gate.identity("agent/n1/web/app/1", gate.node), MANY, offered_by=AGENT)
    good = len(gate.facts)
    for n in range(3):
        gate.stands(gate.subjects.event(AGENT, f"app/web/x{n}", fact=True), b"an answer")
    gate.stands(gate.subjects.certificate(AGENT, "node/n2", neighbour.key.key_id), b"an answer")
    raws = [one.raw for one in neighbour.chain]
    gate.stands(gate.subjects.certificate(AGENT, "node/n2", neighbour.key.key_id), canonical(raws))
    gate.stands(gate.subjects.certificate(AGENT, AGENT, gate.agent.key.key_id), canonical([o.raw for o in gate.agent.chain]))
    assert await gate.accounts._count_held()
    assert gate.removed == [good + 1, good + 2, good + 3, good + 4]
    assert {name: live.facts for name, live in gate.accounts._held.items()} == {"node/n1": 1}, "the certificate it gave"
    assert gate.over(gate.agent) == ""


@at_a_gate
async def test_what_a_revoked_key_has_said_counts_and_stays_up_to_what_it_might(gate: Gate) -> None:
    gate.says(gate.agent, MANY)
    gate.revoke(gate.agent)
    stolen, other = gate.facts[0].raw, gate.subjects.event(AGENT, "app/web/x", fact=True)
    gate.stands(other, stolen)
    gate.stands(other, stolen.replace(b"t0", b"t1"))
    await gate.accounts._count_held()
    most = QUOTAS["agent"]
    assert sorted(gate.removed) == list(range(most + 1, MANY + 3)), (
        "what came later, what its key has not said there or not so"
    )
    assert {name: live.facts for name, live in gate.accounts._held.items()} == dict.fromkeys((AGENT, "node/n1"), most)
    assert gate.over(gate.node) == ""


@at_a_gate
async def test_what_somebody_offers_goes_where_its_own_source_has_said_it_or_more_and_else_stays(gate: Gate) -> None:
    other = gate.identity("agent/n1/web/app/1", gate.node)
    gate.says(other, MANY, offered_by=AGENT)
    later, same = Pen(other, int(time.time() * 1000) + 1).write("app/web/t0", {"n": 1}, version=2), gate.facts[1].raw
    for topic, raw in (("app/web/t0", later.raw), ("app/web/t1", same), ("app/web/t2", b"an answer")):
        gate.stands(gate.subjects.event(other.name, topic, fact=True), raw)
    assert await gate.accounts._count_held()
    assert gate.removed == [1, 2]
    assert gate.accounts._held == {}


@at_a_gate
async def test_of_certificates_that_somebody_else_has_brought_those_stay_that_their_own_source_has_not(gate: Gate) -> None:
    gate.says(gate.agent, MANY)
    for name, own in (("node/n2", True), ("node/n3", False)):
        one = gate.identity(name)
        for publisher in (name, AGENT) if own else (AGENT,):
            gate.stands(gate.subjects.certificate(publisher, name, one.key.key_id), canonical([o.raw for o in one.chain]))
    four = gate.identity("node/n4")
    gate.stands(gate.subjects.certificate("node/n4", "node/n4", four.key.key_id), b"an answer")
    gate.stands(gate.subjects.certificate(AGENT, "node/n4", four.key.key_id), canonical([o.raw for o in four.chain]))
    assert await gate.accounts._count_held()
    assert gate.removed == [MANY + 2]
    assert gate.accounts._held[AGENT].facts == MANY


@at_a_gate
async def test_what_stands_under_a_name_that_nobody_has_goes_however_little_it_is(gate: Gate) -> None:
    """An answer has itself stored under any name: who asked was charged nothing, and it stayed for ever."""
    nine = gate.made.identity("node/n9")
    gate.says(gate.node, 64)
    gate.says(nine, 1)
    gate.stands(gate.subjects.certificate(AGENT, nine.name, nine.key.key_id), canonical([o.raw for o in nine.chain]))
    for name in ("node/x1", "node/x2"):
        gate.stands(gate.subjects.event(name, "user/t", fact=True), b"an answer")
        gate.stands(gate.subjects.certificate(name, name, b"x" * 16), b"an answer")
    gate.patch.setattr(accounts, "STRANGERS_MOST", 2)
    for names in (("node/x1",), ("node/x1", "node/x2"), ("node/x1", "node/x2")):
        assert not await gate.accounts._count_held()
        assert {one["filter"] for one in gate.purged} == {one for name in names for one in gate.subjects.said_by(name)}
        gate.facts = [one for one in gate.facts if gate.subjects.publisher(one.subject) not in names]
    assert gate.removed == []
    assert len(gate.facts) == 66


@at_a_gate
async def test_it_is_looked_when_a_key_was_revoked(gate: Gate) -> None:
    gate.says(gate.agent, MANY)
    assert await gate.accounts._count_held()
    assert not await gate.accounts._count_held()
    gate.revoke(gate.agent)
    assert await gate.accounts._count_held()
    assert gate.removed


@at_a_gate
async def test_each_copy_for_who_is_addressed_counts_and_one_for_another_goes(gate: Gate) -> None:
    pen, to = Pen(gate.agent), [f"node/x{n}" for n in range(MANY)]
    for topic, named in (("app/web/t", tuple(to)), ("app/web/u", ())):
        raw = pen.write(topic, {"n": 1}, version=1, to=named).raw
        for one in to:
            gate.stands(gate.subjects.copy(AGENT, one, topic, fact=True), raw)
    assert await gate.accounts._count_held()
    assert gate.removed == list(range(MANY + 1, 2 * MANY + 1))
    assert gate.over(gate.agent) == f"{AGENT} has {MANY} retained facts, and its certificate allows {QUOTAS['agent']}"


@at_a_gate
async def test_what_is_dated_out_of_its_certificate_counts_though_nobody_believes_it(gate: Gate) -> None:
    pen = Pen(gate.agent)
    for n in range(MANY):
        raw = pen.write(f"app/web/t{n}", {"n": n}, version=1, ahead_s=-400 * 86_400.0).raw
        gate.stands(gate.subjects.event(AGENT, f"app/web/t{n}", fact=True), raw)
    assert await gate.accounts._count_held()
    assert gate.over(gate.agent)
    assert gate.removed == []


def test_a_server_that_says_why_it_cannot_tell_ends_no_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(TestRealm(memory_network(), tmp_path), monkeypatch)

    async def refused(_: Any) -> Any:
        return SimpleNamespace(data=json.dumps({"error": {"code": 503, "description": "shutting down"}}).encode())

    gate.link.request = refused
    with pytest.raises(TransportError, match="shutting down"):
        asyncio.run(gate.accounts._count_work(gate.link, gate.sessions))
