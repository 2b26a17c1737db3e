"""The view: facts folded into what decisions and operators read.

Rule 1: the fold is a join (rules A1, A3, A6, E3): any order, any number of times, one state (`event.fold`).
Rule 2: it is total (A14): a fact that cannot be read is the winner of its topic all the same, and is quarantined: it
    says nothing, and nobody may act as if there was nothing.
Rule 3: facts only, of rows that are `folded`: signals, and facts that no decision reads, pass by (H1).
Rule 4: `digest` is the sum modulo 2^256 of SHA-256(topic, leaf hash) over the winners (H2).
Rule 5: a record is decoded once, when it wins.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.fold import Fold, WinnerChange
from dsmt.event.records import from_data
from dsmt.event.registry import TOPICS, as_pattern, row_of
from dsmt.event.slots import SlotKey
from dsmt.view.dirty import Dirty
from dsmt.view.entries import SlotEntry
from dsmt.view.index import Index

PATTERNS: Final = tuple(as_pattern(row.template, {}) for row in TOPICS if row.folded)
"""What to subscribe to for a whole view: exactly the topics that it folds."""
_SESSIONS: Final = "broker/<broker>/session/<source/>"
_ABOVE_SERVICES: Final = ("node", "monitor", "broker", "controller")
"""The sources of which a view of some services knows the sessions, beside their own agents."""
MOST_SERVICES: Final = 16
_MODULUS: Final = 2**256


def patterns_of(services: Collection[str]) -> tuple[str, ...]:
    """What to subscribe to for a view of some services: all facts on them, and on the nodes, brokers and controllers.

    Of more than `MOST_SERVICES` it is the whole view. A node that the agents of other services alone keep alive is not
    seen to be: what is said of a service does not follow from that.
    """
    if len(services) > MOST_SERVICES:
        return PATTERNS
    found: dict[str, None] = {}
    for row in TOPICS:
        if row.template == _SESSIONS:
            found.update(dict.fromkeys(f"broker/+/session/{role}/" for role in _ABOVE_SERVICES))
            found.update(dict.fromkeys(f"broker/+/session/agent/+/{service}/" for service in services))
        elif row.folded:
            found.update(dict.fromkeys(as_pattern(row.template, {"service": service}) for service in services))
    return tuple(found)


class View(Index):
    """What one reader knows of the realm. Typed accessors: see `Index`."""

    def __init__(self) -> None:
        super().__init__()
        self.quarantined: dict[str, str] = {}
        """By topic, why its winner cannot be read."""
        self._fold = Fold()
        self._expiry: list[tuple[int, str]] = []
        self._expiring: dict[str, int] = {}
        self._sum = 0
        self._dirty = Dirty()

    # --- the fold ------------------------------------------------------------------------------------------------

    def apply(self, signed: SignedEvent) -> bool:
        """Fold one event; whether the view changed."""
        row = row_of(signed.event.topic)
        if row is None or not row.folded:
            return False
        changes = self._fold.take(signed)
        for change in changes:
            self._changed(change)
        return bool(changes)

    def _changed(self, change: WinnerChange) -> None:
        topic, before, after = change
        if before is not None:
            self._sum = (self._sum - _part(topic, before)) % _MODULUS
        if after is not None:
            self._sum = (self._sum + _part(topic, after)) % _MODULUS
            until = after.event.expires_ms
            if until is not None:
                self._schedule(topic, min(until, self._expiring.get(topic, until)))
        self._read(topic, after)

    def _schedule(self, topic: str, until: int) -> None:
        if self._expiring.get(topic) != until:
            self._expiring[topic] = until
            heapq.heappush(self._expiry, (until, topic))

    def _read(self, topic: str, signed: SignedEvent | None) -> None:
        levels, row = topic.split("/"), row_of(topic)
        assert row is not None and row.record is not None  # noqa: S101, PT018 - `apply` lets no other topic in
        self.quarantined.pop(topic, None)
        if signed is not None:
            try:
                self.put(row.event_type, levels, signed, from_data(row.record, signed.event.data), self._dirty)
            except UnusableEventError as error:
                self.quarantined[topic] = error.message
            else:
                return
        with suppress(UnusableEventError):  # a topic that cannot be read has no entry to clear
            self.put(row.event_type, levels, signed, None, self._dirty)

    def expire(self, now_ms: int) -> bool:
        """Let go of facts whose time to live has passed; whether there were any."""
        changed = False
        while self._expiry and self._expiry[0][0] <= now_ms:
            when, topic = heapq.heappop(self._expiry)
            if self._expiring.get(topic) != when:
                continue
            del self._expiring[topic]
            held = self._fold.get(topic)
            until = None if held is None else held.event.expires_ms
            if until is not None and until > now_ms:
                self._schedule(topic, until)
            elif until is not None:
                self._changed(WinnerChange(topic, self._fold.drop(topic), None))
                changed = True
        return changed

    # --- what it says --------------------------------------------------------------------------------------------

    @property
    def digest(self) -> bytes:
        """Rule 4's sum, 32 bytes."""
        return self._sum.to_bytes(32, "big")

    def winner(self, topic: str) -> SignedEvent | None:
        """The winning fact of a topic."""
        return self._fold.get(topic)

    def winners(self) -> Iterator[SignedEvent]:
        """All winning facts."""
        return iter(self._fold)

    @property
    def slots(self) -> Iterator[tuple[SlotKey, SlotEntry]]:
        """All slots that are known, in order."""
        for name in sorted(self.services):
            for (component, index), entry in sorted(self.services[name].slots.items()):
                yield SlotKey(name, component, index), entry

    def epoch(self, topic: str) -> int:
        """The epoch in which a shared fact on a topic is said now."""
        return self._fold.epoch(topic)

    def is_over(self, event: Event) -> bool:
        """Whether a tombstone in this view has ended a shared fact (A6)."""
        return self._fold.is_over(event)

    def copy(self) -> View:
        """Another view of the same facts, to try things on."""
        copy = View()
        for signed in self._fold:
            copy.apply(signed)
        copy.take_dirty()
        return copy

    def __len__(self) -> int:
        return len(self._fold)

    @property
    def changed(self) -> bool:
        """Whether anything has changed since `take_dirty` was last called."""
        return bool(self._dirty)

    def take_dirty(self) -> Dirty:
        """What changed since this was last called."""
        dirty, self._dirty = self._dirty, Dirty()
        return dirty


def _part(topic: str, signed: SignedEvent) -> int:
    return int.from_bytes(sha256(b"%s\0%s" % (topic.encode(), signed.leaf)).digest(), "big")
