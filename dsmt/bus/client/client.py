"""The client: one source's connection to the realm; a shell over network, clock and entropy that fulfils `ports.bus.Bus`.

Rule 1: it holds one link to one broker at a time; when that is lost it tries others (`brokers`), with backoff and jitter.
    Who was refused waits longer each time, who was attached begins anew.
Rule 2: after each attachment it sends again what is not acknowledged, asks again for its subscriptions, and measures
    realm time with three round trips, then once a minute, and at once when its broker's has stepped.
Rule 3: what it says goes through `publisher`, what it reads through `subscriptions`, what it asks through `asking`.
Rule 4: it is told every revocation before anything else of an attachment (`certificates`). Who was revoked itself, or has a
    certificate that has ended, asks again only now and then (J3).
Rule 5: with `reads` it is no source: it says nothing, gets no incarnation, and any number may share one identity (D2).
Rule 6: it answers who asks whether it is there, and asks when its link is quiet; one from which nothing came for long
    enough of its own running time is lost (`quiet`).
Rule 7: each minute it asks about some of the certificates that it was shown (`certificates`), but not while it re-offers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from dsmt.bus.client.asking import Asking
from dsmt.bus.client.attaching import greet, measure, sign_attachment
from dsmt.bus.client.brokers import KnownBrokers
from dsmt.bus.client.certificates import ShownCertificates
from dsmt.bus.client.emission import ClientEmission
from dsmt.bus.client.homing import go_home
from dsmt.bus.client.incarnation import KeptIncarnation
from dsmt.bus.client.measuring import MeasuredTime
from dsmt.bus.client.publisher import Publisher
from dsmt.bus.client.send_queue import SendQueue
from dsmt.bus.client.slices import in_slices
from dsmt.bus.client.subscription import ClientSubscription
from dsmt.bus.client.subscriptions import SubscriptionRegistry
from dsmt.bus.rules.attach_backoff import AttachBackoff
from dsmt.bus.rules.authority import check_reads
from dsmt.bus.rules.emitting import pending_of
from dsmt.bus.rules.ended_keys import NAMESAKE
from dsmt.bus.rules.proofs import proof
from dsmt.bus.rules.quiet import LinkWatch
from dsmt.bus.rules.quota import is_delegate
from dsmt.bus.rules.realm_time import ROUND_TRIPS, offset_of
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import unpack
from dsmt.errors import DsmtError, RefusedError, TransportError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.logs import Logger
from dsmt.ports.bus import Ability, Ack, Capabilities, Draft, HistoryPage, Interest, Level
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.network import Link, Network
from dsmt.ports.realm import About, BrokerAddress
from dsmt.together import until_one_fails
from dsmt.trust.identity import Identity
from dsmt.trust.keys import link_key
from dsmt.trust.store import TrustStore

CAN: Final = Capabilities(Level.STORED, frozenset(Ability))
"""One broker holds what it acknowledges; whether another does, too, each acknowledgement says."""


class BusClient:
    """One source's connection to the realm. `run` keeps it attached until cancelled; everything else may be called any time.

    `kept` remembers the last incarnation, without which the broker's word is awaited first, and brokers; `known` only these.
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
        known: Files | None = None,
        reads: bool = False,
        asks_once: bool = False,
    ) -> None:
        self._identity, self._trust, self.source = identity, trust, identity.name
        self._network, self._clock, self._entropy, self._about = network, clock, entropy, about
        self._kept, self._reads, self._asks_once = KeptIncarnation(kept), reads, asks_once
        self._time, self.attachment = MeasuredTime(clock), 0
        self._queue: SendQueue | None = None
        self._attached, self._asked = asyncio.Event(), asyncio.Event()
        self._asking = Asking(self._post, self._attached)
        self._publisher = Publisher(
            identity, trust, about.version, now_ms=self.now_ms, began=self._kept.began, previous=self._kept.last
        )
        self.on_time_known = self._publisher.said.on_time_known
        self._subscriptions = SubscriptionRegistry(trust, lambda: self._publisher.signer.clock, self._try_post)
        self._on_attached: list[Callable[[], None]] = []
        self._watch: LinkWatch | None = None
        self._store = self._lost_broker = self.broker = ""
        self.can = CAN
        self.refusal: RefusedError | None = None
        self._log = Logger(source=identity.name)
        self.brokers = KnownBrokers(brokers, trust, entropy, known or kept, self._log)
        self._certificates = ShownCertificates(identity, trust, self._log, self._subscriptions.tell_who_fold)
        if self._kept.last is not None and self._kept.began(first := max(self._kept.next, clock.wall_ms())):
            self._publisher.begin(first)

    # --- the port ------------------------------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether a broker holds our attachment now."""
        return self._attached.is_set()

    async def wait_attached(self) -> None:
        """Wait until a broker holds our attachment."""
        await self._attached.wait()

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms()

    def emit(self, draft: Draft, *, level: Level | None = None) -> ClientEmission:
        """Sign and send, without waiting. Raises `InputError` when the draft is not valid for its topic."""
        if self._reads:
            raise RefusedError("bus.reads", f"{self.source} only reads, and says nothing on {draft.topic}")
        self.can.check_level(level)
        emission = ClientEmission(pending_of(self._publisher.signer, draft))
        self._publisher.say(emission)
        return emission

    def flush(self) -> None:
        """Sign and send now what was emitted in this turn."""
        self._publisher.flush()

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        return await self.emit(draft, level=level).acknowledged()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (rule R5); who only reads does not."""
        if signed and not self._reads:
            self._publisher.offer(signed)

    @property
    def early_s(self) -> float:
        """How far a re-offered event is ahead of the broker's realm time, so that the broker refuses it; 0 when none is."""
        return self._publisher.early_s

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        """The certificates of who signed a fact, up to the root's."""
        return proof(self._trust, signed)

    def introduce(self, certificates: Sequence[bytes]) -> None:
        """Take in certificates that were kept with a fact; what cannot be used is left out."""
        self._certificates.introduce(certificates)

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source, if anybody hears it; none is kept for later."""
        signer = self._publisher.signer
        if signer.chain is not None and self.attached and self._watch is not None:
            self.emit(Draft(topic, signer.heartbeat(self._watch.lag, emit_rate_s), subject=self.source))

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment."""
        self._on_attached.append(call)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[ClientSubscription]:
        """Deliveries in batches (see the port), over reconnections, until the block is left.

        Raises `InputError`, `RefusedError` (see the port).
        """
        check_reads(self.source, self._identity.certificate.read, interest.patterns)
        subscription = self._subscriptions.begin(interest)
        try:
            yield subscription
        finally:
            self._subscriptions.end(subscription)

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id."""
        return await self._asking.fetch(ids, self._trust.open)

    async def history(self, after: int) -> HistoryPage:
        """What of the broker's store stands behind a row."""
        return await self._asking.history(after, lambda: self._store)

    async def head(self) -> SignedEvent:
        """The broker's stats with the head of its store, signed now."""
        return self._trust.open(await self._asking.head())

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot. Raises `FailedError` when it is not kept."""
        await self._asking.put_blob(chunks, digest, lambda: self._store)

    def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        return self._asking.get_blob(digest)

    # --- sending -------------------------------------------------------------------------------------------------

    def _post(self, frame: f.Frame, *parts: bytes) -> None:
        if self._queue is None:
            raise TransportError("link.lost", "no broker is attached", next="it tries again by itself")
        self._queue.post(frame, *parts)

    def _try_post(self, frame: f.Frame) -> None:
        """Post what a lost link makes needless, for it is asked anew at the next one."""
        with suppress(TransportError):
            self._post(frame)

    # --- being attached ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Attach, and attach again, until cancelled."""
        backoff = AttachBackoff(self.source)
        while True:
            broker, delay = self.brokers.next(), 0.0
            try:
                link = await self._connect(broker)
                try:
                    await self._hold(link)
                finally:
                    self._detached()
                    await link.close()
            except DsmtError as error:
                if isinstance(error, RefusedError):
                    self.refusal = error
                elif self._watch is not None:
                    backoff.attached()
                self._log.info("not attached", broker=broker.address, reason=str(error))
                delay = backoff.failed(error, others=not self.brokers.all_tried)
            self._watch = None
            await asyncio.sleep(delay * self._entropy.uniform(0.5, 1.0))

    def _detached(self) -> None:
        self._queue = None
        self._attached.clear()
        self._publisher.attached(None)
        self._asking.lost()

    async def _connect(self, broker: BrokerAddress) -> Link:
        async with self.brokers.patience():
            secret, server_key = self._identity.key.link_secret(), link_key(broker.public)
            return await self._network.connect(broker.address, secret, server_key=server_key)

    async def _hold(self, link: Link) -> None:
        async with self.brokers.patience():
            await self._attach(link)
        self.brokers.attached()
        queue = SendQueue(link, self._publisher.flush_soon)
        watch = self._watch = LinkWatch(self._clock.boottime(), delegate=is_delegate(self._identity.chain))
        self._begin_link(queue)
        home = go_home(self.brokers, self._connect, self._greet, self._entropy)
        await until_one_fails(queue.run(), self._receive(link, watch), self._look_after(watch), home)

    async def _attach(self, link: Link) -> None:
        self._learn_time(offset_of(await measure(link, self._clock)))
        welcome = await self._greet(link)
        lacks = not (welcome.whole or self.brokers.all_tried) or (welcome.isolated and not self.brokers.given_tried)
        if self._asks_once and lacks:
            raise TransportError("link.filling", f"{welcome.broker} lacks what others have", next="another one is tried")
        if welcome.incarnation != self._publisher.signer.incarnation:
            self._publisher.begin(welcome.incarnation)
            if self.attachment:
                self._subscriptions.tell(NAMESAKE)  # else it has said nothing yet
        self.attachment = welcome.attachment
        sign_attachment(link, self._identity, welcome)
        self._lost_broker, self.broker, self._store = self.broker, welcome.broker, welcome.store

    async def _greet(self, link: Link) -> f.Welcome:
        return await greet(
            link,
            self._identity,
            self._trust,
            self._about,
            incarnation=self._publisher.signer.incarnation,
            attachment=min(self.attachment + 1, GREATEST_COUNT),
            reads=self._reads,
        )

    def _learn_time(self, offset_ms: float) -> None:
        """Take in the broker's time, before anything is claimed.

        What was said by the machine's own clock, before anybody could hear it, is said again by realm time (J4); and an
        incarnation that is ahead of realm time is given up: no broker takes it (A11).
        """
        signer, heard = self._publisher.signer, self.attachment > 0
        realm_ms, by_ms = self._time.measured(offset_ms)
        wrong = not heard and self._publisher.said.put_right(by_ms)
        if signer.chain is not None and (wrong or signer.incarnation > realm_ms + BOUND_MS):
            incarnation = max(realm_ms, self._kept.next if self._kept.next <= realm_ms + BOUND_MS else 0)
            self._publisher.restart(incarnation, backwards=True, unheard=not heard)

    def _begin_link(self, queue: SendQueue) -> None:
        self._queue = queue
        self.refusal = None
        self._attached.set()
        self._certificates.attached()
        self._publisher.attached(queue)
        self._subscriptions.attached(self.broker, self._store, again=bool(self._lost_broker))
        for call in self._on_attached:
            call()
        self._publisher.flush()

    async def _receive(self, link: Link, watch: LinkWatch) -> None:
        while True:
            messages = await link.receive()
            await in_slices(messages, lambda message: self._received(*unpack(message)), self._clock, watch.came)

    def _received(self, frame: f.Frame, parts: tuple[bytes, ...]) -> None:  # noqa: C901, PLR0912 - one line a frame
        match frame:
            case f.Deliver() | f.CompleteFrame() | f.BookmarkFrame() | f.Repaired() | f.Told():
                self._subscriptions.received(frame, parts, self._clock.boottime(), self.now_ms())
            case f.Acked():
                self._publisher.acked(frame)
            case f.Nacked():
                self._nacked(frame)
            case f.Missing(incarnation=incarnation, ranges=ranges):
                gone = self._publisher.missing(incarnation, ranges)
                if gone:
                    self._post(f.Gone(incarnation=incarnation, ranges=gone))
            case f.Certificates():
                self._certificates.shown(parts)
            case f.Forget(signers=signers):
                self._certificates.forget(signers)
            case f.Revocations(all=complete):
                self.offer(self._certificates.revoked(parts, complete=complete))
                if not self._reads and self._publisher.outlive(self._certificates.namesake_ended_ms):
                    self._subscriptions.tell(NAMESAKE)
            case f.Brokers(isolated=isolated):
                self.offer(self.brokers.told(parts, isolated=isolated))
            case f.Keepalive(asks=True):
                self._try_post(f.Keepalive())
                self._asked.set()
            case f.Tally(token=token):
                self._try_post(f.Tallied(token=token))
            case f.Measure():
                self._ask_time()
            case f.TimeIs(sent=sent, realm_ms=realm_ms):
                self._time.answered(sent, realm_ms)
            case (
                f.Fetched(id=number)
                | f.BlobIs(id=number)
                | f.Chunk(id=number)
                | f.HistoryIs(id=number)
                | f.HeadIs(id=number)
            ):
                self._asking.answered(number, frame, parts)
            case f.Refused(code=code, message=message, next=follow):
                raise RefusedError(code, message, next=follow)

    def _ask_known(self) -> None:
        """Ask which of the certificates that were shown are needed no more (rule 7)."""
        if not self._publisher.offers and (asked := self._certificates.to_ask()):
            self._post(f.Known(signers=asked))

    def _nacked(self, frame: f.Nacked) -> None:
        identity = EventId(frame.source, frame.incarnation, frame.sequence)
        self._log.warning("event refused", refused=str(identity), code=frame.code, reason=frame.message)
        self._publisher.not_taken(identity, frame.code, frame.realm_ms)
        if frame.source != self.source:
            self._publisher.flush_soon()
            return
        ahead = frame.code == "clock_ahead"
        if frame.incarnation == self._publisher.signer.incarnation and (frame.restart or ahead):
            if ahead:
                self._time.begin(frame.realm_ms)
            self._publisher.begin_next(backwards=ahead)
        else:
            self._publisher.refused(identity, RefusedError(frame.code, frame.message, next=frame.next))

    # --- time ----------------------------------------------------------------------------------------------------

    def _ask_time(self) -> None:
        sent = self._time.ask()
        for _ in range(ROUND_TRIPS):
            self._post(f.Time(sent=sent))

    async def _look_after(self, watch: LinkWatch) -> None:
        """Look after the link, and after what is due now and then: while the process is awake, when the broker asks."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(watch.pause_s(busy=self._publisher.offers)):
                    await self._asked.wait()
            self._asked.clear()
            now = self._clock.boottime()
            watch.look(now)
            if watch.lost:
                raise TransportError("link.silent", f"nothing came from {self.broker} for {watch.lost_s:.0f} s")
            if watch.asks:
                self._post(f.Keepalive(asks=True))
            self._publisher.probe(now)
            if self._time.is_due:
                self._ask_time()
                self._ask_known()
