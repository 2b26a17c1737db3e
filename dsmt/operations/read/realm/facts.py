"""Facts: what stands on topics now, and all that has ever stood there."""

from __future__ import annotations

from dsmt.event.envelope import SignedEvent
from dsmt.event.topic import PATTERNS_MOST
from dsmt.operations.read.realm.patience import patience
from dsmt.ports.bus import BusReader, Interest, Start
from dsmt.ports.listening import arrivals


async def retained(bus: BusReader, pattern: str, what: str) -> list[SignedEvent]:
    """The facts that stand on topics now, of one topic the newest last. Raises `TransportError` that `what` did not come."""
    async with patience(what):
        return await arrivals(bus, Interest((pattern,), conflate=True, signals=False, follow=False))


async def ever_said(bus: BusReader, topics: tuple[str, ...], what: str) -> list[SignedEvent]:
    """All facts on some topics that the history has, of each in its order. Raises `TransportError`: `what` did not come."""
    found: list[SignedEvent] = []
    for first in range(0, len(topics), PATTERNS_MOST):
        part = topics[first : first + PATTERNS_MOST]
        interest = Interest(part, start=Start.HISTORY, since=0, signals=False, follow=False)
        async with patience(what):
            found += await arrivals(bus, interest)
    return found


async def stands(bus: BusReader, topic: str) -> SignedEvent | None:
    """The fact that stands on a topic now, if there is one. Raises `TransportError`."""
    return next(reversed(await retained(bus, topic, f"what was said on {topic}")), None)
