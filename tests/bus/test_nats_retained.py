"""What stays in stream F, which never gives way: a hostile source with a good certificate, on a real server (rule D2)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterable

import cbor2
import pytest

from dsmt.bus.nats import accounts
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.rules.nats_quota import LENIENCE
from dsmt.bus.rules.quota import LEAST_LIVE_BYTES
from dsmt.bus.wire.nats_tokens import read_asked
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Draft, Start
from dsmt.trust.grants import QUOTAS
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Pen, reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.bus.test_nats_quota import certified
from tests.waiting import told, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
AGENT, N1 = "agent/n1/web/app/0", "node/n1"
MANY = LENIENCE * QUOTAS["agent"] + 1
BIG = b"x" * 200_000
"""So large that as many as make `MUCH` are fewer than an agent may have."""
MUCH = LENIENCE * LEAST_LIVE_BYTES // len(BIG) + 10


class Hostile:
    """An agent with a good certificate that speaks NATS directly, and minds no rule."""

    def __init__(self, k: Kept, identity: Identity, link: NatsLink) -> None:
        self.k, self.identity, self.link, self.pen = k, identity, link, Pen(identity)
        self.administrator = k.gates.administrator

    @classmethod
    async def come(cls, k: Kept, name: str = AGENT, parent: Identity | None = None) -> Hostile:
        identity = k.made.identity(name, parent=parent or k.identities[N1])
        one = cls(k, identity, await k.servers.link(identity))
        one.link.ask_through(k.subjects.asking(identity.name, identity.certificate.read))
        await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(one.link, identity)
        return one

    async def puts(self, subjects: Iterable[str], raw: bytes) -> None:
        for subject in subjects:
            await self.link.send(Publication(subject, raw, {}))
            await asyncio.sleep(0)

    async def says(self, signed: SignedEvent) -> None:
        await self.puts([self.k.subjects.event(self.identity.name, signed.event.topic, fact=True)], signed.raw)

    async def says_many(self, many: int) -> None:
        for n in range(many):
            await self.says(self.pen.write(f"app/web/t{n}", {"n": n}, version=1))

    def copies(self, topic: str, many: int) -> list[str]:
        return [self.k.subjects.copy(self.identity.name, f"node/x{n}", topic, fact=True) for n in range(many)]


async def stands(link: NatsLink, stream: str, subject: str) -> int:
    """How many messages a stream holds on what a pattern takes, each subject once."""
    info = await link.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
    return len(info["state"].get("subjects") or ())


async def come(k: Kept, stream: str, subject: str, wanted: Callable[[int], bool]) -> None:
    """Wait until a stream holds as many as are wanted."""
    link = await k.servers.administrator()

    async def came() -> bool:
        return wanted(await stands(link, stream, subject))

    await told(came, f"as many as are wanted on {subject}", 20.0)
    await link.close()


async def come_and_go(k: Kept, subject: str, many: int, *, left: int = 0) -> None:
    """Wait until so many were stored, and as many are left in stream F as there may be."""
    await come(k, k.subjects.history, subject, lambda found: found >= many)
    await come(k, k.subjects.facts, subject, lambda found: found == left)


def marks(k: Kept, name: str, many: int) -> list[str]:
    return [k.subjects.mark(name, f"made-up-{n}", begins=True) for n in range(many)]


@on_nats
async def test_marks_of_who_has_too_many_go_at_once_and_nobody_is_sent_away_for_them(k: Kept) -> None:
    """A mark is signed by nobody: a server answers on whatever subject it is told to, so it may be anybody's."""
    node, agent = await k.bus(k.identities[N1]), await Hostile.come(k)
    await agent.puts(marks(k, AGENT, MUCH), BIG)
    await come_and_go(k, k.subjects.mark(AGENT, ">", begins=True), MUCH)
    async with reading(node, "user/") as got:  # who is looking for its mark finds it in stream H
        await got.until(lambda g: g.completes)
    assert not agent.link.lost.done()


