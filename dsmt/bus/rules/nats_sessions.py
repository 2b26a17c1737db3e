"""The sessions of a NATS server, as its gate sees them: connections come and go, and whoever is quiet is asked.

Rule 1: a connection is a session of the source that its name says; the gate has let nobody in whose name is not that of its
    certificate. Which of two of one name counts, and what is said of them, is as with a broker (`session_words`).
    It is told once something is heard of it: who cannot attach, for no majority is there, connects again and again,
    and ends its connection by itself each time. That is no evidence of a death.
Rule 2: of its own server the gate tells of everybody, of other servers' of brokers alone: who else would say that a gate has
    gone?
Rule 3: a connection that ended because its client ended it was closed by its peer; one that the server gave up, for its
    client did not answer or did not read, has timed out (F2).
Rule 4: what was connected before the gate came, and is known with this attachment, goes on.
Rule 5: who connects numbers its attachment itself, before it knows realm time. What is told is bounded as a broker bounds it
    (A11), and above what is known of the name.
Rule 6: of two connections of one name the one with the newer certificate stays, else the one that has attached later; of two
    processes that take turns none does (A11). Which are to be ended is in `to_end`. A connection that was made before its
    process knew its incarnation claims none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from dsmt.bus.rules.presence import How
from dsmt.bus.rules.quiet import is_to_ask
from dsmt.bus.rules.session_words import SessionWords
from dsmt.event.hlc import BOUND_MS
from dsmt.newest import Newest
from dsmt.trust.certificate import Certificate

GONE_KNOWN: Final = 4096
_BY_PEER: Final = frozenset({"Client Closed", "Read Error"})
_BY_SERVER: Final = frozenset({"Server Shutdown", "Kicked", "Authentication Expired"})


class ServerConnection(NamedTuple):
    """A connection: its server's id, and its number there."""

    server: str
    number: int


@dataclass(slots=True)
class NatsSession:
    """Who is connected; fulfils `presence.Attached`."""

    at: ServerConnection
    name: str
    public: bytes
    certificate: Certificate | None
    incarnation: int
    attachment: int
    pid: int | None
    version: str
    address: str
    payer: str
    reads: bool
    heard: float
    asked: float = 0.0
    claimed: int = 0
    follows: int | None = None
    """It numbers its attachments by realm time: nothing says which one it had before."""
    attached: bool = False
    """It has said something: before that nothing is said of it."""


def how_of(reason: str) -> How:
    """How a connection was closed, by what its server says of its end (rule 3)."""
    if reason in _BY_PEER:
        return "peer"
    return "local" if reason in _BY_SERVER else "timeout"


class NatsSessions:
    """Those of the gate of this name. `now` is boot-time seconds, `now_ms` realm ms."""

    def __init__(self, name: str, words: SessionWords) -> None:
        self._name, self._words = name, words
        self.at: dict[ServerConnection, NatsSession] = {}
        self._by_name: dict[str, NatsSession] = {}
        self.to_end: dict[ServerConnection, NatsSession] = {}
        """Those that are to be ended for another one of their name (rule 6)."""
        self._gone: Newest[ServerConnection, None] = Newest(GONE_KNOWN)
        """Those that have ended last: a list that was written before may have them still. No server gives a number twice."""

    def opened(self, session: NatsSession, now: float, now_ms: int) -> None:
        """A connection was made."""
        name = session.name
        if session.at in self.at or session.at in self._gone or name == self._name:
            return
        self.at[session.at] = session
        if session.reads:
            return
        other = self._by_name.get(name)
        if self._is_kept_out(session) or (other is not None and _issued(session) < _issued(other)):
            self.to_end[session.at] = session
            return
        self._by_name[name] = session
        known = self._words.presence.record_of(name)
        if known is not None and known.state != "closed" and known.attachment == session.attachment:
            session.attached = True  # rule 4
            self._words.heard(session, now, now_ms)

    def ended(self, at: ServerConnection, reason: str, now: float, now_ms: int) -> NatsSession | None:
        """A connection has ended; who it was, when that is known."""
        session = self.at.pop(at, None)
        self.to_end.pop(at, None)
        self._gone[at] = None
        if session is None or session.reads:
            return session
        if self._by_name.get(session.name) is session:
            del self._by_name[session.name]
            self._by_name.update((one.name, one) for one in self._of(session.name) if one.at not in self.to_end)
        if session.attached:
            self._words.closed(session, how_of(reason), now, now_ms)
        return session

    def heard(self, name: str, now: float, now_ms: int) -> Certificate | None:
        """A source has said something, somewhere in the cluster: so it has attached. Its certificate, if it is kept out."""
        session = self._by_name.get(name)
        if session is None:
            return None
        session.heard = now
        if session.attached:
            self._words.heard(session, now, now_ms)
            return None
        known = self._words.presence.attachment_of(name)
        session.attachment = max(known + 1 if known else 0, min(session.attachment, now_ms + BOUND_MS))
        session.incarnation = min(session.incarnation, now_ms + BOUND_MS)
        session.attached = True
        self._words.opened(session, now, now_ms)
        kept_out = self._is_kept_out(session)
        self.to_end.update((one.at, one) for one in self._of(name) if kept_out or one is not session)
        return session.certificate if kept_out else None

    def _of(self, name: str) -> list[NatsSession]:
        """The connections of a name, but of those who only read."""
        return [one for one in self.at.values() if one.name == name and not one.reads]

    def _is_kept_out(self, session: NatsSession) -> bool:
        return self._words.presence.contested(session.name, _issued(session))

    def ask(self, now: float) -> list[str]:
        """Who is quiet, and is to be asked now whether it is there (F3)."""
        found = []
        for session in self._by_name.values():
            ancestor = self._by_name.get(session.payer) if session.payer != session.name else None
            if is_to_ask(now, session.heard, session.asked, None if ancestor is None else ancestor.heard):
                session.asked = now
                if session.attached:
                    self._words.presence.asked(session.name, now)
                found.append(session.name)
        return found


def _issued(session: NatsSession) -> int:
    """When a session's certificate was issued; 0 while it is not known here."""
    return 0 if session.certificate is None else session.certificate.issued
