"""Bytes and events that should not be: over real sockets to a running broker, while services and everyone else go on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dsmt.bus.client.attaching import greet, sign_attachment
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.network import Link
from dsmt.ports.realm import About, BrokerAddress
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.trust.identity import Identity, delegate
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import TrustStore
from tests.bus.raw_session import RawSession
from tests.bus.realm import Pen
from tests.real.bystander import beside
from tests.real.fleet import Fleet, redis_spec
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("bad_events")]
TOPIC = "user/test/forged"


def somebody(made: Fleet) -> Identity:
    """An operator with a good certificate, and no good intentions."""
    operator, now = made.home.operator(), int(time.time())
    return delegate(f"{operator.name}.rogue", operator, key=SecretKey(os.urandom(32)), now_s=now, serial=os.urandom(16))


@asynccontextmanager
async def by_hand(made: Fleet, identity: Identity, *, attach: bool = True) -> AsyncIterator[RawSession]:
    """A session spoken frame by frame."""
    network, realm = ZmqNetwork(), made.home.realm()
    try:
        link = await admitted(network, BrokerAddress(*realm.brokers[0]), identity)
        try:
            if attach:
                trust = TrustStore(realm.realm)
                about = About(os.getpid(), "test")
                welcome = await greet(link, identity, trust, about, incarnation=0, attachment=1)
                sign_attachment(link, identity, welcome)
            yield RawSession(link)
        finally:
            await link.close()
    finally:
        network.close()


async def admitted(network: ZmqNetwork, broker: BrokerAddress, identity: Identity) -> Link:
    """A link, as soon as the broker admits one: who offended is not admitted for a second."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await network.connect(broker.address, identity.key.link_secret(), server_key=link_key(broker.public))
        except TransportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def refused(session: RawSession, raw: bytes) -> f.Nacked:
    """How the broker refuses an event."""
    session.send(f.Publish(), raw)
    frame, _ = await session.next(f.Nacked)
    assert isinstance(frame, f.Nacked)
    return frame


async def taken(session: RawSession, signed: SignedEvent) -> None:
    """The broker's acknowledgement of an event."""
    session.send(f.Publish(), signed.raw)
    frame, _ = await session.next(f.Acked)
    event = signed.event
    assert (event.source, event.incarnation, event.sequence, event.sequence) in frame.ranges


def forgeries(identity: Identity, pen: Pen) -> dict[str, tuple[bytes, str]]:
    """Events that should not be, each with a word of its refusal, by its code."""
    good = pen.write(TOPIC, {"n": 1}).raw
    attributes = "node/n1/attributes"
    return {
        "trust.signature": (good[:-1] + bytes([good[-1] ^ 1]), identity.name),
        "trust.stranger": (pen.write(TOPIC, {"n": 1}, key=SecretKey(os.urandom(32))).raw, identity.name),
        "trust.name": (pen.write(TOPIC, {"n": 1}, source="node/n1").raw, "node/n1"),
        "trust.denied": (pen.write(attributes, {"n": 1}).raw, attributes),
        "clock_ahead": (pen.write(TOPIC, {"n": 1}, ahead_s=3600).raw, "s ahead of realm time"),
        "event.schema": (pen.write("service/x/spec", {"n": 1}, version=1).raw, "SpecFact"),
        "event.too_big": (good + bytes(64 * 1024), "65536"),
    }


