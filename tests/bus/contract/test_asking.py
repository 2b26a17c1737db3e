"""The contract of a bus, what is asked of it: events by id, blobs, a history that can be proven; or the refusal of it."""

from __future__ import annotations

import hashlib
import os

import pytest

from dsmt.errors import FailedError, NotFoundError, RefusedError
from dsmt.event.envelope import EventId
from dsmt.ports.bus import Ability, Bus, Draft
from tests.bus.realm import reading

from .engines import Engine, contract


async def chunks(content: bytes, size: int = 300_000):
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def got_blob(bus: Bus, digest: bytes) -> bytes:
    return b"".join([chunk async for chunk in bus.get_blob(digest)])


async def keeps_blobs(bus: Bus) -> bool:
    """Whether it does; it is checked that one that does not refuses them."""
    if Ability.BLOBS in bus.can.abilities:
        return True
    with pytest.raises(RefusedError, match="cannot keep blobs"):
        await bus.put_blob(chunks(b"abc"), hashlib.sha256(b"abc").digest())
    with pytest.raises(RefusedError, match="cannot keep blobs"):
        await got_blob(bus, hashlib.sha256(b"abc").digest())
    return False


@contract
async def test_events_are_fetched_by_id_and_unknown_ones_are_missing(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    emissions = [alice.emit(Draft("user/t", {"n": n})) for n in range(250)]
    await emissions[-1].acknowledged()
    ids = [one.id for one in emissions]
    if Ability.FETCH not in bob.can.abilities:
        with pytest.raises(RefusedError, match="cannot fetch events by id"):
            await bob.fetch(ids)
        return
    found = await bob.fetch([ids[3], EventId("operator/alice", 1, 1), *ids[10:]])
    assert [s.event.data["n"] for s in found] == [3, *range(10, 250)]


@contract
async def test_who_may_not_read_everything_fetches_what_it_may_read_and_nothing_else(e: Engine):
    alice, agent = await e.bus("operator/alice"), await e.bus("agent/n1/web/app/0")
    spec = {"spec": {}, "by": "alice", "reason": ""}
    said = [alice.emit(Draft(f"service/{one}/spec", spec, version=1)) for one in ("web", "db")]
    for one in said:
        await one.acknowledged()
    if Ability.FETCH in agent.can.abilities:
        ids = [EventId(*one.id) for one in said if one.id is not None]
        assert [one.event.topic for one in await agent.fetch(ids)] == ["service/web/spec"]


@contract
async def test_what_a_revoked_key_has_said_is_missing_and_all_else_is_fetched(e: Engine):
    alice, bob, root = await e.bus("operator/alice"), await e.bus("operator/bob"), await e.bus("root")
    said, own = alice.emit(Draft("user/f", {"n": 1}, version=1)), bob.emit(Draft("user/g", {"n": 1}, version=1))
    await said.acknowledged()
    await own.acknowledged()
    if Ability.FETCH not in bob.can.abilities:
        return
    assert [one.id for one in await bob.fetch([said.id, own.id])] == [said.id, own.id]
    async with reading(bob, "trust/revoked/") as got:
        key = said.signed.key_id.hex()
        await root.publish(Draft(f"trust/revoked/{key}/root", {"by": "root", "reason": "stolen"}))
        await got.until(lambda g: g.arrived)
    assert [one.id for one in await bob.fetch([said.id, own.id])] == [own.id]


@contract
async def test_a_blob_of_many_chunks_comes_back_as_it_was(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if not await keeps_blobs(alice):
        return
    content = os.urandom(1_500_000)
    digest = hashlib.sha256(content).digest()
    await alice.put_blob(chunks(content), digest)
    assert await got_blob(bob, digest) == content
    await e.interrupt()
    await e.resume()
    assert await got_blob(bob, digest) == content


@contract
async def test_a_blob_is_put_and_given_over_connections_that_are_lost_meanwhile(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if not await keeps_blobs(alice):
        return
    content = os.urandom(3_000_000)
    digest, got = hashlib.sha256(content).digest(), bytearray()

    async def lost_in_the_middle():
        async for chunk in chunks(content, 1_200_000):
            yield chunk
            await e.interrupt()
            await e.resume()

    await alice.put_blob(lost_in_the_middle(), digest)
    async for piece in bob.get_blob(digest):
        if not got:
            await e.interrupt()
            await e.resume()
        got += piece
    assert bytes(got) == content


@contract
async def test_a_blob_that_is_there_is_not_sent_again(e: Engine):
    alice = await e.bus("operator/alice")
    if not await keeps_blobs(alice):
        return
    digest = hashlib.sha256(b"abc").digest()
    await alice.put_blob(chunks(b"abc"), digest)
    asked = []

    async def never():
        asked.append(1)
        yield b""

    await alice.put_blob(never(), digest)
    assert not asked


@contract
async def test_a_blob_with_another_hash_is_refused_and_an_unknown_one_is_not_found(e: Engine):
    alice = await e.bus("operator/alice")
    if not await keeps_blobs(alice):
        return
    digest = hashlib.sha256(b"right").digest()
    with pytest.raises(FailedError) as refused:
        await alice.put_blob(chunks(b"wrong"), digest)
    assert refused.value.code == "depot.mismatch"
    with pytest.raises(NotFoundError):
        await got_blob(alice, digest)
    await alice.put_blob(chunks(b"right"), digest)
    assert await got_blob(alice, digest) == b"right"


@contract
async def test_a_history_is_given_with_a_signed_head_or_refused(e: Engine):
    alice = await e.bus("operator/alice")
    ack = await alice.publish(Draft("user/t", {"n": 1}))
    if Ability.EXPORT not in alice.can.abilities:
        for asked in (alice.head(), alice.history(0)):
            with pytest.raises(RefusedError, match="cannot prove its history") as refused:
                await asked
            assert refused.value.code == "bus.unable"
        return
    head = await alice.head()
    assert head.event.source == alice.broker
    page = await alice.history(ack.cursor.row - 1)
    assert page.store == ack.cursor.store
    assert page.rows[0][0] == ack.cursor.row
    assert (await alice.history(10**9)).rows == ()
