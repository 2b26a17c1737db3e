"""Writing: how an operator's facts are said: after the winner they follow, acknowledged, and not in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from dsmt.errors import DsmtError, FailedError
from dsmt.event.envelope import TOMBSTONE, EventId
from dsmt.event.kinds.realm import LeftData, Tombstone
from dsmt.event.records import to_data
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.overruled import overruled_on
from dsmt.ports.bus import Ack, Bus, Draft, Emission
from dsmt.view import View

Came = TypeVar("Came")
TRIES: Final = 8
"""How often somebody else may be first."""
SETTLED_MOST: Final = 16
"""Overruled words that one word names as its causes, the last ones."""
NAMED_MOST: Final = 3
"""Lost races that one sentence names."""


def follow(view: View, topic: str, record: msgspec.Struct, *, subject: str, above: int = 0) -> Draft:
    """A draft of a shared fact that follows the one that the view holds, and one that was lost, of the version `above`."""
    held = view.winner(topic)
    version = 1 + max(above, 0 if held is None else held.event.version or 0)
    return Draft(topic, to_data(record), subject=subject, replaces=held, version=version, epoch=view.epoch(topic))


def anew(view: View, topic: str, record: msgspec.Struct, *, subject: str) -> Draft:
    """A draft of the first fact of a thing's next epoch."""
    return Draft(topic, to_data(record), subject=subject, epoch=view.epoch(topic) + 1)


def bury(view: View, thing: str, *, by: str, reason: str, data: tuple[LeftData, ...] = ()) -> Draft:
    """A draft of the tombstone that ends the present epoch of a thing (`service/web`, `nodeset/good`; rule A6).

    `data` is where that of a service stays (A17).
    """
    topic = f"{TOMBSTONE}{thing}"
    record = Tombstone(by=by, reason=reason, data=data)
    return Draft(topic, to_data(record), subject=thing, replaces=view.winner(topic), epoch=view.epoch(thing))


async def decided_again(decide: Callable[[], Awaitable[Came]]) -> Came:
    """What a decision comes to that is made anew, by what is so then, where another word was first (A3)."""
    left = TRIES
    while True:
        try:
            return await decide()
        except FailedError as error:
            left -= 1
            if error.code != "conflict" or not left:
                raise


class Acknowledged(NamedTuple):
    """Events that were said, and how many brokers at least have stored each, by the acknowledgements; 0 where none tells."""

    ids: list[EventId]
    copies: int


async def say_word(bus: Bus, sight: Sight, drafts: Sequence[Draft]) -> Acknowledged:
    """Say what operators want of things, as `say` does.

    What was overruled on their topics by now is settled so, and named as their cause: no screen tells of it any more (E2).
    """
    lost = await overruled_on(bus, sight, tuple(draft.topic for draft in drafts))
    causes = {draft.topic: tuple(one.id for one in lost if one.event.topic == draft.topic) for draft in drafts}
    return await say(bus, [msgspec.structs.replace(draft, cause=causes[draft.topic][:SETTLED_MOST]) for draft in drafts])


async def say(bus: Bus, drafts: Sequence[Draft]) -> Acknowledged:
    """Publish, and wait for every answer.

    What was acknowledged stands: the broker compared it where it was said (rule A3). Where the link was lost before the
    answer came, the history says whether it was stored. Raises `RefusedError`, `TransportError`, or `FailedError`
    (`conflict`) that names who was first, and where, and what was not stored: all else was said and stands.
    """
    emissions: list[Emission] = [bus.emit(draft) for draft in drafts]
    async with patience("the acknowledgement"):
        answers = await asyncio.gather(*(emission.acknowledged() for emission in emissions), return_exceptions=True)
        lost = []
        for draft, emission, answer in zip(drafts, emissions, answers, strict=True):
            if isinstance(answer, BaseException):
                lost += await _came_to_nothing(bus, draft, emission, answer)
    if lost:
        more = f"; and {len(lost) - NAMED_MOST} more" if len(lost) > NAMED_MOST else ""
        raise FailedError("conflict", "; ".join(lost[:NAMED_MOST]) + more, next="see what it says now, and try again")
    ids = [emission.id for emission in emissions if emission.id is not None]
    return Acknowledged(ids, min((answer.copies for answer in answers if isinstance(answer, Ack)), default=0))


async def _came_to_nothing(bus: Bus, draft: Draft, emission: Emission, answer: BaseException) -> list[str]:
    """What to say of a draft that was not acknowledged; nothing when it is stored all the same."""
    if not isinstance(answer, DsmtError) or answer.code not in ("stale", "unanswered"):
        raise answer
    if answer.code == "stale":
        return [answer.message]
    stored = emission.id is not None and await bus.fetch([emission.id])
    return [] if stored else [f"{draft.topic} was not stored: the connection was lost"]
