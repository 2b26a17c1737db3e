"""Tail: the event stream as a reader has verified it.

Rule 1: filters other than topic are applied after the chain was followed (rule B1), here.
Rule 2: the last N are found by reading back in growing windows; what is shown first joins the live tail without a hole.
    N counts events; who does not follow gets nothing that came after the end was reached.
Rule 3: a notice is shown if anything after it is.
Rule 4: what passes all the time is left out unless it is asked for by name: heartbeats, measurements, what instances
    write (it has `logs`), and the comings and goings of command lines (`routine`); and, for people, a fact whose
    sentence is the one that it said before.
Rule 5: a lost connection is told while it lasts; when it is back, how long that was and what came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from dsmt.errors import NotFoundError
from dsmt.event.envelope import Event, EventId, SignedEvent
from dsmt.event.registry import is_fact, row_of
from dsmt.event.topic import matches
from dsmt.newest import Newest
from dsmt.operations.read.realm.sight import short
from dsmt.operations.words.patterns import some_topic
from dsmt.operations.words.sentences import predicate
from dsmt.operations.words.times import span
from dsmt.ports.bus import (
    Arrived,
    Bookmark,
    BusReader,
    Complete,
    Delivery,
    Interest,
    Notice,
    Reattached,
    Start,
    Subscription,
)

WINDOWS_MS: Final = (60_000, 3_600_000)
"""How far back the last N are looked for, before the whole history is read."""
CAUGHT_UP: Final = "dsmt.notice.caughtup"
DISCONNECTED: Final = "dsmt.notice.disconnected"
RECONNECTED: Final = "dsmt.notice.reconnected"
LOOK_S: Final = 0.25
"""How often it is looked whether the connection still stands, while nothing comes."""
_SAID: Final = 10_000
"""Of how many topics it is remembered what they said last."""

Item = Arrived | Notice


class TailQuery(msgspec.Struct, frozen=True):
    """What to show. `types` and `sources` are globs; times are realm ms; `last` None shows all from `since` on.

    `where` says whether an event is wanted, `routine` shows what passes all the time too, `repeats` facts that say the same
    once more (rule 4).
    """

    patterns: tuple[str, ...] = ("/",)
    last: int | None = 10
    since: int | EventId | None = None
    until_ms: int | None = None
    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    where: Callable[[Event], bool] | None = None
    signals: bool = True
    follow: bool = True
    routine: bool = False
    repeats: bool = False

    def takes(self, signed: SignedEvent) -> bool:
        """Whether an event passes the filters."""
        event = signed.event
        if self.until_ms is not None and event.time_ms > self.until_ms:
            return False
        if not self.signals and not is_fact(event):
            return False
        if not _any(self.types, event.type) or not _any(self.sources, event.source) or self._leaves_out(event):
            return False
        return self.where is None or self.where(event)

    def _leaves_out(self, event: Event) -> bool:
        word = "" if self.routine or self.types or self.sources or self.where else _routine(event)
        return word != "" and not any(word in pattern.split("/") for pattern in self.patterns)


def _routine(event: Event) -> str:
    """By which level of a topic one asks for what passes all the time; empty for what does not (rule 4)."""
    levels = event.topic.split("/")
    row = row_of(event.topic)
    if row is not None and row.routine:
        return levels[-1]
    if event.type == "dsmt.log" or (event.type == "dsmt.command" and event.data.get("verb") == "LOGS"):
        return "log"
    of_source = event.type in ("dsmt.session", "dsmt.source.started")
    return "operator" if of_source and "operator" in levels[1:4] else ""


def _any(globs: tuple[str, ...], text: str) -> bool:
    return not globs or any(fnmatchcase(text, glob) for glob in globs)


async def tail(bus: BusReader, wanted: TailQuery) -> AsyncIterator[list[Item]]:
    """Batches of events and notices, for ever or to the end that `wanted` names.

    Raises `InputError` for a pattern that is none, `NotFoundError` for an event id that the history does not hold.
    """
    for pattern in wanted.patterns:
        some_topic(pattern)
    begin, event = await _begin(bus, wanted)
    now_ms = bus.now_ms()
    follow = wanted.follow and (wanted.until_ms is None or wanted.until_ms > now_ms)
    windows: list[int | None] = [begin]
    if begin is None and wanted.last is not None:
        windows = [*(now_ms - window for window in WINDOWS_MS), None]
    ends = asyncio.get_running_loop().time() + (wanted.until_ms - now_ms) / 1000 if wanted.until_ms is not None else None
    try:
        async with asyncio.timeout_at(ends if follow else None):
            for window in windows:
                reading = _Reading(wanted, event, final=window is windows[-1], follow=follow)
                async for batch in reading.read(bus, window):
                    yield batch
                if reading.satisfied:
                    return
    except TimeoutError:
        return


async def _begin(bus: BusReader, wanted: TailQuery) -> tuple[int | None, EventId | None]:
    """From when on, and from which event on: of one on other topics than are wanted the time is all that can be found."""
    since = wanted.since
    if not isinstance(since, EventId):
        return since, None
    found = await bus.fetch([since])
    if not found:
        raise NotFoundError("event.unknown", f"the history does not hold {since}", next="name a time instead")
    event = found[0].event
    comes = any(matches(pattern, event.topic) for pattern in wanted.patterns)
    return (event.time_ms - 60_000, since) if comes else (event.time_ms, None)


async def _watched(bus: BusReader, batches: Subscription) -> AsyncIterator[Sequence[Delivery]]:
    """The batches; and a notice when the connection is lost, of which the bus tells only when it is back (rule 5)."""
    lost_ms: int | None = None
    while True:
        batch: Sequence[Delivery] = ()
        try:
            async with asyncio.timeout(LOOK_S):
                batch = await anext(batches)
        except TimeoutError:
            pass
        except StopAsyncIteration:
            return
        if not batch and lost_ms is None and not bus.attached:
            lost_ms = bus.now_ms()
            said = f"from {short(bus.broker)}: nothing arrives until a broker is back; trying again"
            yield [Notice(DISCONNECTED, said, {"broker": bus.broker})]
        elif any(isinstance(one, Reattached) for one in batch):
            away_s = None if lost_ms is None else (bus.now_ms() - lost_ms) / 1000
            yield [_back(one, away_s) for one in batch]
            lost_ms = None
        elif batch:
            yield batch


def _back(delivery: Delivery, away_s: float | None) -> Delivery:
    if not isinstance(delivery, Reattached):
        return delivery
    after = "at once" if away_s is None else f"after {span(away_s * 1000)}"
    said = f"to {short(delivery.broker)} {after}; what was said meanwhile follows"
    return Notice(RECONNECTED, said, {"broker": delivery.broker, "store": delivery.store, "away_s": away_s})


@dataclass(slots=True)
class _Missed:
    """What came while the connection was lost: how many events, how many of them were shown, how many are missing."""

    came: int = 0
    shown: int = 0
    missing: int = 0

    def notice(self, notice: Notice) -> None:
        """Count what is missing, and what is not any more."""
        count = int(notice.fields.get("to", 0)) - int(notice.fields.get("from", 1)) + 1
        match notice.type:
            case "dsmt.notice.gap":
                self.missing += count
            case "dsmt.notice.declared":
                self.missing -= count
            case "dsmt.notice.filled":
                self.missing -= 1
            case _:
                pass

    def told(self) -> Notice:
        """The end of it, as a notice."""
        came = f"{self.came} event{'' if self.came == 1 else 's'}" if self.came else "nothing"
        said = f"{came} came meanwhile: {self.shown} shown above, {max(0, self.missing)} missing"
        return Notice(CAUGHT_UP, said, {"came": self.came, "shown": self.shown, "missing": max(0, self.missing)})


class _Reading:
    """One subscription, from one window on."""

    def __init__(self, wanted: TailQuery, seeking: EventId | None, *, final: bool, follow: bool) -> None:
        self._wanted, self._final, self._follow = wanted, final, follow
        self._seeking = seeking
        self._held: deque[Item] = deque()
        self._events = 0
        self._missed: _Missed | None = None
        self._said: Newest[str, str] = Newest(_SAID)
        self.satisfied = False

    async def read(self, bus: BusReader, since_ms: int | None) -> AsyncIterator[list[Item]]:
        """Batches; nothing, and not `satisfied`, when the window was too small."""
        wanted = self._wanted
        start = Start.LIVE if wanted.last == 0 and wanted.since is None else Start.HISTORY
        interest = Interest(wanted.patterns, start=start, since=since_ms, follow=self._follow)
        async with bus.subscribe(interest) as batches:
            async for batch in _watched(bus, batches):
                out: list[Item] = []
                for delivery in batch:
                    if not self._take(delivery, out):
                        return
                if out:
                    yield out
                if self.satisfied and not self._follow:
                    return

    def _take(self, delivery: Delivery, out: list[Item]) -> bool:
        """Take in one delivery; False when a greater window is needed."""
        if self.satisfied and not self._follow:
            return True
        match delivery:
            case Arrived(signed):
                shown = self._sought(signed) and self._wanted.takes(signed) and not self._repeats(signed.event)
                if self._missed is not None:
                    self._missed.came += 1
                    self._missed.shown += shown
                if shown:
                    self._put(delivery, out)
            case Notice():
                if delivery.type == RECONNECTED:
                    self._missed = _Missed()
                elif self._missed is not None:
                    self._missed.notice(delivery)
                self._put(delivery, out)
            case Complete() | Bookmark():
                return self._reached(delivery, out)
        return True

    def _reached(self, mark: Complete | Bookmark, out: list[Item]) -> bool:
        """All that there was has come; False when that is too little."""
        wanted = self._wanted
        if isinstance(mark, Complete) and not self.satisfied:
            if wanted.last is not None and self._events < wanted.last and not self._final:
                return False
            self.satisfied = True
            out.extend(self._held)
            self._held.clear()
            if self._follow and _any(wanted.types, CAUGHT_UP):
                out.append(Notice(CAUGHT_UP, "everything before is shown; what follows is live"))
        if self._missed is not None:
            out.append(self._missed.told())
            self._missed = None
        return True

    def _put(self, item: Item, out: list[Item]) -> None:
        """Show an item, or hold it while it may be among the last N."""
        last = self._wanted.last
        if self.satisfied or last is None:
            out.append(item)
            return
        self._held.append(item)
        self._events += isinstance(item, Arrived)
        while self._events > last:
            self._events -= isinstance(self._held.popleft(), Arrived)
            while self._held and isinstance(self._held[0], Notice):
                self._held.popleft()

    def _repeats(self, event: Event) -> bool:
        """Whether a fact says what it said before (rule 4)."""
        if self._wanted.repeats or not is_fact(event):
            return False
        said, before = predicate(event), self._said.get(event.topic)
        self._said[event.topic] = said
        return said == before

    def _sought(self, signed: SignedEvent) -> bool:
        if self._seeking is not None and signed.id == self._seeking:
            self._seeking = None
        return self._seeking is None
