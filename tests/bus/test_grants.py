"""What a client may ask of a broker is bounded by its certificate; a blob that is whole stays whole."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from dsmt.bus.rules.presence import RENEW_AFTER, Presence
from dsmt.bus.wire import frames
from dsmt.errors import DsmtError
from dsmt.ports.bus import Draft
from tests.bus.attached import attached
from tests.bus.realm import memory_network, realm
from tests.loops import in_real_time


async def pieces(*chunks: bytes):
    for chunk in chunks:
        yield chunk


@in_real_time
async def test_an_agent_cannot_fetch_by_id_what_it_may_not_read(tmp_path):
    async with realm(memory_network(), tmp_path) as made:
        await made.broker()
        operator = await made.client("operator/alice")
        agent = await made.client("agent/n1/evil/app/0")
        secret = operator.emit(Draft("user/secret", {"token": "x"}))
        own = operator.emit(Draft("user/for-it", {}, to=("agent/n1/evil/app/0",)))
        await asyncio.wait_for(own.acknowledged(), 10)
        found = await asyncio.wait_for(agent.fetch([secret.id, own.id]), 10)
        assert [signed.id for signed in found] == [own.id]


@in_real_time
async def test_only_an_operator_puts_blobs_and_a_whole_blob_stays_as_it_is(tmp_path):
    async with realm(memory_network(), tmp_path) as made:
        broker = await made.broker()
        operator = await made.client("operator/alice")
        digest = sha256(b"onetwo").digest()
        await asyncio.wait_for(operator.put_blob(pieces(b"one", b"two"), digest), 10)
        agent = await made.client("agent/n1/evil/app/0")
        with pytest.raises(DsmtError):
            await asyncio.wait_for(agent.put_blob(pieces(b"x"), sha256(b"x").digest()), 10)
        answers: list[frames.BlobIs] = []
        for frame, parts in (
            (frames.BlobFinished(id=1, digest=digest, chunks=0), ()),
            (frames.ChunkPut(id=2, digest=digest, number=0), (b"bad",)),
        ):
            broker._depot.put(frame, parts, "operator/alice", answers.append)
        assert [answer.ok for answer in answers] == [True, True]
        assert b"".join([c async for c in operator.get_blob(digest)]) == b"onetwo"


def test_an_attachment_is_said_again_before_its_fact_dies():
    presence = Presence(0.0)
    presence.opened(attached("node/n1"), 0.0, 0)
    said = []
    now = 0.0
    while now < 2 * RENEW_AFTER + 60:
        now += 1.0
        presence.heard("node/n1", now, int(now * 1000))
        said += [(now, record.state) for _, record in presence.tick(now, int(now * 1000), 1.0)]
    assert [state for _, state in said] == ["open", "open"]
    assert said[0][0] <= RENEW_AFTER + 2
