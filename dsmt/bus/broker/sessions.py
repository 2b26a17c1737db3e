"""Sessions: who is connected to a broker, who is attached under which name, and who is sent away.

Rule 1: who is refused is told why, has a moment to read it, and is disconnected; nothing more of it is looked at.
Rule 2: who is refused for what no honest client does is not admitted for a while (D2).
Rule 3: of one name the session counts that attached last. One that is not attached within `ATTACH_S` is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsmt.bus.broker.session import Session
from dsmt.bus.rules.quiet import is_to_ask
from dsmt.bus.wire import frames as f
from dsmt.errors import DsmtError
from dsmt.logs import Logger
from dsmt.ports.network import Peer
from dsmt.trust.store import Signer

_QUESTION: Final = f.Keepalive(asks=True)
ATTACH_S: Final = 10.0
REFUSED_S: Final = 0.2
"""How long who is refused has to read why."""
OFFENCES: Final = frozenset({"bus.frame", "bus.order", "quota"})
OFFENDED_S: Final = (0.02, 1.0)
"""How long who was refused for one of these has to read why, and how long its key is not admitted then (rule D2)."""

OWN_FAULTS: Final = frozenset({"store.full", "broker.left", "broker.expired", "bus.outlived"})
"""For which somebody is sent away who has done nothing: that its connection ends then is no evidence of a death (F2)."""

KEY_BYTES: Final = 32


class Sessions:
    """All sessions of one broker. `disconnect` ends a connection after so many seconds; `now` is boot-time seconds."""

    def __init__(
        self, log: Logger, send: Callable[[Session, f.Frame], bool], disconnect: Callable[[Peer, float], object]
    ) -> None:
        self._log, self._send, self._disconnect = log, send, disconnect
        self.by_peer: dict[Peer, Session] = {}
        self.by_name: dict[str, Session] = {}
        """Those that are attached, without those who only read."""
        self._offended: dict[bytes, float] = {}
        """Until when a key is not admitted."""

    def admits(self, key: bytes, now: float) -> bool:
        """Whether a connection of this key is taken (rule 2)."""
        return len(key) == KEY_BYTES and now >= self._offended.get(key, 0.0)

    def connected(self, peer: Peer, key: bytes, now: float) -> Session:
        """A new one; until its certificate tells who pays it pays itself."""
        session = self.by_peer[peer] = Session(peer, key, now, payer=peer.hex())
        return session

    def attached(self, session: Session) -> Session | None:
        """One has attached under its name; the one that it takes the place of."""
        earlier, self.by_name[session.name] = self.by_name.get(session.name), session
        return earlier

    def closed(self, session: Session) -> bool:
        """One has ended; whether its name has left with it."""
        self.by_peer.pop(session.peer, None)
        if self.by_name.get(session.name) is not session:
            return False
        del self.by_name[session.name]
        return True

    def refuse(self, session: Session, error: DsmtError, now: float) -> None:
        """Send one away (rule 1)."""
        self._log.warning("refused", session=session.name, code=error.code, reason=error.message)
        self._send(session, f.Refused(code=error.code[:512], message=error.message[:4096], next=error.next[:4096]))
        session.refused, session.blameless = True, error.code in OWN_FAULTS
        read_s = REFUSED_S
        if error.code in OFFENCES:
            read_s, away_s = OFFENDED_S
            self._offended[session.key] = now + away_s
        self._disconnect(session.peer, read_s)

    def forgive(self, now: float) -> None:
        """Forget offences that are long enough ago."""
        self._offended = {key: until for key, until in self._offended.items() if until > now}

    def all(self) -> list[Session]:
        """Every one."""
        return list(self.by_peer.values())

    def tell(self, frame: f.Frame) -> None:
        """Send a frame to all that are attached, and were not sent away."""
        for session in self.all():
            if session.attached and not session.refused:
                self._send(session, frame)

    def ask(self, now: float) -> list[Session]:
        """Ask who is quiet whether it is there (rule F3); who was asked."""
        asked = [one for one in self.by_peer.values() if one.attached and not one.refused and self._is_to_ask(one, now)]
        for session in asked:
            session.asked = now
            self._send(session, _QUESTION)
        return asked

    def _is_to_ask(self, session: Session, now: float) -> bool:
        ancestor = self.by_name.get(session.payer) if session.payer != session.name else None
        return is_to_ask(now, session.heard, session.asked, None if ancestor is None else ancestor.heard)

    def signers(self) -> set[Signer]:
        """The keys and names of who is attached, or about to be, also to read only: what ends above them is to end them."""
        held = ((one.certificate, one.name) for one in self.by_peer.values())
        return {(certificate.key_id, name) for certificate, name in held if certificate is not None}

    def strangers(self, now: float) -> list[Session]:
        """Those that did not attach in time (rule 3)."""
        return [one for one in self.all() if not one.attached and now - one.since > ATTACH_S]
