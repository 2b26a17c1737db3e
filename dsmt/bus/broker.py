"""The broker: connections, their sessions, what they publish and ask; a shell over ports.

Rule 1: a session is `hello`, `welcome`, `attach`; only then may it publish or read (docs/reference/frames.md). One that is
    not attached within `ATTACH_S` is closed.
Rule 2: everything that arrives in one turn of the loop is stored in one commit before anything of it is acknowledged.
Rule 3: a session that does what the protocol forbids is refused and closed; the others do not notice.
Rule 4: `whole` (SEMANTICS A4): at once if the store held something or the realm was born in it, else after 5 s.
Rule 5: while the disk is full who publishes is closed and who attaches refused, with `store.full`; nothing is lost, for
    sources keep what is not acknowledged. Readers stay.
Rule 6: a fact on `trust/revoked/<key id in hex>` ends that key here, at once and for good (J3).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from dsmt.bus import depot
from dsmt.bus import frames as f
from dsmt.bus.admission import Admission
from dsmt.bus.delivery import Deliveries, Session
from dsmt.bus.ingest import Ingest
from dsmt.bus.outgoing import Outgoing
from dsmt.bus.presence import How
from dsmt.bus.realm_time import RealmTime
from dsmt.bus.receipts import acked, nacked
from dsmt.bus.witness import Self, Witness
from dsmt.errors import DsmtError, FailedError, RefusedError
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Arrival, Closed, Network, Peer, Received
from dsmt.ports.store import Row, Store
from dsmt.trust.grants import may
from dsmt.trust.identity import Identity
from dsmt.trust.store import Realm, TrustStore

TICK_S: Final = 0.25
EXPIRE_S: Final = 60.0
WHOLE_AFTER_S: Final = 5.0
ATTACH_S: Final = 10.0
REFUSED_S: Final = 0.2
"""How long a refused session has to read why, before it is closed."""
TRIM_ROWS: Final = 5000
_HOW: Final[dict[str, How]] = {"peer": "peer", "timeout": "timeout", "local": "local"}

Published = list[tuple[Session, tuple[bytes, ...]]]


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What a broker is told at its start. `born`: a birth record of the realm, signed by its root, is in its directory."""

    address: str
    born: bool
    pid: int | None
    version: str


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
        now = clock.boottime()
        self._time = RealmTime(clock.wall_ms() - now * 1000)
        self._started = now
        self._whole_at = now if config.born or store.head > 0 else now + WHOLE_AFTER_S
        self._sessions: dict[Peer, Session] = {}
        self._names: dict[str, Session] = {}
        self._outgoing = Outgoing(self._disconnect)
        self._to_pump = asyncio.Event()
        self.ready = asyncio.Event()
        self.address = config.address
        self._lag = 0.0
        self._told_trimmed = store.trimmed
        self._admission = Admission(identity, trust, store)
        self._ingest = Ingest(identity, trust, store, now_ms=self.now_ms, incarnation=self._next_incarnation())
        self._witness = Witness(Self(identity.name, config.pid, config.version), store, self._ingest, now)
        self._deliveries = Deliveries(store, trust, send=self._send, now_ms=self.now_ms, whole=self._whole)
        self._log = Logger(broker=identity.name)

    @property
    def realm(self) -> Realm:
        """The realm that is served."""
        return self._trust.realm

    def now_ms(self) -> int:
        """Realm time in ms."""
        return self._time.now_ms(self._clock.boottime())

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
                group.create_task(self._pump())
                group.create_task(self._tick())
        finally:
            self._outgoing.listener = None
            await listener.close()

    # --- start ---------------------------------------------------------------------------------------------------

    def _next_incarnation(self) -> int:
        kept = self._store.get_meta("incarnation")
        incarnation = max(0 if kept is None else int(kept) + 1, self.now_ms())
        self._store.put_meta("incarnation", str(incarnation).encode())
        return incarnation

    def _begin(self) -> None:
        now, now_ms, after = self._clock.boottime(), self.now_ms(), 0
        while rows := self._store.rows(after, 1000, winners_only=True):
            after = rows[-1].row
            for row in rows:
                self._witness.restore(row, now, now_ms)
            self._obey_revocations(rows)
        self._witness.started()
        self._witness.stats(lag=0.0, sessions=0, address=self.address)
        self._commit()

    def _whole(self) -> bool:
        return self._clock.boottime() >= self._whole_at

    def _admit(self, key: bytes) -> bool:
        return len(key) == 32

    # --- what arrives --------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while self._outgoing.listener is not None:
            published: Published = []
            for arrival in await self._outgoing.listener.receive():
                self._arrived(arrival, published)
            self._store_published(published)

    def _arrived(self, arrival: Arrival, published: Published) -> None:
        match arrival:
            case Received(peer, key, message):
                session = self._sessions.get(peer)
                if session is None:
                    session = self._sessions[peer] = Session(peer, key, self._clock.boottime())
                if session.refused:
                    return
                try:
                    frame, parts = f.unpack(message)
                    if isinstance(frame, f.Publish) and session.attached:
                        published.append((session, parts))
                    else:
                        self._handle(session, frame, parts)
                except DsmtError as error:
                    self._refuse(session, error)
            case Closed(peer, _, how):
                self._closed(peer, _HOW[how.value])

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
                self._heard(session)
                self._serve(session, frame, parts)

    def _serve(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Keepalive():
                pass
            case f.Consumed(id=number, count=count):
                self._deliveries.consumed(session, number, count)
                self._to_pump.set()
            case f.Subscribe():
                self._deliveries.subscribe(session, frame)
                self._to_pump.set()
            case f.Unsubscribe(id=number):
                self._deliveries.unsubscribe(session, number)
            case f.Repair():
                self._deliveries.repair(session, frame)
            case f.Certificates():
                self._admission.introduced(session, parts)
            case f.Fetch():
                self._fetch(session, frame)
            case f.ChunkPut() | f.BlobFinished() if not session.name.startswith("operator/"):
                said = f"{session.name} may not put blobs into the depot"
                self._send(session, f.BlobIs(id=frame.id, size=None, ok=False, message=said))
            case _:
                self._send(session, *depot.serve(self._store, frame, parts))

    def _heard(self, session: Session) -> None:
        if self._witness.heard(session, self._clock.boottime(), self.now_ms()):
            self._commit()

    # --- sessions ------------------------------------------------------------------------------------------------

    def _welcome(self, session: Session, hello: f.Hello, parts: tuple[bytes, ...]) -> None:
        if self._ingest.full is not None:
            raise self._full()
        welcome = self._admission.welcome(
            session,
            hello,
            parts,
            presence=self._witness.presence,
            nonce=self._entropy.bytes(16),
            now_ms=self.now_ms(),
        )
        self._send(session, welcome, tuple(signed.raw for signed in self._identity.chain))

    def _attach(self, session: Session, attach: f.Attach) -> None:
        self._admission.attach(session, attach)
        earlier, self._names[session.name] = self._names.get(session.name), session
        self._witness.opened(session, self._clock.boottime(), self.now_ms())
        if earlier is not None:
            said = f"{session.name} has attached anew, from {session.address or 'elsewhere'}"
            self._refuse(earlier, RefusedError("trust.superseded", said, next="see that only one process has this name"))
        issued = 0 if session.certificate is None else session.certificate.issued
        if self._witness.presence.contested(session.name, issued):
            error = self._admission.contested(session.name)
            self._ingest.notice("clone", session.name, error.message)
            self._refuse(session, error)
        self._commit()

    def _full(self) -> RefusedError:
        return RefusedError("store.full", f"the store of {self._identity.name} is full", next="free space on its disk")

    def _closed(self, peer: Peer, how: How) -> None:
        session = self._sessions.pop(peer, None)
        self._outgoing.forget(peer)
        if session is None:
            return
        self._deliveries.unsubscribe(session)
        if self._names.get(session.name) is session:
            del self._names[session.name]
            self._ingest.forget_source(session.name)
        if session.attached:
            self._witness.closed(session, how, self._clock.boottime(), self.now_ms())

    def _refuse(self, session: Session, error: DsmtError) -> None:
        if session.refused:
            return
        self._log.warning("refused", session=session.name, code=error.code, reason=error.message)
        self._send(session, f.Refused(code=error.code[:512], message=error.message[:4096], next=error.next[:4096]))
        session.refused = True
        self._deliveries.unsubscribe(session)
        asyncio.get_running_loop().call_later(REFUSED_S, self._disconnect, session.peer)

    def _disconnect(self, peer: Peer) -> None:
        if self._outgoing.listener is not None and peer in self._sessions:
            self._outgoing.listener.disconnect(peer)

    # --- events --------------------------------------------------------------------------------------------------

    def _store_published(self, published: Published) -> None:
        outcomes = []
        for session, parts in published:
            self._heard(session)
            outcomes.append((session, self._ingest.offered(session.name, parts)))
        if not self._commit():
            for session, _ in outcomes:
                self._refuse(session, self._full())
            return
        for session, outcome in outcomes:
            if outcome.accepted:
                self._send(session, acked(outcome.accepted, self._store, self.now_ms()))
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
            self._witness.stored(rows)
            self._obey_revocations(rows)
            self._deliveries.routed(rows)
        return True

    def _obey_revocations(self, rows: list[Row]) -> None:
        if self._admission.revoked(rows):
            for session in list(self._sessions.values()):
                if self._admission.is_revoked(session):
                    self._refuse(session, RefusedError("trust.revoked", f"{session.name} was revoked"))

    def _fetch(self, session: Session, asked: f.Fetch) -> None:
        granted = () if session.certificate is None else session.certificate.read
        found = (self._store.event(*one) for one in asked.ids)
        rows = [row for row in found if row is not None and (session.name in row.to or may(granted, row.topic))]
        self._deliveries.introduce(session, rows)
        self._send(session, f.Fetched(id=asked.id), tuple(row.raw for row in rows))

    # --- outward -------------------------------------------------------------------------------------------------

    def _send(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> bool:
        return self._outgoing.send(session.peer, frame, parts)

    def _writable(self, peer: Peer) -> None:
        self._outgoing.writable(peer)
        self._to_pump.set()

    async def _pump(self) -> None:
        while True:
            await self._to_pump.wait()
            self._to_pump.clear()
            if self._deliveries.pump():
                self._to_pump.set()
                await asyncio.sleep(0)

    # --- time passes ---------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        expire_at, before = self._started + EXPIRE_S, self._clock.boottime()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock.boottime()
            self._lag = max(0.0, now - before - TICK_S)
            before = now
            self._time.measured(self._clock.wall_ms() - now * 1000, now)
            self._close_strangers(now)
            try:
                self._say_due(now)
                if now >= expire_at:
                    self._ingest.expire()
                    expire_at = now + (0.0 if self._trim() else EXPIRE_S)
            except FailedError as error:
                if error.code != "store.full":
                    raise
                self._log.error("cannot store", reason=str(error))
            self._commit()
            self._deliveries.bookmark_all()
            self._to_pump.set()

    def _trim(self) -> bool:
        """Trim a part of what is due, and say how far it went (B6); whether there is more."""
        more = self._store.trim(self.now_ms(), TRIM_ROWS)
        last = self._store.trimmed
        if not more and last > self._told_trimmed:
            self._ingest.trimmed(self._told_trimmed + 1, last)
            self._told_trimmed = last
        return more

    def _say_due(self, now: float) -> None:
        beats = self._witness.tick(
            now, self.now_ms(), expected=TICK_S, lag=self._lag, sessions=len(self._names), address=self.address
        )
        if beats:
            for session in self._names.values():
                self._send(session, _KEEPALIVE)

    def _close_strangers(self, now: float) -> None:
        for session in list(self._sessions.values()):
            if not session.attached and now - session.since > ATTACH_S:
                self._disconnect(session.peer)


_KEEPALIVE: Final = f.Keepalive()
