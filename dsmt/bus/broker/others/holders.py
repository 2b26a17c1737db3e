"""Holders: at which brokers a source is attached, by the words of all brokers on sessions, and what follows of what is here.

Rule 1: of each leaf is told whether it is read to its end here (`vouched`, E5).
Rule 2: what another broker has surely handed on came here by way of who has read it long enough (`handed_ms`, E1), or has
    come to a leaf by its last upstream (`handed_by_ms`, E5).
Rule 3: what another one had at a time is what it had itself or, where it was not attached here, what those had that it read
    (`had`, D3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.lags import ALL, Lags
from dsmt.bus.broker.others.broker_words import StoredBrokerWords
from dsmt.bus.broker.others.readings import Readings
from dsmt.bus.broker.sessions import Sessions
from dsmt.errors import UnusableEventError
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.realm import BROKERS
from dsmt.event.records import from_data
from dsmt.ports.clock import Clock
from dsmt.ports.realm import BrokerAddress
from dsmt.ports.store import Store
from dsmt.trust.keys import key_id_of
from dsmt.trust.store import TrustStore

LASTING_MS: Final = 60_000
"""Who has read another for so long has what was there when it began."""


class Holders:
    """As the broker `own` knows them: by the `words` on brokers, by its `readings` of others and by their own (`lags`)."""

    def __init__(
        self, own: str, store: Store, trust: TrustStore, sessions: Sessions, clock: Clock, *, now_ms: Callable[[], int]
    ) -> None:
        self._own, self._store, self._trust, self._sessions = own, store, trust, sessions
        self.words, self.readings = StoredBrokerWords(store, trust), Readings(clock, now_ms)
        self.lags = Lags(store.meta, now_ms=now_ms)
        self.leaves: Mapping[str, bytes] = {}
        """The keys of the brokers that are leaves, by name."""

    def attachment_of(self, source: str) -> int:
        """The greatest attachment number of a source that another broker has said; 0 for none."""
        return max((one.attachment for name, one in self._said_of(source).items() if name != self._own), default=0)

    def gave(self, source: str, at_ms: int) -> tuple[str, int]:
        """The broker to which a source is attached, and was at a time, and up to when that one has given everything."""
        if source.startswith("broker/"):  # where it reads, it is attached too
            return source, self.readings.gave_ms(source)
        said = self._said_of(source)
        holder = max(said, key=lambda name: said[name].attachment, default="")
        held = bool(holder) and said[holder].state == "open" and said[holder].since_ms < at_ms
        return (holder, self.readings.gave_ms(holder)) if held else ("", 0)

    def vouched(self) -> dict[str, bool]:
        """The leaves; whether each is read to its end here, by one that has what the others of the mesh have (E5)."""
        there = self._sessions.by_name
        keeps_up = bool(self.leaves) and self.readings.keeps_up(lambda public: self._name_of(public) in there)
        return {name: keeps_up and self.readings.has_read(key) for name, key in self.leaves.items()}

    def handed_ms(self, other: BrokerAddress) -> int | None:
        """Up to when (realm ms) all that another has surely is here by way of others (E1); None where none says so."""
        found = (self._shared_ms(by.public, other.public) for by in self.readings.known)
        return max((one for one in found if one is not None), default=None)

    def handed_by_ms(self, last: BrokerAddress, last_ms: int, other: BrokerAddress) -> int | None:
        """The same for a leaf: by way of the upstream that it had last, and has read up to `last_ms` (E5)."""
        name, before = self._name_of(other.public), self._name_of(last.public)
        word, own = (self._said_of(one).get(before) for one in (name, self._own))
        read = own is not None and own.leaf == "read"
        return last_ms if read and word is not None and _is_lasting(word, last_ms) else None

    def had(self, store: str, at_ms: int) -> int:
        """Up to which row the broker of a store had all at a time; `ALL` where it is not known to have lacked any.

        Where it was not attached here then it had what each third one had that it had read long enough, and a leaf what each
        had that it had read before it was cut off.
        """
        public = self.readings.whose(store)
        if public is None:
            return ALL
        said, itself = self._said_of(self._name_of(public)), self.lags.had(public, at_ms)
        own, is_leaf = said.pop(self._own, None), public in self.leaves.values() or self.readings.was_leaf(public)
        if own is not None and (own.state == "open") == (own.since_ms <= at_ms):
            return itself
        rows = [itself] if is_leaf and own is not None and itself != ALL else []
        for third in self.readings.known:
            word = said.get(self._name_of(third.public))
            if word is not None and _is_lasting(word, at_ms):
                rows.append(self.lags.had(third.public, at_ms))
            elif word is not None and is_leaf and word.state != "open":
                rows.append(self.lags.had(third.public, min(at_ms, word.since_ms)))
        return max(rows, default=itself)

    def _shared_ms(self, by: bytes, other: bytes) -> int | None:
        """Up to when all that another has surely came here by way of one; None where it does not."""
        name, through = self._name_of(other), self._name_of(by)
        word, back = self._said_of(name).get(through), self._said_of(through).get(name)
        if word is None:
            return None
        read_ms = self.readings.read_ms(by)
        until_ms = read_ms if word.state == "open" else min(read_ms, word.since_ms)
        if other in self.leaves.values():
            return until_ms if word.leaf == "read" else None
        return until_ms if back is not None and _is_lasting(word, until_ms) and _is_lasting(back, until_ms) else None

    def _name_of(self, public: bytes) -> str:
        """The name that the key of a broker is known by; empty when there is none, or several."""
        return self._trust.sole_name(key_id_of(public)) or ""

    def _said_of(self, source: str) -> dict[str, SessionFact]:
        """What all brokers have said of a source."""
        said_on = {f"broker/{topic.removeprefix(BROKERS)}" for topic in self.words.rows}
        names = said_on.union(self.readings.names, {self._own})
        rows = ((name, self._store.winner(f"{name}/session/{source}")) for name in sorted(names))
        found = {}
        for name, row in rows:
            if row is not None:
                with suppress(UnusableEventError):
                    found[name] = from_data(SessionFact, row.read().event.data)
        return found


def _is_lasting(word: SessionFact, at_ms: int) -> bool:
    """Whether a session is open for so long that who holds it has what was there when it began."""
    return word.state == "open" and word.since_ms <= at_ms - LASTING_MS
