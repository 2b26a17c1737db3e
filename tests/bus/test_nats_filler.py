"""Filling the streams of a realm that moves: each event stands there once, where its source would have put it."""

from __future__ import annotations

import asyncio
import os
import time
from types import SimpleNamespace
from typing import Any

import cbor2
import pytest

from dsmt.bus.nats import filler as filling
from dsmt.bus.nats.filler import NatsFiller, Taken
from dsmt.bus.nats.link import Publication
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, TransportError
from dsmt.ports.bus import Draft, Start
from dsmt.trust.keys import SecretKey
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import Pen, TestRealm, memory_network, reading
from tests.bus.saying import numbers

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


def now_ms() -> int:
    return int(time.time() * 1000)


async def filler_of(e: NatsEngine, wall_ms=now_ms) -> NatsFiller:
    key = SecretKey(os.urandom(32))
    return await NatsFiller.connect(e._realm, e._made.name, key=key, publisher="broker/b1", wall_ms=wall_ms)


def written(e: NatsEngine, name: str = "operator/alice"):
    """A source that is not attached, and the proof of what it writes."""
    identity = e._made.identity(name)
    e._identities[name] = identity
    raws = [one.raw for one in identity.chain][::-1]
    return Pen(identity), lambda _: raws


def taken(*events, first: int = 1) -> list[Taken]:
    return [Taken(first + n, one.raw) for n, one in enumerate(events)]


@on_nats
async def test_what_was_stored_is_read_in_order_and_its_source_goes_on_above_it(e: NatsEngine) -> None:
    alice, proof = written(e)
    said = [alice.write("user/t", {"n": n}) for n in range(40)]
    fact = alice.write("user/f", {"n": 1}, version=1, to=("operator/carol",))
    filler = await filler_of(e)
    await filler.take("s1", taken(*said, fact), 41, proof)
    await filler.close()
    bob, carol = await e.bus("operator/bob"), await e.bus("operator/carol")
    async with reading(bob, "user/", start=Start.HISTORY) as got, reading(carol, "user/none", inbox=True) as mail:
        again = await e.bus("operator/alice")
        await again.publish(Draft("user/t", {"n": 40}))
        await got.until(lambda g: len(numbers(g)) == 41)
        assert numbers(got) == list(range(41))
        assert got.types() == []
        assert [one.signed.raw for one in got.arrived[:41]] == [one.raw for one in (*said, fact)]
        assert got.arrived[-1].signed.event.incarnation > said[0].event.incarnation
        await mail.until(lambda g: numbers(g, "user/f") == [1])


@on_nats
async def test_a_filler_that_ends_is_followed_by_one_that_goes_on_at_its_place(e: NatsEngine) -> None:
    alice, proof = written(e)
    said = [alice.write("user/t", {"n": n}) for n in range(10)]
    filler = await filler_of(e)
    await filler.take("s1", taken(*said[:4]), 4, proof)
    await filler.close()
    after = await filler_of(e)
    assert (after.place("s1"), after.place("s2")) == (4, 0)
    await after.take("s1", taken(*said[4:], first=5), 12, proof)
    assert after.place("s1") == 12
    async with reading(await e.bus("operator/bob"), "user/", start=Start.HISTORY, follow=False) as got:
        await got.complete()
        assert numbers(got) == list(range(10))
    await after.close()


@on_nats
async def test_of_two_fillers_only_one_gets_on(e: NatsEngine) -> None:
    alice, proof = written(e)
    said = [alice.write("user/t", {"n": n}) for n in range(2)]
    one, other = await filler_of(e), await filler_of(e)
    await one.take("s1", taken(*said), 2, proof)
    with pytest.raises(FailedError, match="another bridge fills these servers"):
        await other.take("s1", taken(*said), 2, proof)
    async with reading(await e.bus("operator/bob"), "user/", start=Start.HISTORY, follow=False) as got:
        await got.complete()
        assert numbers(got) == [0, 1]
    await one.close()
    await other.close()


@pytest.mark.parametrize("again", [False, True], ids=["in one go", "by another filler"])
def test_a_fact_that_came_late_to_a_store_hides_none_that_is_newer(tmp_path, again: bool) -> None:
    async def within(e: NatsEngine) -> None:
        alice, proof = written(e)
        old, new = (alice.write("user/f", {"n": n}, version=n) for n in (1, 2))
        filler = await filler_of(e)
        await filler.take("s1", taken(new), 1, proof)
        if again:
            await filler.close()
            filler = await filler_of(e)
        await filler.take("s1", taken(old, first=2), 2, proof)
        await filler.close()
        async with reading(await e.bus("operator/bob"), "user/", follow=False) as got:
            await got.complete()
            assert numbers(got, "user/f") == [2]

    on_nats(within)(tmp_path)


@on_nats
async def test_more_than_a_batch_takes_is_all_there(e: NatsEngine) -> None:
    alice, proof = written(e)
    many = tuple(f"operator/o{n}" for n in range(700))
    said = [alice.write("user/t", {"n": 0}, to=many)]
    said += [alice.write("user/t", {"n": n, "x": "y" * 9000}) for n in range(1, 90)]
    filler = await filler_of(e)
    await filler.take("s1", taken(*said), 90, proof)
    await filler.close()
    subject = Subjects(e._made.name).copy("operator/alice", "operator/o699", "user/t", fact=False)
    async with reading(await e.bus("operator/bob"), "user/", start=Start.HISTORY, follow=False) as got:
        await got.complete()
        assert numbers(got) == list(range(90))
    assert subject in await subjects_of(e)


async def subjects_of(e: NatsEngine) -> set[str]:
    link = await e._servers.administrator()
    told = await link.api(f"STREAM.INFO.{e._subjects.history}", {"subjects_filter": ">"})
    await link.close()
    return set(told["state"]["subjects"])


def test_a_filler_that_ends_in_the_middle_has_kept_how_far_it_was(tmp_path, monkeypatch) -> None:
    """What it had published stands there once: who goes on begins behind it."""
    monkeypatch.setattr(filling, "BATCH", 3)
    published: list[tuple[Publication, ...]] = []

    async def publish(*entries: Publication) -> dict[str, int]:
        if len(published) == 2:
            raise TransportError("link.lost", "the server has gone")
        published.append(entries)
        return {"seq": len(published)}

    alice = Pen(TestRealm(memory_network(), tmp_path).identity("operator/alice"))
    link: Any = SimpleNamespace(publish=publish)
    filler = NatsFiller(link, "test", "broker/b1", now_ms)

    async def within() -> None:
        with pytest.raises(TransportError):
            await filler.take("s1", taken(*(alice.write("user/t", {"n": n}) for n in range(8))), 8, lambda _: ())

    asyncio.run(within())
    stored = sum(len(entries) - 1 for entries in published)
    assert [cbor2.loads(entries[-1].payload) for entries in published][-1] == {"s1": filler.place("s1")}
    assert filler.place("s1") == stored > 0
