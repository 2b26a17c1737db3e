"""Revocations on the bus: who is believed when they end a key, who hears of it, and what comes of it."""

from __future__ import annotations

import asyncio
import os
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from dsmt.bus.broker import outgoing as ways
from dsmt.bus.broker.dismissal import REVOCATIONS, Dismissal
from dsmt.bus.client.attaching import greet, sign_attachment
from dsmt.bus.rules.attach_backoff import AttachBackoff
from dsmt.bus.wire import frames as f
from dsmt.errors import RefusedError, TransportError
from dsmt.event.codec import decode_part
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.realm import KEPT_OUT, About
from dsmt.trust import revocations
from dsmt.trust.identity import delegate, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Pen, TestClock, TestRealm, reading, scenario
from tests.waiting import until


async def refusal(client, draft: Draft) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await asyncio.wait_for(client.publish(draft), 10)
    return caught.value


def word(identity, source: str, **more) -> Draft:
    """A draft with which a source revokes an identity's key."""
    return Draft(topic_of(identity.key.key_id, source), {"by": source}, **more)


@scenario
async def test_a_node_ends_its_own_agents_key_and_nobody_else_s(r: TestRealm):
    await r.broker()
    node, other = r.identity("node/n1"), r.identity("node/n2")
    agent = r.identity("agent/n1/web/app/0", parent=node)
    client = await r.client(node.name, identity=node)
    await r.client(other.name, identity=other)
    raw = await r.raw(agent.name, identity=agent)
    error = await refusal(client, word(other, node.name))
    assert error.code == "trust.denied"
    assert "the root may revoke any key" in error.next
    await asyncio.wait_for(client.publish(word(agent, node.name)), 10)
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "trust.revoked"


@scenario
async def test_a_key_below_the_root_s_ends_so_many_others_and_says_so_in_so_many_bytes(r: TestRealm):
    """Each word of it stands for good and is told to everybody, and no account pays for it."""
    await r.broker()
    node, root = r.identity("node/n1"), await r.client("root")
    client = await r.client(node.name, identity=node)
    agents = [r.identity(f"agent/n1/web/app/{n}", parent=node) for n in range(3)]
    for agent in agents:
        await r.raw(agent.name, identity=agent)
    large = {"by": "x", "reason": "x" * revocations.LARGEST}
    error = await refusal(client, Draft(topic_of(agents[0].key.key_id, node.name), large))
    assert (error.code, error.next) == ("quota", "give a shorter reason")
    with patch.object(revocations, "ENDS_MOST", 2):
        for agent in (*agents[:2], agents[0]):
            await asyncio.wait_for(client.publish(word(agent, node.name)), 10)
        assert (await refusal(client, word(agents[2], node.name))).code == "trust.denied"
    await asyncio.wait_for(root.publish(Draft(topic_of(agents[2].key.key_id, "root"), large)), 10)
    await until(lambda: client._trust.revocations == 3)


@scenario
async def test_a_revocation_that_is_said_again_is_told_to_nobody_again_and_nothing_is_looked_through_for_it(r: TestRealm):
    """A node's key said one without end, and others' acknowledgements took a hundred times as long."""
    broker = await r.broker()
    node = r.identity("node/n1")
    agents = [r.identity(f"agent/n1/web/app/{n}", parent=node) for n in range(2)]
    for agent in agents:
        await r.raw(agent.name, identity=agent)
    client, look = await r.client(node.name, identity=node), await r.raw("operator/look")
    await look.next(f.Revocations)
    with patch.object(broker._ingest, "revoked", wraps=broker._ingest.revoked) as looked:
        for agent in (agents[0], agents[0], agents[0], agents[1]):
            await asyncio.wait_for(client.publish(word(agent, node.name)), 10)
    told = [raw for _, parts in [await look.next(f.Revocations) for _ in agents] for raw in parts]
    topics = [one.event.topic for raw in told for one in decode_part(raw).events]
    assert topics == [topic_of(agent.key.key_id, node.name) for agent in agents]
    assert looked.call_count == len(agents)


@scenario
async def test_neither_the_root_s_key_nor_for_a_while_only_is_a_key_revoked(r: TestRealm):
    await r.broker()
    node, root = r.identity("node/n1"), await r.client("root")
    issuer = await r.client("issuer/i1")
    for client in (root, issuer):
        draft = Draft(topic_of(r.root.key_id, client.source), {"by": "x"})
        assert (await refusal(client, draft)).code == "trust.denied"
    error = await refusal(root, word(node, "root", ttl_ms=60_000))
    assert (error.code, error.next) == ("event.schema", "say it without a time to live")
    assert (await refusal(root, Draft("trust/revoked/nonsense", {"by": "x"}, version=1))).code == "event.topic"
    assert (await r.client(node.name, identity=node)).attached


