"""What a bridge copies back: the streams of a realm on NATS, into the stores of brokers that have not started yet.

Rule 1: all stores are filled, each with all that the streams hold (`bus.broker.founding`): so each broker finds what the
    gate of its name has said of sessions (F1), and each is whole at its start (A4).
Rule 2: while the realm is up the bridge reads as any reader does, with the operator's certificate. The rest is read when the
    servers let nobody in but the bridge, so that nothing more can come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from dsmt.bus.broker.founding import Founding
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.link import NatsLink, any_server
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.past import NatsPast, PastPage
from dsmt.bus.rules.proofs import proof
from dsmt.bus.store.blobs import named_in
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError, RefusedError, TransportError
from dsmt.logs import Logger
from dsmt.programs.birth import open_store
from dsmt.programs.configuration import IDENTITY, CopiedFile, GateFile, RealmConfig, brokers_in, read_identity
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

LOOK_S: Final = 0.2


@contextmanager
def founded(directory: Path, realm: RealmConfig) -> Iterator[list[Founding]]:
    """The stores of a move's brokers, open to be filled. Raises `FailedError` where somebody else fills them."""
    clock = LinuxClock()
    with ExitStack() as opened:
        found = []
        for one in brokers_in(directory / "brokers"):
            store = open_store(one, synced=True)  # it keeps its id, whatever becomes of the machine
            opened.callback(store.close)
            identity = read_identity(directory.parent / "brokers" / one.name / IDENTITY)
            trust = TrustStore(realm.realm)
            found.append(Founding(identity, trust, store, __version__, now_ms=clock.wall_ms, now=clock.boottime))
        yield found


def servers_of(realm: RealmConfig) -> NatsRealm:
    """The servers that carry the realm. Raises `RefusedError` where none do."""
    if realm.nats is None:
        raise RefusedError("bridge.none", f"realm {realm.name} is on no NATS servers that could be read")
    return NatsRealm.of((address for address, _ in realm.brokers), realm.nats)


@asynccontextmanager
async def returning(directory: Path) -> AsyncIterator[Returning]:
    """Copying while the realm is up. Raises `DsmtError`."""
    home = directory.parent
    realm, operator = RealmConfig.read(home), read_identity(home / "operator" / IDENTITY)
    bus = NatsBus(
        identity=operator,
        trust=TrustStore(realm.realm),
        realm=servers_of(realm),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        reads=True,
    )
    async with _over(await bus.connect(), directory, realm) as found:
        yield found


@asynccontextmanager
async def _over(link: NatsLink, directory: Path, realm: RealmConfig) -> AsyncIterator[Returning]:
    try:
        with founded(directory, realm) as foundings:
            trust, log = TrustStore(realm.realm), Logger(bridge=realm.name)
            past = NatsPast(link, NatsOpener(trust, Subjects(realm.name), LinuxClock().boottime), log)
            found = Returning(past, foundings, trust, log)
            await found.begin()
            try:
                yield found
            finally:
                await past.end()
    finally:
        await link.close()


async def drain(directory: Path, brokers: Path, tell: Callable[[int], object]) -> None:
    """Copy all that is left on servers that let nobody else in. `tell` hears how many rows that are. Raises `DsmtError`."""
    realm = RealmConfig.read(directory.parent)
    keys, servers = GateFile.read(brokers_in(brokers)[0]), servers_of(realm)
    link = await any_server(servers.servers, 0, servers, key=SecretKey(keys.bridge), name="bridge")
    async with _over(link, directory, realm) as found:
        await found.rest(tell)


class Returning:
    """Copying into some stores over one link. `trust` is that of who reads."""

    def __init__(self, past: NatsPast, foundings: Sequence[Founding], trust: TrustStore, log: Logger) -> None:
        self._past, self._foundings, self._trust, self._log = past, foundings, trust, log
        self._named: dict[bytes, None] = {}
        self._stream = ""
        self._level = False
        self.idle = False
        """Whether nothing had come since the last look."""

    async def begin(self) -> None:
        """Go on where all stores are. Raises `RefusedError` for other streams than those of which a part was copied."""
        self._stream = (await self._past.head()).store
        places = [one.place for one in self._foundings]
        if any(stream not in ("", self._stream) for stream, _ in places):
            said = "the servers have other streams than those of which a part was copied"
            raise RefusedError("bridge.store", said, next="dsmt bus migrate --abort, then begin again")
        ended = [{row.topic: row for row in one.revocations} for one in self._foundings]
        for topic in set.intersection(*map(set, ended)):  # what only some have is read again, with what was before it
            self._trust.revoke(ended[0][topic].read())
        await self._past.begin(min(row for _, row in places))

    async def step(self) -> CopiedFile:
        """Copy a page; how far that is. Raises `DsmtError`."""
        page = await self._past.page(LOOK_S)
        self._take(page)
        self.idle = not page.left
        if self.idle:
            named, self._named = list(self._named), {}
            await self._put(named)
            self._level = True
        return CopiedFile(row=page.upto, head=page.upto + page.left, level=self._level)

    async def rest(self, tell: Callable[[int], object]) -> None:
        """Copy all that there is, and every blob: the stores are whole."""
        async for page in self._past.rest():
            self._take(page)
            tell(page.left)
        await self._put([*self._named, *await self._past.blobs()])
        self._meet()
        ends = [(one.identity.key.public, one.end) for one in self._foundings]
        for founding in self._foundings:
            founding.complete((public, end) for public, end in ends if public != founding.identity.key.public)

    # --- events --------------------------------------------------------------------------------------------------

    def _take(self, page: PastPage) -> None:
        for founding in self._foundings:
            if page.events:
                founding.begin(page.events[0].stored_ms)
                founding.take(page.events, partial(proof, self._trust))
            founding.reached(self._stream, page.upto)
        for one in page.events:
            self._named.update(dict.fromkeys(named_in(one.signed)))

    def _meet(self) -> None:
        """Have each store hold what the others begin with: last, for it was said when the first of them was made."""
        for founding in self._foundings:
            for other in self._foundings:
                if other is not founding:
                    other.take(founding.begun, founding.proof)

    # --- blobs ---------------------------------------------------------------------------------------------------

    async def _put(self, digests: Sequence[bytes]) -> None:
        """Put blobs into the first store; the other brokers fetch what they need (E6)."""
        first = self._foundings[0]
        for digest in dict.fromkeys(digests):
            if not first.wants(digest):
                continue
            count, seen, whole = 0, sha256(), False
            try:
                async for piece in self._past.blob(digest):
                    first.put(digest, count, piece)
                    seen.update(piece)
                    count += 1
                whole = seen.digest() == digest
            except TransportError:
                raise
            except DsmtError as error:
                self._log.warning("a blob was not copied", digest=digest.hex(), reason=str(error))
            finally:
                first.ended(digest, count if whole else None)
