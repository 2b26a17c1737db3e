"""Outgoing: what a broker sends; a message that must not be lost waits until there is room.

Rule 1: a delivery, a bookmark or a completion that finds its session's queue full is not sent, and the caller is told:
    it is read from the store again later. Everything else waits here, in order, and what comes after it waits too.
Rule 2: what a session has not shown to have read is counted in bytes, wherever it lies: after each `TALLY_BYTES` goes a
    `tally` with random bytes, which only who has read up to it can give back (D2).
Rule 3: over `UNREAD_BYTES` nothing is delivered and nothing more of the session is looked at; over `MOST_UNREAD_BYTES`,
    which is reached by what must not be lost, the session is cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.ports.network import Listener, Message, Peer

UNREAD_BYTES: Final = 4 * 1024 * 1024
MOST_UNREAD_BYTES: Final = 2 * UNREAD_BYTES
TALLY_BYTES: Final = 256 * 1024
MESSAGE_COST: Final = 200
"""What a message costs beside its bytes, in this process and in the network's."""


@dataclass(slots=True)
class _Way:
    """What is on its way to one peer."""

    backlog: deque[Message] = field(default_factory=deque)
    tallies: deque[tuple[bytes, int]] = field(default_factory=deque)
    """Each token that was not given back, and the bytes before it."""
    unread: int = 0
    untold: int = 0
    """Bytes after the last token."""


class Outgoing:
    """Sends messages over a listener, once there is one. `token` gives random bytes."""

    def __init__(self, cut_off: Callable[[Peer], None], token: Callable[[], bytes]) -> None:
        self.listener: Listener | None = None
        self._cut_off, self._token = cut_off, token
        self._ways: dict[Peer, _Way] = {}
        self._last: f.Frame | None = None
        self._parts: tuple[bytes, ...] = ()
        self._message: Message = ()
        self._size = 0

    def send(self, peer: Peer, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> bool:
        """Send now, or keep what must not be lost; False for a delivery that must wait."""
        if self.listener is None:
            return False
        if frame is not self._last or parts is not self._parts:
            self._last, self._parts, self._message = frame, parts, pack(frame, *parts)
            self._size = sum(map(len, self._message)) + MESSAGE_COST
        message = self._message
        way = self._ways.get(peer)
        if way is None:
            way = self._ways[peer] = _Way()
        can_wait = isinstance(frame, f.Deliver | f.BookmarkFrame | f.CompleteFrame)
        if can_wait and (way.backlog or way.unread >= UNREAD_BYTES):
            return False
        if way.backlog or not self.listener.send(peer, message):
            if can_wait:
                return False
            way.backlog.append(message)
        self._count(peer, way, self._size)
        return True

    def _count(self, peer: Peer, way: _Way, size: int) -> None:
        way.unread += size
        way.untold += size
        if way.untold >= TALLY_BYTES and self.listener is not None:
            token = self._token()
            way.tallies.append((token, way.untold))
            way.untold = 0
            message = pack(f.Tally(token=token))
            if way.backlog or not self.listener.send(peer, message):
                way.backlog.append(message)
        if way.unread > MOST_UNREAD_BYTES:
            self._cut_off(peer)

    def tallied(self, peer: Peer, token: bytes) -> None:
        """A peer has shown how far it has read."""
        way = self._ways.get(peer)
        if way is None or all(token != one for one, _ in way.tallies):
            return
        found = b""
        while found != token:
            found, size = way.tallies.popleft()
            way.unread -= size

    def is_full(self, peer: Peer) -> bool:
        """Whether a peer has to read before anything more is done for it."""
        way = self._ways.get(peer)
        return way is not None and way.unread >= UNREAD_BYTES

    def writable(self, peer: Peer) -> None:
        """There is room again for a peer."""
        way = self._ways.get(peer)
        while way is not None and way.backlog and self.listener is not None and self.listener.send(peer, way.backlog[0]):
            way.backlog.popleft()

    def forget(self, peer: Peer) -> None:
        """A peer is gone."""
        self._ways.pop(peer, None)