@scenario
async def test_everybody_hears_of_a_revocation_whatever_they_may_read(r: TestRealm):
    await r.broker()
    eve, node = r.identity("controller/eve"), r.identity("node/n1")
    clients = [
        await r.client("controller/c1"),
        await r.client(node.name, identity=node),
        await r.client("monitor/n1", identity=r.identity("monitor/n1", parent=node)),
        await r.client("agent/n1/web/app/0", identity=r.identity("agent/n1/web/app/0", parent=node)),
        await r.client("operator/alice"),
        await r.client("operator/bob", reads=True),
    ]
    await r.client(eve.name, identity=eve)
    root = await r.client("root")
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    await until(lambda: all(client._trust.is_revoked(eve.key.key_id) for client in clients))
    late = await r.client("monitor/n2", identity=r.identity("monitor/n2", parent=r.identity("node/n2")))
    await until(lambda: late._trust.is_revoked(eve.key.key_id))


@scenario
async def test_a_late_reader_hears_of_a_revocation_before_any_fact(r: TestRealm):
    await r.broker()
    eve = r.identity("operator/eve")
    client = await r.client(eve.name, identity=eve)
    for n in range(20):
        await asyncio.wait_for(client.publish(Draft(f"config/x{n}", {"n": n}, version=1)), 10)
    root = await r.client("root")
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    raw = await r.raw("operator/late")
    raw.send(f.Subscribe(id=1, patterns=("config/",), start="facts"))
    await raw.next(f.CompleteFrame)
    kinds = [type(frame) for frame, _ in raw.frames if isinstance(frame, f.Revocations | f.Deliver)]
    assert kinds[0] is f.Revocations
    late = await r.client("operator/late2")
    async with reading(late, "config/") as got:
        assert got.arrived == []
        assert {notice.fields["code"] for notice in got.notices} == {"trust.revoked"}


@scenario
async def test_a_broker_that_begins_again_on_its_store_lets_nobody_in_whom_it_had_sent_away(r: TestRealm):
    broker = await r.broker()
    eve = r.identity("operator/eve")
    root = await r.client("root")
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    await r.stop(root)
    await r.restarted(broker)
    client = await r.client(eve.name, identity=eve, wait=False)
    await until(lambda: client.refusal or client.attached)
    assert client.refusal is not None
    assert client.refusal.code == "trust.revoked"
    late = await r.raw("operator/late")
    assert len((await late.next(f.Revocations))[1]) == 1


@scenario
async def test_who_attaches_hears_of_revocations_before_any_word_on_brokers_which_a_revoked_key_may_have_said(r: TestRealm):
    broker = await r.broker()
    eve, root = r.identity("operator/eve"), await r.client("root")
    client = await r.client(eve.name, identity=eve)
    said = BrokerWord(address="127.0.0.1:9", public=broker._identity.key.public, by="eve")
    await asyncio.wait_for(client.publish(Draft("config/broker/b1", to_data(said), version=1)), 10)
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    late = await r.raw("operator/late")
    late.send(f.Subscribe(id=1, patterns=("config/",), start="facts"))
    await late.next(f.CompleteFrame)
    told = [frame for frame, _ in late.frames if isinstance(frame, f.Revocations | f.Brokers)]
    assert [type(frame) for frame in told] == [f.Revocations, f.Revocations, f.Brokers]


@scenario
async def test_a_revocation_outlives_the_broker_s_disk(r: TestRealm):
    broker = await r.broker()
    eve = r.identity("controller/eve")
    await r.client(eve.name, identity=eve)
    watcher, root = await r.client("controller/c1"), await r.client("root")
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    await until(lambda: watcher._trust.is_revoked(eve.key.key_id))
    await r.stop(root)
    again = await r.restarted(broker, store=str(r.directory / "new.db"))
    await until(lambda: again._trust.is_revoked(eve.key.key_id))


