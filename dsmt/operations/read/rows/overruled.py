"""Overruled: words of operators that do not stand, for something else was said on the other side of a partition (E2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import msgspec

from dsmt.event.envelope import EventId, SignedEvent, thing_of
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.phrases import whose
from dsmt.event.records import from_data
from dsmt.event.slots import SlotKey
from dsmt.operations.read.realm.facts import ever_said
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.targets import Target, member_of
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
    said = defaultdict[str, list[SignedEvent]](list)
    for signed in await ever_said(bus, topics, "what operators have said of it"):
        said[signed.event.topic].append(signed)
    lost = {signed.id: signed for topic in topics for signed in _lost(sight, topic, said[topic])}
    stays = [one for one in lost.values() if not _has_moved(sight, one, said[one.event.topic])]
    return sorted(stays, key=lambda signed: signed.event.time, reverse=True)


async def overruled_words(
    bus: BusReader, sight: Sight, topic: str, record: type[Word], says: Callable[[Word], str]
) -> list[OverruledWord]:
    """The same of one topic, in words; `says` puts its `record` into them."""
    found = []
    for signed in await overruled_on(bus, sight, (topic,)):
        word, at = from_data(record, signed.event.data), rfc3339(signed.event.time_ms)
        found.append(OverruledWord(said=says(word), by=whose(word.by, signed.event.source), at=at, reason=word.reason))
    return found


def _topics(sight: Sight, target: str) -> tuple[str, ...]:
    """Where operators speak of a target, as far as any has."""
    kind, name = member_of(target)
    if kind:
        topic = f"{kind}/{name}/control"
        return () if sight.view.winner(topic) is None else (topic,)
    named = Target.parse(target)
    entry = sight.view.services.get(named.service)
    ended = sight.view.winner(f"tombstone/service/{named.service}") is not None
    spoken = [] if entry is None else [key for key, slot in entry.slots.items() if ended or slot.control is not None]
    here = [key for key in spoken if named.component in (None, key[0]) and named.index in (None, key[1])]
    return tuple(f"service/{named.service}/control/{component}/{index}" for component, index in sorted(here))


def _lost(sight: Sight, topic: str, said: list[SignedEvent]) -> list[SignedEvent]:
    """What was said on a topic that the word which stands there does not follow, nor any before it settles.

    A word names the one that it follows (`replaces`), and as its causes those that it settles, for they were overruled
    before it was said. Of what was said before the oldest that the history has of those nothing is known. Also lost is what
    was said after its thing had ended: on the other side, too, for where the end was known no broker took it (A3).
    """
    stands, end = sight.view.winner(topic), sight.view.winner(f"tombstone/{thing_of(topic)}")
    ended = 0 if end is None else end.event.epoch or 0
    after = [one for one in said if end is not None and (one.event.epoch or 0) <= ended and one.event.time > end.event.time]
    if stands is None:
        return after
    lost = [one for one in after if stands.event.time < one.event.time]
    if (stands.event.epoch or 0) <= ended:
        return lost
    follows, first = _follows(stands, {one.id: one for one in said})
    others = (one for one in said if one.event.epoch == stands.event.epoch and one.id not in follows)
    return lost + [one for one in others if (one.event.version or 0) >= first and one.event.data != stands.event.data]


def _has_moved(sight: Sight, word: SignedEvent, said: list[SignedEvent]) -> bool:
    """Whether a word asked for a move that was made on its side, by the slot's fact: who repeated it would move it again."""
    levels = word.event.topic.split("/")
    if levels[0] != "service":
        return False
    slot = sight.view.slot(SlotKey(levels[1], levels[3], int(levels[4])))
    before = next((one for one in said if one.id == word.event.replaces), None)
    if slot.fact is None or (before is None and word.event.replaces is not None):
        return False
    earlier = 0 if before is None else from_data(SlotControl, before.event.data).move_number
    return earlier != from_data(SlotControl, word.event.data).move_number == slot.fact.record.move_number


def _follows(stands: SignedEvent, known: dict[EventId, SignedEvent]) -> tuple[set[EventId], int]:
    """What a word follows, with itself, and what all these settle; and the version of the oldest of them that is known."""
    follows, settles, oldest = {stands.id}, set(stands.event.cause), stands
    while oldest.event.replaces in known and oldest.event.replaces not in follows:
        oldest = known[oldest.event.replaces]
        follows.add(oldest.id)
        settles.update(oldest.event.cause)
    return follows | settles, oldest.event.version or 0
