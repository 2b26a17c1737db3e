"""The client: one source's connection to the realm; a shell over network, clock and entropy that fulfils `ports.bus.Bus`.

Rule 1: it holds one link to one broker at a time; when that is lost it tries others at random, with backoff and jitter, and
    never forgets one.
Rule 2: after each attachment it sends again what is not acknowledged, asks again for its subscriptions, and measures
    realm time with three round trips, then once a minute.
Rule 3: every event it hands on has been checked here: signature, certificate, grant; a broker is not believed.
Rule 4: a link from which nothing came for `SILENT_S` of its own running time is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import cbor2

from dsmt.bus import frames as f
from dsmt.bus.handshake import statement
from dsmt.bus.outbox import Outbox
from dsmt.bus.realm_time import RealmTime, Sample, offset_of
from dsmt.bus.speaker import Saying, Speaker, restate
from dsmt.bus.subscription import ClientSubscription
from dsmt.errors import DsmtError, FailedError, NotFoundError, RefusedError, TransportError, UnusableEventError
from dsmt.event.codec import canonical
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.logs import Logger
from dsmt.ports.bus import Ack, Arrived, Bookmark, Complete, Cursor, Draft, Emission, Interest, Level, Notice
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.network import Link, Network
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import Identity
from dsmt.trust.keys import link_key
from dsmt.trust.store import TrustStore

KEEPALIVE_S: Final = 1.0
SILENT_S: Final = 5.0
ATTACH_S: Final = 5.0
MEASURE_S: Final = 60.0
BACKOFF_S: Final = (0.02, 2.0)
CHUNK_BYTES: Final = 256 * 1024
INCARNATION_FILE: Final = "incarnation"
CERTIFICATES_FILE: Final = "certificates.cbor"


@dataclass(frozen=True, slots=True)
class About:
    """What a session says of its process, beside its name."""

    pid: int | None
    version: str
    address: str = ""


class ClientEmission:
    """An event on its way; fulfils `ports.bus.Emission`."""

    __slots__ = ("_done", "acked", "error", "saying")

    def __init__(self, saying: Saying) -> None:
        self.saying = saying
        self._done: asyncio.Event | None = None
        self.acked: Ack | None = None
        self.error: DsmtError | None = None

    @property
    def id(self) -> EventId | None:
        """Its id, once the incarnation is known."""
        return self.saying.id

    @property
    def signed(self) -> SignedEvent | None:
        """The event, once it is signed."""
        return self.saying.signed

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """The broker has answered."""
        self.acked, self.error = ack, error
        if self._done is not None:
            self._done.set()

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError` when the door said no."""
        if self.acked is None and self.error is None:
            self._done = self._done or asyncio.Event()
            await self._done.wait()
        if self.error is not None:
            raise self.error
        if self.acked is None:
            raise AssertionError
        return self.acked


