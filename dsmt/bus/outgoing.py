"""Outgoing: what a broker sends; a message that must not be lost waits until there is room.

Rule 1: a delivery, a bookmark or a completion that finds its session's queue full is not sent, and the caller is told:
    it is read from the store again later. Everything else waits here, in order, and what comes after it waits too.
Rule 2: a session for which more than `BACKLOG` messages wait is cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from dsmt.bus import frames as f
from dsmt.ports.network import Listener, Message, Peer

BACKLOG: Final = 10_000


class Outgoing:
    """Packs frames and sends them over a listener, once there is one."""

    def __init__(self, cut_off: Callable[[Peer], None]) -> None:
        self.listener: Listener | None = None
        self._cut_off = cut_off
        self._backlog: dict[Peer, deque[Message]] = {}
        self._last: f.Frame | None = None
        self._packed = b""

    def send(self, peer: Peer, frame: f.Frame, parts: tuple[bytes, ...] = ()) -> bool:
        """Send now, or keep what must not be lost; False for a delivery that must wait."""
        if self.listener is None:
            return False
        if frame is not self._last:
            self._last, self._packed = frame, f.pack(frame)[0]
        message = (self._packed, *parts)
        backlog = self._backlog.get(peer)
        if not backlog and self.listener.send(peer, message):
            return True
        if isinstance(frame, f.Deliver | f.BookmarkFrame | f.CompleteFrame):
            return False
        backlog = self._backlog.setdefault(peer, deque())
        backlog.append(message)
        if len(backlog) > BACKLOG:
            self._cut_off(peer)
        return True

    def writable(self, peer: Peer) -> None:
        """There is room again for a peer."""
        backlog = self._backlog.get(peer)
        while backlog and self.listener is not None and self.listener.send(peer, backlog[0]):
            backlog.popleft()
        if not backlog:
            self._backlog.pop(peer, None)

    def forget(self, peer: Peer) -> None:
        """A peer is gone."""
        self._backlog.pop(peer, None)
