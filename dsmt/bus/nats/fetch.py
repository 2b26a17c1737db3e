"""Events by their ids, from a stream that knows only rows and subjects.

Rule 1: what a source says stands in the stream as it was numbered (`sender`), its facts and its signals each for
    themselves: so the first of several is found by halving, and the others by reading on.
    Who may not read everything is looked for on each pattern that may be read.
Rule 2: what was trimmed there may still be retained, in stream F.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import StreamMessage, head, next_on
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import EventId, SignedEvent


async def fetch(link: NatsLink, opener: NatsOpener, ids: Sequence[EventId]) -> list[SignedEvent]:
    """Those of these events that there are, in the order of the ids. Raises `TransportError`."""
    found: dict[EventId, SignedEvent] = {}
    subjects = opener.subjects
    for source in dict.fromkeys(one.source for one in ids):
        wanted = _Wanted(opener, sorted({one for one in ids if one.source == source}), found)
        for subject in (one for pattern in link.reads for one in subjects.of(source, pattern)):
            after = await _before(link, subjects.history, subject, wanted.ids[0])
            await wanted.read(link, subjects.history, subject, after, ordered=True)
        if any(one not in found for one in wanted.ids):
            for subject in (one for pattern in link.reads for one in subjects.retained_of(source, pattern)):
                await wanted.read(link, subjects.facts, subject, 0, ordered=False)
    return [found[one] for one in dict.fromkeys(ids) if one in found]


async def is_there(link: NatsLink, subjects: Subjects, identity: EventId, topic: str) -> bool:
    """Whether the history still holds an event of a topic. Raises `TransportError`."""
    for subject in subjects.of(identity.source, topic):
        after = await _before(link, subjects.history, subject, identity)
        stored = await next_on(link, subjects.history, subject, after + 1)
        if stored is not None and _id(stored) == identity:
            return True
    return False


async def _before(link: NatsLink, stream: str, subject: str, first: EventId) -> int:
    """The row behind which everything stands on a subject that is not before an event."""
    at = await head(link, stream)
    low, high = at.first, at.last + 1
    while low < high:
        middle = (low + high) // 2
        stored = await next_on(link, stream, subject, middle)
        if stored is None or stored.row >= high or _id(stored) >= first:
            high = middle
        else:
            low = stored.row + 1
    return max(0, low - 1)


class _Wanted(NamedTuple):
    """Events of one source, in the order of their ids, and those that were found."""

    opener: NatsOpener
    ids: Sequence[EventId]
    found: dict[EventId, SignedEvent]

    async def read(self, link: NatsLink, stream: str, subject: str, after: int, *, ordered: bool) -> None:
        """Read on until the end, or until the last one if they are in order. Raises `TransportError`."""
        async with aclosing(all_of(link, stream, [subject], after=after)) as behind:
            async for stored in behind:
                identity = _id(stored)
                if ordered and identity > self.ids[-1]:
                    return
                await self._take(link, stored, identity)

    async def _take(self, link: NatsLink, stored: StreamMessage, identity: EventId) -> None:
        if identity in self.ids:
            with suppress(UnusableEventError):
                self.found[identity] = await self.opener.open(link, stored)


def _id(stored: StreamMessage) -> EventId:
    """The id that a message claims; one that can be none comes before all others."""
    try:
        return decode_part(stored.raw).events[0].event.id
    except (UnusableEventError, IndexError):
        return EventId("", 0, 0)
