"""The inbox: what is done with at once, and what waits for its turn."""

from __future__ import annotations

from typing import Any

from dsmt.bus.broker.inbox import TOKEN_BYTES, Inbox
from dsmt.bus.broker.outgoing import Outgoing
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.rules.quiet import QUIET_S
from dsmt.bus.rules.quota import Rates
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.logs import Logger
from dsmt.ports.network import Closed, How, Peer, Received

PEER = Peer(b"alice")
ALIVE, ASKS, PUBLISH = pack(f.Keepalive()), pack(f.Keepalive(asks=True)), pack(f.Publish(), b"e")


class Clock:
    now = 100.0

    def boottime(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class Answers:
    """A listener over which everything goes out."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, _peer: Peer, message: Any) -> bool:
        self.sent.append(message)
        return True


class Arrivals:
    """An inbox of which `peer` is attached; who was heard and refused."""

    def __init__(self) -> None:
        self.clock, self.heard, self.refused = Clock(), 0, []
        outgoing = Outgoing(lambda _peer: None, lambda: bytes(TOKEN_BYTES))
        outgoing.listener = self.listener = Answers()
        self.sessions = Sessions(Logger(), lambda *_: True, lambda *_: None)
        self.session = self.sessions.connected(PEER, b"key", 0.0)
        self.session.attached = True
        self.inbox = Inbox(self.sessions, outgoing, Rates(), self.clock, synced=False, heard=self._hear, refuse=self._refuse)

    def _hear(self, _session: Session) -> None:
        self.heard += 1

    def _refuse(self, session: Session, error: Any) -> None:
        session.refused = True
        self.refused.append(error.code)

    def come(self, message: Any) -> bool:
        return self.inbox.arrived(Received(PEER, b"key", message))

    def waiting(self) -> list[Any]:
        return [message for _, message in self.inbox.turns.take(self.clock.now)]


def test_who_says_no_more_than_that_it_lives_is_heard_at_once_and_waits_only_when_it_says_so_all_the_time() -> None:
    arrivals = Arrivals()
    arrivals.come(ALIVE)
    assert (arrivals.heard, arrivals.waiting()) == (1, [])
    arrivals.come(ALIVE)
    assert (arrivals.heard, arrivals.waiting()) == (2, [ALIVE])
    arrivals.clock.now += QUIET_S
    arrivals.come(ALIVE)
    assert (arrivals.heard, arrivals.waiting()) == (3, [])


def test_who_asks_is_answered_at_once_and_waits_only_when_it_asks_all_the_time() -> None:
    arrivals = Arrivals()
    arrivals.come(ASKS)
    assert (arrivals.listener.sent, arrivals.waiting()) == ([ALIVE], [])
    arrivals.come(ASKS)
    assert (arrivals.listener.sent, arrivals.waiting()) == ([ALIVE], [ASKS])


def test_who_attaches_was_heard_and_is_not_asked_before_it_is_quiet() -> None:
    arrivals = Arrivals()
    arrivals.session.attached = False
    arrivals.come(PUBLISH)
    arrivals.session.attached = True
    assert arrivals.heard == 0, "it speaks for nobody yet"
    assert arrivals.sessions.ask(arrivals.clock.now + QUIET_S / 2) == []
    assert arrivals.sessions.ask(arrivals.clock.now + QUIET_S) == [arrivals.session]


def test_what_tells_how_far_a_peer_has_read_makes_room_and_does_not_wait() -> None:
    arrivals = Arrivals()
    assert not arrivals.come(PUBLISH)
    assert arrivals.come(pack(f.Tallied(token=b"8 bytes.")))
    assert arrivals.waiting() == [PUBLISH]


def test_the_end_of_a_connection_waits_behind_what_came_over_it() -> None:
    arrivals = Arrivals()
    arrivals.come(PUBLISH)
    end = Closed(PEER, b"key", How.PEER)
    arrivals.inbox.arrived(end)
    assert arrivals.session.gone
    assert arrivals.waiting() == [PUBLISH, end]


def test_nothing_more_is_taken_in_of_who_was_refused() -> None:
    arrivals = Arrivals()
    arrivals.come(pack(f.Keepalive(), *[b"x"] * 99))
    assert arrivals.refused == ["bus.frame"]
    arrivals.come(PUBLISH)
    assert (arrivals.heard, arrivals.waiting()) == (1, [])
