"""Overruled: words of operators that do not stand, for something else was said on the other side of a partition (E2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from dsmt.event.envelope import SignedEvent, thing_of
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.phrases import person
from dsmt.event.records import from_data
from dsmt.operations.read.sight import Sight, ever_said
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import rfc3339
from dsmt.ports.bus import BusReader

Word = TypeVar("Word", BrakeWord, NodesetFact)


class OverruledWord(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has said, of which another word stands in the place."""

    said: str
    by: str
    at: str | None
    reason: str


async def overruled(bus: BusReader, sight: Sight, target: str) -> list[SignedEvent]:
    """What operators have said of a node, or of instances, in the place of which another word stands now, the last first.

    Of a service's revisions `history` tells. Raises `TransportError`.
    """
    return await overruled_on(bus, sight, _topics(sight, target))


async def overruled_on(bus: BusReader, sight: Sight, topics: tuple[str, ...]) -> list[SignedEvent]:
    """What was said on some topics in the place of which another word stands now, the last first."""
    if not topics:
        return []
    said = await ever_said(bus, topics, "what operators have said of it")
    lost = {signed.id: signed for signed in said if _lost(sight, signed)}
    return sorted(lost.values(), key=lambda signed: signed.event.time, reverse=True)


async def overruled_words(
    bus: BusReader, sight: Sight, topic: str, record: type[Word], says: Callable[[Word], str]
) -> list[OverruledWord]:
    """The same of one topic, in words; `says` puts its `record` into them."""
    found = []
    for signed in await overruled_on(bus, sight, (topic,)):
        word, at = from_data(record, signed.event.data), rfc3339(signed.event.time_ms)
        found.append(OverruledWord(said=says(word), by=person(word.by), at=at, reason=word.reason))
    return found


def _topics(sight: Sight, target: str) -> tuple[str, ...]:
    """Where operators speak of a target, as far as any has."""
    kind, _, name = target.partition("/")
    if kind == "node" and name:
        topic = f"node/{name}/control"
        return () if sight.view.winner(topic) is None else (topic,)
    if kind in ("broker", "controller") and name:
        return ()
    named = Target.parse(target)
    entry = sight.view.services.get(named.service)
    ended = sight.view.winner(f"tombstone/service/{named.service}") is not None
    spoken = [] if entry is None else [key for key, slot in entry.slots.items() if ended or slot.control is not None]
    here = [key for key in spoken if named.component in (None, key[0]) and named.index in (None, key[1])]
    return tuple(f"service/{named.service}/control/{component}/{index}" for component, index in sorted(here))


def _lost(sight: Sight, signed: SignedEvent) -> bool:
    """Whether a word says something else than the one that stands under its number, or was said after its thing had ended.

    That was on the other side of a partition too: where the end was known no broker took it (A3).
    """
    event, stands = signed.event, sight.view.winner(signed.event.topic)
    end = sight.view.winner(f"tombstone/{thing_of(event.topic)}")
    if end is not None and (event.epoch or 0) <= (end.event.epoch or 0):
        return event.time > end.event.time and (stands is None or stands.event.time < event.time)
    if stands is None:
        return False
    same = (event.epoch, event.version) == (stands.event.epoch, stands.event.version)
    return same and event.data != stands.event.data
