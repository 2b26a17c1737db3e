"""Whatever comes in that should not: each is refused with a word that names why, others do not notice, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
import subprocess
import time

import cbor2
import pytest

from dsmt.bus.adapters.sqlite import SqliteStore
from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.errors import FailedError, RefusedError, TransportError
from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, sig_structure
from dsmt.event.payload import canonical, payload
from dsmt.ports.bus import Draft, Start
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Pen, TestRealm, reading, realm, scenario, until

# --- events --------------------------------------------------------------------------------------------------------------


def _flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def _signed_anyhow(pen: Pen, body: bytes) -> bytes:
    key = pen.identity.key
    protected = protected_header(key.algorithm, key.key_id)
    return assemble(protected, body, key.sign(sig_structure(protected, body)))


def _fields(pen: Pen, **changed) -> dict:
    fields = cbor2.loads(payload(pen.write("user/t", {"n": 1, "m": 2}).event))
    return {**fields, **changed}


def _big(pen: Pen) -> bytes:
    return _signed_anyhow(pen, canonical(_fields(pen, data={"n": "x" * 70_000})))


BAD_EVENTS = {
    "signed by nobody known": ("trust.stranger", lambda pen, _: pen.write("user/t", {}, key=SecretKey(os.urandom(32))).raw),
    "signed with another's key": ("trust.name", lambda pen, other: pen.write("user/t", {}, key=other.key).raw),
    "signature with a flipped bit": ("trust.signature", lambda pen, _: _flipped(pen.write("user/t", {}).raw)),
    "content with a flipped bit": (
        "trust.signature",
        lambda pen, _: pen.write("user/t", {"n": "abcabc"}).raw.replace(b"abcabc", b"abcabd"),
    ),
    "outside its grant": ("trust.denied", lambda pen, _: pen.write("controller/c1/state", {}).raw),
    "a topic that does not exist": ("trust.denied", lambda pen, _: pen.write("nowhere/at/all", {}).raw),
    "over 64 KiB": ("event.too_big", lambda pen, _: _big(pen)),
    "values that grow when they are written": (
        "event.form",
        lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen)).replace(b"\x61n\x01", b"\x61n" + _shared(60))),
    ),
    "no bytes": ("event.form", lambda _pen, _other: b""),
    "random bytes": ("event.form", lambda _pen, _other: os.urandom(300)),
    "bytes behind": ("event.form", lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen)) + b"\x00")),
    "a key twice": (
        "event.form",
        lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen)).replace(b"\x61m\x02", b"\x61n\x02")),
    ),
    "data that is no map": ("event.form", lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen, data=[1])))),
    "an attribute that does not exist": ("event.form", lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen, more=1)))),
    "a record of another shape": ("event.schema", lambda pen, _: pen.write("nodeset/a", {"expression": 5}, version=1).raw),
    "another type": ("event.schema", lambda pen, _: pen.write("user/t", {}, type="dsmt.status").raw),
    "a shared fact without a version": (
        "event.schema",
        lambda pen, _: pen.write("nodeset/a", {"expression": "all", "by": "a"}).raw,
    ),
    "a poisoning version": ("event.version", lambda pen, _: pen.write("user/t", {}, version=2**63 - 1).raw),
    "an hour ahead": ("clock_ahead", lambda pen, _: pen.write("user/t", {}, ahead_s=3600.0).raw),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_an_event_that_is_not_good_is_refused_by_name(network_kind, tmp_path, name):
    code, make = BAD_EVENTS[name]

    @scenario
    async def refused(r: TestRealm):
        broker = await r.broker()
        alice, other = await r.client("operator/alice"), await r.client("operator/other")
        identity = r.identity("operator/eve")
        raw = await r.raw("operator/eve", identity=identity)
        pen = Pen(identity)
        async with reading(alice, "/", start=Start.LIVE) as got:
            good, bad = pen.write("user/t", {"n": 1}), make(pen, other._identity)
            after = Pen(identity, pen.chain.incarnation + 1).write("user/t", {"n": 2})
            raw.send(f.Publish(), good.raw, bad, after.raw)
            nacked, _ = await raw.next(f.Nacked)
            assert nacked.code == code
            assert nacked.message
            acknowledged = 0
            while acknowledged < 2:
                acked, _ = await raw.next(f.Acked)
                acknowledged += sum(last - first + 1 for _, _, first, last in acked.ranges)
            await got.until(lambda g: [d["n"] for d in g.of("user/t")] == [1, 2])
            await alice.publish(Draft("user/alice", {}))
            assert broker._ingest.dropped == 1

    refused(network_kind, tmp_path)


@scenario
async def test_a_signal_of_another_source_cannot_be_replayed(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    emission = alice.emit(Draft("user/t", {"n": 1}))
    await emission.acknowledged()
    eve = await r.raw("operator/eve")
    for copy in (emission.signed.raw,):
        eve.send(f.Publish(), copy)
        nacked, _ = await eve.next(f.Nacked)
        assert nacked.code == "trust.relayed"
        assert (nacked.source, nacked.sequence) == ("operator/alice", emission.id.sequence)


@scenario
async def test_a_replayed_fact_does_not_come_back(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    old = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await alice.publish(Draft("user/f", {"n": 2}, replaces=old))
    eve = await r.raw("operator/eve")
    eve.send(f.Publish(), old.signed.raw)
    await eve.next(f.Acked)
    async with reading(alice, "user/f") as got:
        assert got.of("user/f") == [{"n": 2}]
    async with reading(alice, "user/f", start=Start.HISTORY) as got:
        assert got.of("user/f") == [{"n": 1}, {"n": 2}]


@scenario
async def test_a_source_has_a_quota_of_live_facts(r: TestRealm):
    await r.broker()
    node = r.identity("node/n1")
    agent = r.identity("agent/n1/web/app/0", parent=node)
    raw, alice = await r.raw(agent.name, identity=agent), await r.client("operator/alice")
    await r.placed(agent.name)
    pen = Pen(agent)
    quota = agent.certificate.quota
    first = pen.write("app/web/t0", {}, version=1)
    raw.send(f.Publish(), first.raw)
    for n in range(1, quota):
        raw.send(f.Publish(), pen.write(f"app/web/t{n}", {}, version=1).raw)
    acknowledged = 0
    while acknowledged < quota:
        acked, _ = await raw.next(f.Acked)
        acknowledged += sum(last - first + 1 for _, _, first, last in acked.ranges)
    raw.send(f.Publish(), pen.write("app/web/more", {}, version=1).raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "quota"
    raw.send(f.Publish(), pen.write("app/web/t0", {}, version=2, replaces=first.id).raw, pen.write("app/web/signal", {}).raw)
    await raw.next(f.Acked)
    await alice.publish(Draft("tombstone/service/web", {"by": "a", "reason": ""}, version=1))
    await alice.publish(Draft("user/t", {}))


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
    again.send(_hello(r, identity), identity.chain[0].raw)
    refused, _ = await again.next(f.Refused)
    assert (refused.code, refused.next) == ("trust.expired", "dsmt cert rotate operator/eve")


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
    again.send(_hello(r, identity), identity.chain[0].raw)
    refused, _ = await again.next(f.Refused)
    assert refused.code == "trust.revoked"


# --- sessions ------------------------------------------------------------------------------------------------------------


def _hello(r, identity, **more):
    values = {
        "protocol": f.PROTOCOL,
        "realm": r.name,
        "name": identity.name,
        "incarnation": 0,
        "firm": False,
        "attachment": 1,
        "pid": 1,
        "version": "",
        "address": "",
    }
    return f.Hello(**{**values, **more})


def _chain(identity: Identity) -> tuple[bytes, ...]:
    return tuple(signed.raw for signed in identity.chain)


BAD_HELLOS = {
    "unknown realm": ("trust.realm", lambda r, me, _: (_hello(r, me, realm="other"), _chain(me))),
    "another protocol": ("bus.protocol", lambda r, me, _: (_hello(r, me, protocol=99), _chain(me))),
    "no certificate": ("trust.stranger", lambda r, me, _: (_hello(r, me), ())),
    "another's certificate": ("trust.stranger", lambda r, _, other: (_hello(r, other), _chain(other))),
    "another's name": ("trust.stranger", lambda r, me, other: (_hello(r, other), _chain(me))),
    "a certificate of another realm": (
        "trust.stranger",
        lambda r, me, _: (
            _hello(r, me),
            _chain(root_issued(me.name, SecretKey(os.urandom(32)), key=me.key, now_s=int(time.time()), serial=b"x" * 16)),
        ),
    ),
    "garbage for a certificate": ("event.form", lambda r, me, _: (_hello(r, me), (b"garbage",))),
    "a flipped certificate": ("trust.signature", lambda r, me, _: (_hello(r, me), (_flipped(_chain(me)[0]),))),
    "too many certificates": ("bus.frame", lambda r, me, _: (_hello(r, me), _chain(me) * 9)),
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


def _shared(depth: int) -> bytes:
    """A list of two that are one list of two, and so on: 2^depth values in a few bytes."""
    value = b"\xd8\x1c\x81\x00"
    for above in range(depth):
        value = b"\xd8\x1c\x82" + value + b"\xd8\x1d" + cbor2.dumps(depth - above)
    return value


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
    "shared values that would grow without end": (b"\xa2\x61t\x64told\x61x" + _shared(60),),
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
    broker._admission._certified._most = 3
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


# --- bytes on the port ---------------------------------------------------------------------------------------------------


def _on_the_port(test):
    @pytest.mark.real
    def run(tmp_path):
        async def within():
            network = ZmqNetwork()
            try:
                async with asyncio.timeout(45), realm(network, tmp_path) as r:
                    await test(r)
            finally:
                network.close()

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
BYTES = {
    "garbage": os.urandom(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a greeting": _GREETING[:20],
    "a greeting and then nothing": _GREETING,
    "a greeting and a broken command": _GREETING + b"\x04\xc8\x05HELLO" + os.urandom(194),
    "a greeting and a frame of 2^62 bytes": _GREETING + b"\x02" + struct.pack(">Q", 2**62),
    "a greeting without encryption": _GREETING[:12] + b"NULL" + bytes(16) + bytes(32) + b"\x04\x26\x05READY",
    "nothing": b"",
}


@_on_the_port
async def test_bytes_that_are_no_handshake_harm_nobody(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    host, _, port = broker.address.rpartition(":")
    writers = []
    for content in BYTES.values():
        for _ in range(5):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(content)
            await writer.drain()
            writers.append(writer)
        await asyncio.wait_for(alice.publish(Draft("user/t", {})), 5)
    for writer in writers:
        writer.close()
    bob = await r.client("operator/bob")
    await bob.publish(Draft("user/t", {}))
    assert len(broker._sessions.by_peer) == 2


@_on_the_port
async def test_a_frame_over_the_limit_closes_its_own_connection_only(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    raw = await r.raw("operator/eve")
    raw.send(f.Publish(), bytes(3 * 1024 * 1024))
    await raw.closed()
    await alice.publish(Draft("user/t", {}))


@_on_the_port
async def test_a_broker_with_another_key_is_not_spoken_to(r: TestRealm):
    broker = await r.broker()
    identity = r.identity("operator/eve")
    with pytest.raises(TransportError) as refused:
        await r.network.connect(
            broker.address, identity.key.link_secret(), server_key=link_key(SecretKey(os.urandom(32)).public)
        )
    assert refused.value.code == "link.refused"
    assert broker.address in refused.value.message


@_on_the_port
async def test_a_port_in_use_is_said(r: TestRealm):
    broker = await r.broker()
    with pytest.raises(FailedError) as taken:
        await r.broker("b2", address=broker.address)
    assert taken.value.code == "start.port_in_use"


@_on_the_port
async def test_a_flood_from_one_session_does_not_starve_another(r: TestRealm):
    broker = await r.broker()
    alice, flood = await r.client("operator/alice"), await r.raw("operator/eve")
    garbage = tuple(os.urandom(200) for _ in range(64))
    stop = asyncio.Event()

    async def pour():
        while not stop.is_set():
            try:
                if not flood.link.send(pack(f.Publish(), *garbage)):
                    await flood.link.writable()
                await asyncio.sleep(0)
            except TransportError:
                return

    pouring = asyncio.create_task(pour())
    try:
        for _ in range(20):
            await asyncio.wait_for(alice.publish(Draft("user/t", {})), 10)
            assert len(broker._outgoing.listener._arrivals) <= 5001
    finally:
        stop.set()
        await pouring


# --- the disk ------------------------------------------------------------------------------------------------------------


@scenario
async def test_a_full_store_acknowledges_nothing_it_has_not_and_loses_nothing(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    store = broker._store
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        await alice.publish(Draft("user/t", {"n": 0}))
        pages = store._db.connection.execute("PRAGMA page_count").fetchone()[0]
        store._db.connection.execute(f"PRAGMA max_page_count={pages + 3}")
        emissions = [alice.emit(Draft("user/t", {"n": n, "pad": "x" * 2000})) for n in range(1, 101)]
        await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
        acknowledged = [e for e in emissions if e.acked is not None]
        stored = [row for row in store.rows(0, 1000) if row.topic == "user/t"]
        assert len(acknowledged) < 100
        assert len(stored) == 1 + len(acknowledged)
        assert "free space" in alice.refusal.next
        store._db.connection.execute("PRAGMA max_page_count=100000")
        for emission in emissions:
            await emission.acknowledged()
        await got.until(lambda g: len(g.arrived) == 101)
        assert [d["n"] for d in got.of("user/t")] == list(range(101))
        assert got.types() == []


@scenario
async def test_who_only_reads_attaches_to_a_full_store_and_a_source_is_told_that_it_is_full(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    store = broker._store
    await alice.publish(Draft("config/x", {"n": 0}, version=1))

    def full(_batch):
        raise FailedError("store.full", "the disk is full", next="make room")

    store.append = full
    emission = alice.emit(Draft("user/t", {"n": 1}))
    await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
    stored = store.head

    reader = await r.client("operator/bob", reads=True)
    async with reading(reader, "config/", "user/", start=Start.HISTORY, follow=False) as got:
        assert got.of("config/x") == [{"n": 0}]
    await r.stop(reader)
    with pytest.raises(RefusedError) as caught:
        await r.raw("operator/carol")
    assert caught.value.code == "store.full"
    other = r.identity("broker/b9")
    raw = await r.raw(other.name, identity=other, reads=True)
    await until(lambda: broker._session_words.presence.attachment_of("broker/b9") > 0)
    raw.send(f.Publish(), Pen(other).write("broker/b9/stats", {}).raw)
    assert (await raw.next(f.Refused))[0].code == "bus.reads"
    assert store.head == stored
    assert store.winner("broker/b1/session/broker/b9") is None

    del store.append
    await emission.acknowledged()
    await until(lambda: store.winner("broker/b1/session/broker/b9") is not None)
    assert store.winner("broker/b1/session/operator/bob") is None


@pytest.fixture
def small_disk(tmp_path):
    """A directory on a file system of 400 KiB. Mounting it needs root, as the project's CI has."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_survived_and_what_waited_is_stored_when_there_is_room(tmp_path, small_disk):
    @scenario
    async def full(r: TestRealm):
        broker = await r.broker(store=str(small_disk / "b1.db"))
        alice = await r.client("operator/alice")
        emissions = [alice.emit(Draft("user/t", {"n": n, "pad": "x" * 4000})) for n in range(200)]
        await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
        assert not r.tasks[broker].done()
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=20m", small_disk], check=True)
        for emission in emissions:
            await emission.acknowledged()
        bob = await r.client("operator/bob")
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            assert [d["n"] for d in got.of("user/t")] == list(range(200))

    full("memory", tmp_path)


