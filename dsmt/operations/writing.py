"""Writing: how an operator's facts are said: after the winner they follow, acknowledged, and not in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from dsmt.errors import FailedError
from dsmt.event.envelope import EventId
from dsmt.event.records import to_data
from dsmt.operations.sight import patience
from dsmt.ports.bus import Bus, Draft, Emission
from dsmt.view import View


def follow(
    view: View,
    topic: str,
    record: msgspec.Struct,
    *,
    subject: str,
    cause: tuple[EventId, ...] = (),
    ttl_ms: int | None = None,
) -> Draft:
    """A draft of a shared fact that follows the one that the view holds."""
    before = view.winner(topic)
    return Draft(topic, to_data(record), subject=subject, cause=cause, replaces=before, ttl_ms=ttl_ms)


async def say(bus: Bus, drafts: Sequence[Draft]) -> list[EventId]:
    """Publish, and wait for every acknowledgement. Raises `RefusedError` or `TransportError`."""
    emissions: list[Emission] = [bus.emit(draft) for draft in drafts]
    async with patience("the acknowledgement"):
        await asyncio.gather(*(emission.acknowledged() for emission in emissions))
    return [emission.id for emission in emissions if emission.id is not None]


def lost_race(view: View, topic: str, mine: EventId) -> FailedError | None:
    """The error when another fact has won the topic over ours at the same version; None when ours stands."""
    winner = view.winner(topic)
    if winner is None or mine in (winner.id, winner.event.replaces):
        return None
    said = f"{winner.event.source} changed {topic} at the same moment, and was first"
    return FailedError("conflict", said, next="look at what it says now, and try again")
