"""Other: what a broker knows of one other that it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dsmt.ports.bus import Arrived, BusReader, Cursor, Interest
from dsmt.ports.realm import BrokerAddress

Take = Callable[[str, Sequence[Arrived], BusReader], int]
"""Stores what a broker has; in how many ms it is to be tried again, 0 when it is stored."""

STILL_S: Final = 5.0
BEHIND_MS: Final = 15_000
STORES: Final = 8


class CopyRequest(NamedTuple):
    """What one was asked for: by so many losses, what to leave out of what is live, and from which row on."""

    losses: int
    left_out: tuple[str, ...]
    from_row: int


@dataclass(slots=True, eq=False)
class Other:
    """How far it was read, and how it is read now."""

    address: BrokerAddress
    bus: BusReader | None = None
    place: Cursor | None = None
    since: Cursor | int | None = None
    """Where the next subscription begins."""
    again_ms: int | None = None
    """From when on it is to be read again, as history (`rereading`)."""
    links: int = 0
    """How often it was linked."""
    losses: int = 0
    """How often it had to be read again."""
    asked: CopyRequest | None = None
    """What it was asked for, while it is read."""
    caught_up: bool = False
    """Since who is linked has changed all that it had was read."""
    last_name: str = ""
    """Its name, once it was linked."""
    stores: deque[str] = field(default_factory=lambda: deque(maxlen=STORES))
    """The ids of the stores that it had while it was read."""
    complete: bool = False
    """Since this broker's start everything was read that it had then."""
    whole: bool = True
    """Whether it says, where it was read last, that it has everything (A4)."""
    early: bool = False
    """What it has is ahead of realm time here by more than one try, and waits (`copying`, rule 4)."""
    moved_at: float = 0.0
    """When it last gave something, while it is read, or was linked."""
    task: asyncio.Task[None] | None = None
    kept_at: float = 0.0

    @property
    def until_ms(self) -> int:
        """Up to when (realm ms) everything is here that it has; 0 where that is not known."""
        known_ms = 0 if self.place is None else self.place.time_ms
        return known_ms if self.again_ms is None else min(known_ms, self.again_ms)

    @property
    def name(self) -> str:
        """Its name while it is linked; empty else."""
        return self.bus.broker if self.bus is not None and self.bus.attached else ""

    def is_stalled(self, now: float) -> bool:
        """Whether what it has, when it is linked, does not come (`copying`, rule 3). `now` is boot-time seconds."""
        return self.early or now > self.moved_at + STILL_S

    def repaired(self, losses: int) -> None:
        """It was read again for so many losses; there may have been another one since."""
        if self.losses == losses:
            self.again_ms = None


async def hear(bus: BusReader, take: Take, *patterns: str) -> None:
    """Take what stands on some topics where it is attached."""
    async with bus.subscribe(Interest(patterns, signals=False, follow=False)) as batches:
        async for batch in batches:
            take(bus.broker, [each for each in batch if isinstance(each, Arrived)], bus)


class Linked:
    """To which others one broker is linked, as it looked last, and which of these links were lost (rule E1)."""

    def __init__(self) -> None:
        self._links: dict[str, tuple[Other, int]] = {}

    @property
    def names(self) -> list[str]:
        """Who is linked."""
        return sorted(self._links)

    def look(self, others: Iterable[Other]) -> list[Other] | None:
        """These are linked now: those whose links were lost meanwhile; None where all is as it was.

        Who was removed is lost as well, and who is linked anew. So is one of which much less was read than of another: what
        it has is not here, whatever the others have given, and comes from them sooner.
        """
        placed = [(one, one.place.time_ms) for one in others if one.place is not None]
        newest_ms = max((at_ms for _, at_ms in placed), default=0)
        links = {one.name: (one, one.links) for one, at_ms in placed if at_ms >= newest_ms - self._behind_ms(one.name)}
        if links == self._links:
            return None
        lost = [one for name, (one, number) in self._links.items() if links.get(name) != (one, number)]
        self._links = links
        return lost

    def _behind_ms(self, name: str) -> int:
        """By how much one that counts as linked may be behind; who was further behind has to have come nearer than that."""
        return BEHIND_MS if name in self._links else BEHIND_MS // 3
