"""What a certificate lets its holder read, on a real NATS server with its gate: beyond that it learns nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.nats import guard
from dsmt.bus.nats.consumer import PullConsumer
from dsmt.bus.nats.link import Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import StreamMessage, head, last_of_each, last_on
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, TransportError
from dsmt.event.kinds.slot import Slot
from dsmt.event.payload import canonical
from dsmt.event.records import to_data
from dsmt.operations.read.realm.sight import watch
from dsmt.ports.bus import Draft, Interest, Start
from dsmt.trust.certificate import issue
from dsmt.trust.grants import read_patterns
from dsmt.trust.identity import Identity
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Facts, Pen, reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
SPEC = {"spec": {}, "by": "alice", "reason": ""}


def agent_of(k: Kept) -> Identity:
    return k.made.identity("agent/n1/web/app/0", parent=k.identities["node/n1"])


async def said(k: Kept) -> None:
    alice = await k.bus(k.identities["operator/alice"])
    for topic in ("service/web/spec", "service/db/spec"):
        await alice.publish(Draft(topic, SPEC, version=1))


@on_nats
async def test_who_may_not_read_everything_reads_nothing_else_by_any_question(k: Kept) -> None:
    await said(k)
    agent = agent_of(k)
    link = await k.servers.link(agent)
    db, web = (k.subjects.event("operator/alice", f"service/{one}/spec", fact=True) for one in ("db", "web"))
    history = k.subjects.history
    name = os.urandom(9).hex()
    directly = {
        f"STREAM.INFO.{history}": {"subjects_filter": ">"},
        f"STREAM.MSG.GET.{history}": {"last_by_subj": db},
        f"DIRECT.GET.{history}": {"last_by_subj": db},
        f"DIRECT.GET.{history}.{db}": None,
        f"CONSUMER.CREATE.{history}.{name}": {"stream_name": history, "config": {"name": name}},
        f"CONSUMER.CREATE.{history}.{name}.{db}": {"stream_name": history, "config": {"name": name, "filter_subject": db}},
        f"CONSUMER.NAMES.{history}": None,
    }
    for question, body in directly.items():
        with pytest.raises(RefusedError, match=f"does not let {agent.name} publish"):
            await link.api(question, body)
    others = k.subjects.asking("operator/alice", ("/",)), k.subjects.asking(agent.name, ("/",))
    for subject in others:
        link.ask_through(subject)
        with pytest.raises(RefusedError, match=f"does not let {agent.name} publish"):
            await link.api(f"STREAM.MSG.GET.{history}", {"last_by_subj": db})
    link.ask_through(k.subjects.asking(agent.name, read_patterns(agent.name)))
    with pytest.raises(TransportError, match="may not ask"):
        await last_on(link, history, db)
    with pytest.raises(TransportError, match="may not ask"):
        await last_of_each(link, history, [web, db])
    with pytest.raises(TransportError, match="may not ask"):
        await PullConsumer(link, history, [web, db]).begin()
    assert [one.subject for one in await last_of_each(link, history, [web])] == [web]


@on_nats
async def test_an_answer_goes_to_an_inbox_and_nowhere_else(k: Kept) -> None:
    """Who asks names the subject of the answer: it is no way to have the gate say something."""
    await said(k)
    agent = agent_of(k)
    link, bob = await k.servers.link(agent), await k.bus(k.identities["operator/bob"])
    asked, forged = k.subjects.asking(agent.name, read_patterns(agent.name)), "user/forged"
    own = k.subjects.event("operator/alice", forged, fact=False)
    async with reading(bob, "user/", start=Start.LIVE) as got:
        await link.send(Publication(f"{asked}.STREAM.INFO.{k.subjects.history}", b"", {}), own)
        link.ask_through(asked)
        await link.api(f"STREAM.INFO.{k.subjects.history}")  # what was asked before it was answered, or not at all
        await bob.publish(Draft("user/good", {"n": 1}))
        await got.until(lambda g: g.of("user/good"))
    assert await last_on(await k.servers.administrator(), k.subjects.history, own) is None


@on_nats
async def test_the_holder_of_a_token_reads_what_concerns_it_and_nothing_of_the_realm(k: Kept) -> None:
    await said(k)
    token = k.made.identity("joining/t1", parent=k.identities["operator/alice"])
    bus = await k.bus(token)
    with pytest.raises(RefusedError, match="joining/t1 may not read service/"):
        async with bus.subscribe(Interest(("service/",))):
            pass
    link = await k.servers.link(token)
    for pattern in ("service/", "node/", "trust/token/", "/"):
        link.ask_through(k.subjects.asking(token.name, read_patterns(token.name)))
        for one in k.subjects.taken_by([pattern], signals=True):
            with pytest.raises(TransportError, match="may not ask"):
                await last_on(link, k.subjects.facts, one)
    async with reading(bus, "trust/token/t1", "joining/t1/") as got:
        assert got.completes


@on_nats
async def test_while_no_gate_is_there_an_agent_goes_on_and_what_a_gate_is_asked_for_waits(k: Kept) -> None:
    controller = Facts(await k.bus(k.made.identity("controller/c1")))
    slot = Slot(node="n1", spec="operator/alice#7-1", revision=1, desired="running")
    await controller.publish("service/web/slot/app/0", to_data(slot), version=1)
    agent, bob = await k.bus(agent_of(k)), await k.bus(k.identities["operator/bob"])
    link = await agent.held()
    async with reading(bob, "node/n1/", "app/") as got, reading(agent, "service/web/") as own:
        await controller.publish("service/web/slot/app/0", to_data(slot), version=2)
        await own.until(lambda g: len(g.of("service/web/slot/app/0")) == 2)  # its consumer is made
        await k.gates.close(0)
        agent.heartbeat("node/n1/agent/web/app/0/heartbeat", 1.0)
        await got.until(lambda g: g.of("node/n1/agent/web/app/0/heartbeat"))
        waits = asyncio.create_task(agent.publish(Draft("app/web/hello", {"n": 1}, version=1)))
        await controller.publish("service/web/slot/app/0", to_data(slot), version=3)
        await own.until(lambda g: len(g.of("service/web/slot/app/0")) == 3)
        assert not waits.done()
        k.gates.open(0)
        await asyncio.wait_for(waits, 20)
        await got.until(lambda g: g.of("app/web/hello"))
        assert (agent.attached, own.reattached, await agent.held()) == (True, [], link)


@on_nats
async def test_what_an_answer_of_a_server_overwrites_stands_again_within_a_moment(k: Kept) -> None:
    """Who asks names the subject of the answer, and a server that answers asks for no permission."""
    alice, said = await k.servers.link(k.identities["operator/alice"]), Pen(k.identities["operator/alice"])
    bus = await k.bus(k.identities["operator/bob"])
    await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(alice, k.identities["operator/alice"])
    own, administrator = k.subjects.event("operator/alice", "user/f", fact=True), await k.servers.administrator()
    for n in (1, 2):  # without what has a server refuse the first one again
        await alice.publish(Publication(own, said.write("user/f", {"n": n}, version=n).raw, {}))
    whose = k.subjects.certificates("operator/alice", k.identities["operator/alice"].key.key_id)
    node, history = await k.link("node/n1"), k.subjects.history
    newest, shown = [await last_on(administrator, history, one) for one in (own, whose)]
    first = node.question(f"DIRECT.GET.{history}", {"next_by_subj": own})
    beat = Publication(k.subjects.event("node/n1", "node/n1/heartbeat", fact=False), b"x", {})
    for asked, stood in ((beat, newest), (first, newest), (beat, shown)):
        before = (await head(administrator, history)).last
        await node.send(asked, stood.subject)
        async with asyncio.timeout(10):
            while (now := await last_on(administrator, history, stood.subject)).row < before + 2 or now.raw != stood.raw:
                assert now.subject == stood.subject
    async with reading(bus, "user/", start=Start.FACTS) as got:
        assert (got.of("user/f"), got.types()) == ([{"n": 2}], [])


@on_nats
async def test_what_an_answer_overwrites_while_no_gate_is_there_stands_again_when_one_is(k: Kept) -> None:
    """A fact of which the history holds an earlier word, which nobody could tell from the last one, too."""
    identity, node, history = k.identities["operator/alice"], await k.link("node/n1"), k.subjects.history
    link, pen, last = await k.servers.link(identity), Pen(identity), dict[str, bytes]()
    await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(link, identity)
    for topic in ("user/f", "user/g"):
        subject = k.subjects.event("operator/alice", topic, fact=True)
        for n in (1, 2):  # without what has a server refuse the first one again
            last[subject] = pen.write(topic, {"n": n}, version=n).raw
            await link.publish(Publication(subject, last[subject], {}))
    await k.gates.close(0)
    (first, second), beat = last, k.subjects.event("node/n1", "node/n1/heartbeat", fact=False)
    await node.send(node.question(f"DIRECT.GET.{history}", {"next_by_subj": first}), first)
    await node.send(Publication(beat, b"x", {}), second)

    async def stand(wanted: bool) -> bool:
        found = {one.subject: one.raw for one in await last_of_each(link, k.subjects.facts, list(last))}
        return found == last if wanted else not set(found.items()) & set(last.items())

    await told(lambda: stand(False), "that both are overwritten", 20.0)
    k.gates.open(0)
    await told(lambda: stand(True), "what was said last", 20.0)


@pytest.mark.parametrize("is_away", [False, True])
def test_what_a_stolen_key_says_where_its_owner_has_said_it_anew_does_not_stay_when_it_has_ended(tmp_path, is_away) -> None:
    """Both have one name, so the later word takes the place of the one that is believed: also while no gate is there."""

    async def within(k: Kept) -> None:
        root, bob = await k.bus(k.made.identity("root")), await k.bus(k.identities["operator/bob"])
        administrator = await k.servers.administrator()
        subject = k.subjects.event("operator/alice", "nodeset/few", fact=True)
        words = []
        for identity in (k.made.identity("operator/alice"), k.identities["operator/alice"]):
            link = await k.servers.link(identity)
            await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(link, identity)
            said = {"expression": f"n{len(words)}", "by": "alice"}
            words.append(Pen(identity).write("nodeset/few", said, version=1 + len(words)).raw)
            await link.publish(Publication(subject, words[-1], {}))
        assert (await last_on(administrator, k.subjects.history, subject)).raw == words[1]
        if is_away:
            await k.gates.close(0)
        stolen = k.identities["operator/alice"].key.key_id
        await root.publish(Draft(topic_of(stolen, "root"), {"by": "root", "reason": "stolen"}))
        if is_away:
            k.gates.open(0)
        async with asyncio.timeout(20):
            while (now := await last_on(administrator, k.subjects.facts, subject)).raw != words[0]:
                assert now.raw == words[1]
                await asyncio.sleep(0.02)
        async with reading(bob, "nodeset/", start=Start.FACTS) as got:
            assert got.of("nodeset/few") == [{"expression": "n0", "by": "alice"}]

    on_nats(within)(tmp_path)


@on_nats
async def test_a_command_that_looks_on_sees_what_stands_when_a_key_has_ended(k: Kept) -> None:
    root, eve, alice = [Facts(await k.bus(k.made.identity(name))) for name in ("root", "operator/eve", "operator/alice")]
    said = {"expression": "n1", "by": "alice"}
    eve._last["nodeset/few"] = await alice.publish("nodeset/few", said)
    await eve.publish("nodeset/few", said | {"expression": "n2"})
    await eve.publish("nodeset/evil", said)
    seen = []
    async with asyncio.timeout(20), aclosing(watch(await k.bus(k.identities["operator/bob"]))) as sights:
        async for sight in sights:
            stand = {topic: sight.view.winner(topic) for topic in ("nodeset/few", "nodeset/evil")}
            seen.append({topic: one.event.data["expression"] for topic, one in stand.items() if one is not None})
            if len(seen) == 1:
                stolen = eve._client._identity.key.key_id
                await root._client.publish(Draft(topic_of(stolen, "root"), {"by": "root", "reason": "stolen"}))
            if seen[-1] == {"nodeset/few": "n1"}:
                break
    assert seen[0] == {"nodeset/few": "n2", "nodeset/evil": "n1"}


@on_nats
async def test_certificates_that_lead_to_no_root_do_not_stay_in_the_place_of_those_that_do(k: Kept) -> None:
    """Anybody can make one of anybody's key."""
    alice, administrator = k.identities["operator/alice"], await k.servers.administrator()
    link, whose = await k.link("operator/alice"), k.subjects.certificate(alice.name, alice.name, alice.key.key_id)
    await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(link, alice)
    shown = await last_on(administrator, k.subjects.history, whose)
    forged = canonical([issue(alice.certificate, SecretKey(os.urandom(32))).raw])
    row = (await administrator.publish(Publication(whose, forged, {})))["seq"]
    async with asyncio.timeout(10):
        while (now := await last_on(administrator, k.subjects.history, whose)).row <= row:
            assert now.raw == forged
    assert now.raw == shown.raw


