"""The outbox: what a source has said and no broker has acknowledged yet (SEMANTICS D1-D3).

Rule 1: events leave in order, at most `WINDOW_EVENTS` or `WINDOW_BYTES` of them unacknowledged at a time.
Rule 2: after a new attachment everything unacknowledged is sent again; the broker drops what it has.
Rule 3: above `limit` bytes the oldest superseded facts are dropped, then the oldest signals; the next event on each topic
    declares the dropped range. What cannot be dropped stays: evidence is never lost.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from dsmt.event.envelope import EventId, SignedEvent

WINDOW_EVENTS: Final = 1024
WINDOW_BYTES: Final = 1024 * 1024
LIMIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class _Kept:
    signed: SignedEvent
    fact: bool
    sent: bool = False


class Outbox:
    """Signed events waiting for their acknowledgement."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._kept: OrderedDict[EventId, _Kept] = OrderedDict()
        self._limit = limit
        self._bytes = self._flying = self._flying_bytes = 0
        self._dropped: dict[str, tuple[int, int]] = {}
        self._unsent: OrderedDict[EventId, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, signed: SignedEvent, *, fact: bool) -> list[EventId]:
        """Keep an event until it is acknowledged; what had to be dropped for it (rule 3)."""
        self._kept[signed.id] = _Kept(signed, fact)
        self._unsent[signed.id] = None
        self._bytes += len(signed.raw)
        return self._shrink() if self._bytes > self._limit else []

    def declare(self, topic: str) -> tuple[int, int] | None:
        """The range of a topic's chain that was dropped and not declared yet; it is declared by asking."""
        return self._dropped.pop(topic, None)

    def due(self) -> list[SignedEvent]:
        """What may be sent now; it counts as sent."""
        found = []
        while self._unsent and self._flying < WINDOW_EVENTS and self._flying_bytes < WINDOW_BYTES:
            identity, _ = self._unsent.popitem(last=False)
            kept = self._kept[identity]
            kept.sent = True
            self._flying += 1
            self._flying_bytes += len(kept.signed.raw)
            found.append(kept.signed)
        return found

    def again(self) -> None:
        """A new attachment: everything is unsent."""
        for kept in self._kept.values():
            kept.sent = False
        self._unsent = OrderedDict.fromkeys(self._kept)
        self._flying = self._flying_bytes = 0

    def settled(self, identity: EventId) -> SignedEvent | None:
        """An event was acknowledged or refused; None when it was not waiting."""
        kept = self._kept.pop(identity, None)
        if kept is None:
            return None
        self._bytes -= len(kept.signed.raw)
        self._unsent.pop(identity, None)
        if kept.sent:
            self._flying -= 1
            self._flying_bytes -= len(kept.signed.raw)
        return kept.signed

    def waiting(self, source: str, incarnation: int, first: int, last: int) -> list[EventId]:
        """The ids of a range that are still waiting."""
        if last - first > len(self._kept):
            return [i for i in self._kept if i.source == source and i.incarnation == incarnation and first <= i[2] <= last]
        ids = (EventId(source, incarnation, n) for n in range(first, last + 1))
        return [i for i in ids if i in self._kept]

    def _shrink(self) -> list[EventId]:
        latest = {kept.signed.event.topic: identity for identity, kept in self._kept.items()}
        superseded = [i for i, k in self._kept.items() if k.fact and latest[k.signed.event.topic] != i]
        signals = [i for i, k in self._kept.items() if not k.fact and latest[k.signed.event.topic] != i]
        dropped = []
        for identity in (*superseded, *signals):
            if self._bytes <= self._limit:
                break
            signed = self.settled(identity)
            if signed is not None:
                number = signed.event.chain.number
                first, last = self._dropped.get(signed.event.topic, (number, number))
                self._dropped[signed.event.topic] = (min(first, number), max(last, number))
                dropped.append(identity)
        return dropped
