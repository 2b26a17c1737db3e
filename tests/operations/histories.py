"""Histories for tests: what a small realm lived through, exported, and the verdict on what was made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import cbor2

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode, decode_part
from dsmt.event.rowtree import row_hash
from dsmt.operations.offline import proving
from dsmt.operations.offline.history import Item, export, packed, read
from dsmt.operations.offline.items import items
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.verifying import Verified
from dsmt.ports.bus import Draft
from dsmt.trust.keys import verify as verify_ed25519
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import TestRealm, memory_network, realm

DAY_MS = 24 * 3600 * 1000


class Run(NamedTuple):
    """A history, as its items; and who may be believed in its realm."""

    items: list[bytes]
    realm: Realm

    def trust(self) -> TrustStore:
        return TrustStore(self.realm, verify=_verify, decode=_parts)

    @property
    def rows(self) -> list[int]:
        """The places of the rows among the items."""
        return [place for place, item in enumerate(self.items) if item[1:3] == b"aR"]


_verify, _parts, decoded = (lru_cache(maxsize=4096)(one) for one in (verify_ed25519, decode_part, decode))
_item = lru_cache(maxsize=4096)(lambda raw: next(read(raw)))


@lru_cache(maxsize=4096)
def _is_one(raw: bytes) -> bool:
    """Whether these bytes are one item, and not the beginning of one, or more."""
    try:
        return list(items(raw)) == [raw]
    except UnusableEventError:
        return False


@lru_cache(maxsize=4096)
def numbered(item: bytes, number: int) -> bytes:
    """A row with another number; of each row three are asked for, time and again."""
    return packed("R", number, *cbor2.loads(item)[2:])


async def said(made: TestRealm, clients: list[BusClient], count: int) -> None:
    """Facts, signals, bursts and heartbeats of several sources; all acknowledged."""
    facts: dict[str, Any] = {}
    for number in range(count):
        client = clients[number % len(clients)]
        name = client.source.split("/")[1]
        emitted = [client.emit(Draft(f"user/{name}/{number % 7}", {"number": number}))]
        if number % 3 == 0:
            before = facts.get(name)
            fact = Draft(f"user/{name}/fact", {"number": number}, version=None if before else 1, replaces=before)
            emitted.append(client.emit(fact))
        for one in emitted:
            await one.acknowledged()
        facts |= {name: emitted[1].signed} if emitted[1:] else {}


@asynccontextmanager
async def lived(
    directory: Path, count: int, *, kept: SqliteStore | None = None
) -> AsyncIterator[tuple[TestRealm, Broker, BusClient]]:
    async with asyncio.timeout(60), realm(memory_network(), directory) as made:
        broker = await made.broker(kept=kept)
        clients = [await made.client(f"operator/{name}") for name in ("alice", "bob", "carol")]
        await said(made, clients, count)
        yield made, broker, await made.client("operator/reader")


async def exported(made: TestRealm, reader: BusClient, *patterns: str) -> Run:
    written: list[bytes] = []
    await export(reader, reader._trust, written.append, patterns)
    return Run(list(items(b"".join(written))), made.trust().realm)


def judged(run: Run, changed: list[bytes]) -> Verified:
    def known(raw: bytes, _tell: object) -> Iterator[Item]:
        """As `read` does, but an item that was read before, in another file, is known; so is where each that is one ends."""
        return map(_item, changed if all(map(_is_one, changed)) else items(raw))

    with patch.object(proving, "read", known):
        return verify(b"".join(changed), run.trust())


def trim(broker: Broker, now_ms: int) -> None:
    for at in (now_ms, now_ms + 3_700_000, now_ms + 3_700_001):
        while broker._store.trim(at):
            pass
    broker._reporter.trimmed()
    broker._commit()


def hidden(run: Run, at: int) -> list[bytes]:
    """Removed, and its hash put in its place, which the tree takes."""
    row, arrived_ms, raw = cbor2.loads(run.items[at])[1:]
    return [*run.items[:at], packed("N", row, 0, row_hash(row, arrived_ms, decoded(raw).leaf)), *run.items[at + 1 :]]
