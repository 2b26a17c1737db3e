"""What a bridge copies: a broker's store, over the port while the realm is up, and from its file once no broker runs.

Rule 1: it is copied in the order of the store, from the place that the servers hold (`bus.nats.filler`).
Rule 2: who reads a file reads to its end: the broker has ended, so nothing more can come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.filler import NatsFiller, Taken
from dsmt.bus.rules.nats_config import way_of
from dsmt.bus.store.blobs import named_in
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import NotFoundError, RefusedError, UnusableEventError
from dsmt.event.burst import raws_of
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS
from dsmt.ports.blobs import Blob
from dsmt.ports.bus import BusReader, Complete, HistoryPage, Interest
from dsmt.ports.store import Row
from dsmt.programs.birth import open_store
from dsmt.programs.configuration import BrokerFile, CopiedFile, GateFile, RealmConfig, brokers_in
from dsmt.system.clock import LinuxClock
from dsmt.trust.certificate import read
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore

FEW: Final = 64
"""So many rows are worth no page of their own: more of them are waited for."""
PAGE: Final = 256


@asynccontextmanager
async def filler_of(directory: Path) -> AsyncIterator[NatsFiller]:
    """What fills the servers of a move. Raises `TransportError` while they are not there."""
    first = brokers_in(directory / "brokers")[0]
    told, keys = BrokerFile.read(first).realm, GateFile.read(first)
    nats = told.nats
    if nats is None or not keys.bridge:
        raise RefusedError("bridge.none", f"{directory} holds no servers that are to be filled")
    servers = replace(NatsRealm.of((at for at, _ in told.brokers), nats), way=way_of(keys.system))
    filler = await NatsFiller.connect(
        servers, told.name, key=SecretKey(keys.bridge), publisher=f"broker/{first.name}", wall_ms=LinuxClock().wall_ms
    )
    try:
        yield filler
    finally:
        await filler.close()


# --- while the realm is up ---------------------------------------------------------------------------------------------


class LiveCopy:
    """Copying from a broker that runs, for as long as both links last."""

    def __init__(self, bus: BusReader, filler: NatsFiller) -> None:
        self._bus, self._filler = bus, filler
        self._named: dict[bytes, None] = {}
        self._head = 0
        self._level = False
        self.idle = False
        """Whether nearly nothing had come since the last look."""

    async def begin(self) -> None:
        """See how much there is. Raises `TransportError`."""
        async with self._bus.subscribe(Interest((f"{BROKERS}+",), signals=False, follow=False)) as batches:
            async for batch in batches:
                self._head = max((one.cursor.row for one in batch if isinstance(one, Complete)), default=self._head)

    async def step(self) -> CopiedFile:
        """Copy a page; how far that is. Raises `DsmtError`."""
        page = await self._page()
        upto = max(end_of(page), self._filler.place(page.store))
        if upto > self._filler.place(page.store):
            rows = [Taken(row, raw) for row, _, raw in page.rows]
            for signed in await self._filler.take(page.store, rows, upto, self._proof):
                self._named.update(dict.fromkeys(named_in(signed)))
        self.idle = len(page.rows) < FEW
        if self.idle:
            await self._put_named()
            self._level = True
        return CopiedFile(row=upto, head=max(self._head, upto), level=self._level)

    async def _page(self) -> HistoryPage:
        page = await self._bus.history(max((self._filler.place(one) for one in self._filler.stores), default=0))
        if self._filler.stores:
            check_store(self._filler, page.store)
        return page

    def _proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        return self._bus.proof(signed)[::-1]

    async def _put_named(self) -> None:
        """Put what was named into the depot; what the broker has not is looked for again when its store is read."""
        for digest in self._named:
            with suppress(NotFoundError):
                await self._filler.put_blob(self._bus.get_blob(digest), digest)
        self._named.clear()


def check_store(filler: NatsFiller, store: str) -> None:
    """Raise `RefusedError` for another store than the one of which a part was copied: its rows are numbered anew."""
    if store not in filler.stores:
        said = "the broker has another store than the one of which a part was copied"
        raise RefusedError("bridge.store", said, next="dsmt bus migrate --abort, then begin again")


def end_of(page: HistoryPage) -> int:
    """The last row of a page: one that is there, or was trimmed, or is lost."""
    rows, trimmed = (row for row, _, _ in page.rows), (first + (1 << level) - 1 for first, level, _ in page.nodes)
    return max((*rows, *trimmed, *(last for _, last in page.lost)), default=0)


# --- when no broker runs any more --------------------------------------------------------------------------------------


async def drain(directory: Path, brokers: Path, tell: Callable[[int], object]) -> None:
    """Copy all that is left in the stores of brokers that have ended. `tell` hears how many rows that are.

    Raises `TransportError`, and `FailedError` for a store that runs, or is damaged.
    """
    realm = RealmConfig.read(directory.parent).realm
    async with filler_of(directory) as filler:
        with ExitStack() as opened:
            first: SqliteStore | None = None
            for one in brokers_in(brokers):
                store = open_store(one)
                opened.callback(store.close)
                if first is None and filler.stores:
                    check_store(filler, store.identity)
                await _Rest(store, filler, TrustStore(realm), first, tell).run()
                first = first or store


class _Rest:
    """What one store has that was not copied: behind its place and, where it is not the first, not in the first."""

    def __init__(
        self,
        store: SqliteStore,
        filler: NatsFiller,
        trust: TrustStore,
        first: SqliteStore | None,
        tell: Callable[[int], object],
    ) -> None:
        self._store, self._filler, self._trust, self._first, self._tell = store, filler, trust, first, tell
        trust.look_on(lambda key_id: [read(raw)[0] for raw in store.certificates.shelved(key_id)])
        with suppress(UnusableEventError):
            trust.add_all([raw for _, raw in store.certificates.all()])

    async def run(self) -> None:
        """Copy it."""
        name = self._store.identity
        while self._filler.place(name) < self._store.head:
            pieces = self._store.history(self._filler.place(name), PAGE)
            rows = [one for one in pieces if isinstance(one, Row) and not self._is_known(one)]
            taken = [Taken(one.row, raw) for one, raw in zip(rows, raws_of(one.sealed for one in rows), strict=True)]
            upto = max(one.row if isinstance(one, Row) else one.last for one in pieces)
            await self._filler.take(name, taken, upto, self._proof)
            self._tell(self._store.head - upto)
        for blob in self._store.blobs.all():
            if blob.whole:
                await self._filler.put_blob(self._chunks(blob), blob.digest)

    def _is_known(self, row: Row) -> bool:
        return self._first is not None and self._first.event(*row.read().id) is not None

    def _proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        return self._trust.proof(signed.key_id, signed.event.source)

    async def _chunks(self, blob: Blob) -> AsyncIterator[bytes]:
        number = 0
        while (chunk := self._store.blobs.chunk(blob.digest, number)) is not None:
            yield chunk
            number += 1
