"""A source's connection to a realm on NATS JetStream. Fulfils `ports.bus.Bus`.

Rule 1: it holds one link to one server at a time; when that is lost it tries the others, those that it was given and those
    of which it has heard since (`servers`). All servers of a cluster are one broker to it, for they hold one stream.
Rule 2: before it says anything it measures realm time by the stream's leader, puts its certificates where readers look
    for them, takes in every revocation, and reads its last event: its incarnation comes after that one (A11).
Rule 3: what it says goes through `sender` and `door`, what it reads through `subscription` and `opener`.
Rule 4: what NATS cannot do stands in `NatsRealm.can`; what else it lacks, in docs/nats.md.
Rule 5: where realm time is more than `BOUND_MS` behind what it was, for another server leads or its clock was put back, a
    source goes back too, and says what is unacknowledged again in a new incarnation: else it would be acknowledged and
    believed by nobody (J4). So may be what was acknowledged since realm time was measured last: what stands of that, and is
    no shared fact, it says again, too. Who was begun while the clock was ahead has an incarnation that nobody believes until
    then, and fails: what has its place has another one, for it does not come after any that is ahead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from dsmt.bus.nats import depot, fetch
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.door import NatsDoor
from dsmt.bus.nats.emission import NatsEmission
from dsmt.bus.nats.link import NatsLink, any_server
from dsmt.bus.nats.measuring import measured
from dsmt.bus.nats.offers import NatsOffers
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.page import read_page, set_mark
from dsmt.bus.nats.sender import BATCH, GIVE_UP_S, NatsSender
from dsmt.bus.nats.servers import KnownServers
from dsmt.bus.nats.streams import head, last_on
from dsmt.bus.nats.subscription import NatsSubscription
from dsmt.bus.rules.attach_backoff import AttachBackoff
from dsmt.bus.rules.authority import check_reads
from dsmt.bus.rules.emitting import pending_of
from dsmt.bus.rules.nats_config import ALL, broker_of
from dsmt.bus.rules.proofs import introduce, proof
from dsmt.bus.rules.realm_time import MEASURE_S, RealmTime
from dsmt.bus.rules.unanswered import Unanswered
from dsmt.bus.wire.handshake import out_of_time
from dsmt.bus.wire.nats_tokens import certificates_token, connection_name
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError, FailedError, RefusedError, TransportError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.realm import BROKERS
from dsmt.logs import Logger
from dsmt.ports.bus import Ability, Ack, Cursor, Draft, HistoryPage, Interest, Level, Reattached, Subscription
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.realm import KEPT_OUT, About
from dsmt.together import end_all
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

BROKER: Final = "broker/nats"
ATTACH_S: Final = 15.0
"""In which a cluster may choose a leader."""
RETRY_S: Final = 0.1
BEGUN_AHEAD: Final = "link.begun_ahead"


class NatsBus:
    """One source's connection to a realm on NATS."""

    def __init__(
        self,
        *,
        identity: Identity,
        trust: TrustStore,
        realm: NatsRealm,
        clock: Clock,
        entropy: Entropy,
        about: About | None = None,
        reads: bool = False,
        known: KnownServers | None = None,
    ) -> None:
        self.can, self.source, self.attachment, self.broker = realm.can, identity.name, 0, ""
        self.refusal: RefusedError | None = None
        self.ended_ms = 0
        """When that was stored which it had said last in a former life; 0 where nobody knows."""
        self._identity, self._trust, self._realm, self._clock, self._entropy = identity, trust, realm, clock, entropy
        self._reads, self.subjects, self._about = reads, Subjects(trust.realm.name), about or About(None, __version__, "")
        self.known = known or KnownServers((), trust)
        self._shows = certificates_token([one.raw for one in identity.chain])
        self._time = RealmTime(clock.wall_ms() - clock.boottime() * 1000)
        self._opener = NatsOpener(trust, self.subjects, clock.boottime)
        door = NatsDoor(trust, self._opener, clock.boottime)
        self._said = Unanswered[NatsEmission](identity, __version__, self.now_ms)
        self._sender = NatsSender(self.subjects, door, self._said.outbox, self.now_ms, self._settled)
        self._offers = NatsOffers(self.source, self._opener, door, self.now_ms)
        self._subscriptions: list[NatsSubscription] = []
        self._on_attached: list[Callable[[], None]] = []
        self.on_time_known = self._said.on_time_known
        self._link: NatsLink | None = None
        self._store, self._attached, self._flushing = "", asyncio.Event(), False
        self._lately: dict[str, NatsEmission] = {}
        """By topic: its own facts that were acknowledged since realm time was measured (rule 5)."""
        self._log = Logger(source=identity.name)
        trust.add_all([signed.raw for signed in identity.chain])

    # --- being attached ------------------------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether a server holds our attachment now."""
        return self._attached.is_set()

    async def wait_attached(self) -> None:
        """Wait until a server holds our attachment."""
        await self._attached.wait()

    async def run(self) -> None:
        """Attach, and attach again, until cancelled. Raises `FailedError` where realm time went back too far (rule 5)."""
        backoff = AttachBackoff(self.source)
        while True:
            number = max(self.attachment + 1, self.now_ms())
            try:
                link = await self.connect(number)
                try:
                    await self._hold(link, backoff, number)
                finally:
                    self._link = None
                    self._attached.clear()
                    await link.close()
            except DsmtError as error:
                if error.code == BEGUN_AHEAD:
                    raise
                if isinstance(error, RefusedError):
                    self.refusal = error
                self._log.info("not attached", reason=str(error))
                delay = backoff.failed(error)
            await asyncio.sleep(delay * self._entropy.uniform(0.5, 1.0))

    async def connect(self, number: int = 0) -> NatsLink:
        """A link to one of the servers, for the attachment of this number; or for none. Raises as `any_server`."""
        servers, own = self.known.addresses or self._realm.servers, self._realm.own
        chosen = servers.index(own) if own in servers else int(self._entropy.uniform(0, len(servers)))
        incarnation = self._said.signer.incarnation
        name = connection_name(self.source, self._about, number, incarnation, reads=self._reads or not number)
        key, shows = self._identity.key, self._shows if self._realm.gated else ""
        try:
            link = await any_server(servers, chosen, self._realm, key=key, name=name, shows=shows)
        except RefusedError as error:  # a gate does not tell why; who has no valid certificate sees that by itself
            raise (error.code == KEPT_OUT and out_of_time(self._identity.certificate, self.now_ms())) or error from error
        link.reads = self._identity.certificate.read
        if self._realm.gated and link.reads != ALL:
            link.ask_through(self.subjects.asking(self.source, link.reads))
        return link

    async def _hold(self, link: NatsLink, backoff: AttachBackoff, number: int) -> None:
        """Attach over a link, and keep it until it is lost: then with `TransportError`."""
        try:
            async with asyncio.timeout(ATTACH_S):
                await self._attach(link)
        except TimeoutError as error:
            raise TransportError("link.silent", f"no NATS server let {self.source} attach in {ATTACH_S:.0f} s") from error
        self._begin_link(link, number)
        backoff.attached()
        tasks = {asyncio.create_task(one) for one in (self._sender.run(link), self._offers.run(link), self._keep_time(link))}
        try:
            done, _ = await asyncio.wait({link.lost, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            raise TransportError("link.lost", f"{self.source} lost its NATS server", next="it attaches anew by itself")
        finally:
            await end_all(*tasks)
            self.flush()
            self._sender.give_up(self._said.outbox.unanswered())

    async def _attach(self, link: NatsLink) -> None:
        self._said.put_right(self._measured(await measured(link, self.subjects.history, self._clock)))
        at = await head(link, self.subjects.history)
        if at.replicas < self._realm.replicas:
            said = f"stream {self.subjects.history} has {at.replicas} replicas, not {self._realm.replicas}"
            raise RefusedError("nats.replicas", said, next="let the configuration of the realm say what there is")
        await self._opener.introduce(link, self._identity)
        mark, text = self.subjects.mark(self.source, "0", begins=True), os.urandom(9).hex()  # the last one may stand there
        await set_mark(link, mark, text)
        page = await read_page(link, self._opener, [REVOKED, BROKERS], mark=mark, text=text)
        await self.known.hear(link, self._opener, self.now_ms, page)
        if self._said.signer.chain is None and not self._reads:
            await self._begin_incarnation(link)
        if self._realm.gated and not self._reads:
            await link.answer(self.subjects.asked(self.source), self.subjects.answer(self.source))
        self._store = at.store

    async def _begin_incarnation(self, link: NatsLink) -> None:
        said = [
            (stream, one) for one in self.subjects.of(self.source) for stream in (self.subjects.history, self.subjects.facts)
        ]
        previous: tuple[int, int] | None = None
        now_ms = self.now_ms()
        for stored in await asyncio.gather(*(last_on(link, stream, subject) for stream, subject in said)):
            if stored is not None:
                self.ended_ms = max(self.ended_ms, stored.stored_ms)
                try:
                    signed = await self._opener.open(link, stored)
                except UnusableEventError:
                    continue
                if signed.event.incarnation <= now_ms + BOUND_MS:  # else it was said before realm time went back (rule 5)
                    previous = max(previous or (0, 0), signed.id[1:])
        self._said.begin(max(now_ms, previous[0] + 1 if previous else 0), previous=previous)

    def _begin_link(self, link: NatsLink, number: int) -> None:
        again, self._link = self.attachment > 0, link
        broker = f"broker/{broker_of(link.server)}" if self._realm.gated else BROKER
        self.attachment, self.broker, self.refusal = number, broker, None
        self._attached.set()
        for subscription in self._subscriptions if again else ():
            subscription.tell(Reattached(broker, self._store))
        for call in self._on_attached:
            call()
        self.flush()

    async def held(self) -> NatsLink:
        """The link over which it is attached, when it is."""
        while self._link is None or self._link.lost.done():
            await self._attached.wait()
            if self._link is not None and self._link.lost.done():
                await asyncio.sleep(0)  # whoever holds it is about to let go of it
        return self._link

    # --- time ----------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Realm time in ms: that of the stream's leader."""
        return self._time.now_ms(self._clock.boottime())

    def _is_ahead(self, offset_ms: float) -> bool:
        """Whether nobody would believe what is said by our realm time, which the leader's clock is far behind (rule 5)."""
        return self.attachment > 0 and self.now_ms() - self._clock.boottime() * 1000 > offset_ms + BOUND_MS

    def _measured(self, offset_ms: float) -> int:
        now, chain = self._clock.boottime(), self._said.signer.chain
        if self._is_ahead(offset_ms):
            now_ms = int(now * 1000 + offset_ms)
            if chain is not None and chain.incarnation >= now_ms + BOUND_MS:
                raise FailedError(BEGUN_AHEAD, "realm time went back to before this process was begun", next="begin it anew")
            self._time = RealmTime(offset_ms)
            if chain is not None:
                self._said.begin_backwards(max(chain.incarnation + 1, now_ms), self._lately.values())
        self._lately.clear()
        return self._time.measured(offset_ms, now)

    async def _keep_time(self, link: NatsLink) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            try:
                offset_ms = await measured(link, self.subjects.history, self._clock)
                await self.known.look(link, self._opener)
            except TransportError as error:
                self._log.info("realm time not measured", reason=str(error))
                continue
            if self._is_ahead(offset_ms):
                raise TransportError("link.time", "the clock of the NATS servers went back", next="it attaches anew")
            self._measured(offset_ms)

    # --- saying --------------------------------------------------------------------------------------------------

    def emit(self, draft: Draft, *, level: Level | None = None) -> NatsEmission:
        """Sign and send, without waiting. Raises `InputError` when the draft is not valid for its topic."""
        if self._reads:
            raise RefusedError("bus.reads", f"{self.source} only reads, and says nothing on {draft.topic}")
        self.can.check_level(level)
        if len(draft.to) >= BATCH:
            said = f"{draft.topic} is addressed to {len(draft.to)}: NATS stores {BATCH - 1} copies at most with an event"
            raise RefusedError("bus.unable", said, next="address fewer")
        emission = NatsEmission(pending_of(self._said.signer, draft))
        self._said.say(emission)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)
        return emission

    def flush(self) -> None:
        """Sign what was emitted, and let it be sent."""
        self._flushing = False
        self._said.sign()
        self._sender.wake()

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        """`emit`, then wait for the acknowledgement."""
        return await self.emit(draft, level=level).acknowledged()

    def _settled(self, identity: EventId, row: int, error: RefusedError | FailedError | None) -> None:
        if error is not None:
            self._log.warning("event not stored", event_id=str(identity), code=error.code, reason=error.message)
            self._said.refused(identity, error)
            return
        cursor = Cursor(self._store, row, self.now_ms())
        said = self._said.stored(identity, Ack(self.can.level, self._realm.replicas // 2 + 1, self._realm.synced, cursor))
        if said is not None and said.pending.fact and said.pending.version is None:
            self._lately[said.pending.topic] = said

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (rule R5)."""
        self._offers.offer(signed)

    @property
    def early_s(self) -> float:
        """By how much what is re-offered is ahead of realm time; else 0."""
        return self._offers.early_s

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        """Emit a heartbeat that vouches for all facts of this source, if anybody hears it."""
        if self._said.signer.chain is not None and self.attached:
            self.emit(Draft(topic, self._said.signer.heartbeat(0.0, emit_rate_s), subject=self.source))

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        """The certificates of who signed a fact, up to the root's."""
        return proof(self._trust, signed)

    def introduce(self, certificates: Sequence[bytes]) -> None:
        """Take in certificates that were kept with a fact; what cannot be used is left out."""
        for error in introduce(self._trust, certificates):
            self._log.warning("kept certificate not used", code=error.code, reason=error.message)

    # --- reading -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[Subscription]:
        """Deliveries in batches (see the port), over reconnections, until the block is left."""
        self.can.check_interest(interest)
        check_reads(self.source, self._identity.certificate.read, interest.patterns)
        subscription = NatsSubscription(
            self.source,
            interest,
            opener=self._opener,
            held=self.held,
            now=self._clock.boottime,
            now_ms=self.now_ms,
        )
        self._subscriptions.append(subscription)
        task = asyncio.create_task(subscription.run())
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            await end_all(task)

    def on_attached(self, call: Callable[[], None]) -> None:
        """Call this after each attachment."""
        self._on_attached.append(call)

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        """Events of the history by id; while a stream chooses its leader it is asked again."""
        return await self.ask(lambda link: fetch.fetch(link, self._opener, ids))

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes) -> None:
        """Put a blob with this sha256 into the depot. Raises `FailedError` when it is not kept."""
        await depot.put(self.ask, self.subjects, self.source, chunks, digest)

    def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in pieces, checked at the end. Raises `NotFoundError`."""
        return depot.get(self.ask, self.subjects, digest)

    async def ask(self, question: Callable[[NatsLink], Awaitable[depot.Answer]]) -> depot.Answer:
        """Ask a server, and again over each link while none answers: a stream may choose its leader. See `depot.Asks`."""
        until = self._clock.boottime() + GIVE_UP_S
        while True:
            link = await self.held()
            try:
                return await question(link)
            except TransportError:
                if not link.lost.done() and self._clock.boottime() > until:
                    raise
            await asyncio.sleep(RETRY_S)

    # --- what it cannot do ---------------------------------------------------------------------------------------

    async def history(self, after: int) -> HistoryPage:
        """Raises `RefusedError`: nobody signs what a stream holds."""
        self.can.check(Ability.EXPORT)
        raise AssertionError(after)

    async def head(self) -> SignedEvent:
        """Raises `RefusedError`: no server has a key of the realm."""
        self.can.check(Ability.EXPORT)
        raise AssertionError
