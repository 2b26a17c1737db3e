"""Tail: the event stream as a reader has verified it.

Rule 1: filters other than topic are applied after the chain was followed (rule B1), here.
Rule 2: the last N are found by reading back in growing windows; what is shown first joins the live tail without a hole.
Rule 3: a notice is always shown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from dsmt.errors import NotFoundError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.registry import is_fact
from dsmt.event.topic import check_pattern
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery, Interest, Notice, Start

WINDOWS_MS: Final = (60_000, 3_600_000)
"""How far back the last N are looked for, before the whole history is read."""
CAUGHT_UP: Final = "dsmt.notice.caughtup"

Item = Arrived | Notice


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show. `types` and `sources` are globs; times are realm ms; `last` None shows all from `since` on."""

    patterns: tuple[str, ...] = ("/",)
    last: int | None = 10
    since: int | EventId | None = None
    until_ms: int | None = None
    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    signals: bool = True
    follow: bool = True

    def takes(self, signed: SignedEvent) -> bool:
        """Whether an event passes the filters."""
        event = signed.event
        if self.until_ms is not None and event.time_ms > self.until_ms:
            return False
        if not self.signals and not is_fact(event):
            return False
        return _any(self.types, event.type) and _any(self.sources, event.source)


def _any(globs: tuple[str, ...], text: str) -> bool:
    return not globs or any(fnmatchcase(text, glob) for glob in globs)


async def tail(bus: Bus, wanted: Wanted) -> AsyncIterator[list[Item]]:
    """Batches of events and notices, for ever or to the end that `wanted` names.

    Raises `InputError` for a pattern that is none, `NotFoundError` for an event id that the history does not hold.
    """
    for pattern in wanted.patterns:
        check_pattern(pattern)
    begin = await _begin(bus, wanted.since)
    now_ms = bus.now_ms()
    follow = wanted.follow and (wanted.until_ms is None or wanted.until_ms > now_ms)
    windows: list[int | None] = [begin]
    if begin is None and wanted.last is not None:
        windows = [*(now_ms - window for window in WINDOWS_MS), None]
    ends = asyncio.get_running_loop().time() + (wanted.until_ms - now_ms) / 1000 if wanted.until_ms is not None else None
    try:
        async with asyncio.timeout_at(ends if follow else None):
            for window in windows:
                reading = _Reading(wanted, final=window is windows[-1], follow=follow)
                async for batch in reading.read(bus, window):
                    yield batch
                if reading.satisfied:
                    return
    except TimeoutError:
        return


async def _begin(bus: Bus, since: int | EventId | None) -> int | None:
    if not isinstance(since, EventId):
        return since
    found = await bus.fetch([since])
    if not found:
        raise NotFoundError("event.unknown", f"the history does not hold {since}", next="name a time instead")
    return found[0].event.time_ms - 60_000


class _Reading:
    """One subscription, from one window on."""

    def __init__(self, wanted: Wanted, *, final: bool, follow: bool) -> None:
        self._wanted, self._final, self._follow = wanted, final, follow
        self._seeking = wanted.since if isinstance(wanted.since, EventId) else None
        self._held: deque[Item] = deque(maxlen=wanted.last)
        self.satisfied = False

    async def read(self, bus: Bus, since_ms: int | None) -> AsyncIterator[list[Item]]:
        """Batches; nothing, and not `satisfied`, when the window was too small."""
        wanted = self._wanted
        start = Start.LIVE if wanted.last == 0 and wanted.since is None else Start.HISTORY
        interest = Interest(wanted.patterns, start=start, since=since_ms, follow=self._follow)
        async with bus.subscribe(interest) as batches:
            async for batch in batches:
                out: list[Item] = []
                for delivery in batch:
                    if not self._take(delivery, out):
                        return
                if out:
                    yield out

    def _take(self, delivery: Delivery, out: list[Item]) -> bool:
        """Take in one delivery; False when a greater window is needed."""
        match delivery:
            case Arrived(signed):
                if self._sought(signed) and self._wanted.takes(signed):
                    (out if self._streams else self._held).append(delivery)
            case Notice():
                (out if self._streams else self._held).append(delivery)
            case Complete() if not self.satisfied:
                wanted = self._wanted
                if wanted.last is not None and len(self._held) < wanted.last and not self._final:
                    return False
                self.satisfied = True
                out.extend(self._held)
                self._held.clear()
                if self._follow and _any(wanted.types, CAUGHT_UP):
                    out.append(Notice(CAUGHT_UP, "everything before is shown; what follows is live"))
            case _:
                pass
        return True

    @property
    def _streams(self) -> bool:
        return self.satisfied or self._wanted.last is None

    def _sought(self, signed: SignedEvent) -> bool:
        if self._seeking is not None and signed.id == self._seeking:
            self._seeking = None
        return self._seeking is None
