"""Blobs that come back from NATS into a broker's store: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from hashlib import sha256
from types import SimpleNamespace

import pytest

from dsmt.bus.broker.founding import Founding
from dsmt.bus.nats.past import PastPage
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import FailedError, TransportError
from dsmt.logs import Logger
from dsmt.programs.returning import Returning
from tests.bus.realm import TestClock, TestRealm, scenario

RIGHT, OTHER, CUT = (os.urandom(300_000) for _ in range(3))
DIGESTS = [sha256(one).digest() for one in (RIGHT, OTHER, CUT)]


class Streams:
    """Streams that hold no event, and three blobs: the second has other bytes, and of the third only a piece comes."""

    lost = False

    async def head(self) -> SimpleNamespace:
        return SimpleNamespace(store="H-test.1")

    async def begin(self, place: int) -> None:
        del place

    async def rest(self) -> AsyncIterator[PastPage]:
        yield PastPage([], 0, 0)

    async def blobs(self) -> list[bytes]:
        return DIGESTS

    async def blob(self, digest: bytes) -> AsyncIterator[bytes]:
        said = [RIGHT, bytes(len(OTHER)), CUT][DIGESTS.index(digest)]
        yield said[: 256 * 1024]
        if digest == DIGESTS[2]:
            raise TransportError("link.lost", "the server died") if self.lost else FailedError("blob.gone", "it is gone")
        yield said[256 * 1024 :]


@scenario
async def test_a_blob_that_is_not_whole_or_is_another_one_is_not_held_and_keeps_no_room(made: TestRealm) -> None:
    clock, trust, streams = TestClock(), made.trust(), Streams()
    store = SqliteStore(str(made.directory / "b1.db"), identity="s", synced=True)
    founding = Founding(made.identity("broker/b1"), trust, store, "test", now_ms=clock.wall_ms, now=clock.boottime)
    returning = Returning(streams, [founding], trust, Logger(bridge="test"))
    await returning.begin()
    for streams.lost in (False, True):
        if streams.lost:
            with pytest.raises(TransportError):
                await returning.rest(lambda _: None)
        else:
            await returning.rest(lambda _: None)
        assert [(one.digest, one.whole) for one in store.blobs.all()] == [(DIGESTS[0], True)]
        assert store.blobs.chunk(DIGESTS[0], 1) == RIGHT[256 * 1024 :]
        assert store.blobs.orphans() == []
        assert [founding.wants(one) for one in DIGESTS] == [False, True, True]
        founding.ended(DIGESTS[2], None)
    store.close()
