"""Facts that are offered to a broker that lacks them come with what proves them (rule R5)."""

from __future__ import annotations

import asyncio

from dsmt.agents.shared.kept import keep, kept
from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire import frames as f
from dsmt.event.envelope import SignedEvent
from dsmt.event.payload import canonical
from dsmt.ports.bus import Cursor, Draft, Start
from dsmt.system.files import DiskFiles
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.bus.stored import copy_store
from tests.waiting import until


async def said_by_one_command(r: TestRealm, draft: Draft, number: int = 0) -> SignedEvent:
    """What a command line says under an identity of its own, which ends with it."""
    alice = r.identity("operator/alice")
    command = await r.client(f"operator/alice.{number}", identity=r.identity(f"operator/alice.{number}", parent=alice))
    emission = command.emit(draft)
    await emission.acknowledged()
    await r.stop(command)
    assert emission.signed is not None
    return emission.signed


async def blank(r: TestRealm, broker: Broker, client: BusClient) -> Broker:
    """The broker with an empty store, and the client attached to it."""
    before = client.attachment
    broker = await r.restarted(broker, store=str(r.directory / "another.db"), born=False)
    await until(lambda: client.attached and client.attachment > before)
    return broker


def fact(number: int) -> Draft:
    return Draft(f"user/f{number}", {"n": number}, version=1)


@scenario
async def test_a_node_that_was_started_anew_offers_what_it_kept_to_a_broker_that_knows_nobody(r: TestRealm):
    broker = await r.broker()
    node = r.identity("node/n1")
    before = await r.client("node/n1", identity=node)
    signed = await said_by_one_command(r, fact(1))
    async with reading(before, "user/") as got:
        keep(DiskFiles(str(r.directory / "node")), "slot.event", got.arrived[0].signed, before)
    await r.stop(before)
    await r.restarted(broker, store=str(r.directory / "another.db"), born=False)

    after = await r.client("node/n1", identity=node)
    found = kept(DiskFiles(str(r.directory / "node")), "slot.event", after)
    assert found == signed
    after.offer([found])
    bob = await r.client("operator/bob")
    async with reading(bob, "user/") as got:
        await got.until(lambda g: [one.signed for one in g.arrived] == [signed])


@scenario
async def test_what_was_kept_is_believed_by_a_broker_only_if_it_was_signed_by_who_may(r: TestRealm):
    """The certificates on a node's disk are no authority: they are checked up to the root."""
    await r.broker()
    stranger = TestRealm(r.network, r.directory)
    eve = stranger.identity("operator/eve")
    client = await r.client("node/n1")
    client.introduce([one.raw for one in eve.chain] + [b"no certificate", b""])
    assert [one.subject for one in client._trust.certificates() if one.subject == "operator/eve"] == []


@scenario
async def test_damage_is_nothing_known_and_a_damaged_certificate_is_left_out(r: TestRealm):
    await r.broker()
    client, files = await r.client("node/n1"), DiskFiles(str(r.directory / "node"))
    assert kept(files, "slot.event", client) is None
    whole = canonical({"event": b"no event", "certificates": [b"x"]})
    for content in (b"", b"\xff\xff", whole, whole[:-3], canonical({"event": 7}), canonical(["event"]), b"\xa1\x61e"):
        files.write("slot.event", content)
        assert kept(files, "slot.event", client) is None
    signed = Pen(r.identity("operator/alice")).write("user/t", {"n": 1}, version=1)
    files.write("slot.event", canonical({"event": signed.raw, "certificates": [b"x", b""]}))
    assert kept(files, "slot.event", client) == signed


@scenario
async def test_facts_of_hundreds_of_commands_are_offered_with_all_their_certificates(r: TestRealm):
    broker = await r.broker()
    alice, commands = r.identity("operator/alice"), 200
    holder = await r.client("controller/c1")
    async with reading(holder, "user/", conflate=True) as got:
        for number in range(commands):
            identity = r.identity(f"operator/alice.{number}", parent=alice)
            command = await r.client(identity.name, identity=identity)
            await command.publish(fact(number))
            await r.stop(command)
        await got.until(lambda g: len(g.arrived) == commands)
        events = [one.signed for one in got.arrived]
    broker = await blank(r, broker, holder)
    sent: list[tuple[f.Frame, int]] = []
    post = holder._queue.post
    holder._queue.post = lambda frame, *parts: (sent.append((frame, len(parts))), post(frame, *parts))[1]
    holder.offer([*events, *events])
    await until(lambda: all(broker._store.winner(one.event.topic) for one in events))
    brought = [count for frame, count in sent if isinstance(frame, f.Certificates)]
    assert sum(brought) == commands + 1
    assert max(brought) <= f.MAX_CERTIFICATES
    offered = [count for frame, count in sent if isinstance(frame, f.Publish) and frame.offered]
    assert sum(offered) == commands, "what waits is offered once"


