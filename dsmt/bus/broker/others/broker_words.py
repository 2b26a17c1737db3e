"""Broker words: the newest word on each broker of a realm, as operators have said them and one broker has them (rule R8)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.order import newer
from dsmt.event.records import readable
from dsmt.ports.store import Events, Row
from dsmt.trust.store import TrustStore


class StoredBrokerWords:
    """Of one store: the facts below `BROKERS`."""

    def __init__(self, store: Events, trust: TrustStore) -> None:
        self._store, self._trust = store, trust
        self.rows: dict[str, Row] = {}
        """By topic."""
        self._read: dict[str, tuple[Row, BrokerWord | None]] = {}
        """What was read of these, by topic: it is looked at again and again."""

    def word_on(self, broker: str) -> BrokerWord | None:
        """The word on `broker/NAME` that stands; None for none, and for one that cannot be read here."""
        topic = f"config/{broker}"
        row, known = self.rows.get(topic), self._read.get(topic)
        if row is None:
            return None
        if known is None or known[0] is not row:
            known = self._read[topic] = row, readable(BrokerWord, row.read().event.data)
        return known[1]

    @property
    def signed(self) -> list[SignedEvent]:
        """All of them."""
        return [row.read() for row in self.rows.values()]

    def note(self, rows: Iterable[Row]) -> bool:
        """Take in those among stored rows; whether there were any that are newer."""
        found = False
        for row in rows:
            if row.fact and row.topic.startswith(BROKERS):
                with suppress(UnusableEventError):
                    word, held = row.read(), self.rows.get(row.topic)
                    if held is None or newer(word.event, held.read().event):  # an older one may come later, as history
                        self.rows[row.topic], found = row, True
        return found

    def recall(self) -> None:
        """Of what keys that have ended said nothing counts but what stands in its place (J3)."""
        for topic in [topic for topic, row in self.rows.items() if self._trust.disowns(row.read())]:
            del self.rows[topic]
        self.note(row for row in self._store.facts(BROKERS, f"{BROKERS}~", 2**31) if not self._trust.disowns(row.read()))
