"""Who only reads is no source: it leaves no trace in a broker (rule D2)."""

from __future__ import annotations

import asyncio

import pytest

from dsmt.bus.wire import frames as f
from dsmt.errors import RefusedError
from dsmt.ports.bus import Draft
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.waiting import until


def traces(broker) -> tuple[object, ...]:
    """What a broker remembers of sources: certificates in memory and on disk, sessions, and rows but its own pulse."""
    store = broker._store
    own = ("broker/b1/heartbeat", "broker/b1/stats")
    rows = [row.topic for row in store.rows(0, 100_000) if row.topic not in own]
    presence = broker._session_words.presence
    return (
        len(broker._trust.certificates()),
        len(store.certificates.all()),
        sorted(presence._known),
        sorted(presence._granted),
        sorted(broker._sessions.by_name),
        sorted(broker._ingest._marks._marks),
        rows,
    )


@scenario
async def test_two_hundred_looks_leave_no_trace(r: TestRealm):
    broker = await r.broker()
    alice = r.identity("operator/alice")
    writer = await r.client("operator/alice.w", identity=r.identity("operator/alice.w", parent=alice))
    await asyncio.wait_for(writer.publish(Draft("config/x", {"n": 1}, version=1)), 10)
    before = traces(broker)
    for _ in range(200):
        client = await r.client(alice.name, identity=alice, reads=True)
        async with reading(client, "config/", follow=False) as got:
            assert got.of("config/x") == [{"n": 1}]
        await r.stop(client)
    await until(lambda: len(broker._sessions.by_peer) == 1)
    assert traces(broker) == before


@scenario
async def test_readers_of_one_name_stand_beside_each_other_and_beside_its_source(r: TestRealm):
    broker = await r.broker()
    alice = r.identity("operator/alice")
    source = await r.client(alice.name, identity=alice)
    readers = [await r.client(alice.name, identity=alice, reads=True) for _ in range(5)]
    await asyncio.wait_for(source.publish(Draft("user/t", {"n": 1})), 10)
    assert all(one.attached and one.refusal is None for one in [source, *readers])
    assert broker._sessions.by_name[alice.name].attachment == source.attachment
    for one in readers:
        await r.stop(one)
    await until(lambda: len(broker._sessions.by_peer) == 1)
    assert broker._session_words.presence._known[alice.name].state == "open"


@scenario
async def test_a_reader_says_nothing(r: TestRealm):
    await r.broker()
    alice = r.identity("operator/alice")
    client = await r.client(alice.name, identity=alice, reads=True)
    with pytest.raises(RefusedError) as caught:
        client.emit(Draft("user/t", {}))
    assert caught.value.code == "bus.reads"
    raw = await r.raw(alice.name, identity=alice, reads=True)
    raw.send(f.Publish(), Pen(alice).write("user/t", {}).raw)
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "bus.reads"


@scenario
async def test_who_only_reads_brings_nobody_what_others_have_said(r: TestRealm):
    await r.broker()
    pen = Pen(r.identity("operator/bob"))
    word = pen.write("config/x", {"n": 1}, version=1)
    for reads in (True, False):
        client = await r.client("operator/alice", reads=reads)
        client.offer([])
        assert not client._publisher.offers
        client.offer([word])
        assert client._publisher.offers is not reads
        await r.stop(client)
