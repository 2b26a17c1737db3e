"""The broker: connections, their sessions, what they publish and ask; a shell over ports.

Rule 1: a session is `hello`, `welcome`, `attach`; only then may it publish or read (docs/reference/frames.md).
Rule 2: sessions take turns (`inbox`); everything of one turn is stored in one commit before any of it is acknowledged.
Rule 3: a session that does what the protocol forbids is refused and closed; the others do not notice.
Rule 4: while the store is not whole (`wholeness`) readers are told so with each bookmark (rule A4).
Rule 5: while the disk is full who publishes is closed and a source that attaches refused, with `store.full`; nothing is
    lost, for sources keep what is not acknowledged. Who only reads stays, and comes, where there is no other (`others`).
Rule 6: who only reads is no source: nobody is told of it, and whatever it publishes is refused (D2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from dsmt.bus.broker.admission import Admission
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.copied import Copied
from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.dismissal import Dismissal
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.inbox import TOKEN_BYTES, Inbox
from dsmt.bus.broker.keyring import Keyring
from dsmt.bus.broker.others.copying import Reach
from dsmt.bus.broker.others.holders import Holders
from dsmt.bus.broker.others.others import Others
from dsmt.bus.broker.outgoing import Outgoing
from dsmt.bus.broker.publishing import Published, Publishing, full, tellable
from dsmt.bus.broker.recorder import Elsewhere, Recorder
from dsmt.bus.broker.requests import Requests
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.broker.upkeep import TICK_S, Upkeep
from dsmt.bus.rules.presence import How, two_of_one_name
from dsmt.bus.rules.quota import Rates
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import unpack
from dsmt.errors import DsmtError, RefusedError
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Arrival, Closed, Message, Network, Peer
from dsmt.ports.store import Store, StoreFullError
from dsmt.together import whenever
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

PAUSE_S: Final = 0.01
"""How soon those are looked at again who may have nothing done now."""


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
        reach: Reach,
    ) -> None:
        self._config, self._identity, self._trust, self._store = config, identity, trust, store
        self._network, self._clock, self._entropy, self._log = network, clock, entropy, Logger(broker=identity.name)
        self.ready, self.address = asyncio.Event(), config.address
        self._to_work, self._to_pump, self._to_step = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._pausing: asyncio.TimerHandle | None = None
        self._sessions = Sessions(
            self._log, self._send, lambda peer, s: asyncio.get_running_loop().call_later(s, self._disconnect, peer)
        )
        self._outgoing, self._rates = Outgoing(self._disconnect, lambda: entropy.bytes(TOKEN_BYTES)), Rates()
        self._inbox = Inbox(
            self._sessions, self._outgoing, self._rates, clock, synced=store.synced, heard=self._heard, refuse=self._refuse
        )
        self._keyring = Keyring(identity, trust, store)
        self._holders = holders = Holders(identity.name, store, trust, self._sessions, clock, now_ms=self.now_ms)
        elsewhere = Elsewhere(holders.readings.settled_ms, holders.vouched, lambda: self._others.attached.is_linked)
        self._recorder = recorder = Recorder(config, identity, trust, store, clock, elsewhere=elsewhere)
        self._ingest, self._reporter, self._session_words = recorder.ingest, recorder.reporter, recorder.sessions
        presence, whole, is_copy = recorder.sessions.presence, recorder.is_whole, holders.readings.is_other
        self._admission = Admission(
            identity, trust, store, self._keyring, presence, is_whole=whole, is_copy=is_copy, word_on=holders.words.word_on
        )
        self._depot = Depot(store.blobs, recorder.words, limit=config.depot_bytes, now_ms=self.now_ms, due=self._to_step.set)
        self._fan_out = FanOut(store, trust, send=self._send, now_ms=self.now_ms, whole=whole, had=holders.had)
        self._dismissal = Dismissal(self._admission, self._sessions, self._fan_out, self._outgoing, refuse=self._refuse)
        self._copied = Copied(self._send, lambda: self._others.attached.copies, left=lambda: self._others.left)
        self._others = self._made_others(reach)
        self._publishing = Publishing(
            identity.name,
            store,
            clock,
            recorder=self._recorder,
            copied=self._copied,
            send=self._send,
            refuse=self._refuse,
            commit=self._commit,
        )
        self._upkeep = Upkeep(recorder, self._sessions, (self._rates, self._admission.comings), self._depot, self._keyring)
        self._requests = self._made_requests()

    def _made_others(self, reach: Reach) -> Others:
        return Others(
            self._config,
            self._identity,
            self._store,
            self._clock,
            reach,
            trust=self._trust,
            holders=self._holders,
            recorder=self._recorder,
            keyring=self._keyring,
            fan_out=self._fan_out,
            sessions=self._sessions,
            send=self._send,
            depot=self._depot,
            commit=self._commit,
        )

    def _made_requests(self) -> Requests:
        return Requests(
            self._store,
            self._clock,
            fan_out=self._fan_out,
            copied=self._copied,
            recorder=self._recorder,
            keyring=self._keyring,
            depot=self._depot,
            rates=self._rates,
            lags=self._holders.lags,
            send=self._send,
            head=self._signed_head,
            when_here=self._others.filling.wait,
            pump=self._to_pump.set,
            settled_ms=self._holders.readings.settled_ms,
        )

    @property
    def whole(self) -> bool:
        """Whether everything that the realm holds is here (rule A4)."""
        return self._recorder.is_whole()

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._recorder.time.now_ms()

    async def run(self) -> None:
        """Serve until cancelled. Raises `FailedError` when the port is taken, or the store damaged or an older copy."""
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
                group.create_task(whenever(self._to_pump, self._pump))
                group.create_task(whenever(self._to_step, self._step))
                group.create_task(self._tick())
                group.create_task(self._others.run())
        finally:
            self._outgoing.listener = None
            await listener.close()

    def say(self, below: str, record: msgspec.Struct) -> None:
        """Say something of this broker's process on a topic below its own."""
        self._recorder.words.say(f"{self._identity.name}/{below}", record, subject=self._identity.name)
        self._commit()

    def _begin(self) -> None:
        now, now_ms, after = self._clock.boottime(), self.now_ms(), 0
        while rows := self._store.rows(after, 1000, winners_only=True):
            after = rows[-1].row
            for row in rows:
                self._session_words.restore(row, now, now_ms)
            self._dismissal.revoke(rows)
            self._others.begin(rows)
        self._ingest.revoked()
        self._recorder.older.awaits(self._session_words.presence.are_open("node"), now)
        self._others.started()
        self._session_words.started()
        self._reporter.started()
        self._reporter.trimmed()
        self._reporter.stats(self._upkeep.condition(self.address))
        self._commit()

    def _admit(self, key: bytes) -> bool:
        return self._sessions.admits(key, self._clock.boottime())

    # --- what arrives --------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while self._outgoing.listener is not None:
            self._arrived(await self._outgoing.listener.receive())

    async def _work(self) -> None:
        """Look at what is left when nothing more arrives."""
        while True:
            await self._to_work.wait()
            self._to_work.clear()
            await asyncio.sleep(0)
            self._arrived(self._outgoing.listener.present() if self._outgoing.listener is not None else ())

    def _arrived(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            if self._inbox.arrived(arrival):
                self._to_pump.set()
                self._to_work.set()
        self._turn()

    def _turn(self) -> None:
        """Look at what is due, and store it (rule 2)."""
        if not self._inbox.turns:
            return
        published: Published = {}
        closed: list[tuple[Session, Closed]] = []
        taken = self._inbox.turns.take(self._clock.boottime())
        for session, message in taken:
            if isinstance(message, Closed):
                closed.append((session, message))
            elif not session.refused:
                self._look(session, message, published)
        self._publishing.store({} if self._others.left else published)  # its source says it again elsewhere
        for session, arrival in closed:
            self._closed(session, session.closed_by(arrival.how))
        if self._inbox.turns:
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
            self._refuse(session, tellable(error))

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
        if self._copied.stands_still(session, now) and self._others.readings.lacks(session.name):
            return
        if session.is_told and self._session_words.heard(session, now, self.now_ms()):
            self._commit()
            try:
                self._admission.pay(session, now)
            except RefusedError as error:
                self._refuse(session, error)

    # --- sessions ------------------------------------------------------------------------------------------------

    def _welcome(self, session: Session, hello: f.Hello, parts: tuple[bytes, ...]) -> None:
        if self._recorder.full is not None and not hello.reads:
            raise full(self._identity.name, self._recorder.full)
        self._others.check_here(hello.name)
        welcome = self._admission.welcome(
            session,
            hello,
            parts,
            nonce=self._entropy.bytes(16),
            now=self._clock.boottime(),
            now_ms=self.now_ms(),
            elsewhere=self._holders.attachment_of(hello.name),
            isolated=self._others.isolated,
        )
        self._send(session, welcome, tuple(signed.raw for signed in self._identity.chain))

    def _attach(self, session: Session, attach: f.Attach) -> None:
        self._admission.attach(session, attach, self.now_ms())
        self._dismissal.greet(session)
        self._others.greet(session)
        if not session.is_told:
            return
        earlier = self._sessions.attached(session)
        self._session_words.opened(session, self._clock.boottime(), self.now_ms())
        if earlier is not None:
            said = f"{session.name} has attached anew, from {session.address or 'elsewhere'}"
            self._refuse(earlier, RefusedError("trust.superseded", said, next="see that only one process has this name"))
        own = session.certificate
        if own is not None and self._session_words.presence.contested(session.name, own.issued):
            error = two_of_one_name(own)
            self._recorder.words.fault("clone", session.name, error.message)
            self._refuse(session, error)
        self._commit()

    def _closed(self, session: Session, how: How) -> None:
        self._outgoing.forget(session.peer)
        self._fan_out.unsubscribe(session)
        if self._sessions.closed(session):
            self._ingest.forget_source(session.name)
        if session.is_told:
            self._session_words.closed(session, how, self._clock.boottime(), self.now_ms())

    def _refuse(self, session: Session, error: DsmtError) -> None:
        if session.refused:
            return
        self._sessions.refuse(session, error, self._clock.boottime())
        self._inbox.turns.drop(session)
        self._fan_out.unsubscribe(session)

    def _disconnect(self, peer: Peer) -> None:
        if self._outgoing.listener is not None and peer in self._sessions.by_peer:
            self._outgoing.listener.disconnect(peer)

    # --- events --------------------------------------------------------------------------------------------------

    def _commit(self) -> bool:
        """Store and route what is pending; False when the disk is full."""
        rows = self._recorder.commit()
        if rows:
            facts = [row for row in rows if row.fact]  # only those are to be obeyed
            if ended := self._dismissal.revoke(facts):
                self._ingest.revoked()
            self._fan_out.routed(rows)
            self._dismissal.judge(facts)
            self._recorder.accept(facts)
            self._others.stored(rows, ended=ended)
        return rows is not None

    def _signed_head(self) -> bytes:
        """A signed head of now, for who exports."""
        if self._reporter.is_stale(self._clock.boottime()):
            self._commit()
            self._reporter.stats(self._upkeep.condition(self.address))
            self._commit()
        return self._reporter.signed_head

    # --- outward -------------------------------------------------------------------------------------------------

    def _send(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> bool:
        return not session.gone and self._outgoing.send(session.peer, frame, parts)

    def _writable(self, peer: Peer) -> None:
        self._outgoing.writable(peer)
        self._to_pump.set()

    def _pump(self) -> bool:
        self._dismissal.go_on()
        return self._fan_out.pump()

    def _step(self) -> bool:
        return self._depot.step()

    # --- time passes ---------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        self._upkeep.begin(self._clock.boottime())
        while True:
            await asyncio.sleep(TICK_S)
            self._recorder.older.check()
            now = self._clock.boottime()
            self._upkeep.look(now, self._holders.readings.times_ms)
            self._others.tick(now)
            self._copied.tick(now)
            self._requests.tick()
            self._dismissal.leave(None if self._copied.waits else self._others.refusal)  # once all were answered
            self._dismissal.expire(self.now_ms())
            for session in self._sessions.strangers(now):
                self._disconnect(session.peer)
            try:
                self._upkeep.tick(now, self.address)
            except StoreFullError as error:
                self._log.error("cannot store", reason=str(error))
            self._commit()
            if self._recorder.stepped():
                self._sessions.tell(f.Measure())
            self._fan_out.bookmark_all()
            self._to_pump.set()