@scenario
async def test_who_was_revoked_stays_out_of_a_new_broker_whose_clock_is_an_hour_behind(r: TestRealm):
    old_s = int(time.time()) - 3 * 3600
    broker = await r.broker(identity=r.identity("broker/b1", now_s=old_s))
    eve, bob = r.identity("operator/eve", now_s=old_s), r.identity("operator/bob", now_s=old_s)
    keeper, root = await r.client(bob.name, identity=bob), await r.client("root")
    await asyncio.wait_for(root.publish(word(eve, "root")), 10)
    await until(lambda: keeper._trust.is_revoked(eve.key.key_id))
    await r.stop(root)
    store = str(r.directory / "blank.db")
    broker = await r.restarted(broker, store=store, born=False, clock=TestClock(-3600))
    await asyncio.wait_for(keeper.wait_attached(), 10)
    await asyncio.wait_for(keeper.publish(Draft("user/a", {"n": 1})), 10)  # it has offered what it knew before
    assert not [row for row in broker._store.rows(0, 1000) if row.topic.startswith("trust/revoked/")]
    client = await r.client(eve.name, identity=eve, wait=False)
    await until(lambda: client.refusal or client.attached)
    assert client.refusal is not None
    assert client.refusal.code == "trust.revoked"


@pytest.mark.parametrize("code", ["trust.revoked", "trust.expired", KEPT_OUT])
def test_who_was_revoked_asks_again_each_minute_and_who_lost_a_broker_at_once(code: str):
    backoff = AttachBackoff("node/n1")
    lost, revoked = TransportError("link.lost", ""), RefusedError(code, "")
    assert [backoff.failed(lost) for _ in range(9)] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.0, 2.0]
    assert [backoff.failed(revoked) for _ in range(5)] == [5.0, 10.0, 20.0, 40.0, 60.0]
    assert backoff.failed(lost) == 2.0
    backoff.attached()
    assert backoff.failed(lost) == 0.02


def test_brokers_look_for_each_other_more_often() -> None:
    backoff, lost = AttachBackoff("broker/b1"), TransportError("link.lost", "")
    assert [backoff.failed(lost) for _ in range(7)] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]
    assert [backoff.failed(RefusedError("trust.expired", "")) for _ in range(5)][-1] == 60.0


@scenario
async def test_a_client_that_is_revoked_says_so_and_knows_it(r: TestRealm):
    await r.broker()
    node = r.identity("node/n1")
    client, root = await r.client(node.name, identity=node), await r.client("root")
    await asyncio.wait_for(root.publish(word(node, "root")), 10)
    await until(lambda: client.refusal is not None)
    assert (client.refusal.code, client.refusal.next) == (
        "trust.revoked",
        "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there",
    )
    assert client._trust.is_revoked(node.key.key_id)
    assert not client.attached


