"""Events that are not good, replayed or too many: each is refused by name, and nothing is lost."""

from __future__ import annotations

import os

import cbor2
import pytest

from dsmt.bus.wire import frames as f
from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, sig_structure
from dsmt.event.payload import canonical, payload
from dsmt.ports.bus import Draft, Start
from dsmt.trust.keys import SecretKey
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.bus.spoiled import flipped, shared


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
    "signature with a flipped bit": ("trust.signature", lambda pen, _: flipped(pen.write("user/t", {}).raw)),
    "content with a flipped bit": (
        "trust.signature",
        lambda pen, _: pen.write("user/t", {"n": "abcabc"}).raw.replace(b"abcabc", b"abcabd"),
    ),
    "outside its grant": ("trust.denied", lambda pen, _: pen.write("controller/c1/state", {}).raw),
    "a topic that does not exist": ("trust.denied", lambda pen, _: pen.write("nowhere/at/all", {}).raw),
    "over 64 KiB": ("event.too_big", lambda pen, _: _big(pen)),
    "values that grow when they are written": (
        "event.form",
        lambda pen, _: _signed_anyhow(pen, canonical(_fields(pen)).replace(b"\x61n\x01", b"\x61n" + shared(60))),
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
    eve.send(f.Publish(), emission.signed.raw)
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
