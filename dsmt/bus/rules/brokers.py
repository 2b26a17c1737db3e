"""Brokers: which of them a realm has, by what operators have said of each and what one was given at the start (rule R8).

Rule 1: the newest word on each counts, whoever brings it; one that is removed is none, also where it was given at the start.
Rule 2: a word that cannot be read says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.ports.realm import BrokerAddress

TOPIC: Final = "config/broker/"


def known(seeds: Iterable[BrokerAddress], said: Iterable[SignedEvent]) -> tuple[BrokerAddress, ...]:
    """All brokers of a realm, those that were given at the start first; none twice."""
    newest: dict[str, SignedEvent] = {}
    for one in said:
        held = newest.get(one.event.topic)
        if held is None or newer(one.event, held.event):
            newest[one.event.topic] = one
    found = {seed.public: seed for seed in seeds}
    for _, one in sorted(newest.items()):
        with suppress(UnusableEventError):
            word = from_data(BrokerWord, one.event.data)
            if word.removed:
                found.pop(word.public, None)
            else:
                found[word.public] = BrokerAddress(word.address, word.public)
    return tuple(found.values())
