"""Certificates that are renewed, and that end: what was signed before stays verifiable, who has none is out (rule J3)."""

from __future__ import annotations

import os
import time

import msgspec

from dsmt.bus.broker.broker import Broker
from dsmt.bus.wire import frames as f
from dsmt.event.hlc import rfc3339
from dsmt.event.phrases import another_certificate
from dsmt.operations.offline import history
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.verifying import Verified
from dsmt.ports.bus import Draft, Start
from dsmt.trust.certificate import issue, read
from dsmt.trust.identity import Identity
from tests.bus.realm import TestClock, TestRealm, reading, scenario
from tests.waiting import until


def again(r: TestRealm, before: Identity, **times: int) -> Identity:
    """A certificate beside the one that an identity has, by the root."""
    about = {"issued": before.certificate.issued + 1, "serial": os.urandom(16), **times}
    return Identity(before.key, (issue(msgspec.structs.replace(before.certificate, **about), r.root),))


async def later() -> int:
    """A second that began after everything until now, in s."""
    begins = int(time.time()) + 1
    await until(lambda: time.time() >= begins)
    return begins


async def renewed(r: TestRealm, broker: Broker) -> Broker:
    """The broker, started anew with a certificate that begins now."""
    identity, address = r.identities[broker], broker.address
    begins = await later()
    await r.stop(broker)
    broker._store.close()
    return await r.broker(identity=again(r, identity, not_before=begins, issued=begins), address=address)


async def exported(r: TestRealm) -> bytes:
    file = bytearray()
    reader = await r.client("operator/reader", reads=True)
    await history.export(reader, reader._trust, file.extend)
    await r.stop(reader)
    return bytes(file)


def verdict(r: TestRealm, raw: bytes) -> Verified:
    return verify(raw, r.trust())


@scenario
async def test_a_history_verifies_when_the_broker_s_certificate_was_renewed_once_and_again(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    await alice.publish(Draft("user/t", {"n": 0}))
    for number in (1, 2):
        attached = alice.attachment
        broker = await renewed(r, broker)
        await until(lambda attached=attached: alice.attached and alice.attachment > attached)
        await alice.publish(Draft("user/t", {"n": number}))
        found = verdict(r, await exported(r))
        assert found.ok, found.faults
        assert found.events > 3 * number
    late = await r.client("operator/late")
    async with reading(late, "/", start=Start.HISTORY) as got:
        assert got.of("user/t") == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert "badsignature" not in got.types()


@scenario
async def test_a_reader_is_shown_the_certificate_with_which_somebody_it_knows_attaches_next(r: TestRealm):
    await r.broker()
    reader = await r.client("operator/reader")
    begins = int(time.time()) + 2
    old = again(r, r.identity("operator/bob"), not_after=begins)
    async with reading(reader, "user/") as got:
        before = await r.client("operator/bob", identity=old)
        await before.publish(Draft("user/t", {"n": 1}))
        await got.until(lambda g: g.of("user/t"))
        await r.stop(before)
        await until(lambda: time.time() >= begins + 1)
        after = await r.client("operator/bob", identity=again(r, old, not_after=begins + 1000, issued=begins))
        await after.publish(Draft("user/t", {"n": 1}))
        await got.until(lambda g: len(g.of("user/t")) == 2 or "badsignature" in g.types())
        assert "badsignature" not in got.types()


@scenario
async def test_a_blank_broker_is_brought_and_keeps_the_certificate_of_the_time_of_what_is_offered(r: TestRealm):
    broker = await r.broker()
    bob = r.identity("operator/bob")
    before = await r.client("operator/bob", identity=bob)
    await before.publish(Draft("user/f", {"n": 1}, version=1))
    begins = await later()
    await r.stop(before)
    await r.client("operator/bob", identity=again(r, bob, not_before=begins, issued=begins))
    holder = await r.client("operator/alice")
    async with reading(holder, "user/") as got:
        fact = got.arrived[0].signed
    attached = holder.attachment
    broker = await r.restarted(broker, store=str(r.directory / "another.db"), born=False)
    await until(lambda: holder.attached and holder.attachment > attached)
    holder.offer([fact])
    for _ in range(2):
        late = await r.client("operator/late")
        async with reading(late, "user/") as got:
            await got.until(lambda g: [one.signed for one in g.arrived] == [fact])
        await r.stop(late)
        broker = await r.restarted(broker, store=str(r.directory / "another.db"))


@scenario
async def test_an_export_that_lacks_a_certificate_verifies_for_who_knows_it(r: TestRealm):
    """As those do that were written before every certificate was shown."""
    broker = await renewed(r, await r.broker())
    knows = (await r.client("operator/alice"))._trust
    shown = list(history.read(await exported(r)))
    held = [read(parts[0])[0] for letter, parts in shown if letter == "C"]
    name = r.identities[broker].name
    oldest = min((one.certificate.issued, one.raw) for one in held if one.certificate.subject == name)[1]
    lacking = b"".join(history.packed(letter, *parts) for letter, parts in shown if (letter, parts) != ("C", [oldest]))
    assert not verify(lacking, r.trust()).ok
    knows.add(oldest)
    assert verify(lacking, knows).ok


@scenario
async def test_who_is_attached_when_its_certificate_ends_is_sent_away_with_those_below_it(r: TestRealm):
    """By realm time, which is an hour behind the machine's clock here."""
    broker = await r.broker(identity=r.identity("broker/b1", now_s=int(time.time()) - 3600), clock=TestClock(-3600.0))
    ends = broker.now_ms() // 1000 + 3
    node, alice = (again(r, r.identity(name, now_s=ends - 1000), not_after=ends) for name in ("node/n1", "operator/alice"))
    agent = r.identity("agent/n1/web/app/0", parent=node)
    watcher = await r.client("controller/c1", identity=r.identity("controller/c1", now_s=ends))
    async with reading(watcher, "broker/") as got:
        sessions = [await r.raw(one.name, identity=one) for one in (node, agent)]
        sessions.append(await r.raw(alice.name, identity=alice, reads=True))
        refusals = [(await session.next(f.Refused))[0] for session in sessions]
        assert broker.now_ms() // 1000 > ends
        assert {one.code for one in refusals} == {"trust.expired"}
        assert [one.next for one in refusals] == [
            *["dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there"] * 2,
            another_certificate(alice.name),
        ]
        assert refusals[1].message == f"the certificate of {agent.name} ended at {rfc3339(ends * 1000)}"
        for session in sessions:
            await session.closed()
        await got.until(lambda g: {one["state"] for one in g.of("broker/b1/session/node/n1")} >= {"open", "closed"})
    assert watcher.attached


@scenario
async def test_who_comes_with_a_certificate_that_has_not_begun_hears_both_times_and_a_way_out(r: TestRealm):
    broker = await r.broker()
    begins = broker.now_ms() // 1000 + 1000
    early = again(r, r.identity("node/n1"), not_before=begins)
    client = await r.client(early.name, identity=early, wait=False)
    await until(lambda: client.refusal is not None)
    assert client.refusal.code == "trust.expired"
    assert f"begins at {rfc3339(begins * 1000)}, and realm time is " in client.refusal.message
    assert client.refusal.next == "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there"
