"""Sessions that should not be: strangers, broken protocols and lies are refused by name, and others do not notice."""

from __future__ import annotations

import os
import time

import cbor2
import pytest

from dsmt.bus.broker import sessions
from dsmt.bus.client.certificates import ASKED_AT_ONCE
from dsmt.bus.wire import frames as f
from dsmt.event.phrases import another_certificate
from dsmt.ports.bus import Draft, Start
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.raw_session import hello
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.bus.spoiled import flipped, shared
from tests.waiting import until


@pytest.fixture(autouse=True)
def time_to_read_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who offends has 20 ms to read why: on a busy machine the network's own thread may get none of them."""
    _, away_s = sessions.OFFENDED_S
    monkeypatch.setattr(sessions, "OFFENDED_S", (0.5, away_s))


@scenario
async def test_an_expired_certificate_signs_nothing_more(r: TestRealm):
    broker = await r.broker()
    now = int(time.time())
    key = SecretKey(os.urandom(32))
    identity = root_issued("operator/eve", r.root, key=key, now_s=now - 1000, serial=os.urandom(16), lifetime_s=1003)
    raw = await r.raw("operator/eve", identity=identity)
    pen = Pen(identity)
    raw.send(f.Publish(), pen.write("user/t", {"n": 1}).raw)
    await raw.next(f.Acked)
    raw.send(f.Publish(), pen.write("user/t", {"n": 2}, ahead_s=8.0).raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "trust.expired"
    await until(lambda: broker.now_ms() // 1000 > now + 3)
    again = await r.raw("operator/eve", identity=identity, attach=False)
    again.send(hello(r, identity), identity.chain[0].raw)
    refused, _ = await again.next(f.Refused)
    assert refused.code == "trust.expired"
    assert refused.next == another_certificate("operator/eve")


@scenario
async def test_a_revoked_key_is_out_at_once_and_for_good(r: TestRealm):
    broker = await r.broker()
    identity = r.identity("node/n1")
    raw, root = await r.raw("node/n1", identity=identity), await r.client("root")
    agent = r.identity("agent/n1/web/app/0", parent=identity)
    below = await r.raw(agent.name, identity=agent)
    held = Pen(identity).write("node/n1/heartbeat", {"incarnation": 1, "sequence": 0, "lag_s": 0.0, "emit_rate_s": 1.0})
    await root.publish(Draft(topic_of(identity.key.key_id, "root"), {"by": "alice"}))
    for session in (raw, below):
        refused, _ = await session.next(f.Refused)
        assert refused.code == "trust.revoked"
        await session.closed()
    eve = await r.raw("operator/eve")
    eve.send(f.Publish(), held.raw)
    nacked, _ = await eve.next(f.Nacked)
    assert nacked.code == "trust.revoked"
    await r.restarted(broker)
    again = await r.raw("node/n1", identity=identity, attach=False)
    again.send(hello(r, identity), identity.chain[0].raw)
    refused, _ = await again.next(f.Refused)
    assert refused.code == "trust.revoked"


def _chain(identity: Identity) -> tuple[bytes, ...]:
    return tuple(signed.raw for signed in identity.chain)


BAD_HELLOS = {
    "unknown realm": ("trust.realm", lambda r, me, _: (hello(r, me, realm="other"), _chain(me))),
    "another protocol": ("bus.protocol", lambda r, me, _: (hello(r, me, protocol=99), _chain(me))),
    "no certificate": ("trust.stranger", lambda r, me, _: (hello(r, me), ())),
    "another's certificate": ("trust.stranger", lambda r, _, other: (hello(r, other), _chain(other))),
    "another's name": ("trust.stranger", lambda r, me, other: (hello(r, other), _chain(me))),
    "a certificate of another realm": (
        "trust.stranger",
        lambda r, me, _: (
            hello(r, me),
            _chain(root_issued(me.name, SecretKey(os.urandom(32)), key=me.key, now_s=int(time.time()), serial=b"x" * 16)),
        ),
    ),
    "garbage for a certificate": ("event.form", lambda r, me, _: (hello(r, me), (b"garbage",))),
    "a flipped certificate": ("trust.signature", lambda r, me, _: (hello(r, me), (flipped(_chain(me)[0]),))),
    "too many certificates": ("bus.frame", lambda r, me, _: (hello(r, me), _chain(me) * 9)),
}


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_a_stranger_is_refused_by_name(network_kind, tmp_path, name):
    code, make = BAD_HELLOS[name]

    @scenario
    async def refused(r: TestRealm):
        await r.broker()
        alice = await r.client("operator/alice")
        identity = r.identity("operator/eve")
        raw = await r.raw("operator/eve", identity=identity, attach=False)
        hello, parts = make(r, identity, alice._identity)
        raw.send(hello, *parts)
        told, _ = await raw.next(f.Refused)
        assert told.code == code
        assert told.message
        await raw.closed()
        await alice.publish(Draft("user/t", {}))

    refused(network_kind, tmp_path)


def _map(kind: str, **fields) -> bytes:
    return cbor2.dumps({"t": kind, **fields})


BAD_FRAMES = {
    "no cbor": (b"\xff\xff\xff",),
    "no bytes": (b"",),
    "no map": (cbor2.dumps([1, 2]),),
    "no kind": (cbor2.dumps({"id": 1}),),
    "an unknown kind": (_map("launch"),),
    "a kind that is no text": (cbor2.dumps({"t": [1]}),),
    "deep nesting": (b"\x81" * 10_000 + b"\x00",),
    "a field is missing": (_map("subscribe", id=1),),
    "a start that does not exist": (_map("subscribe", id=1, patterns=["user/"], start="never"),),
    "a bad pattern": (_map("subscribe", id=1, patterns=["user/*"], start="live"),),
    "a negative number": (_map("consumed", id=1, count=-5),),
    "a number that no store holds": (_map("fetch", id=1, ids=[["operator/a", 2**70, 1]]),),
    "too many ids": (_map("fetch", id=1, ids=[["operator/a", 1, 1]] * 5000),),
    "too many keys": (_map("known", signers=[[b"", ""]] * (ASKED_AT_ONCE + 1)),),
    "too many patterns": (_map("subscribe", id=1, patterns=["user/a"] * 5000, start="live"),),
    "a digest that is none": (_map("blobasked", id=1, digest=b"short"),),
    "a chunk without its bytes": (_map("chunkput", id=1, digest=bytes(32), number=0),),
    "a chunk beyond the last": (_map("chunkput", id=1, digest=bytes(32), number=2**40), b"x"),
    "a frame that brokers send": (
        _map("acked", ranges=[], level="safe", copies=9, synced=True, store="", row=1, time_ms=1),
    ),
    "certificates without end": (_map("certificates"), *([b"x"] * 100)),
    "more parts than a message has": (_map("publish"), *([b"x"] * 2000)),
    "a map over its bound": (_map("subscribe", id=1, patterns=["user/" + "a" * 500] * 200, start="live"),),
    "shared values that would grow without end": (b"\xa2\x61t\x64told\x61x" + shared(60),),
    "a regular expression": (b"\xa2\x61t\x64told\x61x" + b"\xd8\x23\x61a",),
    "a second hello": (
        _map(
            "hello",
            protocol=1,
            realm="test",
            name="operator/eve",
            incarnation=0,
            firm=False,
            attachment=1,
            pid=1,
            version="",
            address="",
        ),
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_session_that_breaks_the_protocol_is_told_why_and_closed(network_kind, tmp_path, name):
    @scenario
    async def refused(r: TestRealm):
        broker = await r.broker()
        alice = await r.client("operator/alice")
        raw = await r.raw("operator/eve")
        raw.link.send(BAD_FRAMES[name])
        told, _ = await raw.next(f.Refused)
        assert told.message
        await raw.closed()
        await alice.publish(Draft("user/t", {}))
        assert not r.tasks[broker].done()

    refused(network_kind, tmp_path)


@pytest.mark.parametrize("frame", [f.Publish(), f.Attach(statement=b"x"), f.Subscribe(id=1, patterns=("/",), start="live")])
def test_nothing_is_done_for_who_is_not_attached(network_kind, tmp_path, frame):
    @scenario
    async def refused(r: TestRealm):
        broker = await r.broker()
        raw = await r.raw("operator/eve", attach=False)
        raw.send(frame, b"x")
        told, _ = await raw.next(f.Refused)
        assert told.code == "bus.order"
        await raw.closed()
        assert not list(broker._fan_out._router.all())

    refused(network_kind, tmp_path)


@scenario
async def test_credit_cannot_be_made_up(r: TestRealm):
    broker = await r.broker()
    raw = await r.raw("operator/eve")
    raw.send(f.Subscribe(id=1, patterns=("user/",), start="live", credit=2**60))
    await raw.next(f.CompleteFrame)
    raw.send(f.Consumed(id=1, count=2**60))
    raw.send(f.Time(sent=1.0))
    await raw.next(f.TimeIs)
    assert all(s.credit <= 4 * 1024 * 1024 for s in broker._fan_out._router.all())


@scenario
async def test_a_session_has_a_bounded_number_of_subscriptions(r: TestRealm):
    await r.broker()
    raw = await r.raw("operator/eve")
    for number in range(65):
        raw.send(f.Subscribe(id=number, patterns=("user/",), start="live"))
    told, _ = await raw.next(f.Refused)
    assert told.code == "quota"


@scenario
async def test_a_node_that_mints_names_without_end_is_refused(r: TestRealm):
    broker = await r.broker()
    broker._keyring._certified._most = 3
    node = r.identity("node/n1")
    raw = await r.raw(node.name, identity=node)
    made = [r.identity(f"agent/n1/web/app/{n}", parent=node) for n in range(4)]
    raw.send(f.Certificates(), *(one.chain[0].raw for one in made[:2]))
    raw.send(f.Certificates(), made[0].chain[0].raw)
    raw.send(f.Publish(), Pen(node).write("user/t", {}).raw)
    raw.send(f.Certificates(), made[2].chain[0].raw)
    told, _ = await raw.next(f.Refused)
    assert told.code == "quota"
    assert "node/n1" in told.message
    await r.client("node/n2")


@scenario
async def test_who_does_not_attach_in_time_is_closed(r: TestRealm):
    broker = await r.broker()
    raw = await r.raw("operator/eve", attach=False)
    raw.send(f.Time(sent=1.0))
    await raw.next(f.TimeIs)
    next(iter(broker._sessions.by_peer.values())).since -= 60
    await raw.closed()


@scenario
async def test_a_broker_that_lies_is_not_believed(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    send = broker._fan_out._send

    def lying(session, frame, parts):
        if isinstance(frame, f.Deliver):
            parts = tuple(raw.replace(b"truth!", b"lies!!") for raw in parts)
        return send(session, frame, parts)

    async with reading(bob, "user/", start=Start.LIVE) as got:
        broker._fan_out._send = lying
        await alice.publish(Draft("user/t", {"n": "truth!"}))
        await got.until(lambda g: g.notices)
        assert got.arrived == []
        assert got.types() == ["badsignature"]
