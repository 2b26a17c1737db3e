"""Certificates of sources that have passed go: from a broker, its store, and everybody who was shown them (rule D2)."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from dsmt.bus.broker import passed
from dsmt.bus.client import certificates, measuring
from dsmt.bus.client.certificates import ShownCertificates
from dsmt.bus.wire import frames as f
from dsmt.event.hlc import BOUND_MS
from dsmt.logs import Logger
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity, delegate
from dsmt.trust.joining import node_certificate
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.raw_session import hello
from tests.bus.realm import Pen, Reading, TestRealm, memory_network, reading, scenario
from tests.bus.saying import status
from tests.bus.test_early import StepClock
from tests.waiting import until

AGENT = "agent/n1/web/app/0"
TOPIC = "service/web/status/app/0/n1/application"
WEEKS_MS = 15 * 24 * 3600 * 1000


def attempts(got: Reading) -> list[int]:
    return [data["attempt"] for data in got.of(TOPIC)]


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch):
    monkeypatch.setattr(passed, "ROUND_S", 0.3)
    monkeypatch.setattr(measuring, "MEASURE_S", 1.0)


@scenario
async def test_certificates_of_passed_sources_go_when_none_of_their_events_is_left(r: TestRealm):
    broker = await r.broker()
    alice = r.identity("operator/alice")
    silent, spoke = (r.identity(f"operator/alice.{n}", parent=alice) for n in ("silent", "spoke"))
    client = await r.client(spoke.name, identity=spoke)
    await asyncio.wait_for(client.publish(Draft("config/x", {"n": 1}, version=1)), 10)
    introducer = await r.raw("operator/bob")
    introducer.send(f.Certificates(), *(one.raw for one in silent.chain[::-1]))
    await until(lambda: broker._trust.names(silent.key.key_id))
    await r.stop(client)
    await until(lambda: not broker._trust.names(silent.key.key_id))
    kept = {raw for _, raw in broker._store.certificates.all()}
    assert silent.chain[0].raw not in kept
    assert {*broker._store.certificates.shelved(spoke.key.key_id), *kept} >= {spoke.chain[0].raw, alice.chain[0].raw}
    assert broker._trust.names(spoke.key.key_id) == [spoke.name]
    reader = await r.client("operator/carol")
    async with reading(reader, "config/") as got:
        assert got.of("config/x") == [{"n": 1}]


@scenario
async def test_who_has_said_nothing_itself_stays_as_long_as_what_it_has_certified_is_on_the_shelf(r: TestRealm):
    """A node below an issuer, whose agent has spoken: without its certificate nobody believes what that has said."""
    broker = await r.broker()
    issuer, key = r.identity("issuer/c1"), SecretKey(os.urandom(32))
    made = node_certificate(issuer, "n1", key.public, now_s=int(time.time()), serial=os.urandom(16))
    node = Identity(key, (made, *issuer.chain))
    agent = r.identity(AGENT, parent=node)
    client = await r.client(AGENT, identity=agent)
    await asyncio.wait_for(client.publish(Draft(TOPIC, status(1))), 10)
    await r.stop(client)
    await until(lambda: broker._store.certificates.shelved(agent.key.key_id))
    bob = r.identity("operator/bob")
    silent = r.identity("operator/bob.silent", parent=bob)  # it goes two rounds later, and so would the node
    introducer = await r.raw(bob.name, identity=bob)
    introducer.send(f.Certificates(), *(one.raw for one in silent.chain[::-1]))
    await until(lambda: broker._trust.names(silent.key.key_id))
    await until(lambda: not broker._trust.names(silent.key.key_id))
    late = await r.client("controller/c1")
    async with reading(late, "service/") as got:
        await until(lambda: attempts(got) == [1])


@scenario
async def test_what_a_key_has_said_under_a_name_that_passed_is_believed_while_it_is_here_under_another(r: TestRealm):
    broker = await r.broker()
    alice, key = r.identity("operator/alice"), SecretKey(os.urandom(32))
    both = [
        delegate(f"operator/alice.{name}", alice, key=key, now_s=int(time.time()), serial=os.urandom(16))
        for name in ("spoke", "stays")
    ]
    client, _ = [await r.client(one.name, identity=one) for one in both]
    await asyncio.wait_for(client.publish(Draft("config/x", {"n": 1}, version=1)), 10)
    await r.stop(client)
    silent = r.identity("operator/alice.silent", parent=alice)  # it goes two rounds later, and so would that name
    introducer = await r.raw("operator/bob")
    introducer.send(f.Certificates(), *(one.raw for one in silent.chain[::-1]))
    await until(lambda: broker._trust.names(silent.key.key_id))
    await until(lambda: not broker._trust.names(silent.key.key_id))
    late = await r.client("operator/carol")
    async with reading(late, "config/") as got:
        await until(lambda: got.of("config/x") == [{"n": 1}])


@scenario
async def test_a_key_goes_with_its_last_event_though_its_name_lives_on_with_another(r: TestRealm):
    broker = await r.broker()
    node = r.identity("node/n1")
    old, new = (r.identity(AGENT, parent=node) for _ in range(2))
    controller = await r.client("controller/c1")
    counted = broker._keyring._certified
    async with reading(controller, "service/") as got:
        first = await r.client(AGENT, identity=old)
        await asyncio.wait_for(first.publish(Draft(TOPIC, status(1))), 10)
        await until(lambda: attempts(got) == [1])
        await r.stop(first)
        second = await r.client(AGENT, identity=new)
        await asyncio.wait_for(second.publish(Draft(TOPIC, status(2))), 10)
        await until(lambda: attempts(got) == [1, 2])
        assert controller._trust.names(old.key.key_id) == [AGENT]
        while broker._store.trim(int(time.time() * 1000) + WEEKS_MS):
            pass
        await until(lambda: not broker._trust.names(old.key.key_id))
        await until(lambda: not controller._trust.names(old.key.key_id))
        assert controller._trust.names(new.key.key_id) == [AGENT]
        assert old.chain[0].raw not in {raw for _, raw in broker._store.certificates.all()}
        assert counted._kept["node/n1"] == {signed.raw for signed in new.chain}


@scenario
async def test_what_came_over_an_earlier_link_is_forgotten_too_and_who_comes_again_is_introduced_again(r: TestRealm):
    broker = await r.broker()
    agent = r.identity(AGENT, parent=r.identity("node/n1"))
    controller = await r.client("controller/c1")
    async with reading(controller, "service/") as got:
        pen = Pen(agent)
        raw = await r.raw(AGENT, identity=agent)
        raw.send(f.Publish(), pen.write(TOPIC, status(1)).raw)
        await until(lambda: attempts(got) == [1])
        lost = controller.attachment
        broker._disconnect(broker._sessions.by_name[controller.source].peer)
        await until(lambda: controller.attached and controller.attachment > lost)
        assert controller._trust.names(agent.key.key_id) == [AGENT]
        broker._trust.forget(agent.key.key_id, AGENT)
        await until(lambda: not controller._trust.names(agent.key.key_id))
        broker._trust.add_all([signed.raw for signed in agent.chain])
        raw.send(f.Publish(), pen.write(TOPIC, status(2)).raw)
        await until(lambda: attempts(got) == [1, 2])


@scenario
async def test_nothing_is_let_go_while_a_broker_lacks_what_it_verifies(r: TestRealm):
    broker = await r.broker()
    alice = r.identity("operator/alice.x", parent=r.identity("operator/alice"))
    controller = await r.client("controller/c1")
    controller.introduce([signed.raw for signed in alice.chain])
    controller.offer([Pen(alice).write("config/x", {"n": 1}, version=1, ahead_s=60.0)])
    await until(lambda: controller.early_s > 0 and not broker._trust.names(alice.key.key_id))
    controller._ask_known()
    assert controller._certificates._asked == (b"", "")


@scenario
async def test_what_is_ahead_of_a_brokers_clock_comes_though_it_has_forgotten_the_certificates_meanwhile(r: TestRealm):
    clock, then_s = StepClock(-3600), int(time.time()) - 4000
    broker = await r.broker(identity=r.identity("broker/b1", now_s=then_s), born=False, clock=clock)
    alice = r.identity("operator/alice.x", parent=r.identity("operator/alice", now_s=then_s), now_s=then_s)
    client = await r.client("controller/c1", identity=r.identity("controller/c1", now_s=then_s))
    client.introduce([signed.raw for signed in alice.chain])
    client.offer([Pen(alice).write("config/x", {"n": 1}, version=1)])
    await until(lambda: client.early_s > 0 and not broker._trust.names(alice.key.key_id))
    clock.on_s = 3600.0 - BOUND_MS / 2000
    await until(lambda: broker._store.winner("config/x") is not None)
    await until(lambda: not client._publisher.offers)


@scenario
async def test_who_only_reads_ends_with_the_key_above_it_however_long_it_has_read(r: TestRealm):
    broker = await r.broker()
    alice = r.identity("operator/alice")
    below = r.identity("operator/alice.below", parent=alice)
    root, reader = await r.client("root"), await r.raw(below.name, identity=below, reads=True)
    passed = r.identity("operator/alice.passed", parent=alice)
    broker._trust.add_all([signed.raw for signed in passed.chain])
    await until(lambda: not broker._trust.names(passed.key.key_id))
    assert broker._trust.names(below.key.key_id) == [below.name]
    await asyncio.wait_for(root.publish(Draft(topic_of(alice.key.key_id, "root"), {"by": "root"})), 10)
    refused, _ = await asyncio.wait_for(reader.next(f.Refused), 10)
    assert refused.code == "trust.revoked"
    await until(lambda: not broker._trust.names(below.key.key_id))


def test_about_all_that_was_shown_is_asked_again_and_again_a_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "ASKED_AT_ONCE", 2)
    r = TestRealm(memory_network(), tmp_path)
    alice = r.identity("operator/alice")
    own, *others = (r.identity(f"operator/alice.{n}", parent=alice) for n in range(4))
    shown = ShownCertificates(own, r.trust(), Logger(source=own.name), lambda _: None)
    for other in others:
        shown.shown([one.raw for one in reversed(other.chain)])
    first, second, third = sorted((one.key.key_id, one.name) for one in others)
    assert [shown.to_ask() for _ in range(3)] == [(first, second), (third,), (first, second)]


def test_nobody_lets_go_of_its_own_certificates(tmp_path):
    r = TestRealm(memory_network(), tmp_path)
    alice = r.identity("operator/alice")
    own, other = (r.identity(f"operator/alice.{n}", parent=alice) for n in ("own", "other"))
    trust = r.trust()
    shown = ShownCertificates(own, trust, Logger(source=own.name), lambda _: None)
    shown.shown([one.raw for one in reversed(other.chain)])
    mine, others = (own.key.key_id, own.name), (other.key.key_id, other.name)
    assert shown.to_ask() == (others,)
    shown.forget([mine, others])
    assert (trust.names(own.key.key_id), trust.names(other.key.key_id)) == ([own.name], [])


@scenario
async def test_what_somebody_has_shown_who_was_refused_is_on_no_account_once_it_is_let_go(r: TestRealm):
    """Certificates are no secret: whoever shows those of others may fill the account of who has made them."""
    broker = await r.broker()
    alice = r.identity("operator/alice")
    below, thief = r.identity("operator/alice.x", parent=alice), await r.raw("operator/eve", attach=False)
    thief.send(hello(r, below), *(signed.raw for signed in below.chain))
    refused, _ = await asyncio.wait_for(thief.next(f.Refused), 10)
    assert refused.code == "trust.stranger"
    assert broker._keyring._certified._kept[alice.name] >= {below.chain[0].raw}
    await until(lambda: not broker._trust.names(below.key.key_id))
    assert below.chain[0].raw not in broker._keyring._certified._kept.get(alice.name, set())
