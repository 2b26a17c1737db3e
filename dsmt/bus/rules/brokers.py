"""Brokers: which of them a realm has, by what operators have said of each and what one was given at the start (rule R8).

Rule 1: the newest word on each counts, whoever brings it; one that is removed is none, also where it was given at the start.
    Nor is one that was given at the start whose name has another key by the newest word on it: it was made anew.
Rule 2: a word that cannot be read says nothing.
Rule 3: one whose key was revoked is none.
Rule 4: which of them are leaves is said by operators alone (E5).
Rule 5: where every broker that is no leaf was removed, none of them was: nobody can remove the last one, so operators on two
    sides of a partition have removed each other's.
Rule 6: a word is of a NATS server when it names its route; what was said of brokers before a realm moved to NATS is none
    of its servers, and the other way round. Of both, who was removed is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import cbor2
from msgspec.structs import replace

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.order import newer
from dsmt.event.payload import canonical
from dsmt.event.records import from_data
from dsmt.ports.realm import BrokerAddress, address_of, standing
from dsmt.trust.keys import key_id_of
from dsmt.trust.store import TrustStore

BROKERS_FILE: Final = "brokers"
"""Where a process keeps them for the next one."""


class BrokerWords:
    """What a process knows of its realm's brokers: those that it was given at the start, and each newest word.

    `kept` is what another process of it has kept. With `on_nats` they are NATS servers (rule 6).
    """

    def __init__(self, seeds: Sequence[BrokerAddress], trust: TrustStore, *, on_nats: bool = False) -> None:
        self.seeds, self._trust, self._on_nats = tuple(seeds), trust, on_nats
        self._said: dict[str, SignedEvent] = {}

    def restore(self, kept: bytes) -> list[bytes]:
        """Take in the certificates that were kept; the words beside them. Raises `UnusableEventError`."""
        try:
            certificates, raws = cbor2.loads(kept)
            self._trust.add_all(certificates)
            return list(raws)
        except (cbor2.CBORDecodeError, TypeError, ValueError) as error:
            raise UnusableEventError("event.kept", f"what was kept is none: {error}") from error

    def recall(self, kept: bytes) -> None:
        """Take in the words, too. Raises `UnusableEventError`."""
        for raw in self.restore(kept):
            self.take(self._trust.open(raw))

    def take(self, one: SignedEvent) -> bool:
        """Take in a word that was checked; whether it is news."""
        held = self._said.get(one.event.topic)
        gives_way = held is None or self._trust.disowns(held) or newer(one.event, held.event)
        news = one.event.topic.startswith(BROKERS) and gives_way
        if news:
            self._said[one.event.topic] = one
        return news

    def beyond(self, said: Iterable[SignedEvent]) -> list[SignedEvent]:
        """Of the words that are known here those that these do not have, and whose signers were not revoked."""
        held = {one.event.topic: one.event for one in said}
        return [
            one
            for topic, one in self._said.items()
            if (topic not in held or newer(one.event, held[topic])) and not self._trust.disowns(one)
        ]

    def kept(self) -> bytes:
        """What the next process is to know, with what proves it."""
        proofs = (raw for one in self._said.values() for raw in self._trust.proof(one.key_id, one.event.source))
        return canonical([list(dict.fromkeys(proofs)), [one.raw for one in self._said.values()]])

    @property
    def all(self) -> tuple[BrokerAddress, ...]:
        """Every one that may be tried: one of which a word says another address than it was given with, at both."""
        every = known(self.seeds, self._said.values(), self._trust, on_nats=self._on_nats)
        return every + tuple(
            replace(one, address=seed.address)
            for one in every
            for seed in self.seeds
            if one.public == seed.public and one.address != seed.address
        )

    @property
    def removed(self) -> dict[str, BrokerAddress]:
        """Those that an operator has removed, by name."""
        return self._where(removed=True)

    @property
    def present(self) -> dict[str, BrokerAddress]:
        """Those that an operator has named, and not removed, by name."""
        return self._where(removed=False)

    def _where(self, *, removed: bool) -> dict[str, BrokerAddress]:
        found = {}
        for topic, one in self._said.items():
            with suppress(UnusableEventError):
                word = from_data(BrokerWord, one.event.data)
                if word.removed == removed and (removed or bool(word.route) == self._on_nats):
                    found[topic.removeprefix(BROKERS)] = address_of(word)
        return found


def known(
    seeds: Sequence[BrokerAddress], said: Iterable[SignedEvent], trust: TrustStore, *, on_nats: bool = False
) -> tuple[BrokerAddress, ...]:
    """All brokers of a realm, those that were given at the start first; none twice."""
    words = words_of(said)
    found = _known(seeds, words, trust, on_nats=on_nats)
    if on_nats or any(not one.leaf for one in found):
        return found
    return _known(seeds, standing(words), trust, on_nats=False)


def words_of(said: Iterable[SignedEvent]) -> dict[str, BrokerWord]:
    """The newest word on each broker that can be read, by name."""
    words: dict[str, BrokerWord] = {}
    for topic, one in sorted(_newest(said).items()):
        with suppress(UnusableEventError):
            words[topic.removeprefix(BROKERS)] = from_data(BrokerWord, one.event.data)
    return words


def _known(
    seeds: Sequence[BrokerAddress], words: Mapping[str, BrokerWord], trust: TrustStore, *, on_nats: bool
) -> tuple[BrokerAddress, ...]:
    found = {seed.public: seed for seed in seeds}
    for name, word in words.items():
        if not word.removed and bool(word.route) != on_nats:
            continue
        for seed in seeds:
            if seed.public != word.public and trust.sole_name(key_id_of(seed.public)) == f"broker/{name}":
                found.pop(seed.public, None)
        if word.removed:
            found.pop(word.public, None)
        else:
            found[word.public] = address_of(word)
    return tuple(one for one in found.values() if not trust.is_revoked(key_id_of(one.public)))


def leaves(said: Iterable[SignedEvent]) -> dict[str, bytes]:
    """Those that are leaves by the newest word on each: their keys, by name."""
    return {f"broker/{name}": word.public for name, word in words_of(said).items() if word.leaf}


def _newest(said: Iterable[SignedEvent]) -> dict[str, SignedEvent]:
    newest: dict[str, SignedEvent] = {}
    for one in said:
        held = newest.get(one.event.topic)
        if held is None or newer(one.event, held.event):
            newest[one.event.topic] = one
    return newest