@scenario
async def test_a_certificate_that_ends_between_hello_and_attach_is_refused(r: TestRealm):
    broker = await r.broker()
    key, now = SecretKey(os.urandom(32)), int(time.time())
    node = root_issued("node/n1", r.root, key=key, now_s=now, serial=os.urandom(16), lifetime_s=2)
    raw = await r.raw(node.name, identity=node, attach=False)
    welcome = await greet(raw.link, node, r.trust(), About(1, "raw"), incarnation=0, attachment=1)
    await until(lambda: broker.now_ms() // 1000 > now + 2)
    sign_attachment(raw.link, node, welcome)
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "trust.expired"


@scenario
async def test_app_topics_are_written_by_agents_whose_slot_is_on_their_node(r: TestRealm):
    await r.broker()
    node, thief = r.identity("node/n1"), r.identity("node/n2")
    own, stolen = (r.identity(f"agent/{n.name[5:]}/web/app/0", parent=n) for n in (node, thief))
    await r.placed(own.name)
    good, bad = await r.client(own.name, identity=own), await r.client(stolen.name, identity=stolen)
    await asyncio.wait_for(good.publish(Draft("app/web/x", {})), 10)
    error = await refusal(bad, Draft("app/web/x", {}))
    assert (error.code, "web/app/0 is not on n2" in error.message) == ("trust.denied", True)
    other = r.identity("agent/n2/db/app/0", parent=thief)
    raw = await r.raw(other.name, identity=other)
    raw.send(f.Publish(), Pen(other).write("app/web/x", {}).raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "trust.denied"


@scenario
async def test_a_node_that_certifies_another_s_agent_first_keeps_nobody_out(r: TestRealm):
    await r.broker()
    thief, node = r.identity("node/n2"), r.identity("node/n1")
    agent = r.identity("agent/n1/web/app/0", parent=node)
    stolen = delegate("agent/n2/web/app/0", thief, key=agent.key, now_s=int(time.time()), serial=os.urandom(16))
    bad = await r.raw(thief.name, identity=thief)
    bad.send(f.Certificates(), *(one.raw for one in stolen.chain[::-1]))
    reader = await r.client("operator/alice")
    async with reading(reader, "service/") as got:
        client = await r.client(agent.name, identity=agent)
        await asyncio.wait_for(client.publish(Draft("service/web/barrier/up/arrived/app/0/n1", {"x": 1})), 10)
        await got.until(lambda g: g.of("service/web/barrier/up/arrived/app/0/n1"))
        assert got.types() == []


def test_a_broker_that_was_revoked_is_sent_away_when_it_has_stored_that_or_two_seconds_after_the_last_one():
    refused: list[str] = []
    other = SimpleNamespace(
        name="broker/b2",
        attached=True,
        by_broker=True,
        is_broker=True,
        displaced=False,
        stored=5,
        certificate=None,
        untold=(),
        gone=False,
        peer=b"",
    )
    admission: Any = SimpleNamespace(
        keyring=SimpleNamespace(revoked=lambda rows: rows),
        is_revoked=lambda _: True,
        is_displaced=lambda _: False,
        out_of_time=lambda _session, _now_ms: None,
    )
    sessions: Any = SimpleNamespace(all=lambda: [other])
    fan_out: Any = SimpleNamespace(introductions=SimpleNamespace(introduce=lambda *_: True))

    def revoke(row: int) -> None:
        dismissal.revoke([SimpleNamespace(row=row, raw=b"")])  # type: ignore[list-item]

    def sent_away(now_ms: int) -> bool:
        refused.clear()
        dismissal.expire(now_ms)
        return refused == ["broker/b2"]

    outgoing: Any = SimpleNamespace(is_full=lambda _: False, send=lambda *_: True)
    dismissal = Dismissal(admission, sessions, fan_out, outgoing, refuse=lambda session, _: refused.append(session.name))
    revoke(7)
    assert [sent_away(now_ms) for now_ms in (1_000, 2_999, 3_000)] == [False, False, True]
    revoke(9)
    assert [sent_away(now_ms) for now_ms in (2_999, 4_998, 4_999)] == [False, False, True]
    revoke(11)
    other.stored = 10
    assert not sent_away(5_000)
    other.stored = 11
    assert sent_away(5_001), "it has stored that"


@scenario
async def test_who_attaches_is_told_all_that_was_revoked_as_it_reads_however_much_that_is(r: TestRealm):
    """Fifteen thousand revoked keys are more than a session may leave unread: nobody was let in any more, for ever."""
    broker, count = await r.broker(), 3 * REVOCATIONS
    root = await r.client("root", identity=r.identity("root"))
    for number in range(count):
        about = {"by": "root", "name": f"node/n{number}", "reason": "gone"}
        root.emit(Draft(topic_of(os.urandom(16), "root"), about))
    await until(lambda: len(broker._admission.keyring.revocations) == count)
    with (
        patch.object(ways, "TALLY_BYTES", 4_096),
        patch.object(ways, "UNREAD_BYTES", 100_000),
        patch.object(ways, "MOST_UNREAD_BYTES", 300_000),
    ):
        late = await r.client("operator/late")
        async with reading(late, "trust/revoked/") as got:
            assert late._trust.revocations == count, "before anything that it asks for"
            await got.until(lambda g: len(g.arrived) == count)
    assert broker._dismissal._telling == []


@scenario
async def test_who_attaches_is_told_revocations_that_are_as_large_as_events_may_be(r: TestRealm):
    """Of 256 of them one message was made, which was more than a session may leave unread: nobody was let in any more."""
    broker, count = await r.broker(), 160
    root = await r.client("root", identity=r.identity("root"))
    for number in range(count):
        root.emit(Draft(topic_of(os.urandom(16), "root"), {"by": "root", "name": f"node/n{number}", "reason": "x" * 60_000}))
    await until(lambda: len(broker._admission.keyring.revocations) == count)
    late = await r.client("operator/late")
    async with reading(late, "config/"):
        assert late._trust.revocations == count


@scenario
async def test_who_reads_nothing_of_what_was_revoked_and_goes_has_gone(r: TestRealm):
    broker = await r.broker()
    root = await r.client("root", identity=r.identity("root"))
    for number in range(2 * REVOCATIONS):
        root.emit(Draft(topic_of(os.urandom(16), "root"), {"by": "root", "name": f"node/n{number}", "reason": "gone"}))
    await until(lambda: len(broker._admission.keyring.revocations) == 2 * REVOCATIONS)
    with patch.object(ways, "UNREAD_BYTES", 1_000):
        mute = await r.raw("operator/mute")
        await until(lambda: broker._dismissal._telling)
        await mute.link.close()
        await until(lambda: "operator/mute" not in broker._sessions.by_name)
        broker._dismissal.go_on()
        assert broker._dismissal._telling == []
