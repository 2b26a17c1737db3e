"""The client: one source's connection to the realm; a shell over network, clock and entropy that fulfils `ports.bus.Bus`.

Rule 1: it holds one link to one broker at a time; when that is lost it tries others at random, with backoff and jitter, and
    never forgets one. Who was refused waits longer each time, who was attached begins anew.
Rule 2: after each attachment it sends again what is not acknowledged, asks again for its subscriptions, and measures
    realm time with three round trips, then once a minute.
Rule 3: every event it hands on has been checked here: signature, certificate, grant; a broker is not believed.
Rule 4: a link from which nothing came for `SILENT_S` of its own running time is lost.
Rule 5: an event that is refused for good is declared by the next one on its topic; one refused for its time or its number
    begins a new incarnation, in which everything unacknowledged is said again (A11, J4).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from dsmt.bus import frames as f
from dsmt.bus.asking import Asking
from dsmt.bus.attaching import About, greet, sign_attachment
from dsmt.bus.emission import ClientEmission, cause_of
from dsmt.bus.outbox import Outbox
from dsmt.bus.realm_time import RealmTime, Sample, offset_of
from dsmt.bus.speaker import Speaker, restate
from dsmt.bus.subscription import ClientSubscription
from dsmt.bus.uplink import Uplink
from dsmt.errors import DsmtError, FailedError, RefusedError, TransportError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.logs import Logger
from dsmt.ports.bus import Ack, Arrived, Bookmark, Complete, Cursor, Draft, Interest, Level, Notice
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.network import Link, Network
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import Identity
from dsmt.trust.keys import link_key
from dsmt.trust.store import TrustStore

__all__ = ["About", "BusClient"]

KEEPALIVE_S: Final = 1.0
SILENT_S: Final = 5.0
ATTACH_S: Final = 5.0
MEASURE_S: Final = 60.0
BACKOFF_S: Final = (0.02, 2.0)
PUBLISH_EVENTS: Final = 64
PUBLISH_BYTES: Final = 256 * 1024
OFFERS: Final = 512
"""How many re-offered events are sent in one turn."""
INCARNATION_FILE: Final = "incarnation"


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
        self._waiting: list[ClientEmission] = []
        self._subscriptions: dict[int, ClientSubscription] = {}
        self._offers: deque[SignedEvent] = deque()
        self._introduced: set[bytes] = set()
        """Key ids whose certificates the broker of this attachment has had from us."""
        self._uplink: Uplink | None = None
        self._numbers = 0
        self._attachment = 0
        self._attached = asyncio.Event()
        self._asking = Asking(self._post, self._attached)
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
            cause=tuple([cause_of(c) for c in draft.cause]),
            ttl=draft.ttl_ms,
            to=draft.to,
            version=version,
            replaces=None if replaces is None else replaces.id,
        )
        emission = ClientEmission(saying)
        self._say(emission)
        self._flush_soon()
        return emission

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        return await self.emit(draft, level=level).acknowledged()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (SEMANTICS R5)."""
        self._offers.extend(signed)
        self._flush_soon()

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source; before the first attachment there are none."""
        if self._speaker.chain is not None:
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
            self._try_post(subscription.ask(self._store))
            yield subscription
        finally:
            del self._subscriptions[subscription.number]
            subscription.end()
            self._try_post(f.Unsubscribe(id=subscription.number))

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id."""
        return await self._asking.fetch(ids, lambda raw: self._trust.open(raw)[0])

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot. Raises `FailedError` when it is not kept."""
        await self._asking.put_blob(chunks, digest)

    def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        return self._asking.get_blob(digest)

    # --- saying --------------------------------------------------------------------------------------------------

    def _post(self, frame: f.Frame, *parts: bytes) -> None:
        if self._uplink is None:
            raise TransportError("link.lost", "no broker is attached", next="it is tried again")
        self._uplink.post(frame, *parts)

    def _try_post(self, frame: f.Frame) -> None:
        """Post what a lost link makes needless, for it is asked anew at the next one."""
        if self.attached:
            with suppress(TransportError):
                self._post(frame)

    def _consumed(self, number: int, count: int) -> None:
        self._try_post(f.Consumed(id=number, count=count))

    def _say(self, emission: ClientEmission) -> None:
        saying = emission.saying
        if not self._speaker.say(saying, self.now_ms(), declares=self._outbox.declare(saying.topic)):
            self._waiting.append(emission)
        elif saying.id is not None:
            self._emissions[saying.id] = emission

    def _flush_soon(self) -> None:
        """Sign and send the first thing that is said in a turn of the loop at once, and all others as one burst after it."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_burst)
            self._flush()

    def _flush_burst(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        for saying in self._speaker.sign():
            if saying.signed is not None:
                for dropped in self._outbox.add(saying.signed, fact=saying.fact, evidence=saying.evidence):
                    error = FailedError("outbox.full", f"{dropped} was dropped: too much is unacknowledged")
                    self._settle(dropped, None, error)
        with suppress(TransportError):
            self._send_due()

    def _send_due(self) -> None:
        if self._uplink is None or not self.attached or not self._uplink.clear:
            return
        due = [self._offers.popleft() for _ in range(min(OFFERS, len(self._offers)))]
        if due:
            self._introduce(due)
            self._flush_soon()
        due.extend(self._outbox.due())
        parts: list[bytes] = []
        size = 0
        for signed in due:
            if len(parts) >= PUBLISH_EVENTS or size >= PUBLISH_BYTES:
                self._uplink.post(f.Publish(), *parts)
                parts, size = [], 0
            parts.append(signed.raw)
            size += len(signed.raw)
        if parts:
            self._uplink.post(f.Publish(), *parts)

    def _introduce(self, signed: Sequence[SignedEvent]) -> None:
        """Bring the certificates of those whose words are re-offered: the broker may be new and know nobody."""
        strangers = {one.key_id for one in signed} - self._introduced
        self._introduced |= strangers
        raws = dict.fromkeys(one.raw for key_id in sorted(strangers) for one in reversed(self._trust.chain(key_id)))
        known = list(raws)
        for start in range(0, len(known), f.MAX_CERTIFICATES):
            self._post(f.Certificates(), *known[start : start + f.MAX_CERTIFICATES])

    def _settle(self, identity: EventId, ack: Ack | None, error: DsmtError | None) -> None:
        emission = self._emissions.pop(identity, None)
        if emission is not None:
            emission.settle(ack, error)

    def _begin(self, incarnation: int) -> None:
        """Start an incarnation; what is not acknowledged is said again under it."""
        again = list(self._emissions.values())
        self._emissions.clear()
        self._outbox = Outbox()
        self._speaker.sign()
        if self._speaker.chain is not None:
            self._previous = (self._speaker.incarnation, self._speaker.chain.sequence)
        self._speaker.begin(incarnation, self.now_ms(), previous=self._previous)
        if self._kept is not None:
            self._kept.write(INCARNATION_FILE, str(incarnation).encode())
        waiting, self._waiting = self._waiting, []
        for emission in waiting:
            if emission.saying.id is not None:
                self._emissions[emission.saying.id] = emission
        for emission in again:
            emission.saying = restate(emission.saying)
            self._say(emission)

    def _remembered(self) -> tuple[int, int | None] | None:
        kept = None if self._kept is None else self._kept.read(INCARNATION_FILE)
        return (int(kept), None) if kept is not None and kept.isdigit() else None

    # --- being attached ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Attach, and attach again, until cancelled."""
        delay = BACKOFF_S[0]
        while True:
            broker = self._brokers[int(self._entropy.uniform(0, len(self._brokers)))]
            refused = False
            try:
                link = await self._network.connect(
                    broker.address, self._identity.key.link_secret(), server_key=link_key(broker.public)
                )
                try:
                    await self._hold(link)
                finally:
                    self._detached()
                    await link.close()
            except DsmtError as error:
                refused = isinstance(error, RefusedError)
                if isinstance(error, RefusedError):
                    self.refusal = error
                self._log.info("not attached", broker=broker.address, reason=str(error))
            if self._heard and not refused:
                delay = BACKOFF_S[0]
            self._heard = 0.0
            await asyncio.sleep(delay * self._entropy.uniform(0.5, 1.0))
            delay = min(delay * 2, BACKOFF_S[1])

    def _detached(self) -> None:
        self._uplink = None
        self._attached.clear()
        self._asking.lost()

    async def _hold(self, link: Link) -> None:
        try:
            async with asyncio.timeout(ATTACH_S):
                await self._attach(link)
        except TimeoutError as error:
            raise TransportError("link.silent", f"no broker answered within {ATTACH_S:.0f} s") from error
        uplink = Uplink(link, self._flush_soon)
        self._begin_link(uplink)
        await _until_one_fails(uplink.run(), self._receive(link), self._keep_alive())

    async def _attach(self, link: Link) -> None:
        welcomed = await greet(
            link,
            self._identity,
            self._trust,
            self._clock,
            self._about,
            incarnation=self._speaker.incarnation,
            attachment=self._attachment + 1,
        )
        welcome = welcomed.welcome
        self._time.measured(offset_of(welcomed.samples), self._clock.boottime())
        if welcome.incarnation != self._speaker.incarnation:
            self._begin(welcome.incarnation)
        self._attachment = welcome.attachment
        sign_attachment(link, self._identity, welcome)
        self._lost_broker, self.broker, self._store = self.broker, welcome.broker, welcome.store

    def _begin_link(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._heard = self._clock.boottime()
        self.refusal = None
        self._attached.set()
        self._introduced = {self._identity.certificate.key_id}
        self._outbox.again()
        for subscription in self._subscriptions.values():
            if self._lost_broker:
                said = f"connection lost; attached to {self.broker} again"
                fields = {"broker": self.broker, "store": self._store}
                subscription.notice(Notice("dsmt.notice.reconnected", said, fields))
            self._post(subscription.ask(self._store))
            self._ask_wanted(subscription)
        for call in self._on_attached:
            call()
        self._flush()

    async def _receive(self, link: Link) -> None:
        while True:
            for message in await link.receive():
                frame, parts = f.unpack(message)
                self._received(frame, parts)
            self._heard = self._clock.boottime()

    def _received(self, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Deliver(id=number, rows=rows, live=live):
                self._delivered(number, rows, parts, live=live)
            case f.Acked():
                self._acked(frame)
            case f.Certificates():
                self._certificates(parts)
            case f.CompleteFrame(id=number, store=store, row=row, time_ms=time_ms, whole=whole):
                self._mark(number, Complete(Cursor(store, row, time_ms), whole))
            case f.BookmarkFrame(id=number, store=store, row=row, time_ms=time_ms, whole=whole):
                self._mark(number, Bookmark(Cursor(store, row, time_ms), whole))
            case f.Nacked():
                self._nacked(frame)
            case f.Told(id=number, type=kind, message=message, fields=fields):
                subscription = self._subscriptions.get(number)
                if subscription is not None:
                    subscription.notice(Notice(kind, message, fields))
            case f.Repaired():
                self._repaired(frame, parts)
            case f.TimeIs(sent=sent, realm_ms=realm_ms):
                self._measure(Sample(sent, self._clock.boottime(), realm_ms))
            case f.Fetched(id=number) | f.BlobIs(id=number) | f.Chunk(id=number):
                self._asking.answered(number, frame, parts)
            case f.Refused(code=code, message=message, next=follow):
                raise RefusedError(code, message, next=follow)
            case _:
                pass

    def _certificates(self, raws: Sequence[bytes]) -> None:
        try:
            self._trust.add_all(raws)
        except UnusableEventError as error:
            self._log.warning("certificate refused", reason=str(error))

    # --- reading -------------------------------------------------------------------------------------------------

    def _delivered(self, number: int, rows: tuple[int, ...], parts: tuple[bytes, ...], *, live: bool) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is None:
            return
        arrived = self._opened(subscription, rows, parts, live=live)
        subscription.events(arrived, sum(map(len, parts)), self._store, self._clock.boottime())
        self._ask_wanted(subscription)

    def _repaired(self, frame: f.Repaired, parts: tuple[bytes, ...]) -> None:
        subscription = self._subscriptions.get(frame.id)
        if subscription is None:
            return
        arrived = self._opened(subscription, frame.rows, parts, live=False)
        subscription.repaired(frame, arrived, self._clock.boottime())
        self._ask_wanted(subscription)

    def _opened(
        self, subscription: ClientSubscription, rows: tuple[int, ...], parts: tuple[bytes, ...], *, live: bool
    ) -> list[Arrived]:
        """The events that are what they say; of each other one the reader is told."""
        if len(rows) != len(parts):
            raise TransportError("bus.frame", f"{self.broker} sent {len(parts)} events for {len(rows)} rows")
        arrived, now_ms = [], self.now_ms()
        for row, raw in zip(rows, parts, strict=True):
            try:
                signed, _ = self._trust.open(raw)
            except UnusableEventError as error:
                subscription.notice(Notice("dsmt.notice.badsignature", error.message, {"code": error.code, "row": row}))
                continue
            self._speaker.clock.merge(signed.event.time, now_ms)
            arrived.append(Arrived(signed, row, live))
        return arrived

    def _ask_wanted(self, subscription: ClientSubscription) -> None:
        for source, incarnation, topic, after, before in subscription.wanted():
            self._try_post(
                f.Repair(
                    id=subscription.number,
                    source=source,
                    incarnation=incarnation,
                    topic=topic,
                    after=after,
                    before=before,
                )
            )

    def _mark(self, number: int, mark: Complete | Bookmark) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is not None:
            subscription.mark(mark)

    # --- what becomes of what was said ---------------------------------------------------------------------------

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
        if frame.source != self.source or frame.incarnation != self._speaker.incarnation:
            return
        if frame.restart or frame.code == "clock_ahead":
            if frame.code == "clock_ahead":
                self._time = RealmTime(frame.realm_ms - self._clock.boottime() * 1000)
                self._speaker.clock.last = 0
            self._begin(max(self._speaker.incarnation + 1, self.now_ms()))
            self._flush()
            return
        self._outbox.refused(identity)
        self._settle(identity, None, RefusedError(frame.code, frame.message, next=frame.next))
        self._send_due()

    # --- time ----------------------------------------------------------------------------------------------------

    def _measure(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) >= 3:
            self._time.measured(offset_of(self._samples), self._clock.boottime())
            self._samples = []

    async def _keep_alive(self) -> None:
        before = measured = self._clock.boottime()
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            now = self._clock.boottime()
            self._lag = max(0.0, now - before - KEEPALIVE_S)
            before = now
            if self._lag > 0.5:
                self._heard += self._lag
            if now - self._heard > SILENT_S:
                raise TransportError("link.silent", f"nothing came from {self.broker} for {SILENT_S:.0f} s")
            self._post(f.Keepalive())
            if now - measured >= MEASURE_S:
                measured, self._samples = now, []
                for _ in range(3):
                    self._post(f.Time(sent=self._clock.boottime()))


async def _until_one_fails(*parts: Coroutine[Any, Any, None]) -> None:
    """Run these until one of them raises; the others are cancelled.

    No task group: that of Python 3.11 forgets that its own task was cancelled when a child fails in the same moment.
    """
    tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in errors:
        if error is not None:
            raise error
