"""Early: re-offered facts that a broker refuses for now, because its clock is behind the time at which they were said.

Rule 1: a broker that lost its disk may begin anew with a clock that is behind. It judges what is brought back as if it
    was said now (A2). What it refuses as `clock_ahead` or `event.incarnation` is good, and early: it is kept, and not lost.
Rule 2: each answer of the broker tells its realm time: what is in time by it is offered again. Each `PROBE_S` the earliest
    alone is offered all the same: so a step of the clock is noticed, and the broker knows that something is missing.
Rule 3: whatever else the broker answers ends the waiting for a fact; the end of the link ends it for all, for whoever offers
    does so again at the next one (R5).
"""

from __future__ import annotations

import heapq
from typing import Final

from dsmt.event.envelope import Event, EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS

PROBE_S: Final = 3.0
CODES: Final = frozenset({"clock_ahead", "event.incarnation"})
"""Why a broker refuses what is ahead of its clock."""


class Early:
    """What waits for one broker's clock."""

    def __init__(self) -> None:
        self._waiting: dict[EventId, SignedEvent] = {}
        self._order: list[tuple[int, EventId]] = []
        """What waits by its time, and some that does no more."""
        self._latest_ms = self._realm_ms = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def ahead_s(self) -> float:
        """By how much the latest that waits is ahead of the broker's realm time; 0 when nothing waits."""
        return max(0.001, (self._latest_ms - self._realm_ms) / 1000) if self._waiting else 0.0

    def clear(self) -> None:
        """The link is lost."""
        self._waiting.clear()
        self._order.clear()
        self._latest_ms = self._realm_ms = 0

    def wait(self, signed: SignedEvent) -> None:
        """A broker has refused this one for its time."""
        if signed.id not in self._waiting:
            self._waiting[signed.id] = signed
            heapq.heappush(self._order, (_moment(signed.event), signed.id))
            self._latest_ms = max(self._latest_ms, _moment(signed.event))

    def answered(self, identity: EventId) -> None:
        """A broker has taken this one, or will never."""
        self._waiting.pop(identity, None)

    def due(self, realm_ms: int) -> list[SignedEvent]:
        """What is in time now, by the broker's realm time; it waits no more."""
        self._realm_ms = realm_ms
        found = []
        while (first := self.earliest()) is not None and _moment(first.event) <= realm_ms + BOUND_MS:
            found.append(self._waiting.pop(first.id))
        if not self._waiting:
            self._latest_ms = 0
        return found

    def earliest(self) -> SignedEvent | None:
        """The one that is in time first."""
        while self._order and self._order[0][1] not in self._waiting:
            heapq.heappop(self._order)
        return self._waiting[self._order[0][1]] if self._order else None


def _moment(event: Event) -> int:
    """The realm ms that a validator compares with its own."""
    return max(event.time_ms, event.incarnation)
