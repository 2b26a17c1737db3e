"""The outbox: what a source has said and no broker has acknowledged yet (rules D1, D2).

Rule 1: events leave in order, at most `WINDOW_EVENTS` or about `WINDOW_BYTES` of them unacknowledged at a time.
Rule 2: after a new attachment everything unacknowledged is sent again; the broker drops what it has.
Rule 3: above `limit` bytes superseded facts are dropped, oldest first, then the oldest signals that are no evidence, down to
    `LOW_WATER` of the limit. The newest event on each topic stays, and so does what is on its way, each signal that is
    evidence, and each shared fact: what replaces one that was dropped is refused.
Rule 4: what was dropped, and what a broker refused, is declared by the next event on its topic, in its own incarnation only;
    and so is what such an event had declared itself, for nobody has heard that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from dsmt.event.envelope import EventId, EventRange, SignedEvent

WINDOW_EVENTS: Final = 4096
WINDOW_BYTES: Final = 1024 * 1024
LIMIT_BYTES: Final = 64 * 1024 * 1024
LOW_WATER: Final = 0.9
"""Dropping looks at everything that is kept, so it makes room for many at once."""


@dataclass(slots=True)
class _Kept:
    signed: SignedEvent
    fact: bool
    evidence: bool
    size: int
    sent: bool = False
    settled: bool = False


class Outbox:
    """Signed events waiting for their acknowledgement."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Wait for nothing any more, and declare nothing: all is said anew."""
        self._kept: dict[EventId, _Kept] = {}
        self._shrink_above = self._limit
        self._bytes = self._flying = self._flying_bytes = 0
        self._dropped: dict[str, tuple[int, int]] = {}
        self._declared_since = 0
        """Of earlier incarnations nothing is declared: the chains of this one do not hold it."""
        self._unsent: deque[_Kept] = deque()
        """What is to be sent, first of all first; what was sent or settled meanwhile is passed over."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes of everything that is kept."""
        return self._bytes

    def add(self, signed: SignedEvent, *, fact: bool, evidence: bool) -> list[EventId]:
        """Keep an event until it is acknowledged; what had to be dropped for it (rule 3)."""
        identity, size = signed.id, signed.size
        kept = self._kept[identity] = _Kept(signed, fact, evidence, size)
        self._unsent.append(kept)
        self._bytes += size
        if self._bytes <= self._limit:
            self._shrink_above = self._limit
        return self._shrink() if self._bytes > self._shrink_above else []

    def undeclared(self, topic: str) -> tuple[int, int] | None:
        """The range of a topic's chain that was dropped and not declared yet."""
        return self._dropped.get(topic) if self._dropped else None

    def declared(self, topic: str) -> None:
        """What is said on a topic now declares that."""
        self._dropped.pop(topic, None)

    def due(self) -> list[SignedEvent]:
        """What may be sent now; it counts as sent."""
        found = []
        while self._unsent and self._flying < WINDOW_EVENTS and self._flying_bytes < WINDOW_BYTES:
            kept = self._unsent.popleft()
            if kept.sent or kept.settled:
                continue
            kept.sent = True
            self._flying += 1
            self._flying_bytes += kept.size
            found.append(kept.signed)
        return found

    def again(self) -> None:
        """A new attachment: everything is unsent."""
        for kept in self._kept.values():
            kept.sent = False
        self._unsent = deque(self._kept.values())
        self._flying = self._flying_bytes = 0

    def before(self, incarnation: int, last: int) -> int:
        """The sequence up to which all of an incarnation was answered; `last` is the last one that was given."""
        return min((i.sequence for i in self._kept if i.incarnation == incarnation), default=last + 1) - 1

    def goes_first(self, incarnation: int) -> None:
        """What is kept of an incarnation is sent before all else; nothing is on its way."""
        self._kept = dict(sorted(self._kept.items(), key=lambda one: one[0].incarnation != incarnation))
        self.again()

    def declare_from(self, incarnation: int) -> None:
        """Another incarnation begins, with chains of its own: what is dropped of those before needs no word in it."""
        self._declared_since = incarnation
        self._dropped.clear()

    def unanswered(self) -> list[EventId]:
        """The shared facts that a broker may have got, or may have been about to get."""
        return [identity for identity, kept in self._kept.items() if kept.signed.event.version is not None]

    def resend(self, wanted: EventRange) -> list[int]:
        """Let what is kept of a range of sequences be sent again, first of all; which they are."""
        held = self.waiting(wanted)
        for identity in reversed(held):
            kept = self._kept[identity]
            if kept.sent:
                kept.sent = False
                self._flying -= 1
                self._flying_bytes -= kept.size
            self._unsent.appendleft(kept)
        return [identity.sequence for identity in held]

    def settled(self, identity: EventId) -> SignedEvent | None:
        """Wait for an event no more: it was acknowledged, refused or given up. None when it was not waiting."""
        kept = self._kept.pop(identity, None)
        if kept is None:
            return None
        self._let_go(kept)
        return kept.signed

    def acknowledged(self, wanted: EventRange) -> list[EventId]:
        """Events of a range were acknowledged; those of them that were waiting."""
        found = self.waiting(wanted)
        for identity in found:
            self._let_go(self._kept.pop(identity))
        return found

    def _let_go(self, kept: _Kept) -> None:
        kept.settled = True
        self._bytes -= kept.size
        if kept.sent:
            self._flying -= 1
            self._flying_bytes -= kept.size

    def refused(self, identity: EventId) -> None:
        """An event was refused for good: nobody will ever see it, which its topic's next event declares."""
        signed = self.settled(identity)
        if signed is not None:
            self._drop(signed)

    def waiting(self, wanted: EventRange) -> list[EventId]:
        """The ids of a range that are still waiting."""
        source, incarnation, first, last = wanted
        if last - first > len(self._kept):
            return [i for i in self._kept if wanted.holds(i)]
        ids = (EventId(source, incarnation, n) for n in range(first, last + 1))
        return [i for i in ids if i in self._kept]

    def _drop(self, signed: SignedEvent) -> None:
        if signed.event.incarnation < self._declared_since:
            return
        topic, number = signed.event.topic, signed.event.chain.number
        ranges = [(number, number), signed.event.declares, self._dropped.get(topic)]
        known = [one for one in ranges if one is not None]
        self._dropped[topic] = (min(first for first, _ in known), max(last for _, last in known))

    def _shrink(self) -> list[EventId]:
        latest = {kept.signed.event.topic: identity for identity, kept in self._kept.items()}
        old = [(i, k) for i, k in self._kept.items() if latest[k.signed.event.topic] != i and not k.sent]
        superseded = [i for i, k in old if k.fact and k.signed.event.version is None]
        signals = [i for i, k in old if not k.fact and not k.evidence]
        dropped = []
        for identity in (*superseded, *signals):
            if self._bytes <= self._limit * LOW_WATER:
                break
            signed = self.settled(identity)
            if signed is not None:
                self._drop(signed)
                dropped.append(identity)
        self._unsent = deque([kept for kept in self._unsent if not kept.settled])
        # what is left cannot be dropped: look again only when a tenth has come on top of it
        self._shrink_above = max(self._limit, self._bytes + int(self._limit * (1 - LOW_WATER)))
        return dropped
