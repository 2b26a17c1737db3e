"""Writing: how an operator's facts are said: after the winner they follow, acknowledged, and not in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from dsmt.errors import FailedError
from dsmt.event.envelope import EventId
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.operations.sight import look, patience
from dsmt.ports.bus import Bus, Draft, Emission
from dsmt.view import View

NAMED_MOST: Final = 3
"""Lost races that one sentence names."""


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
    """Publish, wait for every acknowledgement, and see that no other fact was first (SEMANTICS A3); the events' ids.

    Raises `RefusedError`, `TransportError`, or `FailedError` (`conflict`) that names who was first, and where: all else
    was said and stands.
    """
    emissions: list[Emission] = [bus.emit(draft) for draft in drafts]
    async with patience("the acknowledgement"):
        await asyncio.gather(*(emission.acknowledged() for emission in emissions))
    said = [(draft.topic, emission.id) for draft, emission in zip(drafts, emissions, strict=True) if emission.id is not None]
    facts = [(topic, mine) for topic, mine in said if _is_fact(topic)]
    if facts:
        _check_races((await look(bus)).view, facts)
    return [mine for _, mine in said]


def _is_fact(topic: str) -> bool:
    match = lookup(topic)
    return match is not None and match.row.kind == "fact"


def _check_races(view: View, said: Sequence[tuple[str, EventId]]) -> None:
    """Raise `FailedError` when others have won topics over what was said; a fact that follows ours has not."""
    lost = []
    for topic, mine in said:
        winner = view.winner(topic)
        if winner is not None and mine not in (winner.id, winner.event.replaces):
            lost.append(f"{winner.event.source} changed {topic} at the same moment, and was first")
    if lost:
        more = f"; and {len(lost) - NAMED_MOST} more" if len(lost) > NAMED_MOST else ""
        raise FailedError("conflict", "; ".join(lost[:NAMED_MOST]) + more, next="look at what it says now, and try again")
