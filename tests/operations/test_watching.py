"""Watching: what is known is what one store holds, whatever becomes of the broker's store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.operations.read.realm import sight
from dsmt.operations.read.realm.watching import watching
from dsmt.ports.bus import Bookmark, Cursor, Draft
from tests.bus.realm import TestRealm, memory_network, realm
from tests.bus.stored import copy_store

from .recorded import Recording
from .scripted import ScriptedBus, came, complete

FIRST, SECOND = "nodeset/first", "nodeset/second"
Lose = Callable[[TestRealm, Broker], Awaitable[Broker]]


def said(topic: str) -> Draft:
    return Draft(topic, {"expression": "all_nodes", "by": "alice", "reason": ""}, version=1)


async def another(r: TestRealm, broker: Broker) -> Broker:
    """Another store, which holds nothing."""
    store = SqliteStore(str(r.directory / "new.db"), identity=os.urandom(8).hex())
    return await r.restarted(broker, kept=store, born=False)


async def an_older_copy(r: TestRealm, broker: Broker) -> Broker:
    """The store as it was when the test began."""
    return await r.restarted(broker, store=str(r.directory / "older.db"), older="as nobody finds")


async def copied(r: TestRealm, broker: Broker) -> Broker:
    """The broker, after a copy of its closed store was put aside."""
    identity, address = r.identities[broker], broker.address
    await r.stop(broker)
    broker._store.close()
    copy_store(r.directory / "b1.db", r.directory / "older.db")
    return await r.broker(identity=identity, address=address)


@pytest.mark.parametrize("lose", [another, an_older_copy], ids=lambda one: one.__name__)
def test_what_was_seen_before_is_known_again_as_it_is_offered_to_a_store_that_lost_it(tmp_path: Path, lose: Lose) -> None:
    async def within(r: TestRealm) -> None:
        broker = await copied(r, await r.broker())
        alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
        emissions = [alice.emit(said(FIRST)), alice.emit(said(SECOND))]
        for emission in emissions:
            await emission.acknowledged()
        async with watching(bob) as watch:
            assert watch.view.winner(FIRST)
            assert watch.view.winner(SECOND)
            await lose(r, broker)
            await watch.until("a view that lost it", lambda: watch.complete and not watch.view.winner(SECOND), 10)
            alice.offer([one.signed for one in emissions])
            await watch.until("both again", lambda: watch.view.winner(FIRST) and watch.view.winner(SECOND), 10)

    async def main() -> None:
        async with asyncio.timeout(45), realm(memory_network(), tmp_path) as r:
            await within(r)

    asyncio.run(main())


def test_a_mark_behind_the_one_that_begins_a_view_anew_does_not_pass_it_off_as_complete() -> None:
    recording = Recording()
    recording.say("operator/alice", FIRST, dict(said(FIRST).data), version=1)
    behind: list[Any] = [Bookmark(Cursor("s", 0, 8), whole=True), Bookmark(Cursor("s", 0, 9), whole=True)]
    bus: Any = ScriptedBus(
        [[*came(*recording.events), complete(7)], behind],
        [[*came(*recording.events)], [complete(10)]],
        now_ms=10,
    )

    async def main() -> list[tuple[int, int]]:
        seen = []
        async for one in sight.watch(bus):
            seen.append((one.as_of_ms, len(one.view)))
            if one.as_of_ms == 10:
                break
        return seen

    assert asyncio.run(asyncio.wait_for(main(), 10)) == [(7, 1), (10, 1)]
