"""A bus within one process: no broker, no socket, no disk; for tests, and for users' own tests. Fulfils `ports.bus.Bus`.

Rule 1: what is said is signed, and judged by the realm (`realm`), in the same turn. While the realm is cut, or before
    `run` has begun, it waits in the outbox.
Rule 2: all buses share one trust store: what was checked when it was said is not checked again by each reader.
Rule 3: what it cannot do stands in `CAN`. An acknowledgement promises `held`: the process is all there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Final

from dsmt.bus.memory.realm import MemoryRealm
from dsmt.bus.memory.subscription import MemorySubscription
from dsmt.bus.rules.authority import check_reads
from dsmt.bus.rules.early import CODES, PROBE_S, Early
from dsmt.bus.rules.emitting import Underway, pending_of
from dsmt.bus.rules.proofs import introduce, proof
from dsmt.bus.rules.signer import PendingEvent
from dsmt.bus.rules.unanswered import Unanswered
from dsmt.errors import DsmtError, FailedError, RefusedError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.blobs import not_in_depot
from dsmt.ports.bus import (
    Ability,
    Ack,
    Capabilities,
    Cursor,
    Draft,
    HistoryPage,
    Interest,
    Level,
    Reattached,
)
from dsmt.trust.grants import may
from dsmt.trust.identity import Identity
from dsmt.version import __version__

CAN: Final = Capabilities(Level.HELD, frozenset({Ability.HISTORY, Ability.MARKS, Ability.FETCH, Ability.BLOBS}))
BROKER: Final = "broker/memory"


class MemoryEmission(Underway):
    """An event on its way; fulfils `ports.bus.Emission`."""

    __slots__ = ("_realm",)

    def __init__(self, pending: PendingEvent, realm: MemoryRealm) -> None:
        super().__init__(pending)
        self._realm = realm

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """The realm has answered."""
        super().settle(ack, error)
        self._realm.wake()

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError`, `FailedError` (see the port)."""
        while not self.answered:
            await self._realm.changed.wait()
        return self.answer()


class MemoryBus:
    """One source's connection to a realm in memory."""

    def __init__(self, identity: Identity, realm: MemoryRealm) -> None:
        self.can, self.source, self.attachment, self.broker = CAN, identity.name, 0, ""
        self.refusal: RefusedError | None = None
        self._identity, self._realm = identity, realm
        self._said, self._early = Unanswered[MemoryEmission](identity, __version__, self.now_ms), Early()
        self._subscriptions: list[MemorySubscription] = []
        self._on_attached: list[Callable[[], None]] = []
        self.on_time_known = self._said.on_time_known
        self._link = 0
        realm.trust.add_all([signed.raw for signed in identity.chain])

    @property
    def attached(self) -> bool:
        """Whether the realm holds our attachment now."""
        return self._link == self._realm.link != 0

    async def wait_attached(self) -> None:
        """Wait until the realm holds our attachment."""
        while not self.attached:
            await self._realm.changed.wait()

    async def run(self) -> None:
        """Attach, and attach again, until cancelled."""
        try:
            while True:
                changed = self._realm.changed
                if self._link != self._realm.link:
                    self._early.clear()
                    self._link = self._realm.link
                    if self._link:
                        self._attach()
                self.offer(self._early.due(self.now_ms()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S if self._early else None):
                        await changed.wait()
        finally:
            self._link = 0

    def _attach(self) -> None:
        now_ms, again = self.now_ms(), self.attachment > 0
        self.attachment, self.broker = self._realm.attachment(self.source), BROKER
        if self._said.signer.chain is None:
            previous = self._realm.last.get(self.source)
            self._said.begin(max(now_ms, previous[0] + 1 if previous else 0), previous=previous)
        for subscription in self._subscriptions if again else ():
            subscription.tell(Reattached(BROKER, self._realm.store))
        for call in self._on_attached:
            call()
        self.flush()
        self._realm.wake()

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._realm.now_ms()

    def emit(self, draft: Draft, *, level: Level | None = None) -> MemoryEmission:
        """Sign and say, without waiting."""
        self.can.check_level(level)
        emission = MemoryEmission(pending_of(self._said.signer, draft), self._realm)
        self._said.say(emission)
        self.flush()
        return emission

    def flush(self) -> None:
        """Sign what was emitted, and say it if that can be."""
        self._said.sign()
        while self.attached and (due := self._said.outbox.due()):
            for signed in due:
                self._say(signed)

    def _say(self, signed: SignedEvent) -> None:
        try:
            row = self._realm.take(signed.raw, self.source, granted=signed.event.incarnation)
        except UnusableEventError as error:
            self._said.refused(signed.id, RefusedError(error.code, error.message, next=error.next))
        else:
            cursor = Cursor(self._realm.store, row, self.now_ms())
            self._said.stored(signed.id, Ack(self.can.level, 1, synced=False, cursor=cursor))

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        return await self.emit(draft, level=level).acknowledged()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody; what is early is offered again, what is not taken otherwise is dropped."""
        for one in signed if self.attached else ():
            try:
                self._realm.take(one.raw, self.source, again=True)
            except UnusableEventError as error:
                if error.code in CODES:
                    self._early.wait(one)

    @property
    def early_s(self) -> float:
        """By how much what was re-offered is ahead of realm time; else 0."""
        return self._early.ahead_s

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        """The certificates of who signed a fact, up to the root's."""
        return proof(self._realm.trust, signed)

    def introduce(self, certificates: Sequence[bytes]) -> None:
        """Take in certificates that were kept with a fact; what cannot be used is left out."""
        introduce(self._realm.trust, certificates)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[MemorySubscription]:
        """Deliveries in batches, in the order of the log, until the block is left."""
        self.can.check_interest(interest)
        check_reads(self.source, self._identity.certificate.read, interest.patterns)
        subscription = MemorySubscription(self.source, interest, self._realm, lambda: self.attached)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id; what nobody believes any more is none of them, nor what may not be read."""
        await self.wait_attached()
        read = self._identity.certificate.read
        found = (signed for signed in map(self._realm.get, ids) if signed is not None)
        found = (one for one in found if self.source in one.event.to or may(read, one.event.topic))
        return [signed for signed in found if not self._realm.trust.disowns(signed)]

    async def history(self, after: int) -> HistoryPage:
        """Raises `RefusedError`: nothing here could prove it."""
        self.can.check(Ability.EXPORT)
        raise AssertionError(after)

    async def head(self) -> SignedEvent:
        """Raises `RefusedError`: there is no broker that signs it."""
        self.can.check(Ability.EXPORT)
        raise AssertionError

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Keep a blob with this sha256. Raises `FailedError` for another one."""
        await self.wait_attached()
        if digest not in self._realm.blobs:
            blob = b"".join([chunk async for chunk in chunks])
            if sha256(blob).digest() != digest:
                raise FailedError("depot.mismatch", f"blob {digest.hex()}: it has another sha256", next="put it again")
            self._realm.blobs[digest] = blob

    async def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes. Raises `NotFoundError`."""
        await self.wait_attached()
        if digest not in self._realm.blobs:
            raise not_in_depot(digest)
        yield self._realm.blobs[digest]

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source, if anybody hears it."""
        if self.attached:
            self.emit(Draft(topic, self._said.signer.heartbeat(0.0, emit_rate_s), subject=self.source))

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment."""
        self._on_attached.append(call)
