"""A depot is filled whatever one of the others gives, and whatever operators put meanwhile (rule E6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dsmt.bus.broker.others import filling
from dsmt.bus.wire import frames as f
from dsmt.errors import NotFoundError
from dsmt.ports.store import StoreFullError
from tests.bus.meshes import at, mesh
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_filling import CONTENT, DIGEST, OLD, applied, got, has, put, spec
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "LOOK_S", 0.2)


async def small(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


@scenario
async def test_after_one_that_lies_an_honest_one_is_asked_however_much_that_gave(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    operator = await r.client("operator/a", brokers=at(b1))
    await operator.put_blob(small(CONTENT), DIGEST)
    await Facts(operator).publish("service/web/spec", spec(DIGEST.hex()))
    await until(lambda: has(b2) and has(b3))
    liar, last = b3._others.readings.readers[0].broker, len(CONTENT) // 1000 - 1
    (one,) = [broker for broker in (b1, b2) if broker._identity.name == liar]
    one._store._db.do(f"UPDATE chunks SET chunk = zeroblob(length(chunk)) WHERE number = {last}")
    b3._depot._remove(DIGEST)
    await until(lambda: has(b3), 10)


@scenario
async def test_who_gives_nothing_without_end_is_passed_over(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    real, given = b1._depot.asked, []

    def asked(frame: Any) -> Any:
        if frame.digest != bytes(32):
            return real(frame)
        given.append(frame)
        return (f.BlobIs(id=frame.id, size=10), ()) if isinstance(frame, f.BlobAsked) else (f.Chunk(id=frame.id), (b"",))

    b1._depot.asked = asked  # type: ignore[method-assign]
    operator = await r.client("operator/a", brokers=at(b1))
    facts, sha = Facts(operator), await put(operator, OLD)
    await facts.publish("service/a/spec", spec("00" * 32))
    await until(lambda: given)
    await facts.publish("service/b/spec", spec(sha))
    await until(lambda: has(b2, OLD), 10)
    assert b2._store.blobs.get(bytes(32)) is None


@scenario
async def test_who_gives_a_little_without_end_is_passed_over_and_asked_behind_the_others(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    asked: list[bytes] = []

    async def a_little(digest: bytes) -> AsyncIterator[bytes]:
        asked.append(digest)
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    b3._others.readings.readers[0].get_blob = a_little  # type: ignore[method-assign]
    honest = next(one for one in (b1, b2) if one._identity.name == b3._others.readings.readers[1].broker)
    operator = await r.client("operator/a", brokers=at(honest))
    facts = Facts(operator)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(filling, "PATIENCE_S", 0.5)
        for content in (CONTENT, OLD):
            await facts.publish("service/web/spec", spec(await put(operator, content)))
            await until(lambda content=content: has(b3, content), 10)  # type: ignore[misc]
    assert asked == [DIGEST]


@scenario
async def test_what_is_fetched_nobody_else_writes_meanwhile(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    (bus,) = b2._others.readings.readers
    real, reached, go_on = bus.get_blob, asyncio.Event(), asyncio.Event()

    async def get_blob(digest: bytes) -> AsyncIterator[bytes]:
        async for chunk in real(digest):
            yield chunk
            reached.set()
            await go_on.wait()

    bus.get_blob = get_blob  # type: ignore[method-assign]
    await applied(r, b1)
    await asyncio.wait_for(reached.wait(), 10)
    raw = await r.raw("operator/evil")
    assert r.brokers[-1].address == b2.address
    raw.send(f.ChunkPut(id=1, digest=DIGEST, number=0), b"something else")
    raw.send(f.BlobFinished(id=2, digest=DIGEST, chunks=1))
    assert [(await raw.next(f.BlobIs))[0].ok for _ in range(2)] == [False, False]
    go_on.set()
    await until(lambda: has(b2))
    assert await got(await r.client("operator/b", brokers=at(b2), reads=True)) == CONTENT


@scenario
async def test_a_full_disk_does_not_end_a_broker_that_fills_its_depot(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    blobs, tried = b2._depot._blobs, []

    class Full:
        def __getattr__(self, name: str) -> Any:
            return self.full if name in ("put_chunk", "forget", "keep") else getattr(blobs, name)

        def full(self, *_: Any, **__: Any) -> None:
            tried.append(_)
            blobs.put_chunk(DIGEST, 0, b"begun", payer="broker/b1", now_ms=b2.now_ms())
            raise StoreFullError("store.full", "the disk is full", next="make room")

    b2._depot._blobs = Full()  # type: ignore[assignment]
    await applied(r, b1)
    await until(lambda: len(tried) > 1 or r.tasks[b2].done())
    with pytest.raises(NotFoundError):
        await got(await r.client("operator/b", brokers=at(b2), reads=True))
    assert not r.tasks[b2].done()