def _store(path) -> SqliteStore:
    return SqliteStore(str(path), identity="0" * 16)


def test_a_file_that_is_no_store_is_called_damaged(tmp_path):
    path = tmp_path / "b.db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(FailedError) as damaged:
        _store(path)
    assert damaged.value.code == "store.damaged"
    assert str(path) in damaged.value.message
    assert "sets the store aside" in damaged.value.next


@scenario
async def test_a_store_with_damaged_pages_stops_its_broker_with_a_clear_word(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    for n in range(300):
        alice.emit(Draft(f"user/t{n}", {"n": n, "pad": "x" * 300}, version=1))
    await alice.publish(Draft("user/end", {}))
    identity = r.identities[broker]
    await r.stop(broker)
    broker._store._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    broker._store.close()
    path = r.directory / "b1.db"
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content) - 4096, 4096):
        content[start : start + 200] = os.urandom(200)
    path.write_bytes(content)
    with pytest.raises((FailedError, BaseExceptionGroup)) as damaged:
        await r.broker("b1", identity=identity)
    error = damaged.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert error.code == "store.damaged"


def test_a_store_belongs_to_one_process(tmp_path):
    first = _store(tmp_path / "b.db")
    other = sqlite3.connect(tmp_path / "b.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM meta")
    other.close()
    first.close()
    _store(tmp_path / "b.db").close()


def test_a_store_in_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FailedError) as failed:
        _store(tmp_path / "nowhere" / "b.db")
    assert "nowhere" in failed.value.message
