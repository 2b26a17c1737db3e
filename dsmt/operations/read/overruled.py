"""Overruled: words of operators that do not stand: another one was said under their number, across a partition (E2)."""

from __future__ import annotations

import msgspec

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.operations.read.sight import Sight, patience
from dsmt.operations.words.targets import Target
from dsmt.ports.bus import Arrived, BusReader, Interest, Start


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
    found: dict[EventId, SignedEvent] = {}
    interest = Interest(topics, start=Start.HISTORY, since=0, signals=False, follow=False)
    async with patience("what operators have said of it"), bus.subscribe(interest) as batches:
        async for batch in batches:
            for item in batch:
                if isinstance(item, Arrived) and _lost(sight, item.signed):
                    found[item.signed.id] = item.signed
    return sorted(found.values(), key=lambda signed: signed.event.time, reverse=True)


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
    spoken = [] if entry is None else [key for key, slot in entry.slots.items() if slot.control is not None]
    here = [key for key in spoken if named.component in (None, key[0]) and named.index in (None, key[1])]
    return tuple(f"service/{named.service}/control/{component}/{index}" for component, index in sorted(here))


def _lost(sight: Sight, signed: SignedEvent) -> bool:
    """Whether a word says something else than the one that stands under its number."""
    event, stands = signed.event, sight.view.winner(signed.event.topic)
    if stands is None:
        return False
    same = (event.epoch, event.version) == (stands.event.epoch, stands.event.version)
    return same and event.data != stands.event.data
