"""Dismissal: whose sessions end by what was stored: a revocation of their key, or a verdict on their attachment; or by time.

Rule 1: a revocation ends a key here, at once and for good; everybody is told it before anything that is stored with it, and
    who attaches hears of all before anything else (J3), as it reads them: however many there are. Another broker is sent
    away when it has stored the revocation, or `MOST_MS` later: so it knows that it is one no more, and whoever is attached
    to it hears of it.
Rule 2: who is judged dead and speaks all the same is asked to attach anew, and who has outlived a copy (`judged`, F4, A11).
    Who reads under a broker's name attaches anew when that is given to another key, or to its own (R8).
Rule 3: who is attached with a certificate that ends is sent away then, by realm time: what it says is believed no more,
    and it must not count as alive (J3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.broker.admission import Admission
from dsmt.bus.broker.fan_out import MESSAGE_BYTES, FanOut
from dsmt.bus.broker.outgoing import Outgoing
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.rules.judged import judged, must_attach_anew, outlived
from dsmt.bus.wire import frames as f
from dsmt.errors import DsmtError, RefusedError
from dsmt.event.phrases import another_certificate
from dsmt.ports.store import Row

MOST_MS: Final = 2_000
REVOCATIONS: Final = 256
"""How many revocations one message holds, of about `MESSAGE_BYTES` at most."""


def _taken(untold: deque[Row]) -> list[Row]:
    """The next revocations, as many as one message holds: a key of the realm may say some that are large."""
    taken: list[Row] = []
    size = 0
    while untold and len(taken) < REVOCATIONS and size < MESSAGE_BYTES:
        taken.append(untold.popleft())
        size += len(taken[-1].raw)
    return taken


class Dismissal:
    """Ends sessions with `refuse`."""

    def __init__(
        self,
        admission: Admission,
        sessions: Sessions,
        fan_out: FanOut,
        outgoing: Outgoing,
        *,
        refuse: Callable[[Session, DsmtError], None],
    ) -> None:
        self._admission, self._sessions, self._fan_out = admission, sessions, fan_out
        self._outgoing, self._refuse = outgoing, refuse
        self._telling: list[Session] = []
        """Those that have attached and have yet to be told something."""
        self._revoked = 0
        """The row of the newest revocation."""
        self._until_ms: int | None = None
        """Until when (realm ms) other brokers have to store it; None before the first look."""

    def greet(self, session: Session) -> None:
        """Tell who has attached all that was revoked; the last message says that this was all."""
        session.untold.extend(self._admission.keyring.revocations)
        self._telling.append(session)
        self.go_on()

    def go_on(self) -> None:
        """Tell those that have yet to be told something what they have room for."""
        telling, self._telling = [one for one in self._telling if not one.gone and not one.refused], []
        for session in telling:
            while session.untold and not self._outgoing.is_full(session.peer):
                self._tell(session, session.untold)
            if session.untold:
                self._telling.append(session)
            else:
                self._send(session, f.Revocations(all=True))

    def _send(self, session: Session, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> None:
        if not session.gone:
            self._outgoing.send(session.peer, frame, parts)

    def revoke(self, rows: Sequence[Row]) -> bool:
        """Obey the revocations among rows that are stored now (rule 1); whether there were any."""
        found = self._admission.keyring.revoked(rows)
        if found:
            self._revoked, self._until_ms = found[-1].row, None
        for session in self._sessions.all() if found else ():
            if session.untold:
                session.untold.extend(found)
            elif session.attached:
                waiting = deque(found)
                while waiting:
                    self._tell(session, waiting)
            if not session.is_broker:
                self._end(session)
        return bool(found)

    def _end(self, session: Session) -> None:
        if self._admission.is_revoked(session):
            said = f"{session.name} was revoked"
            self._refuse(session, RefusedError("trust.revoked", said, next=another_certificate(session.name)))

    def expire(self, now_ms: int) -> None:
        """Send away whose certificate has ended (rule 3), and other brokers that were revoked (rule 1)."""
        if self._until_ms is None:
            self._until_ms = now_ms + MOST_MS
        for session in self._sessions.all():
            if session.by_broker:
                self._expire_broker(session, is_late=now_ms >= self._until_ms)
            error = self._admission.out_of_time(session, now_ms)
            if error is not None:
                self._refuse(session, error)

    def _expire_broker(self, session: Session, *, is_late: bool) -> None:
        if session.is_broker and (session.stored >= self._revoked or is_late):
            self._end(session)
        if session.attached and self._admission.is_displaced(session) != session.displaced:
            said = f"an operator has said anew which broker {session.name} is"
            self._refuse(session, RefusedError("bus.displaced", said, next="attach anew"))

    def leave(self, refusal: RefusedError | None) -> None:
        """Send all but other brokers away, if there is a reason why nobody may be attached here."""
        if refusal is None:
            return
        for session in self._sessions.all():
            if session.attached and not session.by_broker:
                self._refuse(session, refusal)

    def _tell(self, session: Session, untold: deque[Row]) -> None:
        rows = _taken(untold)
        self._fan_out.introductions.introduce(session, rows)
        self._send(session, f.Revocations(), tuple(row.raw for row in rows))

    def judge(self, rows: Sequence[Row]) -> None:
        """Obey the verdicts, and the words of other brokers on sessions, among rows that are stored now (rule 2)."""
        for source, attachment in outlived(rows, self._sessions.by_name):
            session = self._sessions.by_name[source]
            if session.attachment < attachment and not session.is_broker:
                said = f"another process was attached as {source}, later than this one, and has ended"
                self._refuse(session, RefusedError("bus.outlived", said, next="attach anew"))
        for node, verdict in judged(rows):
            said = f"{node} was judged dead by this attachment"
            error = RefusedError("bus.judged", said, next="attach anew: who lives is alive again by a greater attachment")
            for session in list(self._sessions.by_name.values()):
                if must_attach_anew(node, verdict, session.name, session.attachment):
                    self._refuse(session, error)