def test_a_gate_that_has_just_begun_puts_right_what_an_earlier_event_of_the_source_overwrites(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(guard, "NEW_MS", 0)

    async def within(k: Kept) -> None:
        alice, said = await k.servers.link(k.identities["operator/alice"]), Pen(k.identities["operator/alice"])
        await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(alice, k.identities["operator/alice"])
        own, history = k.subjects.event("operator/alice", "user/f", fact=True), k.subjects.history
        for n in (1, 2):
            await alice.publish(Publication(own, said.write("user/f", {"n": n}, version=n).raw, {}))
        administrator, node = await k.servers.administrator(), await k.link("node/n1")
        newest, before = await last_on(administrator, history, own), k.gates.running[0]
        assert newest is not None
        await k.gates.close(0)
        k.gates.open(0)
        await until(lambda: k.gates.running[0] is not before and k.gates.running[0]._guard._hearing.begun.is_set(), 20)
        await node.send(node.question(f"DIRECT.GET.{history}", {"next_by_subj": own}), own)
        async with asyncio.timeout(10):
            while (now := await last_on(administrator, history, own)).row < newest.row + 2 or now.raw != newest.raw:
                assert now.subject == own

    on_nats(within)(tmp_path)


def test_what_never_comes_to_stand_is_looked_at_for_a_while_and_no_longer(monkeypatch) -> None:
    monkeypatch.setattr(guard, "RETRY_S", 0.0)
    looks: list[str] = []

    async def absent(_link: object, subject: str, _heard: bytes) -> bool:
        looks.append(subject)
        return False

    async def within() -> None:
        bus: Any = SimpleNamespace(source="broker/s0", held=lambda: asyncio.sleep(0), on_attached=lambda _: None)
        made = guard.NatsGuard(bus, cast(Any, SimpleNamespace(subjects=Subjects("test"))))
        made._hearing.run = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        made._put_right = absent  # type: ignore[method-assign, assignment]
        made._doubt("x", b"heard")
        running = asyncio.create_task(made.run())
        try:
            await until(lambda: len(looks) > guard.LOOKS)
            for _ in range(100):
                await asyncio.sleep(0)
        finally:
            running.cancel()
            await asyncio.wait({running})

    asyncio.run(within())
    assert looks == ["x"] * (guard.LOOKS + 1)


def test_what_a_key_that_has_ended_has_said_is_looked_for_again_where_a_stream_did_not_answer(monkeypatch) -> None:
    monkeypatch.setattr(guard, "RETRY_S", 0.0)
    looks: list[str] = []

    async def facts(_link: object, stream: str, _subjects: object, **_: object) -> AsyncIterator[StreamMessage]:
        looks.append(stream)
        if len(looks) == 1:
            raise TransportError("nats.stream", "it chooses its leader")
        for stored in ():
            yield stored

    async def within() -> None:
        bus: Any = SimpleNamespace(source="broker/s0", held=lambda: asyncio.sleep(0), on_attached=lambda _: None)
        made = guard.NatsGuard(bus, cast(Any, SimpleNamespace(subjects=Subjects("test"))))
        made._hearing.run = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        monkeypatch.setattr(guard, "all_of", facts)
        running = asyncio.create_task(made.run())
        made.ended(1)
        try:
            await until(lambda: len(looks) == 2)
        finally:
            running.cancel()
            await asyncio.wait({running})

    asyncio.run(within())
