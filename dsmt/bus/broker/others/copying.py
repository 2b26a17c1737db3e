"""Copying: a broker reads all others, as any reader reads a broker, and stores what it does not have (rules E1, R8).

Rule 1: of each other broker it keeps a place: everything up to there is here. It goes on from that place over lost links and
    restarts; a broker that was away, or whose disk is new, is whole again by that.
Rule 2: what is live it takes from the broker where it was published, as long as it is linked to that one. When a link is
    lost all others are read again (`rereading`). From when on is kept with the place of each, for who starts may find that
    others were lost meanwhile. A place is at no time that has not come yet, whatever its broker says.
    So it is where all is linked, and one comes far behind the others (`Linked`).
Rule 3: without any place, on a new disk, it reads one broker whole before it reads another; but for one that gives nothing
    for `STILL_S`, or whose words wait for their time: that keeps nobody from reading another, nor from being whole. The
    next it reads whole, too, unless it is not cut off from others (`handed_ms`).
Rule 4: what is ahead of realm time here waits, and everything behind it: nothing is passed over.
Rule 5: a leaf reads one broker that is none, its upstream: the first that answers while it has none. It is read by whom it
    is attached to, and by no other. Who begins to read over such a link what another has read before goes on a minute
    before the moment up to which that one surely had everything and passed it on (`holders`), or at its own place (E5).
Rule 6: each `ASK_S` one of them is asked for the last moments of its history, and what it gives is compared with
    what it must have (`withheld`).
Rule 7: before all else it takes what stands of the words on brokers. What it reads then begins with the words of before, by
    which all others may have other keys, and it may be none itself.
Rule 8: of a leaf it takes then how those stand that are attached there: what the leaf has comes over a thin uplink, and
    would say first that who has come back since is gone (E5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final

from msgspec.structs import replace

from dsmt.bus.broker.others.examining import examine
from dsmt.bus.broker.others.holders import Holders
from dsmt.bus.broker.others.other import CopyRequest, Linked, Other, Take, hear
from dsmt.bus.broker.others.rereading import Rereading
from dsmt.bus.broker.others.trimmed import Trimmed
from dsmt.bus.broker.places import OVERLAP_MS, again_from_ms, keep_place, read_place
from dsmt.bus.broker.withheld import Withholding
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.realm import BROKERS
from dsmt.logs import Logger
from dsmt.ports.bus import (
    Arrived,
    Bookmark,
    BusReader,
    Complete,
    Cursor,
    Delivery,
    Interest,
    Start,
    Subscription,
)
from dsmt.ports.clock import Clock
from dsmt.ports.realm import BrokerAddress
from dsmt.ports.store import Meta, StoreFullError
from dsmt.together import end_all

Reach = Callable[[Sequence[BrokerAddress]], AbstractContextManager[BusReader]]
"""Gives a connection to one broker, by all of its addresses, that only reads, for the length of a block."""

KEEP_S: Final = 1.0
ASK_S: Final = 60.0
ANSWER_S: Final = 20.0
TURN: Final = 128
"""How many events are stored before others have their turn."""
_WAIT_S: Final = 1.0
_LOOK_S: Final = 0.1


class Copying:
    """Reads all other brokers for one. `whole` hears that one of them, which is whole, was read to its end."""

    def __init__(
        self,
        own: BrokerAddress,
        reach: Reach,
        *,
        holders: Holders,
        is_attached: Callable[[bytes], bool],
        seeds: Sequence[BrokerAddress],
        meta: Meta,
        clock: Clock,
        now_ms: Callable[[], int],
        take: Take,
        whole: Callable[[], None],
        withholding: Withholding,
        trimmed: Trimmed,
        log: Logger,
    ) -> None:
        self._own, self._reach, self._meta, self._clock = own, reach, meta, clock
        self._seeds = tuple(seeds)
        self._now_ms, self._take, self._whole, self._log = now_ms, take, whole, log
        self._holders, self._readings, self._others = holders, holders.readings, holders.readings.others
        self._is_attached = is_attached
        self._withholding, self._trimmed = withholding, trimmed
        self.leaf = False
        """Whether this broker is a leaf itself (rule 5)."""
        self._upstream: Other | None = None
        """Whom it reads, when it is a leaf itself."""
        self._linked = Linked()
        self._changed, self._some = asyncio.Event(), asyncio.Event()
        self._rereading = Rereading(
            clock, linked=self._are_read, left_out=self._left_out, store=self._store, trimmed=trimmed
        )
        self._first: Other | None = None
        """Of which there was no place, and which is read now."""

    # --- who is there --------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether all others that are to be read were read to their end since the start; a leaf never reads all."""
        return not self.leaf and all(other.complete for other in self._others.values() if self._is_wanted(other))

    def know(self, brokers: Iterable[BrokerAddress], gone: Iterable[BrokerAddress] = ()) -> None:
        """These are all brokers of the realm: who is new is read, who has left no more. Some are known to be `gone`."""
        every = {one.public: one for one in brokers}
        own = every.pop(self._own.public, self._own)
        wanted, self.leaf = every, own.leaf
        for public, other in list(self._others.items()):
            if wanted.get(public) != other.address:
                self._readings.former[public] = self._others.pop(public)
                if other.task is not None:
                    other.task.cancel()
        for public, address in wanted.items():
            if public not in self._others:
                place, again_ms = read_place(self._meta, public)
                self._others[public] = Other(address, place=place, since=place, again_ms=again_ms)
        for one in gone:
            place, _ = read_place(self._meta, one.public)
            if place is not None and one.public not in self._readings.former:
                self._readings.former[one.public] = Other(one, place=place)
        if self._others:
            self._some.set()
        else:
            self._some.clear()

    def again(self) -> None:
        """Much was said meanwhile: all others are read to their ends anew, before this broker has everything."""
        for other in self._others.values():
            other.complete, other.moved_at = False, self._clock.boottime()
        self._change()

    async def run(self) -> None:
        """Read all others until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for other in self._others.values():
                    if other.task is not None and other.task.done():
                        other.task = None
                    if other.task is None and self._is_wanted(other):
                        other.task = group.create_task(self._keep(other))
                    elif other.task is not None and not self._is_wanted(other) and not other.task.cancelling():
                        other.task.cancel()
                self._look()
                await (self._some.wait() if self._readings.alone else asyncio.sleep(_LOOK_S))

    def _is_wanted(self, other: Other) -> bool:
        """Whether another is to be read now (rule 5)."""
        if self.leaf:
            return not other.address.leaf and self._upstream in (None, other)
        return not other.address.leaf or self._is_attached(other.address.public)

    def _are_read(self) -> list[Other]:
        return [other for other in self._others.values() if other.name and self._is_wanted(other)]

    def _choose(self) -> None:
        """Where the link to the upstream is lost, or there was none: the first that answers is the next (rule 5)."""
        if self._upstream is None or not self._upstream.name or self._upstream not in self._others.values():
            candidates = (other for other in self._others.values() if other.name and not other.address.leaf)
            self._upstream = next(candidates, None) if self.leaf else None

    def _look(self) -> None:
        """See who is linked; where that has changed all are asked anew (rule 2). What a leaf has comes by all ways."""
        for other in self._others.values():
            other.last_name = other.name or other.last_name
        self._choose()
        mesh = [other for other in self._others.values() if not other.address.leaf]
        lost = self._linked.look(other for other in mesh if other.name and self._is_wanted(other))
        if lost is None:
            return
        self._rereading.changed(lost, (other for other in mesh if other is self._upstream or not self.leaf))
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _attached(self, other: Other) -> None:
        other.links += 1
        self._look()

    # --- reading one ---------------------------------------------------------------------------------------------

    def _addresses(self, said: BrokerAddress) -> list[BrokerAddress]:
        """Where another may be: as it is said, and as this broker was configured with it; either may be the older one."""
        given = (seed for seed in self._seeds if seed.public == said.public and seed.address != said.address)
        return [said, *(replace(said, address=seed.address) for seed in given)]

    async def _keep(self, other: Other) -> None:
        """Read one broker for good."""
        with self._reach(self._addresses(other.address)) as bus:
            other.bus = bus
            bus.on_attached(lambda: self._attached(other))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(bus.run())
                    group.create_task(self._read(other, bus))
                    group.create_task(self._rereading.run(other, bus))
                    group.create_task(self._examine(other, bus))
            finally:
                other.bus, other.complete, other.asked = None, False, None

    async def _read(self, other: Other, bus: BusReader) -> None:
        await bus.wait_attached()
        other.moved_at = self._clock.boottime()
        await hear(bus, self._take, f"{BROKERS}+")  # rule 7
        goes_on = False
        while True:
            chosen = self._is_wanted(other) and not (self.leaf and self._upstream is None)
            if chosen and not goes_on:
                self._go_on(other)
                if other.address.leaf:
                    await hear(bus, self._take, f"{bus.broker}/session/")  # rule 8
                goes_on = True
            if not chosen or (other.since is None and not self._may_begin(other)):  # rules 3, 5
                await asyncio.sleep(_LOOK_S)
            else:
                await self._follow(other, bus)

    def _go_on(self, other: Other) -> None:
        """See where the reading over a leaf's link begins (rule 5)."""
        if not (self.leaf or other.address.leaf):
            return
        if self.leaf:
            places = [(one.place.time_ms, one) for one in self._others.values() if one.place is not None]
            last_ms, last = max(places, key=lambda one: one[0], default=(0, None))
            if last is None or last is other:
                return
            handed_ms = self._holders.handed_by_ms(last.address, last_ms, other.address)
        else:
            handed_ms = self._holders.handed_ms(other.address)
        since_ms = max(0, (handed_ms or 0) - OVERLAP_MS)
        if other.place is None or other.place.time_ms < since_ms:
            other.place, other.since, other.again_ms = None, since_ms, None

    def _may_begin(self, other: Other) -> bool:
        """Whether a broker may be read of which there is no place; where it is read from if another was read to its end."""
        read = any(one.complete and one.place is not None for one in self._others.values())
        other.since = max(0, (self._holders.handed_ms(other.address) or 0) - OVERLAP_MS) if read else None
        if self._first is None or not self._first.name or self._first.is_stalled(self._clock.boottime()):
            self._first, other.moved_at = other, self._clock.boottime()
        return other.since is not None or self._first is other

    async def _follow(self, other: Other, bus: BusReader) -> None:
        """Read on from where it stands, until it was read to its end for the first time, or who is linked has changed."""
        waits, losses = other.complete, other.losses
        again_ms = None if waits else other.again_ms
        since, left_out = other.since if again_ms is None else again_ms, self._left_out(other)
        interest = Interest(("/",), Start.HISTORY, since=since, bookmarks=True, copies=left_out)
        async with bus.subscribe(interest) as deliveries:
            other.asked = CopyRequest(losses, left_out, since.row if isinstance(since, Cursor) else 0)
            loop = asyncio.get_running_loop()
            reading = loop.create_task(self._drain(other, bus, deliveries, losses, endless=waits))
            change = loop.create_task(self._changed.wait())
            try:
                await asyncio.wait({reading, change} if waits else {reading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_all(reading, change)
            if not reading.cancelled():
                reading.result()

    async def _drain(self, other: Other, bus: BusReader, deliveries: Subscription, losses: int, *, endless: bool) -> None:
        async for batch in deliveries:
            other.moved_at = self._clock.boottime()
            await self._taken(other, bus, batch, deliveries)
            if not endless and any(isinstance(one, Complete) for one in batch):
                other.repaired(losses)
            if other.complete and not endless:
                return

    def _left_out(self, other: Other) -> tuple[str, ...]:
        """Who is read directly: what these bring to another one need not be sent by that."""
        return tuple(name for name in self._linked.names if name != other.name)

    async def _taken(self, other: Other, bus: BusReader, batch: Sequence[Delivery], deliveries: Subscription) -> None:
        arrived: list[Arrived] = []
        self._trimmed.told(other.address.public, "on", batch)
        for one in batch:
            if isinstance(one, Arrived):
                arrived.append(one)
            elif isinstance(one, Complete | Bookmark):
                await self._store(other, bus, arrived)
                arrived = []
                self._reached(other, one, deliveries)
        await self._store(other, bus, arrived)

    async def _store(self, other: Other, bus: BusReader, arrived: Sequence[Arrived]) -> None:
        for first in range(0, len(arrived), TURN):
            some = arrived[first : first + TURN]
            while ahead_ms := self._take(bus.broker, some, bus):
                other.early = ahead_ms > _WAIT_S * 1000
                other.moved_at = self._clock.boottime()  # what cannot be stored here is no fault of its
                self._log.warning("what another broker has waits", broker=bus.broker, ahead_ms=ahead_ms)
                await asyncio.sleep(min(ahead_ms / 1000, _WAIT_S))
            other.moved_at = self._clock.boottime()  # it has given them: a disk or a processor that is slow is this broker's
            await asyncio.sleep(0)
        other.early = False

    def _reached(self, other: Other, mark: Complete | Bookmark, deliveries: Subscription) -> None:
        """Everything up to a row of another broker is here."""
        if other.place is not None and other.place.store != mark.cursor.store:
            other.stores.append(other.place.store)
        other.place = other.since = replace(mark.cursor, time_ms=min(mark.cursor.time_ms, self._now_ms() + BOUND_MS))
        self._trimmed.reached(other.address.public, "on", mark.cursor.row)
        deliveries.stored(mark.cursor.row)
        other.caught_up = other.caught_up or isinstance(mark, Complete)
        other.complete, other.whole = other.complete or isinstance(mark, Complete), mark.whole
        if other.complete and mark.whole:
            self._whole()
        if self._clock.boottime() >= other.kept_at + KEEP_S:
            self._keep_place(other)

    # --- whether it gives all ------------------------------------------------------------------------------------

    async def _examine(self, other: Other, bus: BusReader) -> None:
        """Ask now and then for what it must have (rule 6)."""
        while True:
            await asyncio.sleep(ASK_S * max(1, len(self._others)))
            if other.name and other.complete and not other.is_stalled(self._clock.boottime()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await examine(bus, self._withholding, lambda found: self._take(bus.broker, found, bus))

    def _keep_place(self, other: Other) -> None:
        """Have the store keep how far another was read; on a full disk it keeps what it has, and more is read again."""
        if other.place is None:
            return
        other.kept_at = self._clock.boottime()
        linked = [one.place for one in self._others.values() if one.name and one.place is not None]
        again_ms = again_from_ms(other.again_ms, [*linked, other.place])
        with suppress(StoreFullError):
            keep_place(self._meta, other.address.public, other.place, again_ms)