class BusClient:
    """One source's connection to the realm. `run` keeps it attached until cancelled; everything else may be called any time.

    `kept` is where the last incarnation is remembered; without it the broker's word is awaited before anything is signed.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        trust: TrustStore,
        brokers: Sequence[BrokerAddress],
        network: Network,
        clock: Clock,
        entropy: Entropy,
        about: About,
        kept: Files | None = None,
    ) -> None:
        self._identity, self._trust, self._brokers = identity, trust, list(brokers)
        self._network, self._clock, self._entropy, self._about = network, clock, entropy, about
        self._kept = kept
        self._time = RealmTime(clock.wall_ms() - clock.boottime() * 1000)
        self._speaker = Speaker(identity.name, identity.key, about.version)
        self._outbox = Outbox()
        self._emissions: dict[EventId, ClientEmission] = {}
        self._waiting: dict[int, ClientEmission] = {}
        self._subscriptions: dict[int, ClientSubscription] = {}
        self._answers: dict[int, asyncio.Future[tuple[f.Frame, tuple[bytes, ...]]]] = {}
        self._offers: list[SignedEvent] = []
        self._link: Link | None = None
        self._numbers = 0
        self._attachment = 0
        self._attached = asyncio.Event()
        self._on_attached: list[Callable[[], None]] = []
        self._flushing = False
        self._samples: list[Sample] = []
        self._heard = 0.0
        self._lag = 0.0
        self._store = ""
        self.broker = ""
        self.refusal: RefusedError | None = None
        """Why the last attachment was refused, until one succeeds."""
        self._log = Logger(source=identity.name)
        trust.add_all([signed.raw for signed in identity.chain])
        self._certificates(self._kept_certificates())
        self._previous = self._remembered()
        if self._previous is not None:
            self._begin(max(self._previous[0] + 1, clock.wall_ms()))

    # --- the port ------------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """The name this connection publishes under."""
        return self._identity.name

    @property
    def attached(self) -> bool:
        """Whether a broker holds our attachment now."""
        return self._attached.is_set()

    @property
    def attachment(self) -> int:
        """The number of the last attachment; 0 before the first."""
        return self._attachment

    @property
    def clock_offset_s(self) -> float:
        """The machine's wall clock minus realm time, in seconds."""
        return (self._clock.wall_ms() - self.now_ms()) / 1000

    async def wait_attached(self) -> None:
        """Wait until a broker holds our attachment."""
        await self._attached.wait()

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms(self._clock.boottime())

    def emit(self, draft: Draft, *, level: Level | None = None) -> ClientEmission:
        """Sign and send, without waiting. Raises `InputError` when the draft is not valid for its topic."""
        del level  # a lone broker stores everything before it answers, which is what any level asks at most
        replaces = draft.replaces
        version = draft.version
        if replaces is not None and version is None:
            version = (replaces.event.version or 0) + 1
        saying = self._speaker.saying(
            draft.topic,
            dict(draft.data),
            subject=draft.subject,
            cause=tuple(_cause(c) for c in draft.cause),
            ttl=draft.ttl_ms,
            to=draft.to,
            version=version,
            replaces=None if replaces is None else replaces.id,
        )
        emission = ClientEmission(saying)
        if self._speaker.say(saying, self.now_ms()):
            self._track(emission)
        else:
            self._waiting[id(saying)] = emission
        self._flush_soon()
        return emission

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        return await self.emit(draft, level=level).acknowledged()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (SEMANTICS R5)."""
        self._offers.extend(signed)
        self._keep_certificates(signed)
        self._flush_soon()

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source."""
        self.emit(Draft(topic, self._speaker.heartbeat(self._lag, emit_rate_s), subject=self.source))

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment."""
        self._on_attached.append(call)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[ClientSubscription]:
        """Deliveries in batches, in store order, over reconnections, until the block is left."""
        self._numbers += 1
        subscription = ClientSubscription(self._numbers, interest, self._consumed)
        self._subscriptions[subscription.number] = subscription
        try:
            if self.attached:
                self._send(subscription.ask(self._store))
            yield subscription
        finally:
            del self._subscriptions[subscription.number]
            subscription.end()
            if self.attached:
                with suppress(TransportError):
                    self._send(f.Unsubscribe(id=subscription.number))

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id."""
        with self._asking() as (number, answer):
            await self._send_attached(f.Fetch(id=number, ids=tuple((i[0], i[1], i[2]) for i in ids)))
            _, parts = await answer
        return [self._trust.open(raw)[0] for raw in parts]

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot. Raises `FailedError` when it is not kept."""
        if (await self._ask_blob(f.BlobAsked(id=0, digest=digest))).size is not None:
            return
        number = 0
        async for chunk in chunks:
            for start in range(0, len(chunk), CHUNK_BYTES):
                part = chunk[start : start + CHUNK_BYTES]
                put = await self._ask_blob(f.ChunkPut(id=0, digest=digest, number=number), part)
                if not put.ok:
                    raise FailedError("depot.full", put.message)
                number += 1
        done = await self._ask_blob(f.BlobFinished(id=0, digest=digest, chunks=number))
        if not done.ok:
            raise FailedError("depot.mismatch", f"blob {digest.hex()}: {done.message}", next="put it again")

    async def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        if (await self._ask_blob(f.BlobAsked(id=0, digest=digest))).size is None:
            raise NotFoundError("depot.unknown", f"blob {digest.hex()} is not in the depot", next="apply again")
        whole, number = sha256(), 0
        while True:
            with self._asking() as (asked, answer):
                await self._send_attached(f.ChunkAsked(id=asked, digest=digest, number=number))
                _, parts = await answer
            if not parts:
                break
            whole.update(parts[0])
            yield parts[0]
            number += 1
        if whole.digest() != digest:
            raise FailedError("depot.mismatch", f"blob {digest.hex()} arrived with another sha256")

    # --- asking --------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[tuple[int, asyncio.Future[tuple[f.Frame, tuple[bytes, ...]]]]]:
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[tuple[f.Frame, tuple[bytes, ...]]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            yield number, answer
        finally:
            del self._answers[number]

    async def _ask_blob(self, frame: Any, *parts: bytes) -> f.BlobIs:
        with self._asking() as (number, answer):
            asked = type(frame)(
                **{name: getattr(frame, name) for name in frame.__struct_fields__ if name != "id"}, id=number
            )
            await self._send_attached(asked, *parts)
            found, _ = await answer
        if not isinstance(found, f.BlobIs):
            raise TransportError("bus.frame", "the broker answered something else than was asked")
        return found

    async def _send_attached(self, frame: f.Frame, *parts: bytes) -> None:
        await self._attached.wait()
        while not self._send(frame, *parts):
            if self._link is not None:
                await self._link.writable()

    def _send(self, frame: f.Frame, *parts: bytes) -> bool:
        if self._link is None:
            raise TransportError("link.lost", "no broker is attached", next="it is tried again")
        return self._link.send(f.pack(frame, *parts))

    def _consumed(self, number: int, count: int) -> None:
        if self.attached:
            with suppress(TransportError):
                self._send(f.Consumed(id=number, count=count))

    # --- saying --------------------------------------------------------------------------------------------------

    def _track(self, emission: ClientEmission) -> None:
        if emission.saying.id is not None:
            self._emissions[emission.saying.id] = emission

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for saying in self._speaker.sign():
            if saying.signed is not None:
                for dropped in self._outbox.add(saying.signed, fact=saying.fact):
                    self._settle(dropped, None, FailedError("outbox.full", "dropped: too much is unacknowledged"))
        if not self.attached or self._link is None:
            return
        with suppress(TransportError):
            self._send_due()

    def _send_due(self) -> None:
        offers, self._offers = self._offers, []
        if offers:
            self._send(f.Certificates(), *self._chains(offers))
        due = [*offers, *self._outbox.due()]
        for start in range(0, len(due), 64):
            parts = tuple(signed.raw for signed in due[start : start + 64])
            if not self._send(f.Publish(), *parts):
                raise TransportError("link.full", "the broker does not take what we send")

    def _settle(self, identity: EventId, ack: Ack | None, error: DsmtError | None) -> None:
        emission = self._emissions.pop(identity, None)
        if emission is not None:
            emission.settle(ack, error)

    def _begin(self, incarnation: int) -> None:
        """Start an incarnation; what is not acknowledged is said again under it."""
        again = [self._emissions[i] for i in list(self._emissions)]
        self._emissions.clear()
        self._outbox = Outbox()
        self._speaker.sign()
        self._speaker.begin(incarnation, self.now_ms(), previous=self._previous)
        self._previous = (incarnation, 0)
        if self._kept is not None:
            self._kept.write(INCARNATION_FILE, str(incarnation).encode())
        for emission in self._waiting.values():
            self._track(emission)
        self._waiting.clear()
        for emission in again:
            if emission.saying.topic == f"source/{self.source}":
                continue
            emission.saying = restate(emission.saying)
            self._speaker.say(emission.saying, self.now_ms())
            self._track(emission)

    def _chains(self, signed: Sequence[SignedEvent]) -> list[bytes]:
        """The certificates with which a broker that knows nobody can check these events, those above first."""
        key_ids = dict.fromkeys(one.key_id for one in signed)
        return list(dict.fromkeys(c.raw for key_id in key_ids for c in reversed(self._trust.chain(key_id))))

    def _keep_certificates(self, signed: Sequence[SignedEvent]) -> None:
        """Remember who signed what this process acts on: it may have to vouch for it before a broker that lost all."""
        if self._kept is not None:
            chains = canonical(self._chains(signed))
            if chains != self._kept.read(CERTIFICATES_FILE):
                self._kept.write(CERTIFICATES_FILE, chains)

    def _kept_certificates(self) -> list[bytes]:
        kept = None if self._kept is None else self._kept.read(CERTIFICATES_FILE)
        try:
            return [] if kept is None else [raw for raw in cbor2.loads(kept) if isinstance(raw, bytes)]
        except (cbor2.CBORDecodeError, TypeError):
            return []

    def _remembered(self) -> tuple[int, int] | None:
        kept = None if self._kept is None else self._kept.read(INCARNATION_FILE)
        return (int(kept), 0) if kept is not None and kept.isdigit() else None

    # --- being attached ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Attach, and attach again, until cancelled."""
        delay = BACKOFF_S[0]
        while True:
            broker = self._brokers[int(self._entropy.uniform(0, len(self._brokers)))]
            try:
                link = await self._network.connect(
                    broker.address, self._identity.key.link_secret(), server_key=self._link_key(broker.public)
                )
                try:
                    await self._hold(link)
                finally:
                    self._detached()
                    await link.close()
            except* DsmtError as group:
                error = _first(group)
                if isinstance(error, RefusedError):
                    self.refusal = error
                self._log.info("not attached", broker=broker.address, reason=str(error))
            if self._heard:
                delay, self._heard = BACKOFF_S[0], 0.0
            await asyncio.sleep(delay * self._entropy.uniform(0.5, 1.0))
            delay = min(delay * 2, BACKOFF_S[1])

    def _link_key(self, public: bytes) -> bytes:
        return link_key(public)

    def _detached(self) -> None:
        self._link = None
        self._attached.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(TransportError("link.lost", "the broker was lost before it answered"))
                answer.exception()

    async def _hold(self, link: Link) -> None:
        try:
            async with asyncio.timeout(ATTACH_S):
                await self._attach(link)
        except TimeoutError as error:
            raise TransportError("link.silent", f"no broker answered within {ATTACH_S:.0f} s") from error
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive(link))
            group.create_task(self._keep_alive())

    async def _attach(self, link: Link) -> None:
        hello = f.Hello(
            protocol=f.PROTOCOL,
            realm=self._trust.realm.name,
            name=self.source,
            incarnation=self._speaker.incarnation or self.now_ms(),
            firm=self._speaker.incarnation > 0,
            attachment=self._attachment + 1,
            pid=self._about.pid,
            version=self._about.version,
            address=self._about.address,
        )
        sent = self._clock.boottime()
        link.send(f.pack(hello, *(signed.raw for signed in self._identity.chain)))
        welcome, parts = await self._expect(link, f.Welcome)
        self._samples = [Sample(sent, self._clock.boottime(), welcome.realm_ms)]
        self._trust.add_all(parts)
        for _ in range(2):
            sent = self._clock.boottime()
            link.send(f.pack(f.Time(sent=sent)))
            answer, _ = await self._expect(link, f.TimeIs)
            self._samples.append(Sample(sent, self._clock.boottime(), answer.realm_ms))
        self._time.measured(offset_of(self._samples), self._clock.boottime())
        if welcome.incarnation != self._speaker.incarnation:
            self._begin(welcome.incarnation)
        self._attachment = welcome.attachment
        signed = statement(
            self._identity.key,
            nonce=welcome.nonce,
            broker=welcome.broker,
            name=self.source,
            incarnation=welcome.incarnation,
            attachment=welcome.attachment,
        )
        link.send(f.pack(f.Attach(statement=signed)))
        self._begin_link(link, welcome)

    async def _expect(self, link: Link, kind: type[Any]) -> tuple[Any, tuple[bytes, ...]]:
        while True:
            for message in await link.receive():
                frame, parts = f.unpack(message)
                if isinstance(frame, f.Refused):
                    raise RefusedError(frame.code, frame.message, next=frame.next)
                if isinstance(frame, kind):
                    return frame, parts

    def _begin_link(self, link: Link, welcome: f.Welcome) -> None:
        lost = self.broker
        self._link, self.broker, self._store = link, welcome.broker, welcome.store
        self._heard = self._clock.boottime()
        self.refusal = None
        self._attached.set()
        self._outbox.again()
        for subscription in self._subscriptions.values():
            if lost:
                subscription.notice(
                    Notice(
                        "dsmt.notice.reconnected",
                        f"connection lost; attached to {self.broker} again",
                        {"broker": self.broker},
                    )
                )
            self._send(subscription.ask(self._store))
        for call in self._on_attached:
            call()
        self._flush()

    async def _receive(self, link: Link) -> None:
        while True:
            for message in await link.receive():
                frame, parts = f.unpack(message)
                self._heard = self._clock.boottime()
                self._received(frame, parts)

    def _received(self, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Deliver():
                self._delivered(frame, parts)
            case f.Certificates():
                self._certificates(parts)
            case f.Acked():
                self._acked(frame)
            case f.Nacked():
                self._nacked(frame)
            case f.CompleteFrame(id=number, store=store, row=row, time_ms=time_ms, whole=whole):
                self._mark(number, Complete(Cursor(store, row, time_ms), whole))
            case f.BookmarkFrame(id=number, store=store, row=row, time_ms=time_ms, whole=whole):
                self._mark(number, Bookmark(Cursor(store, row, time_ms), whole))
            case f.Told(id=number, type=kind, message=message, fields=fields):
                subscription = self._subscriptions.get(number)
                if subscription is not None:
                    subscription.notice(Notice(kind, message, fields))
            case f.TimeIs(sent=sent, realm_ms=realm_ms):
                self._measure(Sample(sent, self._clock.boottime(), realm_ms))
            case f.Fetched(id=number) | f.BlobIs(id=number) | f.Chunk(id=number):
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result((frame, parts))
            case f.Refused(code=code, message=message, next=follow):
                raise RefusedError(code, message, next=follow)
            case _:
                pass

    def _certificates(self, raws: Sequence[bytes]) -> None:
        try:
            self._trust.add_all(raws)
        except UnusableEventError as error:
            self._log.warning("certificate refused", reason=str(error))

    def _delivered(self, frame: f.Deliver, parts: tuple[bytes, ...]) -> None:
        subscription = self._subscriptions.get(frame.id)
        if subscription is None:
            return
        arrived, size = [], 0
        for row, raw in zip(frame.rows, parts, strict=True):
            size += len(raw)
            try:
                signed, _ = self._trust.open(raw)
            except UnusableEventError as error:
                subscription.notice(Notice("dsmt.notice.badsignature", error.message, {"code": error.code, "row": row}))
                continue
            self._speaker.clock.merge(signed.event.time, self.now_ms())
            arrived.append(Arrived(signed, row, frame.live))
        subscription.events(arrived, size, self._store, self._clock.boottime())

    def _mark(self, number: int, mark: Complete | Bookmark) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is not None:
            subscription.mark(mark)

    def _acked(self, frame: f.Acked) -> None:
        ack = Ack(Level(frame.level), frame.copies, frame.synced, Cursor(frame.store, frame.row, frame.time_ms))
        for source, incarnation, first, last in frame.ranges:
            for identity in self._outbox.waiting(source, incarnation, first, last):
                self._outbox.settled(identity)
                self._settle(identity, ack, None)
        self._send_due()

    def _nacked(self, frame: f.Nacked) -> None:
        identity = EventId(frame.source, frame.incarnation, frame.sequence)
        self._log.warning("event refused", refused=str(identity), code=frame.code, reason=frame.message)
        if frame.source != self.source:
            return
        if frame.restart or frame.code == "clock_ahead":
            now = self._clock.boottime()
            self._time = RealmTime(frame.realm_ms - now * 1000)
            self._speaker.clock.last = 0
            self._begin(max(self._speaker.incarnation + 1, frame.realm_ms))
            self._flush()
            return
        self._outbox.settled(identity)
        self._settle(identity, None, RefusedError(frame.code, frame.message))

    def _measure(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) >= 3:
            self._time.measured(offset_of(self._samples), self._clock.boottime())
            self._samples = []

    async def _keep_alive(self) -> None:
        before = self._clock.boottime()
        measured = before
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            now = self._clock.boottime()
            self._lag = max(0.0, now - before - KEEPALIVE_S)
            before = now
            if self._lag > 0.5:
                self._heard += self._lag
            if now - self._heard > SILENT_S:
                raise TransportError("link.silent", f"nothing came from {self.broker} for {SILENT_S:.0f} s")
            self._send(f.Keepalive())
            if now - measured >= MEASURE_S:
                measured, self._samples = now, []
                for _ in range(3):
                    self._send(f.Time(sent=self._clock.boottime()))
            self._flush()


def _cause(cause: EventId | Emission) -> EventId | Saying:
    if isinstance(cause, EventId):
        return cause
    if not isinstance(cause, ClientEmission):
        raise TypeError("a cause is an event id or an emission of this very bus")
    return cause.saying


def _first(group: BaseExceptionGroup[DsmtError]) -> DsmtError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, DsmtError):
        raise error
    return error
