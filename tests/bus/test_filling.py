"""The depots of several brokers: each has what specs name, whoever was given it (rule E6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import filling
from dsmt.bus.broker.others.filling import Filling
from dsmt.bus.client.client import BusClient
from dsmt.errors import FailedError, NotFoundError
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from tests.bus.meshes import at, mesh
from tests.bus.realm import Facts, TestRealm, reading, scenario
from tests.waiting import until

CONTENT = bytes(range(256)) * 3000
DIGEST = sha256(CONTENT).digest()
OLD = b"what was before"


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def put(bus: BusClient, content: bytes) -> str:
    """Put a blob into the depot of the broker that a client is attached to; its sha256."""
    digest = sha256(content).digest()
    await asyncio.wait_for(bus.put_blob(pieces(content), digest), 10)
    return digest.hex()


async def got(bus: BusClient, digest: bytes = DIGEST) -> bytes:
    async with asyncio.timeout(20):
        return b"".join([chunk async for chunk in bus.get_blob(digest)])


def has(broker: Broker, content: bytes = CONTENT) -> bool:
    return broker._depot.has(sha256(content).digest())


def spec(sha256: str) -> dict[str, Any]:
    return {"spec": {"artifact": {"sha256": sha256}}, "by": "a", "reason": ""}


async def applied(r: TestRealm, broker: Broker, content: bytes = CONTENT) -> BusClient:
    """An operator who has put a blob at a broker and said a spec that names it."""
    operator = await r.client("operator/a", brokers=at(broker))
    await Facts(operator).publish("service/web/spec", spec(await put(operator, content)))
    return operator


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(filling, "LOOK_S", 0.2)


@scenario
async def test_what_one_broker_was_given_the_others_have_when_it_is_dead(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await applied(r, b1)
    await until(lambda: has(b2) and has(b3))
    await r.stop(b1)
    for broker in (b2, b3):
        assert await got(await r.client("operator/b", brokers=at(broker), reads=True)) == CONTENT


def rot(broker: Broker, digest: bytes = DIGEST) -> None:
    """The disk gives other bytes of a blob than it was given."""
    broker._store._db.do("UPDATE chunks SET chunk = ? WHERE digest = ? AND number = 1", (b"rotten", digest))


@scenario
async def test_what_a_disk_has_spoilt_is_noticed_when_it_is_fetched_and_brought_by_another(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await applied(r, b1)
    await until(lambda: has(b2))
    rot(b2)
    agent = await r.client("operator/b", brokers=at(b2), reads=True)
    with pytest.raises(FailedError, match="arrived with another sha256"):
        await got(agent)
    await until(lambda: not has(b2))
    assert await got(agent) == CONTENT


@scenario
async def test_what_the_disk_of_the_only_broker_has_spoilt_is_there_again_when_it_is_put_again(r: TestRealm) -> None:
    (b1,) = await mesh(r, "b1")
    operator = await applied(r, b1)
    rot(b1)
    async with reading(operator, "broker/b1/notice") as told:
        with pytest.raises(FailedError, match="arrived with another sha256"):
            await got(operator)
        await told.until(lambda g: any("is not what was put" in one["message"] for one in g.of("broker/b1/notice")))
    with pytest.raises(NotFoundError):
        await got(operator)
    await until(lambda: not b1._depot.is_removing(DIGEST))
    await put(operator, CONTENT)
    assert await got(operator) == CONTENT


@scenario
async def test_who_asks_for_it_before_it_is_there_waits_for_it(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    agent = await r.client("operator/b", brokers=at(b2), reads=True)
    await applied(r, b1)
    await until(lambda: b2._store.winner("service/web/spec") is not None)
    assert await got(agent) == CONTENT


@scenario
async def test_who_asks_beyond_the_bound_is_answered_by_what_is_here(r: TestRealm) -> None:
    _, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b2._others.readings.readers)
    answered: list[int] = []
    for n in range(filling.MOST_WAITING + 2):
        b2._others.filling.wait(DIGEST, lambda n=n: answered.append(n))
    assert answered == [filling.MOST_WAITING, filling.MOST_WAITING + 1]
    await until(lambda: len(answered) == filling.MOST_WAITING + 2)


@scenario
async def test_what_nobody_has_is_told_at_once_and_a_broker_never_waits(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    await Facts(operator).publish("service/web/spec", spec(DIGEST.hex()))
    for broker in (b1, b2):
        with pytest.raises(NotFoundError):
            await got(await r.client("operator/b", brokers=at(broker), reads=True))
    await put(operator, CONTENT)
    assert await got(await r.client("operator/b", brokers=at(b2), reads=True)) == CONTENT


@scenario
async def test_a_broker_with_a_new_disk_gets_it_back_and_what_slots_go_back_to(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    facts, others = Facts(operator), at(b1) + at(b2)
    before = await facts.publish("service/web/spec", spec(await put(operator, OLD)))
    controller = await r.client("controller/c1", brokers=at(b1))
    slot = Slot(node="n1", spec=str(before.id), revision=1, desired="running")
    await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
    await facts.publish("service/web/spec", spec(await put(operator, CONTENT)))
    identity, address = r.identities[b2], b2.address
    await r.stop(b2)
    b2._store.close()
    again = await r.broker("b2", identity=identity, address=address, others=others, store=str(r.directory / "new.db"))
    await until(lambda: has(again) and has(again, OLD))


@scenario
async def test_what_has_another_sha256_is_taken_from_somebody_else(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await applied(r, b1)
    await until(lambda: has(b2) and has(b3))
    for broker in (b1, b2):
        broker._store._db.do("UPDATE chunks SET chunk = zeroblob(length(chunk)) WHERE number = 1")
    b3._store.blobs.forget(DIGEST)
    await r.stop(b2)
    assert b1._depot.has(DIGEST)
    reader = await r.client("operator/b", brokers=at(b3), reads=True)
    with pytest.raises(NotFoundError):
        await got(reader)
    assert not [blob for blob in b3._store.blobs.all() if blob.digest == DIGEST]
    b1._store._db.do("DELETE FROM blobs")
    b1._store._db.do("DELETE FROM chunks")
    operator = await r.client("operator/c", brokers=at(b1))
    await put(operator, CONTENT)
    assert await got(reader) == CONTENT


@scenario
async def test_where_there_is_no_room_the_rest_goes_on(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    b2._depot._limit = 1000
    operator = await applied(r, b1)
    await Facts(operator).publish("service/db/spec", spec(await put(operator, OLD)))
    await until(lambda: has(b2, OLD))
    assert not has(b2)
    assert sum(blob.size for blob in b2._store.blobs.all()) <= 1000


@scenario
async def test_what_an_operator_is_putting_is_left_alone(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    b2._store.blobs.put_chunk(DIGEST, 0, b"begun", payer="operator/c", now_ms=b2.now_ms())
    await applied(r, b1)
    await Facts(await r.client("operator/d", brokers=at(b1))).publish("service/db/spec", spec("none"))
    await until(lambda: b2._store.winner("service/db/spec") is not None)
    with pytest.raises(NotFoundError):
        await got(await r.client("operator/b", brokers=at(b2), reads=True))
    assert b2._store.blobs.so_far(DIGEST, 0) == b"begun"


def test_who_waits_for_one_blob_is_not_answered_when_another_is_here() -> None:
    answered: list[str] = []
    depot, reader, unused = SimpleNamespace(has=lambda _: False), cast("Any", object()), cast("Any", None)
    filling = Filling(cast("Any", depot), lambda: [reader], unused, unused)
    for name in ("a", "b"):
        filling.wait(name.encode(), partial(answered.append, name))
    filling._answer({b"a"})
    assert answered == ["a"]
    filling._answer({b"b"})
    assert answered == ["a", "b"]
