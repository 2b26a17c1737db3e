"""The engine: an operator's word on where the realm moves, and who of its members has kept it (docs/decisions/0038)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import ENGINE, EngineWord
from dsmt.event.kinds.source import Following
from dsmt.event.records import readable, to_data
from dsmt.event.topic import PATTERNS_MOST
from dsmt.operations.read.realm.facts import stands
from dsmt.operations.write.writing import say
from dsmt.ports.bus import Arrived, Bus, BusReader, Draft, Interest

FOLLOWING: Final = ("node/+/following", "controller/+/following")
"""Where members say what they have kept."""
GOOD_MS: Final = 3_600_000
"""How long a word need not be said again: what members have said of it, once each, is kept for a day."""


async def tell(bus: Bus, word: EngineWord) -> str:
    """Say where the realm moves, or that it stays, unless that was said last, and lately; the event's id."""
    held = await stands(bus, ENGINE)
    if held is None:
        if not word.brokers:
            return ""
    elif _told(held) == (word.brokers, word.authority) and bus.now_ms() < held.event.time_ms + GOOD_MS:
        return str(held.id)
    (found,) = (await say(bus, [Draft(ENGINE, to_data(word), subject="engine", replaces=held)])).ids
    return str(found)


async def unheard(bus: BusReader, word: str, members: Collection[str], *, limit_s: float) -> dict[str, str]:
    """Wait until these members (`node/<node>`, `controller/<controller>`) have kept a word and lack nothing.

    Those of which that cannot be said after so long, with why.
    """
    left = dict.fromkeys(members, "has not heard of it")
    topics = tuple(f"{member}/following" for member in members)
    interest = Interest(topics if len(topics) <= PATTERNS_MOST else FOLLOWING, signals=False)
    try:
        async with asyncio.timeout(limit_s), bus.subscribe(interest) as batches:
            async for batch in batches:
                for one in batch:
                    if isinstance(one, Arrived):
                        _took(left, one.signed, word)
                if not left:
                    break
    except TimeoutError:
        pass
    return left


def _took(left: dict[str, str], said: SignedEvent, word: str) -> None:
    told = readable(Following, said.event.data)
    if told is None or told.word != word:
        return
    if told.lacks:
        left[said.event.source] = told.lacks
    else:
        left.pop(said.event.source, None)


def _told(signed: SignedEvent) -> tuple[object, str] | None:
    word = readable(EngineWord, signed.event.data)
    return None if word is None else (word.brokers, word.authority)
