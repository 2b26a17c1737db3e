"""The inbox: what arrives over the network, and waits for its session's turn.

Rule 1: who speaks is heard at once, also before its turn: it lives. What says or asks no more than that is done with there.
Rule 2: what tells how far a peer has read does not wait behind what it makes room for.
Rule 3: the end of a connection waits behind what came over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsmt.bus.broker.outgoing import Outgoing
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.rules.quiet import QUIET_S
from dsmt.bus.rules.quota import Rates
from dsmt.bus.rules.turns import TURN, TURN_SYNCED, Turns
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.errors import DsmtError
from dsmt.ports.clock import Clock
from dsmt.ports.network import Arrival, Closed, Message

TOKEN_BYTES: Final = 8
_TALLIED: Final = pack(f.Tallied(token=bytes(TOKEN_BYTES)))[0][:-TOKEN_BYTES]
_HERE: Final = f.Keepalive()
_ANSWER: Final = pack(_HERE)
_QUESTION: Final = pack(f.Keepalive(asks=True))


class Inbox:
    """What came over one broker's connections. `heard` and `refuse` are told of sessions; `turns` hands it out."""

    def __init__(
        self,
        sessions: Sessions,
        outgoing: Outgoing,
        rates: Rates,
        clock: Clock,
        *,
        synced: bool,
        heard: Callable[[Session], None],
        refuse: Callable[[Session, DsmtError], None],
    ) -> None:
        self._sessions, self._outgoing, self._clock = sessions, outgoing, clock
        self._heard, self._refuse = heard, refuse
        self.turns: Turns[Session] = Turns(
            rates,
            turn=TURN_SYNCED if synced else TURN,
            payer=lambda one: one.payer,
            held=lambda one: bool(one.untold) or outgoing.is_full(one.peer),
        )

    def arrived(self, arrival: Arrival) -> bool:
        """Take in one; whether it has made room for what is to be sent to its peer."""
        session = self._sessions.by_peer.get(arrival.peer)
        if isinstance(arrival, Closed):
            self._outgoing.forget(arrival.peer)
            if session is not None:
                session.gone = True
                session.untold.clear()
                self.turns.add(session, arrival)
            return False
        if session is None:
            session = self._sessions.connected(arrival.peer, arrival.key, self._clock.boottime())
        if session.refused:
            return False
        session.heard = self._clock.boottime()
        if session.attached:
            self._heard(session)
            if session.refused:
                return False
            if arrival.message in (_ANSWER, _QUESTION) and self._answered(session, arrival.message):
                return False
        if arrival.message[0][:-TOKEN_BYTES] == _TALLIED:
            self._outgoing.tallied(arrival.peer, arrival.message[0][-TOKEN_BYTES:])
            return True
        try:
            self.turns.add(session, arrival.message)
        except DsmtError as error:
            self._refuse(session, error)
        return False

    def _answered(self, session: Session, message: Message) -> bool:
        """Answer what says or asks no more than that; who does so all the time waits for its turn, as with all else."""
        due, session.answered = session.heard - session.answered >= QUIET_S / 2, session.heard
        if due and message == _QUESTION:
            self._outgoing.send(session.peer, _HERE)
        return due