def test_a_mark_ends_after_a_minute_or_two_whatever_its_header_says(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(accounts, "MARK_S", 0.5, raising=False)

    async def within(k: Kept) -> None:
        agent = await Hostile.come(k)
        await agent.says_many(3)
        await agent.puts(marks(k, AGENT, 5), b"x")  # also the last one, which nothing follows
        await come_and_go(k, k.subjects.mark(AGENT, ">", begins=True), 5)
        assert await stands(await k.servers.administrator(), k.subjects.facts, k.subjects.of(AGENT)[0]) == 3

    on_nats(within)(tmp_path)


@on_nats
async def test_copies_for_addressees_that_the_event_does_not_name_are_believed_by_nobody_and_go(k: Kept) -> None:
    agent, bob = await Hostile.come(k), await k.bus(k.identities["operator/bob"])
    said = agent.pen.write("app/web/t", {"n": 1}, version=1)
    async with reading(bob, "user/", start=Start.LIVE, inbox=True) as got:
        await got.until(lambda g: g.completes)
        await agent.puts([k.subjects.copy(AGENT, "operator/bob", "app/web/t", fact=True)], said.raw)
        await got.until(lambda g: g.types() == ["badsignature"])
        assert got.notices[0].fields["code"] == "event.subject"
    await agent.says(said)
    await agent.puts(agent.copies("app/web/t", MANY), said.raw)
    await come_and_go(k, f"{k.subjects.copy(AGENT, 'x', 'y', fact=True).removesuffix('.x.y')}.>", MANY)
    await come_and_go(k, k.subjects.of(AGENT)[0], 1, left=1)
    assert not agent.link.lost.done()


@on_nats
async def test_who_has_more_copies_retained_than_it_may_have_facts_is_sent_away_and_kept_out(k: Kept) -> None:
    agent = await Hostile.come(k)
    said = agent.pen.write("app/web/t", {"n": 1}, version=1, to=tuple(f"node/x{n}" for n in range(MANY)))
    await agent.puts(agent.copies("app/web/t", MANY), said.raw)
    await until(agent.link.lost.done)
    with pytest.raises(RefusedError, match=f"does not let {AGENT} in"):
        await k.servers.link(agent.identity)
    await until(lambda: f"{AGENT} has {MANY} retained facts, and its certificate allows 64" in k.servers.log())


@on_nats
async def test_a_source_counts_copies_and_only_its_own_words_when_it_refuses_itself_one_more(k: Kept) -> None:
    """A server answers on whatever subject it is told to: so whoever liked made a source refuse itself everything."""
    bob, alice = await k.link("operator/bob"), certified(k, "operator/alice", 3)
    for n in range(3):
        answered = k.subjects.event("operator/bob", "user/s", fact=False)
        await bob.send(Publication(answered, b"x", {}), k.subjects.event(alice.name, f"user/x{n}", fact=True))
    await come(k, k.subjects.facts, k.subjects.of(alice.name)[0], lambda found: found == 3)
    bus, two = await k.bus(alice), ("node/x1", "node/x2")
    with pytest.raises(RefusedError, match="has 0 live facts, and its certificate allows 3"):
        await bus.publish(Draft("user/t", {"n": 1}, version=1, to=(*two, "node/x3")))
    await bus.publish(Draft("user/t", {"n": 1}, version=1, to=two))
    with pytest.raises(RefusedError, match="has 3 live facts, and its certificate allows 3"):
        await bus.publish(Draft("user/u", {"n": 1}, version=1))
    await k.made.stop(bus)
    again = await k.bus(alice)
    with pytest.raises(RefusedError, match="has 3 live facts, and its certificate allows 3"):
        await again.publish(Draft("user/u", {"n": 1}, version=1))


@on_nats
async def test_what_a_revoked_source_has_left_stays_up_to_its_quota_and_who_follows_under_its_name_has_room(k: Kept) -> None:
    agent, root = await Hostile.come(k), await k.bus(k.made.identity("root"))
    await agent.says_many(MANY)
    await until(agent.link.lost.done)
    await root.publish(Draft(topic_of(agent.identity.key.key_id, "root"), {"by": "root", "reason": "stolen"}))
    facts = k.subjects.of(AGENT)[0]
    await come_and_go(k, facts, MANY, left=QUOTAS["agent"])
    link = await k.servers.administrator()
    first, last = (k.subjects.event(AGENT, f"app/web/t{n}", fact=True) for n in (0, MANY - 1))
    assert [await stands(link, k.subjects.facts, one) for one in (first, last)] == [1, 0], "what came later goes"
    again = await Hostile.come(k)
    for n in range(QUOTAS["agent"]):
        await again.says(again.pen.write(f"app/web/new{n}", {"n": n}, version=1))
    await come_and_go(k, facts, MANY + QUOTAS["agent"], left=2 * QUOTAS["agent"])
    assert not again.link.lost.done()


@on_nats
async def test_no_message_ends_the_gate_whatever_stands_on_it(k: Kept) -> None:
    """Nobody new is let in without it. A subject that says no topic, a key that is none, a size in the place of bytes."""
    agent, alice = await Hostile.come(k), await k.bus(k.identities["operator/alice"])
    gate, own = k.gates.running[0], k.subjects.copy(AGENT, "x", "y", fact=True).removesuffix(".x.y")
    certificates = k.subjects.certificate(AGENT, AGENT, b"")
    chain = cbor2.dumps([one.raw for one in agent.identity.chain])
    await agent.puts((f"{own}.{n}" for n in range(MANY)), b"x")
    await agent.puts([f"{certificates}nohex"], chain)
    await agent.puts([f"{certificates}{os.urandom(16).hex()}"], cbor2.dumps([2**45]))
    await come_and_go(k, f"{own}.*", MANY)
    await come_and_go(k, f"{certificates}*", 3, left=1)
    assert k.gates.running[0] is gate
    assert alice.attached
    await k.bus(k.made.identity("operator/carol"))


def test_a_size_in_the_place_of_a_certificate_is_refused_to_who_connects() -> None:
    """Bytes of that size were made: a gate that is asked by whoever connects had no memory left."""
    shown = base64.b64encode(cbor2.dumps([2**45])).decode()
    asked = {
        "nats": {"client_info": {"id": 1}, "connect_opts": {"auth_token": shown}, "user_nkey": "U", "server_id": {"id": "S"}}
    }
    question = f"x.{base64.urlsafe_b64encode(json.dumps(asked).encode()).decode()}.x"
    with pytest.raises(UnusableEventError, match="shows no certificates"):
        read_asked(question.encode())
