"""The broker: sessions, their events, their subscriptions, and what the broker itself says; a shell over ports.

Rule 1: a session is `hello`, `welcome`, `attach`; only then may it publish or read (docs/frames.md).
Rule 2: everything that arrives in one turn of the loop is stored in one commit before anything of it is acknowledged.
Rule 3: a session that does what the protocol forbids is refused and closed; the others do not notice.
Rule 4: `whole` (SEMANTICS A4): at once if the store held something or the realm was born in it, else after 5 s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from dsmt.bus import frames as f
from dsmt.bus.delivery import Deliveries, Session
from dsmt.bus.handshake import check_attach, check_hello
from dsmt.bus.ingest import Ingest, Refusal
from dsmt.bus.presence import How, Presence
from dsmt.bus.realm_time import RealmTime
from dsmt.errors import DsmtError, FailedError, InputError, RefusedError, UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import EventId
from dsmt.event.records import BrokerStats, Heartbeat, Started, from_data
from dsmt.event.records import Session as SessionFact
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Arrival, Closed, Listener, Message, Network, Peer, Received
from dsmt.ports.store import Row, Store
from dsmt.trust.identity import Identity
from dsmt.trust.store import Realm, TrustStore

TICK_S: Final = 0.25
STATS_S: Final = 30.0
TRIM_S: Final = 60.0
WHOLE_AFTER_S: Final = 5.0
BACKLOG: Final = 10_000
"""Messages that wait for a slow session before it is closed."""


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
        self._presence = Presence(now)
        self._started = now
        self._whole_at = now if config.born or store.head > 0 else now + WHOLE_AFTER_S
        self._sessions: dict[Peer, Session] = {}
        self._names: dict[str, Session] = {}
        self._backlog: dict[Peer, deque[Message]] = {}
        self._listener: Listener | None = None
        self._to_pump = asyncio.Event()
        self.ready = asyncio.Event()
        self.address = config.address
        self._lag = 0.0
        for signed in identity.chain:
            trust.add_all([signed.raw])
            store.put_certificate(signed.certificate.key_id, signed.raw)
        self._restore_certificates()
        self._ingest = Ingest(identity, trust, store, now_ms=self.now_ms, incarnation=self._next_incarnation())
        self._deliveries = Deliveries(store, trust, send=self._send, now_ms=self.now_ms, whole=self._whole)
        self._head_row, self._head_hash = self._restore_head()
        self._log = Logger(broker=identity.name)

    @property
    def realm(self) -> Realm:
        """The realm that is served."""
        return self._trust.realm

    def now_ms(self) -> int:
        """Realm time in ms."""
        now = self._clock.boottime()
        self._time.measured(self._clock.wall_ms() - now * 1000, now)
        return self._time.now_ms(now)

    async def run(self) -> None:
        """Serve until cancelled. Raises `FailedError` when the port is taken."""
        self._listener = await self._network.listen(
            self._config.address, self._identity.key.link_secret(), admit=self._admit, writable=self._writable
        )
        self.address = self._listener.address
        try:
            self._begin()
            self.ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(self._listener))
                group.create_task(self._pump())
                group.create_task(self._tick())
        finally:
            await self._listener.close()

    # --- start ---------------------------------------------------------------------------------------------------

    def _restore_certificates(self) -> None:
        for _, raw in self._store.certificates():
            try:
                self._trust.add_all([raw])
            except UnusableEventError:
                continue

    def _next_incarnation(self) -> int:
        kept = self._store.get_meta("incarnation")
        incarnation = max(0 if kept is None else int(kept) + 1, self.now_ms())
        self._store.put_meta("incarnation", str(incarnation).encode())
        return incarnation

    def _restore_head(self) -> tuple[int, bytes]:
        kept = self._store.get_meta("head")
        if kept is None:
            return 0, bytes(32)
        row, _, digest = kept.partition(b" ")
        return int(row), bytes.fromhex(digest.decode())

    def _begin(self) -> None:
        prefix = f"{self._identity.name}/session/"
        after = 0
        while rows := self._store.rows(after, 1000, winners_only=True):
            after = rows[-1].row
            for row in rows:
                if row.topic.startswith(prefix):
                    record = from_data(SessionFact, decode(row.raw)[0].event.data)
                    source = row.topic.removeprefix(prefix)
                    again = self._presence.restore(source, record, self._clock.boottime(), self.now_ms())
                    if again is not None:
                        self._say_session(source, again)
        mark = self._store.high_mark(self._identity.name)
        self._ingest.own(
            f"source/{self._identity.name}",
            Started(
                previous_incarnation=None if mark is None else mark[0],
                previous_sequence=None if mark is None else mark[1],
                version=self._config.version,
            ),
        )
        self._say_stats()
        self._commit()

    def _whole(self) -> bool:
        return self._clock.boottime() >= self._whole_at

    def _admit(self, key: bytes) -> bool:
        return len(key) == 32

    # --- what arrives --------------------------------------------------------------------------------------------

    async def _receive(self, listener: Listener) -> None:
        while True:
            arrivals = await listener.receive()
            published: list[tuple[Session, f.Publish, tuple[bytes, ...]]] = []
            for arrival in arrivals:
                self._arrived(arrival, published)
            self._store_published(published)

    def _arrived(self, arrival: Arrival, published: list[tuple[Session, f.Publish, tuple[bytes, ...]]]) -> None:
        match arrival:
            case Closed(peer, _, how):
                self._closed(peer, how.value)
            case Received(peer, key, message):
                session = self._sessions.setdefault(peer, Session(peer, key))
                try:
                    frame, parts = f.unpack(message)
                    if isinstance(frame, f.Publish) and session.attached:
                        self._heard(session)
                        published.append((session, frame, parts))
                    else:
                        self._handle(session, frame, parts)
                except DsmtError as error:
                    self._refuse(session, error)

    def _handle(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Hello():
                self._welcome(session, frame, parts)
            case f.Attach():
                self._attach(session, frame)
            case f.Time(sent=sent):
                self._send(session, f.TimeIs(sent=sent, realm_ms=self._exact_ms()), ())
            case f.Keepalive():
                self._heard(session)
            case _ if not session.attached:
                raise RefusedError("bus.order", "attach first")
            case _:
                self._heard(session)
                self._serve(session, frame, parts)

    def _serve(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.Subscribe():
                self._deliveries.subscribe(session, frame)
                self._to_pump.set()
            case f.Unsubscribe(id=number):
                self._deliveries.unsubscribe(session, number)
            case f.Consumed(id=number, count=count):
                self._deliveries.consumed(session, number, count)
                self._to_pump.set()
            case f.Fetch():
                self._fetch(session, frame)
            case _:
                self._depot(session, frame, parts)

    def _exact_ms(self) -> float:
        return float(self.now_ms())

    def _heard(self, session: Session) -> None:
        record = self._presence.heard(session.name, self._clock.boottime(), self.now_ms())
        if record is not None:
            self._say_session(session.name, record)
            self._commit()

    # --- sessions ------------------------------------------------------------------------------------------------

    def _welcome(self, session: Session, hello: f.Hello, parts: tuple[bytes, ...]) -> None:
        certificate = check_hello(self._trust, hello, parts, session.key, self.now_ms())
        if not self._presence.supersedes(hello.name, certificate.issued):
            raise RefusedError(
                "trust.superseded", f"{hello.name} is attached with a newer certificate", next="revoke one of the two"
            )
        for signed in self._trust.chain(certificate.key_id):
            self._store.put_certificate(signed.certificate.key_id, signed.raw)
        known = self._store.high_mark(hello.name)
        greatest = 0 if known is None else known[0]
        floor = greatest if hello.firm else greatest + 1
        session.name, session.certificate = hello.name, certificate
        session.incarnation = max(hello.incarnation, floor if hello.firm else max(floor, self.now_ms()))
        if hello.firm and hello.incarnation < greatest:
            session.incarnation = max(greatest + 1, self.now_ms())
        session.attachment = max(hello.attachment, self._presence.attachment_of(hello.name) + 1)
        session.nonce = self._entropy.bytes(16)
        session.pid, session.version, session.address = hello.pid, hello.version, hello.address
        welcome = f.Welcome(
            broker=self._identity.name,
            incarnation=session.incarnation,
            attachment=session.attachment,
            nonce=session.nonce,
            realm_ms=self._exact_ms(),
            store=self._store.identity,
        )
        self._send(session, welcome, tuple(signed.raw for signed in self._identity.chain))

    def _attach(self, session: Session, attach: f.Attach) -> None:
        if session.certificate is None or not session.nonce:
            raise RefusedError("bus.order", "say hello first")
        check_attach(self._trust, attach.statement, session, self._identity.name)
        session.nonce, session.attached = b"", True
        earlier = self._names.get(session.name)
        self._names[session.name] = session
        if earlier is not None:
            self._refuse(
                earlier,
                RefusedError("trust.superseded", f"{session.name} has attached anew, from {session.address or 'elsewhere'}"),
            )
        self._say_session(
            session.name,
            self._presence.opened(
                session.name,
                attachment=session.attachment,
                issued=session.certificate.issued,
                incarnation=session.incarnation,
                pid=session.pid,
                version=session.version,
                address=session.address,
                now=self._clock.boottime(),
                now_ms=self.now_ms(),
            ),
        )
        self._commit()

    def _closed(self, peer: Peer, how: str) -> None:
        session = self._sessions.pop(peer, None)
        self._backlog.pop(peer, None)
        if session is None:
            return
        self._deliveries.unsubscribe(session)
        if self._names.get(session.name) is session:
            del self._names[session.name]
            self._ingest.forget_source(session.name)
        if session.attached:
            words: dict[str, How] = {"peer": "peer", "timeout": "timeout", "local": "local"}
            record = self._presence.closed(session.name, session.attachment, words[how], self.now_ms())
            if record is not None:
                self._say_session(session.name, record)

    def _refuse(self, session: Session, error: DsmtError) -> None:
        self._log.warning("refused", session=session.name, code=error.code, reason=error.message)
        self._send(session, f.Refused(code=error.code, message=error.message, next=error.next), ())
        self._deliveries.unsubscribe(session)
        asyncio.get_running_loop().call_later(0.2, self._disconnect, session.peer)

    def _disconnect(self, peer: Peer) -> None:
        if self._listener is not None and peer in self._sessions:
            self._listener.disconnect(peer)

    # --- events --------------------------------------------------------------------------------------------------

    def _store_published(self, published: list[tuple[Session, f.Publish, tuple[bytes, ...]]]) -> None:
        outcomes = [(session, self._ingest.offered(session.name, parts)) for session, _, parts in published]
        if not self._commit():
            for session, _ in outcomes:
                self._refuse(session, FailedError("store.full", f"the store of {self._identity.name} is full"))
            return
        for session, outcome in outcomes:
            if outcome.accepted:
                self._acknowledge(session, outcome.accepted)
            for refusal in outcome.refused:
                self._refuse_event(session, refusal)

    def _acknowledge(self, session: Session, ids: list[EventId]) -> None:
        ranges: list[tuple[str, int, int, int]] = []
        for one in ids:
            if ranges and ranges[-1][:2] == (one.source, one.incarnation) and ranges[-1][3] + 1 == one.sequence:
                ranges[-1] = (*ranges[-1][:3], one.sequence)
            else:
                ranges.append((one.source, one.incarnation, one.sequence, one.sequence))
        acked = f.Acked(
            ranges=tuple(ranges),
            level="stored",
            copies=1,
            synced=self._store.synced,
            store=self._store.identity,
            row=self._store.head,
            time_ms=self.now_ms(),
        )
        self._send(session, acked, ())

    def _refuse_event(self, session: Session, refusal: Refusal) -> None:
        error = refusal.error
        self._log.warning("event refused", session=session.name, code=error.code, reason=error.message)
        identity = refusal.id or EventId(session.name, 0, 0)
        nacked = f.Nacked(
            source=identity.source,
            incarnation=identity.incarnation,
            sequence=identity.sequence,
            code=error.code,
            message=error.message,
            realm_ms=self.now_ms(),
            restart=refusal.restart,
        )
        self._send(session, nacked, ())

    def _commit(self) -> bool:
        try:
            rows = self._ingest.commit()
        except FailedError as error:
            self._log.error("cannot store", reason=str(error))
            return False
        if rows:
            self._note_head(rows)
            self._deliveries.routed(rows)
        return True

    def _note_head(self, rows: list[Row]) -> None:
        for row in rows:
            self._head_hash = sha256(self._head_hash + row.raw).digest()
        self._head_row = rows[-1].row

    # --- what is asked -------------------------------------------------------------------------------------------

    def _fetch(self, session: Session, asked: f.Fetch) -> None:
        rows = [row for row in (self._store.event(*one) for one in asked.ids[:1000]) if row is not None]
        self._deliveries.introduce_raw(session, [row.key_id for row in rows])
        self._send(session, f.Fetched(id=asked.id), tuple(row.raw for row in rows))

    def _depot(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        match frame:
            case f.BlobAsked(id=number, digest=digest):
                self._send(session, f.BlobIs(id=number, size=self._store.blob_size(digest)), ())
            case f.ChunkAsked(id=number, digest=digest, number=chunk_number):
                chunk = self._store.get_chunk(digest, chunk_number)
                self._send(session, f.Chunk(id=number), () if chunk is None else (chunk,))
            case f.ChunkPut(id=number, digest=digest, number=chunk_number):
                try:
                    self._store.put_chunk(digest, chunk_number, parts[0])
                    answer = f.BlobIs(id=number, size=None)
                except FailedError as error:
                    answer = f.BlobIs(id=number, size=None, ok=False, message=str(error))
                self._send(session, answer, ())
            case f.BlobFinished(id=number, digest=digest, chunks=chunks):
                ok = self._store.finish_blob(digest, chunks)
                said = "" if ok else "what arrived has another sha256"
                self._send(session, f.BlobIs(id=number, size=self._store.blob_size(digest), ok=ok, message=said), ())
            case _:
                raise InputError("bus.frame", f"a client does not send {type(frame).__name__.lower()}")

    # --- outward -------------------------------------------------------------------------------------------------

    def _send(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> bool:
        """Send now, or keep a message that must not be lost until there is room; False for a delivery that must wait."""
        if self._listener is None:
            return False
        backlog = self._backlog.get(session.peer)
        if not backlog and self._listener.send(session.peer, f.pack(frame, *parts)):
            return True
        if isinstance(frame, f.Deliver | f.Certificates | f.BookmarkFrame | f.CompleteFrame):
            return False
        backlog = self._backlog.setdefault(session.peer, deque())
        backlog.append(f.pack(frame, *parts))
        if len(backlog) > BACKLOG:
            self._disconnect(session.peer)
        return True

    def _writable(self, peer: Peer) -> None:
        backlog = self._backlog.get(peer)
        while backlog and self._listener is not None and self._listener.send(peer, backlog[0]):
            backlog.popleft()
        if not backlog:
            self._backlog.pop(peer, None)
        self._to_pump.set()

    async def _pump(self) -> None:
        while True:
            await self._to_pump.wait()
            self._to_pump.clear()
            while self._deliveries.pump():
                await asyncio.sleep(0)

    # --- what the broker says by itself --------------------------------------------------------------------------

    def _say_session(self, source: str, record: SessionFact) -> None:
        self._ingest.own(f"{self._identity.name}/session/{source}", record, subject=source)

    def _say_stats(self) -> None:
        counts = self._store.counts()
        self._store.put_meta("head", f"{self._head_row} {self._head_hash.hex()}".encode())
        self._ingest.own(
            f"{self._identity.name}/stats",
            BrokerStats(
                store=self._store.identity,
                head=self._head_row,
                head_hash=self._head_hash,
                sessions=len(self._names),
                events=counts["events"],
                facts=counts["facts"],
                disk_bytes=counts["bytes"],
                history_from_ms=counts["first_ms"],
                dropped=self._ingest.dropped,
                lag_s=round(self._lag, 4),
                pid=self._config.pid,
                version=self._config.version,
                address=self.address,
            ),
        )

    def _say_heartbeat(self) -> None:
        chain = self._ingest.chain
        self._ingest.own(
            f"{self._identity.name}/heartbeat",
            Heartbeat(sequence=chain.sequence, digest=chain.digest, lag_s=round(self._lag, 4), emit_rate_s=1.0),
        )

    async def _tick(self) -> None:
        stats_at, trim_at, beat_at = self._started + STATS_S, self._started + TRIM_S, self._started
        before = self._clock.boottime()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock.boottime()
            self._lag = max(0.0, now - before - TICK_S)
            before = now
            for source, record in self._presence.tick(now, self.now_ms(), TICK_S):
                self._say_session(source, record)
            if now >= beat_at:
                self._say_heartbeat()
                beat_at = now + 1.0
                for session in list(self._names.values()):
                    self._send(session, f.Keepalive(), ())
            if now >= stats_at:
                self._say_stats()
                stats_at = now + STATS_S
            if now >= trim_at:
                self._ingest.expire()
                self._store.trim(self.now_ms())
                trim_at = now + TRIM_S
            self._commit()
            self._deliveries.bookmark_all()
            self._to_pump.set()