def test_forged_ungranted_oversized_and_early_events_are_refused_by_name_and_reach_nobody(shared):
    async def scenario(made: Fleet) -> None:
        rogue = somebody(made)
        pen = Pen(rogue)
        async with by_hand(made, rogue) as session:
            for code, (raw, word) in forgeries(rogue, pen).items():
                answer = await refused(session, raw)
                assert (answer.code, word in answer.message) == (code, True), answer
                if code == "clock_ahead":
                    assert "3600" in answer.message or "3599" in answer.message
                    assert "clock" in answer.next
                    assert abs(answer.realm_ms - time.time() * 1000) < 60_000  # the broker's time comes with it
            honest = Pen(rogue, incarnation=pen.chain.incarnation + 1).write(TOPIC, {"honest": True})
            await taken(session, honest)  # the session has not suffered

        def arrived() -> list[Any]:
            return [s.signed.event for s in made.watch.seen if s.signed.event.source in (rogue.name, "node/n1")]

        await made.watch.until("the honest one", lambda: any(e.id == honest.id for e in arrived()), 30)
        assert [e.data for e in arrived() if e.topic == TOPIC] == [{"honest": True}]
        assert "x" not in made.watch.view.services
        told = made.watch.view.nodes["n1"].attributes
        assert told is not None
        assert told.signed.event.source == "monitor/n1"
        error = (await dsmt(made.home.root, "publish", "user/test/big", json.dumps("x" * 70_000), "--json", code=2)).error
        assert error["code"] == "event.too_big"
        assert "the limit is" in error["message"]
        assert "depot" in error["next"]

    beside(shared, scenario)


def test_a_replayed_event_is_acknowledged_and_changes_nothing(shared):
    async def scenario(made: Fleet) -> None:
        rogue = somebody(made)
        event = Pen(rogue).write(TOPIC, {"replayed": 0})
        topic = "service/replayed/spec"
        (spec,) = parse(redis_spec(1, "replayed"), file="test.yaml")
        await made.connection.bus.publish(Draft(topic, to_data(SpecFact(spec=to_plain(spec), by="test", reason="one"))))
        await made.ready("replayed", 1)
        old_spec, old_slot = made.watch.view.winner(topic), made.watch.view.winner("service/replayed/slot/kv/0")
        await made.apply(redis_spec(2, "replayed"))
        await made.ready("replayed", 2)
        before = made.pids("replayed")
        now = {t: made.watch.view.winner(t) for t in (topic, "service/replayed/slot/kv/0")}
        assert old_spec is not None
        assert old_slot is not None
        assert old_spec != now[topic]
        async with by_hand(made, rogue) as session:
            for signed in (event, event, old_spec, old_slot, event):
                await taken(session, signed)
        await made.say()
        said = made.acknowledged[-1]
        await made.watch.until("what was said last", lambda: any(s.signed.id == said for s in made.watch.seen), 30)
        ids = [seen.signed.id for seen in made.watch.seen]
        assert [ids.count(one.id) for one in (event, old_spec, old_slot)] == [1, 1, 1]
        assert {t: made.watch.view.winner(t) for t in now} == now
        assert made.pids("replayed") == before

    beside(shared, scenario)


def test_garbage_on_the_brokers_port_costs_only_who_sends_it(shared):
    async def scenario(made: Fleet) -> None:
        host, _, port = made.home.realm().brokers[0][0].rpartition(":")
        broker = made.record("brokers", "b1", "broker")
        for garbage in (os.urandom(65536), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" + bytes(8) + b"\x7f", b""):
            with socket.create_connection((host, int(port)), timeout=10) as stranger:
                stranger.sendall(garbage)
        rogue = somebody(made)
        half_open = socket.create_connection((host, int(port)), timeout=10)
        with half_open:
            for parts in ((os.urandom(1000),), (b"",), (pack(f.Publish())[0], b"x" * 100, b""), (b"\xa1", *[b"y"] * 500)):
                async with by_hand(made, rogue, attach=False) as session:
                    session.link.send(parts)
                    answer, _ = await session.next(f.Refused)
                    assert answer.code
                    assert answer.message
                    await session.closed()
            async with by_hand(made, rogue) as session:
                session.link.send((bytes(2 * 1024 * 1024),))  # beyond any frame
                await session.closed()
            async with by_hand(made, rogue) as session:
                await taken(session, Pen(rogue).write(TOPIC, {"honest": True}))
        assert made.record("brokers", "b1", "broker") == broker
        (told,) = (await dsmt(made.home.root, "brokers", "--json")).json
        assert (told["alive"], told["pid"]) == (True, broker.pid)

    beside(shared, scenario)