@scenario
async def test_a_source_may_offer_its_own_facts_of_before_and_nobody_misses_what_lay_between(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    first = alice.emit(fact(1))
    await first.acknowledged()
    second = alice.emit(Draft("user/f1", {"n": 2}, replaces=first.signed))
    await second.acknowledged()
    broker = await blank(r, broker, alice)
    alice.offer([second.signed])
    await until(lambda: broker._store.winner("user/f1"))
    bob = await r.client("operator/bob")
    async with reading(bob, "broker/b1/notice", start=Start.HISTORY) as got:
        assert got.arrived == []


@scenario
async def test_a_reader_misses_nothing_when_row_numbers_are_used_twice_after_a_power_cut(r: TestRealm):
    path, left = r.directory / "b1.db", r.directory / "left.db"
    broker = await r.broker(kept=SqliteStore(str(path), identity="a" * 16, boot="boot-1"))
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    async with reading(bob, "user/", start=Start.HISTORY) as got, reading(bob, "user/", conflate=True) as folded:
        for number in range(5):
            await alice.publish(fact(number))
        copy_store(path, left)
        for number in range(5, 40):
            await alice.publish(fact(number))
        await got.until(lambda g: len(g.arrived) == 40)
        await folded.until(lambda g: len(g.arrived) == 40)
        last = got.arrived[-1]
        store = SqliteStore(str(left), identity="b" * 16, boot="boot-2")
        broker = await r.restarted(broker, kept=store, born=False)
        carol = await r.client("operator/carol")
        for number in range(40, 90):
            await carol.publish(fact(number))
        later = [{"n": number} for number in range(40, 90)]
        for one in (got, folded):
            await one.until(lambda g: [a.signed.event.data for a in g.arrived][-50:] == later)
    cursor = Cursor("a" * 16, last.row, last.signed.event.time_ms)
    async with reading(bob, "user/", start=Start.HISTORY, since=cursor) as late:
        assert [a.signed.event.data for a in late.arrived][-50:] == later, (
            "who comes later, with a cursor of before, neither"
        )


@scenario
async def test_a_reader_misses_nothing_when_an_older_copy_of_the_store_comes_back(r: TestRealm):
    """It was closed in order, so it has the id that it had: that a row is not there yet tells."""
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    await alice.publish(fact(0))
    broker = await r.restarted(broker)
    await r.stop(broker)
    broker._store.close()
    copy_store(r.directory / "b1.db", r.directory / "left.db")
    broker = await r.broker("b1", identity=r.identities[broker], address=broker.address)
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        for number in range(1, 40):
            await alice.publish(fact(number))
        await got.until(lambda g: len(g.arrived) == 40)
        broker = await r.restarted(broker, store=str(r.directory / "left.db"), older="it has another id already")
        carol = await r.client("operator/carol")
        await until(lambda: "operator/bob" in broker._sessions.by_name)
        for number in range(40, 60):
            await carol.publish(fact(number))
        later = [{"n": number} for number in range(40, 60)]
        await got.until(lambda g: [a.signed.event.data for a in g.arrived][-20:] == later)


@scenario
async def test_who_brings_a_revocation_to_a_broker_that_knows_nobody_shows_who_may_end_that_key(r: TestRealm):
    """A node's own, of its agent: without the agent's certificate nobody can tell that it is its agent."""
    broker = await r.broker()
    node = r.identity("node/n1")
    agent = r.identity("agent/n1/web/app/0", parent=node)
    client, bob = await r.client(node.name, identity=node), await r.client("operator/bob")
    speaker = await r.client(agent.name, identity=agent)
    async with reading(bob, "node/n1/") as got:
        speaker.heartbeat("node/n1/agent/web/app/0/heartbeat", 1.0)
        await got.until(lambda g: g.of("node/n1/agent/web/app/0/heartbeat"))
    await r.stop(speaker)
    await asyncio.wait_for(client.publish(Draft(topic_of(agent.key.key_id, node.name), {"by": node.name})), 10)
    await until(lambda: bob._trust.is_revoked(agent.key.key_id))
    await r.stop(client)
    again = await r.restarted(broker, store=str(r.directory / "another.db"), born=False)
    await until(lambda: again._trust.is_revoked(agent.key.key_id))
