"""The view: facts folded into what decisions and operators read.

Rule 1: the fold is a join (SEMANTICS A1, A3, E3): any order, any number of times, one state. What loses now and would
    win if a tombstone hid the winner is kept beside it, up to `MAX_RIVALS`.
Rule 2: it is total (A14): a fact that cannot be read is the winner of its topic all the same, and is quarantined: it
    says nothing, and nobody may act as if there was nothing.
Rule 3: facts only: signals, and facts of kinds that no decision reads, pass by (H1).
Rule 4: `digest` is the sum modulo 2^256 of SHA-256(topic, leaf hash) over the winners (H2).
Rule 5: a record is decoded once, when it wins.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.view.dirty import Dirty
from dsmt.view.index import Index
from dsmt.view.kinds import kind_of

MAX_RIVALS: Final = 64
_MODULUS: Final = 2**256


class View(Index):
    """What one reader knows of the realm. Typed accessors: see `Index`."""

    def __init__(self) -> None:
        super().__init__()
        self.quarantined: dict[str, str] = {}
        """By topic, why its winner cannot be read."""
        self._facts: dict[str, SignedEvent] = {}
        self._rivals: dict[str, list[SignedEvent]] = {}
        self._graves: dict[str, int] = {}
        self._expiry: list[tuple[int, str]] = []
        self._expiring: dict[str, int] = {}
        self._sum = 0
        self._dirty = Dirty()

    # --- the fold ------------------------------------------------------------------------------------------------

    def apply(self, signed: SignedEvent) -> bool:
        """Fold one event; whether the view changed."""
        event = signed.event
        topic = event.topic
        levels = topic.split("/")
        if kind_of(topic, levels) is None:
            return False
        buried = self._bury(signed) if levels[0] == "tombstone" else False
        if event.version is not None and event.time <= self._graves.get("/".join(levels[:2]) + "/", 0):
            return False
        winner = self._facts.get(topic)
        if winner is None:
            self._set(topic, signed)
            return True
        if newer(event, winner.event):
            self._set(topic, signed)
            self._keep_rival(topic, winner)
            return True
        self._keep_rival(topic, signed)
        return buried

    def _keep_rival(self, topic: str, loser: SignedEvent) -> None:
        """Keep a loser that would win over an earlier-made winner's grave; drop those it makes superfluous."""
        winner = self._facts[topic]
        if loser.event.version is None or loser.event.time <= winner.event.time:
            if topic in self._rivals:
                self._prune(topic, self._rivals[topic])
            return
        self._prune(topic, [*self._rivals.get(topic, []), loser])

    def _prune(self, topic: str, rivals: list[SignedEvent]) -> None:
        field = [self._facts[topic], *rivals]
        kept = [r for r in rivals if not any(newer(o.event, r.event) and o.event.time >= r.event.time for o in field)]
        unique = {r.leaf: r for r in kept if r.leaf != field[0].leaf}
        if unique:
            self._rivals[topic] = list(unique.values())[-MAX_RIVALS:]
        else:
            self._rivals.pop(topic, None)

    def _bury(self, signed: SignedEvent) -> bool:
        subtree, time = signed.event.buries, signed.event.time
        if time <= self._graves.get(subtree, 0):
            return False
        self._graves[subtree] = time
        below = {*self.shared_topics(subtree), *(t for t in self.quarantined if t.startswith(subtree))}
        hidden = [t for t in sorted(below) if t in self._facts and _hidden(self._facts[t].event, time)]
        for topic in hidden:
            risen = [r for r in self._rivals.pop(topic, []) if r.event.time > time]
            if risen:
                best = risen[0]
                for rival in risen[1:]:
                    best = rival if newer(rival.event, best.event) else best
                self._set(topic, best)
                self._prune(topic, [r for r in risen if r is not best])
            else:
                self._drop(topic)
        return bool(hidden)

    def _set(self, topic: str, signed: SignedEvent) -> None:
        before = self._facts.get(topic)
        if before is not None:
            self._sum -= _part(topic, before)
        self._facts[topic] = signed
        self._sum = (self._sum + _part(topic, signed)) % _MODULUS
        until = signed.event.expires_ms
        if until is not None:
            self._schedule(topic, min(until, self._expiring.get(topic, until)))
        self._read(topic, signed)

    def _schedule(self, topic: str, until: int) -> None:
        if self._expiring.get(topic) != until:
            self._expiring[topic] = until
            heapq.heappush(self._expiry, (until, topic))

    def _read(self, topic: str, signed: SignedEvent | None) -> None:
        levels = topic.split("/")
        kind = kind_of(topic, levels)
        assert kind is not None  # noqa: S101 - `apply` lets no other topic in
        self.quarantined.pop(topic, None)
        if signed is not None:
            try:
                self.put(kind.name, levels, signed, from_data(kind.record, signed.event.data), self._dirty)
            except UnusableEventError as error:
                self.quarantined[topic] = error.message
            else:
                return
        with suppress(UnusableEventError):  # a topic that cannot be read has no entry to clear
            self.put(kind.name, levels, signed, None, self._dirty)

    def _drop(self, topic: str) -> None:
        self._sum = (self._sum - _part(topic, self._facts.pop(topic))) % _MODULUS
        self._rivals.pop(topic, None)
        self._read(topic, None)

    def expire(self, now_ms: int) -> bool:
        """Let go of facts whose time to live has passed; whether there were any."""
        changed = False
        while self._expiry and self._expiry[0][0] <= now_ms:
            when, topic = heapq.heappop(self._expiry)
            if self._expiring.get(topic) != when:
                continue
            del self._expiring[topic]
            held = self._facts.get(topic)
            until = None if held is None else held.event.expires_ms
            if until is not None and until > now_ms:
                self._schedule(topic, until)
            elif until is not None:
                self._drop(topic)
                changed = True
        return changed

    # --- what it says --------------------------------------------------------------------------------------------

    @property
    def digest(self) -> bytes:
        """Rule 4's sum, 32 bytes."""
        return self._sum.to_bytes(32, "big")

    def winner(self, topic: str) -> SignedEvent | None:
        """The winning fact of a topic."""
        return self._facts.get(topic)

    def winners(self) -> Iterator[SignedEvent]:
        """All winning facts."""
        return iter(self._facts.values())

    def buried(self, subtree: str) -> int:
        """The time (hybrid logical clock) up to which shared facts below a subtree (`node/n1/`) are hidden; or 0."""
        return self._graves.get(subtree, 0)

    def copy(self) -> View:
        """Another view of the same facts, to try things on."""
        copy = View()
        for signed in self._facts.values():
            copy.apply(signed)
        copy.take_dirty()
        return copy

    def __len__(self) -> int:
        return len(self._facts)

    def take_dirty(self) -> Dirty:
        """What changed since this was last called."""
        dirty, self._dirty = self._dirty, Dirty()
        return dirty


def _hidden(event: Event, until: int) -> bool:
    return event.version is not None and event.time <= until


def _part(topic: str, signed: SignedEvent) -> int:
    return int.from_bytes(sha256(b"%s\0%s" % (topic.encode(), signed.leaf)).digest(), "big")
