"""The broker: connections, their sessions, what they publish and ask; a shell over ports.

Rule 1: a session is `hello`, `welcome`, `attach`; only then may it publish or read (docs/reference/frames.md).
Rule 2: sessions take turns (`turns`); everything of one turn is stored in one commit before any of it is acknowledged.
Rule 3: a session that does what the protocol forbids is refused and closed; the others do not notice.
Rule 4: while the store is not whole (`wholeness`) readers are told so with each bookmark (rule A4).
Rule 5: while the disk is full who publishes is closed and who attaches refused, with `store.full`; nothing is lost, for
    sources keep what is not acknowledged. Readers stay.
Rule 6: a revocation ends a key here, at once and for good; everybody is told it before anything that is stored with it, and
    who attaches hears of all before anything else (J3).
Rule 7: who only reads is no source: nobody is told of it, and whatever it publishes is refused (D2).
Rule 8: who is judged dead and speaks all the same is asked to attach anew (`judged`, F4).
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from dsmt.bus.broker.admission import Admission
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.ingest import Ingest
from dsmt.bus.broker.outgoing import Outgoing
from dsmt.bus.broker.receipts import acked, nacked
from dsmt.bus.broker.reporter import BrokerReporter, Self
from dsmt.bus.broker.requests import Requests
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.broker.timekeeping import Timekeeper
from dsmt.bus.broker.wholeness import Wholeness
from dsmt.bus.rules.judged import judged, must_attach_anew
from dsmt.bus.rules.presence import How
from dsmt.bus.rules.quota import Rates
from dsmt.bus.rules.turns import TURN, TURN_SYNCED, Turns
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack, unpack
from dsmt.errors import DsmtError, FailedError, RefusedError
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Arrival, Closed, Message, Network, Peer
from dsmt.ports.store import Row, Store
from dsmt.trust.identity import Identity
from dsmt.trust.store import Realm, TrustStore

TICK_S: Final = 0.25
EXPIRE_S: Final = 60.0
TRIM_ROWS: Final = 1500
REVOCATIONS: Final = 256
"""How many revocations one message holds."""
_HOW: Final[dict[str, How]] = {"peer": "peer", "timeout": "timeout", "local": "local"}

TOKEN_BYTES: Final = 8
_TALLIED: Final = pack(f.Tallied(token=bytes(TOKEN_BYTES)))[0][:-TOKEN_BYTES]
PAUSE_S: Final = 0.01
"""How soon those are looked at again who may have nothing done now."""

Published = dict[tuple[Session, f.Publish], list[bytes]]


class Broker:
    """One broker. `run` serves until it is cancelled; `address` is known once `ready` is set."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        identity: Identity,
        trust: TrustStore,
        store: Store,
        network: Network,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._config, self._identity, self._trust, self._store = config, identity, trust, store
        self._network, self._clock, self._entropy = network, clock, entropy
        self._log = Logger(broker=identity.name)
        now = clock.boottime()
        self._time = Timekeeper(identity.name, config.boot, store, store.meta, clock, tell=self._tell_clock)
        self._started = now
        self._has_stepped = False
        """Who is attached is yet to be told that realm time has stepped."""
        self._wholeness = Wholeness(store.meta, store.identity, born=config.born, now=now)
        self._sessions = Sessions(self._log, self._send, self._disconnect_later)
        self._outgoing = Outgoing(self._disconnect, lambda: entropy.bytes(TOKEN_BYTES))
        self._rates = Rates()
        self._turns: Turns[Session] = Turns(
            self._rates,
            turn=TURN_SYNCED if store.synced else TURN,
            payer=lambda one: one.payer,
            held=lambda one: self._outgoing.is_full(one.peer),
        )
        self._to_work = asyncio.Event()
        self._depot = Depot(store.blobs, limit=config.depot_bytes, now_ms=self.now_ms)
        self._to_step = asyncio.Event()
        self._pausing: asyncio.TimerHandle | None = None
        self._to_pump = asyncio.Event()
        self.ready = asyncio.Event()
        self.address = config.address
        self._lag = 0.0
        self._admission = Admission(identity, trust, store)
        self._ingest = Ingest(
            identity, trust, store, now_ms=self.now_ms, incarnation=self._next_incarnation(), was=self._was
        )
        self._reporter = BrokerReporter(Self(identity.name, config.pid, config.version), store, self._ingest, now)
        self._fan_out = FanOut(store, trust, send=self._send, now_ms=self.now_ms, whole=self._whole)
        self._requests = Requests(
            store,
            clock,
            fan_out=self._fan_out,
            ingest=self._ingest,
            admission=self._admission,
            depot=self._depot,
            rates=self._rates,
            send=self._send,
            head=self._signed_head,
            pump=self._to_pump.set,
            step=self._to_step.set,
        )

    @property
    def realm(self) -> Realm:
        """The realm that is served."""
        return self._trust.realm

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms()

    async def run(self) -> None:
        """Serve until cancelled. Raises `FailedError` when the port is taken or the store damaged."""
        listener = await self._network.listen(
            self._config.address, self._identity.key.link_secret(), admit=self._admit, writable=self._writable
        )
        self._outgoing.listener, self.address = listener, listener.address
        try:
            self._begin()
            self.ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive())
                group.create_task(self._work())
                group.create_task(self._pump())
                group.create_task(self._step())
                group.create_task(self._tick())
        finally:
            self._outgoing.listener = None
            await listener.close()

    def say(self, below: str, record: msgspec.Struct) -> None:
        """Say something of this broker's process on a topic below its own."""
        self._ingest.own(f"{self._identity.name}/{below}", record, subject=self._identity.name)
        self._commit()

    # --- start ---------------------------------------------------------------------------------------------------

    def _next_incarnation(self) -> int:
        kept = self._store.meta.get("incarnation")
        incarnation = max(0 if kept is None else int(kept) + 1, self.now_ms())
        self._store.meta.put("incarnation", str(incarnation).encode())
        return incarnation

    def _begin(self) -> None:
        now, now_ms, after = self._clock.boottime(), self.now_ms(), 0
        while rows := self._store.rows(after, 1000, winners_only=True):
            after = rows[-1].row
            for row in rows:
                self._reporter.restore(row, now, now_ms)
            self._obey_revocations(rows)
        self._reporter.started()
        self._reporter.trimmed()
        self._reporter.stats(lag=0.0, sessions=0, address=self.address)
        self._commit()

    def _whole(self) -> bool:
        return self._wholeness.at(self._clock.boottime())

    def _admit(self, key: bytes) -> bool:
        return self._sessions.admits(key, self._clock.boottime())

    # --- what arrives --------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while self._outgoing.listener is not None:
            for arrival in await self._outgoing.listener.receive():
                self._arrived(arrival)
            self._turn()

    async def _work(self) -> None:
        """Look at what is left when nothing more arrives."""
        while True:
            await self._to_work.wait()
            self._to_work.clear()
            await asyncio.sleep(0)
            for arrival in self._outgoing.listener.present() if self._outgoing.listener is not None else ():
                self._arrived(arrival)
            self._turn()

    def _arrived(self, arrival: Arrival) -> None:
        session = self._sessions.by_peer.get(arrival.peer)
        if isinstance(arrival, Closed):
            self._outgoing.forget(arrival.peer)
            if session is not None:
                session.gone = True
                self._turns.add(session, arrival)
            return
        if session is None:
            session = self._sessions.connected(arrival.peer, arrival.key, self._clock.boottime())
        if session.refused:
            return
        if session.attached:
            self._heard(session)
            if session.refused:
                return
            if arrival.message == _KEPT_ALIVE and self._is_due(session):
                return
        if arrival.message[0][:-TOKEN_BYTES] == _TALLIED:  # it does not wait behind what it makes room for
            self._outgoing.tallied(arrival.peer, arrival.message[0][-TOKEN_BYTES:])
            self._to_pump.set()
            self._to_work.set()
            return
        try:
            self._turns.add(session, arrival.message)
        except DsmtError as error:
            self._refuse(session, error)

    def _is_due(self, session: Session) -> bool:
        """Whether a session may say that it lives; one that says so all the time waits for its turn, as with all else."""
        now = self._clock.boottime()
        due, session.kept_alive = now - session.kept_alive >= f.KEEPALIVE_S / 2, now
        return due

    def _turn(self) -> None:
        """Look at what is due, and store it (rule 2)."""
        if not self._turns:
            return
        published: Published = {}
        closed: list[tuple[Session, Closed]] = []
        taken = self._turns.take(self._clock.boottime())
        for session, message in taken:
            if isinstance(message, Closed):
                closed.append((session, message))
            elif not session.refused:
                self._look(session, message, published)
        self._store_published(published)
        for session, arrival in closed:
            self._closed(session, _HOW[arrival.how.value])
        if self._turns:
            if taken:
                self._to_work.set()
            elif self._pausing is None:
                self._pausing = asyncio.get_running_loop().call_later(PAUSE_S, self._paused)

    def _paused(self) -> None:
        self._pausing = None
        self._to_work.set()

    def _look(self, session: Session, message: Message, published: Published) -> None:
        try:
            frame, parts = unpack(message)
            if isinstance(frame, f.Publish) and session.attached and not session.reads:
                published.setdefault((session, frame), []).extend(parts)
            else:
                self._handle(session, frame, parts)
        except DsmtError as error:
            self._refuse(session, error)

    def _handle(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Time(sent=sent):
                self._send(session, f.TimeIs(sent=sent, realm_ms=float(self.now_ms())))
            case f.Hello() if not session.attached:
                self._welcome(session, frame, parts)
            case f.Attach() if not session.attached:
                self._attach(session, frame)
            case _ if not session.attached:
                raise RefusedError("bus.order", "attach first")
            case _:
                self._requests.serve(session, frame, parts)

    def _heard(self, session: Session) -> None:
        now = self._clock.boottime()
        if not session.reads and self._reporter.heard(session, now, self.now_ms()):
            self._commit()
            try:
                self._admission.pay(session, now)
            except RefusedError as error:
                self._refuse(session, error)

    # --- sessions ------------------------------------------------------------------------------------------------

    def _welcome(self, session: Session, hello: f.Hello, parts: tuple[bytes, ...]) -> None:
        if self._ingest.full is not None:
            raise self._full()
        welcome = self._admission.welcome(
            session,
            hello,
            parts,
            presence=self._reporter.presence,
            nonce=self._entropy.bytes(16),
            now=self._clock.boottime(),
            now_ms=self.now_ms(),
        )
        self._send(session, welcome, tuple(signed.raw for signed in self._identity.chain))

    def _attach(self, session: Session, attach: f.Attach) -> None:
        self._admission.attach(session, attach, self._reporter.presence, self.now_ms())
        self._tell_revocations(session, self._admission.revocations, complete=True)
        if session.reads:
            return
        earlier = self._sessions.attached(session)
        self._reporter.opened(session, self._clock.boottime(), self.now_ms())
        if earlier is not None:
            said = f"{session.name} has attached anew, from {session.address or 'elsewhere'}"
            self._refuse(earlier, RefusedError("trust.superseded", said, next="see that only one process has this name"))
        issued = 0 if session.certificate is None else session.certificate.issued
        if self._reporter.presence.contested(session.name, issued):
            error = self._admission.contested(session.name)
            self._ingest.notice("clone", session.name, error.message)
            self._refuse(session, error)
        self._commit()

    def _full(self) -> RefusedError:
        return RefusedError("store.full", f"the store of {self._identity.name} is full", next="free space on its disk")

    def _closed(self, session: Session, how: How) -> None:
        self._outgoing.forget(session.peer)
        self._fan_out.unsubscribe(session)
        if self._sessions.closed(session):
            self._ingest.forget_source(session.name)
        if session.attached and not session.reads:
            self._reporter.closed(session, how, self._clock.boottime(), self.now_ms())

    def _refuse(self, session: Session, error: DsmtError) -> None:
        if session.refused:
            return
        self._sessions.refuse(session, error, self._clock.boottime())
        self._turns.drop(session)
        self._fan_out.unsubscribe(session)

    def _disconnect_later(self, peer: Peer, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._disconnect, peer)

    def _disconnect(self, peer: Peer) -> None:
        if self._outgoing.listener is not None and peer in self._sessions.by_peer:
            self._outgoing.listener.disconnect(peer)

    # --- events --------------------------------------------------------------------------------------------------

    def _store_published(self, published: Published) -> None:
        outcomes = []
        for (session, frame), parts in published.items():
            outcome = self._ingest.offered(session.name, parts, again=frame.offered, granted=session.incarnation)
            outcomes.append((session, outcome))
        if not self._commit():
            for session, _ in outcomes:
                self._refuse(session, self._full())
            return
        if any(outcome.refilled for _, outcome in outcomes):
            self._wholeness.refilled(self._clock.boottime())
        early_ms = max(outcome.early_ms for _, outcome in outcomes) if outcomes else 0
        if early_ms:
            self._wholeness.early(self._clock.boottime())
            self._time.early(early_ms)
        for session, outcome in outcomes:
            if outcome.accepted:
                self._send(session, acked(outcome.accepted, self._store, self.now_ms()))
            wanted = self._ingest.wanted(session.name)
            if wanted is not None:
                self._send(session, f.Missing(incarnation=wanted[0], ranges=wanted[1]))
            for refusal in outcome.refused:
                error = refusal.error
                self._log.warning("event refused", session=session.name, code=error.code, reason=error.message)
                self._send(session, nacked(session.name, refusal, self.now_ms()))

    def _commit(self) -> bool:
        """Store and route what is pending; False when the disk is full."""
        try:
            rows = self._ingest.commit()
        except FailedError as error:
            if error.code != "store.full":
                raise
            self._log.error("cannot store", reason=str(error))
            return False
        if rows:
            self._reporter.stored(rows)
            self._obey_revocations(rows)
            self._fan_out.routed(rows)
            self._obey_verdicts(rows)
            if self._time.obey(rows):
                self._stepped()
        return True

    def _obey_revocations(self, rows: list[Row]) -> None:
        found = self._admission.revoked(rows)
        for session in self._sessions.all() if found else ():
            if session.attached:
                self._tell_revocations(session, found)
            if self._admission.is_revoked(session):
                said = f"{session.name} was revoked"
                self._refuse(session, RefusedError("trust.revoked", said, next=f"dsmt cert rotate {session.name}"))

    def _tell_revocations(self, session: Session, rows: list[Row], *, complete: bool = False) -> None:
        """Rule 6; the last message says that these were all."""
        self._fan_out.introduce(session, rows)
        for first in range(0, len(rows), REVOCATIONS):
            self._send(session, f.Revocations(), tuple(row.raw for row in rows[first : first + REVOCATIONS]))
        if complete:
            self._send(session, f.Revocations(all=True))

    def _obey_verdicts(self, rows: list[Row]) -> None:
        for node, verdict in judged(rows):
            said = f"{node} was judged dead by this attachment"
            error = RefusedError("bus.judged", said, next="attach anew: who lives is alive again by a greater attachment")
            for session in list(self._sessions.by_name.values()):
                if must_attach_anew(node, verdict, session.name, session.attachment):
                    self._refuse(session, error)

    def _signed_head(self) -> bytes:
        """A signed head of now, for who exports."""
        if self._reporter.is_stale(self._clock.boottime()):
            self._commit()
            self._reporter.stats(lag=self._lag, sessions=len(self._sessions.by_name), address=self.address)
            self._commit()
        return self._reporter.signed_head

    # --- outward -------------------------------------------------------------------------------------------------

    def _send(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> bool:
        if session.gone:
            return False
        return self._outgoing.send(session.peer, frame, parts)

    def _writable(self, peer: Peer) -> None:
        self._outgoing.writable(peer)
        self._to_pump.set()

    async def _pump(self) -> None:
        while True:
            await self._to_pump.wait()
            self._to_pump.clear()
            if self._fan_out.pump():
                self._to_pump.set()
                await asyncio.sleep(0)

    async def _step(self) -> None:
        """What takes the depot long, a little at a time."""
        self._to_step.set()
        while True:
            await self._to_step.wait()
            self._to_step.clear()
            if self._depot.step():
                self._to_step.set()
                await asyncio.sleep(0)

    # --- time passes ---------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        expire_at, before = self._started + EXPIRE_S, self._clock.boottime()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock.boottime()
            self._lag = max(0.0, now - before - TICK_S)
            before = now
            self._time.look()
            for session in self._sessions.strangers(now):
                self._disconnect(session.peer)
            try:
                self._wholeness.note(now)
                self._say_due(now)
                self._ingest.overdue()
                if now >= expire_at:
                    self._ingest.expire()
                    self._rates.forget(now)
                    self._sessions.forgive(now)
                    self._depot.expire()
                    self._to_step.set()
                    expire_at = now + (0.0 if self._trim() else EXPIRE_S)
                self._admission.let_go(self._sessions.signers, now)
            except FailedError as error:
                if error.code != "store.full":
                    raise
                self._log.error("cannot store", reason=str(error))
            self._commit()
            if self._has_stepped:
                self._has_stepped = False
                self._sessions.tell(_MEASURE)
            self._fan_out.bookmark_all()
            self._to_pump.set()

    def _was(self, ms: int) -> None:
        """Realm time was this once, by this broker's own word."""
        if self._time.was(ms):
            self._stepped()

    def _stepped(self) -> None:
        """Realm time has stepped ahead: with the next tick who is attached is said anew, and then told to measure it.

        In that order: whoever goes along first takes all that was said of sessions for dead.
        """
        self._reporter.presence.renew()
        self._has_stepped = True

    def _tell_clock(self, said: str) -> None:
        self._ingest.notice("clock", self._identity.name, said)
        self._reporter.say_stats_soon()

    def _trim(self) -> bool:
        """Trim a part of what is due, and say what went (B6); whether there is more."""
        more = self._store.trim(self.now_ms(), TRIM_ROWS)
        self._reporter.trimmed()
        return more

    def _say_due(self, now: float) -> None:
        beats = self._reporter.tick(
            now,
            self.now_ms(),
            expected=TICK_S,
            lag=self._lag,
            sessions=len(self._sessions.by_name),
            address=self.address,
            clock_ahead_s=self._time.ahead_s,
            early_s=self._time.early_s,
        )
        if self._ingest.full is None:
            self._time.keep()
        if beats:
            self._sessions.tell(_KEEPALIVE)


_KEEPALIVE: Final = f.Keepalive()
_MEASURE: Final = f.Measure()
_KEPT_ALIVE: Final = pack(_KEEPALIVE)
