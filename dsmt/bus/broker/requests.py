"""Requests: what attached sessions ask of a broker, beside publishing, and what each costs who pays for it.

Rule 1: an answer's bytes are work as well; so is what makes the broker look at all its topics, or write twice, and the
    time that it takes to find room for a blob (`quota`).
Rule 2: events are given by id to who may read their topic, or to whom they are addressed.
Rule 3: who only reads may ask, and nothing else (D2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dsmt.bus.broker.copied import Copied
from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.introductions import Send
from dsmt.bus.broker.keyring import Keyring
from dsmt.bus.broker.lags import Lags
from dsmt.bus.broker.past import Past
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.quota import UNIT_BYTES, Rates
from dsmt.bus.rules.turns import TURN
from dsmt.bus.wire import frames as f
from dsmt.errors import InputError, RefusedError
from dsmt.event.burst import raws_of
from dsmt.ports.clock import Clock
from dsmt.ports.store import Kept
from dsmt.trust.grants import may
from dsmt.trust.store import Signer

SUBSCRIBE_COST: Final = 32
"""Units of work: who takes what is found anew for all topics."""
PUT_COST: Final = 2
"""Units of work for each of a chunk's own: it is written twice, and read to be hashed."""


class Requests:
    """Answers sessions. `head` signs the head of the history, `when_here` waits for a blob, `pump` has readers go on.

    `settled_ms` is as in `Past`.
    """

    def __init__(
        self,
        store: Kept,
        clock: Clock,
        *,
        fan_out: FanOut,
        copied: Copied,
        recorder: Recorder,
        keyring: Keyring,
        depot: Depot,
        rates: Rates,
        lags: Lags,
        send: Send,
        head: Callable[[], bytes],
        when_here: Callable[[bytes, Callable[[], None]], None],
        pump: Callable[[], None],
        settled_ms: Callable[[], int | None],
    ) -> None:
        self._store, self._clock, self._fan_out, self._copied, self._ingest = store, clock, fan_out, copied, recorder.ingest
        self._keyring, self._depot, self._rates = keyring, depot, rates
        self._past = Past(store, fan_out, self._answer, now_ms=recorder.time.now_ms, settled_ms=settled_ms)
        self.tick, self._older, self._lags = self._past.tick, recorder.older, lags
        self._send, self._head, self._when_here, self._pump = send, head, when_here, pump

    def serve(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:  # noqa: C901, PLR0912 - one line a frame
        """Do what a session asks. Raises `RefusedError`, `InputError`."""
        match frame:
            case f.Keepalive(asks=asks):
                if asks:
                    self._send(session, f.Keepalive(), ())
            case f.Consumed(id=number, count=count):
                self._fan_out.consumed(session, number, count)
                self._pump()
            case f.Mark(id=number, token=token):
                self._fan_out.mark(session, number, token)
            case f.Subscribe():
                self._spend(session, SUBSCRIBE_COST)
                self._fan_out.subscribe(session, frame)
                self._older.reader_asks(session.name, frame)
                self._pump()
            case f.Stored(id=number, row=row) if session.is_broker:
                self._stored(session, min(row, self._fan_out.given(session, number)))
            case f.Stored() if session.by_broker:
                pass  # its name is another one's: what it holds is no copy, and it reads on, by which it learns so (R8)
            case f.Unsubscribe(id=number):
                self._fan_out.unsubscribe(session, number)
            case f.Gone(incarnation=incarnation, ranges=ranges):
                self._ingest.holes.gone(session.name, incarnation, ranges)
            case f.Repair():
                self._past.repair(session, frame)
            case f.Publish() | f.Certificates() | f.ChunkPut() | f.BlobFinished() if session.reads:
                raise RefusedError("bus.reads", f"{session.name} has attached as a reader only")
            case f.Known(signers=signers):
                self._known(session, signers)
            case f.Certificates():
                self._keyring.introduced(session.name, parts)
            case f.Fetch():
                self._fetch(session, frame)
            case f.HistoryAsked():
                self._past.history(session, frame)
            case f.HeadAsked(id=number):
                self._answer(session, f.HeadIs(id=number), (self._head(),))
            case f.ChunkPut() | f.BlobFinished() if not session.name.startswith("operator/"):
                said = f"{session.name} may not put blobs into the depot"
                self._answer(session, f.BlobIs(id=frame.id, size=None, ok=False, message=said), ())
            case f.ChunkPut() | f.BlobFinished():
                self._put(session, frame, parts)
            case f.BlobAsked(digest=digest) if not session.by_broker:
                self._when_here(digest, lambda: self._answer(session, *self._depot.asked(frame)))
            case f.BlobAsked() | f.ChunkAsked():
                self._answer(session, *self._depot.asked(frame))
            case _:
                raise InputError("bus.frame", f"a client does not send {type(frame).__name__.lower()}")

    def _put(self, session: Session, frame: f.ChunkPut | f.BlobFinished, parts: tuple[bytes, ...]) -> None:
        began = self._clock.boottime()
        self._depot.put(frame, parts, session.payer, lambda answer: self._answer(session, answer, ()))
        took_ms = (self._clock.boottime() - began) * 1000
        self._spend(session, max(PUT_COST * sum(map(len, parts)) / UNIT_BYTES, TURN * took_ms))

    def _stored(self, session: Session, row: int) -> None:
        """Another broker has everything up to a row."""
        self._copied.stored(session, row)
        if session.certificate is not None:
            self._lags.stored(session.certificate.public, row)

    def _known(self, session: Session, signers: Iterable[Signer]) -> None:
        """Say whose certificates are needed no more; who is told so is shown them again with the next that they sign."""
        passed = tuple(signer for signer in signers if not self._keyring.knows(*signer))
        for signer in passed:
            session.known.pop(signer, None)
        if passed:
            self._answer(session, f.Forget(signers=passed), ())

    def _fetch(self, session: Session, asked: f.Fetch) -> None:
        found = (self._store.event(*one) for one in asked.ids)
        rows = [row for row in found if row is not None and (session.name in row.to or may(session.granted, row.topic))]
        self._fan_out.introductions.introduce(session, rows)
        self._answer(session, f.Fetched(id=asked.id), tuple(raws_of(row.sealed for row in rows)))

    def _answer(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...]) -> None:
        """Send what was asked for (rule 1)."""
        self._spend(session, sum(map(len, parts)) / UNIT_BYTES)
        self._send(session, frame, parts)

    def _spend(self, session: Session, units: float) -> None:
        self._rates.spend(session.payer, units, self._clock.boottime())
