"""The bus within one process, beyond the contract: what of its log stays, what is early, and that operations stand on it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dsmt.bus.memory.bus import MemoryBus
from dsmt.bus.memory.realm import MemoryRealm
from dsmt.operations.read.realm.sight import look
from dsmt.operations.write.publishing import publish
from dsmt.ports.bus import Bookmark, Draft, Interest, Start
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm
from tests.bus.realm import Facts, Pen, TestClock, reading
from tests.waiting import until

ROOT = SecretKey(os.urandom(32))


def identity(name: str):
    return root_issued(name, ROOT, key=SecretKey(os.urandom(32)), now_s=int(time.time()), serial=os.urandom(16))


def small(limit: int = 100_000, clock: TestClock | None = None) -> MemoryRealm:
    return MemoryRealm(Realm(name="test", roots=(ROOT.public,)), clock or TestClock(), limit=limit)


@asynccontextmanager
async def running(realm: MemoryRealm, *names: str) -> AsyncIterator[list[MemoryBus]]:
    buses = [MemoryBus(identity(name), realm) for name in names]
    tasks = [asyncio.create_task(bus.run()) for bus in buses]
    try:
        async with asyncio.timeout(20):
            for bus in buses:
                await bus.wait_attached()
            yield buses
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def test_of_the_log_the_newest_and_the_retained_facts_stay() -> None:
    async def within() -> None:
        realm = small(limit=100)
        async with running(realm, "operator/alice", "operator/bob") as (alice, bob):
            await Facts(alice).publish("user/keep", {"n": 0}, version=1)
            for n in range(1000):
                await alice.publish(Draft("user/t", {"n": n}))
                assert len(realm.rows(0)) <= 101
            async with reading(bob, "user/", start=Start.HISTORY) as got:
                assert got.types() == ["trimmed"]
                assert got.of("user/keep") == [{"n": 0}]
                assert 50 <= len(got.of("user/t")) <= 100
                assert got.of("user/t")[-1] == {"n": 999}

    asyncio.run(within())


def test_what_is_trimmed_under_a_reader_that_does_not_read_is_told_where_it_was() -> None:
    async def within() -> None:
        realm = small()
        async with running(realm, "operator/alice", "operator/bob") as (alice, bob):
            async with bob.subscribe(Interest(("user/",), start=Start.LIVE)) as slow:
                await alice.publish(Draft("user/t", {"n": 0}))
                first = await anext(slow)
                for n in range(1, 5):
                    await alice.publish(Draft("user/t", {"n": n}))
                realm.trim(keep=1)
                found = [*first, *await anext(slow)]
            told = [one.type.split(".")[-1] if hasattr(one, "type") else type(one).__name__ for one in found]
            assert told == ["Arrived", "Complete", "gap", "trimmed", "Arrived"]

    asyncio.run(within())


def test_who_asks_for_bookmarks_has_one_of_where_it_stands_though_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.bus.memory.subscription.BOOKMARK_S", 0.0)

    async def within() -> None:
        async with running(realm := small(), "operator/bob") as (bob,):
            async with bob.subscribe(Interest(("user/",), start=Start.LIVE, bookmarks=True)) as quiet:
                await anext(quiet)
                (mark,) = await anext(quiet)
            assert isinstance(mark, Bookmark)
            assert (mark.cursor.store, mark.cursor.row, mark.token) == (realm.store, realm.head, None)

    asyncio.run(within())


def test_a_fact_that_is_ahead_of_realm_time_is_offered_again_until_it_is_in_time() -> None:
    async def within() -> None:
        clock = TestClock(offset_s=-60.0)
        realm, eve = small(clock=clock), identity("operator/eve")
        async with running(realm, "operator/bob") as (bob,):
            bob.introduce([signed.raw for signed in eve.chain])
            bob.offer([Pen(eve).write("user/f", {"n": 1}, version=1)])
            assert bob.early_s > 0
            clock.offset_s = 0.0
            async with reading(bob, "user/") as got:
                await bob.publish(Draft("user/end", {}, version=1))
                await got.until(lambda g: g.of("user/f"))
                await until(lambda: bob.early_s == 0.0)

    asyncio.run(within())


def test_operations_stand_on_it() -> None:
    async def within() -> None:
        async with running(small(), "operator/alice") as (alice,):
            done = await publish(alice, "user/colour", '{"value": "red"}')
            assert (done.topic, done.level) == ("user/colour", "held")
            sight = await look(alice)
            assert (sight.broker, sight.whole) == ("memory", True)

    asyncio.run(within())
