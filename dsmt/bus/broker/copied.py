"""Copied: how far other brokers hold what was published here, and the acknowledgements that wait for one of them (rule D1).

Rule 1: what is acknowledged is held by another broker too, where one is linked that has had all that was here: `safe`.
Rule 2: nobody waits longer than `SAFE_S` for another broker: then, or when none is linked any more, it is acknowledged as
    what it is, `stored` by this one. Who has kept others waiting for so long is not waited for again until it has caught up.
Rule 3: acknowledgements leave in the order in which their events were stored.
Rule 4: what was brought here by a broker that others read themselves is not sent to these from here. That they hold all that
    they were sent says nothing of it: who says it again here is told that this one has `stored` it.
Rule 5: one that is a broker no more (R8) acknowledges what another one holds, and nothing else: nobody reads it on, and the
    source of the rest says it again elsewhere. It waits as long for one that begins to read it anew: such a one may hold it.
Rule 6: who has stored nothing more for `STILL_S`, though this one says something each second, and says that it has not
    everything, is not heard: its disk is full, and what it has said of others, as that it is linked to one that has died
    since, is from before (F1). Over a thin link much may come for as long; who waits for that has all that it had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from dsmt.bus.broker.session import Session
from dsmt.bus.wire.frames import Acked

SAFE_S: Final = 1.0
STILL_S: Final = 10.0


class _Waiting(NamedTuple):
    session: Session
    frame: Acked
    until: float
    counts: bool
    """Whether who holds all up to its row holds it (rule 4)."""


class Copied:
    """Of one broker. `send` sends a frame to a session; `copying` are the brokers' sessions that have had all there is.

    `left` says whether this broker is one no more (rule 5).
    """

    def __init__(
        self,
        send: Callable[[Session, Acked], object],
        copying: Callable[[], Sequence[Session]],
        *,
        left: Callable[[], bool],
    ) -> None:
        self._send, self._copying, self._left = send, copying, left
        self._waiting: deque[_Waiting] = deque()
        self._missed = 0
        """The last row for which was waited in vain."""
        self._since: dict[Session, tuple[int, float]] = {}
        """By broker: up to where it has stored, and since when that is all."""

    def acknowledge(self, session: Session, frame: Acked, now: float, *, counts: bool) -> None:
        """Acknowledge what has just been stored, at once or when another broker holds it. `now` is boot-time seconds."""
        if self._waiting or self._left() or self._hopes():
            self._waiting.append(_Waiting(session, frame, now + SAFE_S, counts))
        else:
            self._send(session, frame)

    @property
    def waits(self) -> bool:
        """Whether an acknowledgement waits for another broker."""
        return bool(self._waiting)

    def stored(self, broker: Session, row: int) -> None:
        """A broker says that it holds everything up to a row."""
        broker.stored = max(broker.stored, row)
        self._held()

    def tick(self, now: float) -> None:
        """Acknowledge what waits for nobody any more, or has waited long enough; see who goes on."""
        known = ((one, self._since.get(one, (one.stored, now))) for one in self._copying())
        self._since = {one: was if was[0] == one.stored else (one.stored, now) for one, was in known}
        self._held()
        if self._waiting and now >= self._waiting[0].until:
            self._missed = max(self._missed, self._waiting[0].frame.row)
        while self._waiting and (now >= self._waiting[0].until if self._left() else not self._hopes()):
            self._release(self._waiting.popleft())

    def stands_still(self, broker: Session, now: float) -> bool:
        """Whether a broker stores nothing (rule 6)."""
        return broker in self._since and now - self._since[broker][1] > STILL_S

    def _held(self) -> None:
        """Acknowledge what another broker holds; what one says that does not count keeps nobody from waiting for another."""
        while self._waiting and self._copies(self._waiting[0]):
            self._release(self._waiting.popleft())

    def _hopes(self) -> bool:
        """Whether a broker is linked that keeps up (rule 2)."""
        return any(broker.stored >= self._missed for broker in self._copying())

    def _copies(self, one: _Waiting) -> int:
        return sum(broker.stored >= one.frame.row for broker in self._copying())

    def _release(self, one: _Waiting) -> None:
        copies = 1 + (self._copies(one) if one.counts else 0)
        if copies == 1 and self._left():
            return
        frame = one.frame if copies == 1 else msgspec.structs.replace(one.frame, level="safe", copies=copies)
        self._send(one.session, frame)
