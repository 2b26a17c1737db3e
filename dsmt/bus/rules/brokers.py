"""Brokers: which of them a realm has, by what operators have said of each and what one was given at the start (rule R8).

Rule 1: the newest word on each counts, whoever brings it; one that is removed is none, also where it was given at the start.
    Nor is one that was given at the start whose name has another key by the newest word on it: it was made anew.
Rule 2: a word that cannot be read says nothing.
Rule 3: one whose key was revoked is none.
Rule 4: which of them are leaves is said by operators alone (E5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.keys import key_id_of

TOPIC: Final = "config/broker/"


class Keys(Protocol):
    """What is known of keys."""

    def sole_name(self, key_id: bytes) -> str | None:
        """The name that a key is known by; None when there are several, or none."""

    def is_revoked(self, key_id: bytes) -> bool:
        """Whether a key has ended."""


def known(seeds: Sequence[BrokerAddress], said: Iterable[SignedEvent], keys: Keys) -> tuple[BrokerAddress, ...]:
    """All brokers of a realm, those that were given at the start first; none twice."""
    found = {seed.public: seed for seed in seeds}
    for topic, one in sorted(_newest(said).items()):
        with suppress(UnusableEventError):
            word, name = from_data(BrokerWord, one.event.data), f"broker/{topic.removeprefix(TOPIC)}"
            for seed in seeds:
                if seed.public != word.public and keys.sole_name(key_id_of(seed.public)) == name:
                    found.pop(seed.public, None)
            if word.removed:
                found.pop(word.public, None)
            else:
                found[word.public] = BrokerAddress(word.address, word.public, leaf=bool(word.leaf))
    return tuple(one for one in found.values() if not keys.is_revoked(key_id_of(one.public)))


def leaves(said: Iterable[SignedEvent]) -> dict[str, bytes]:
    """Those that are leaves by the newest word on each: their keys, by name."""
    found = {}
    for topic, one in _newest(said).items():
        with suppress(UnusableEventError):
            word = from_data(BrokerWord, one.event.data)
            if word.leaf:
                found[f"broker/{topic.removeprefix(TOPIC)}"] = word.public
    return found


def _newest(said: Iterable[SignedEvent]) -> dict[str, SignedEvent]:
    newest: dict[str, SignedEvent] = {}
    for one in said:
        held = newest.get(one.event.topic)
        if held is None or newer(one.event, held.event):
            newest[one.event.topic] = one
    return newest
