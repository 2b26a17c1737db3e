"""Sight: what an operator's command sees of the realm: the view of all facts, and what passes by beside them.

Rule 1: it is a snapshot with its age and its source; a command that watches looks again at each batch.
Rule 2: signals are read from the last minutes of the history: brokers' stats and notices, heartbeats.
Rule 3: no command waits for ever for a broker that does not answer: see `patience`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from dsmt.controllers.brake import Brake, brake
from dsmt.controllers.rollout import Governing
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.kinds.broker import BrokerNotice, BrokerStats, Session, Withheld
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.kinds.source import Heartbeat, KeeperReplaced
from dsmt.event.phrases import some
from dsmt.event.records import from_data
from dsmt.event.slots import SlotKey
from dsmt.event.topic import PATTERNS_MOST, is_level
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import Arrived, BusReader, Delivery, Interest, Notice, Start
from dsmt.ports.realm import KEY_ENDED, BrokerAddress, address_of
from dsmt.spec.records import ComponentSpec
from dsmt.view import NO_SLOT, PATTERNS, Fleet, Held, SlotEntry, View, patterns_of
from dsmt.view.following import Step, ViewFollower
from dsmt.view.sessions import Attachments

PATIENCE_S: Final = 20.0
SLOW_S: Final = 3.0
SLOW: Final[ContextVar[Tell]] = ContextVar("SLOW", default=silent)
"""Who hears what does not come for so long: whoever has begun what is done here."""
STATS_MS: Final = 70_000
"""Brokers say their stats each 30 s."""
KEEPER_MS: Final = 300_000
"""How long `status` tells of the death of a keeper or spawner."""
_OF_BROKERS: Final = Interest((f"{BROKERS}+", "broker/+/withheld/+"), conflate=True, signals=False, follow=False)
HEARD_MS: Final = 5_000
"""How far back heartbeats are looked for."""
CONTROLLER_EACH_S: Final = 30
CONTROLLER_MS: Final = 65_000
"""How far back those of controllers are, which say one each 30 s: one may be lost."""


@asynccontextmanager
async def patience(what: str, limit_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Bound a wait for the broker, and tell one that lasts. Raises `TransportError` that says what did not come."""
    try:
        with told_if_slow(what):
            async with asyncio.timeout(limit_s):
                yield
    except TimeoutError as error:
        raise TransportError(
            "bus.slow", f"{what} did not come within {limit_s:.0f} s", next="dsmt brokers; then try again"
        ) from error


@contextmanager
def told_if_slow(what: str) -> Iterator[None]:
    """Tell what is waited for in a block that lasts longer than `SLOW_S`."""
    slow = asyncio.get_running_loop().call_later(SLOW_S, SLOW.get(), what)
    try:
        yield
    finally:
        slow.cancel()


async def retained(bus: BusReader, pattern: str, what: str) -> list[SignedEvent]:
    """The facts that stand on topics now, of one topic the newest last. Raises `TransportError` that `what` did not come."""
    found: list[SignedEvent] = []
    async with (
        patience(what),
        bus.subscribe(Interest((pattern,), conflate=True, signals=False, follow=False)) as batches,
    ):
        async for batch in batches:
            found += [one.signed for one in batch if isinstance(one, Arrived)]
    return found


async def ever_said(bus: BusReader, topics: tuple[str, ...], what: str) -> list[SignedEvent]:
    """All facts on some topics that the history has, of each in its order. Raises `TransportError`: `what` did not come."""
    found: list[SignedEvent] = []
    for first in range(0, len(topics), PATTERNS_MOST):
        part = topics[first : first + PATTERNS_MOST]
        interest = Interest(part, start=Start.HISTORY, since=0, signals=False, follow=False)
        async with patience(what), bus.subscribe(interest) as batches:
            found += [one.signed async for batch in batches for one in batch if isinstance(one, Arrived)]
    return found


async def stands(bus: BusReader, topic: str) -> SignedEvent | None:
    """The fact that stands on a topic now, if there is one. Raises `TransportError`."""
    return next(reversed(await retained(bus, topic, f"what was said on {topic}")), None)


class KeeperDeath(NamedTuple):
    """When a source said that its keeper, or its node's spawner, had died (realm ms), in which incarnation, and of whom."""

    at_ms: int
    incarnation: int
    said: KeeperReplaced


@dataclass(slots=True)
class Passing:
    """What signals of the last minutes have said, and what of brokers themselves: which were removed, and which withhold."""

    stats: dict[str, tuple[int, BrokerStats]] = field(default_factory=dict)
    """By broker: when, and what."""
    gaps: int = 0
    keepers: dict[str, KeeperDeath] = field(default_factory=dict)
    """By source: the last death of a keeper that it saw."""
    heard: dict[str, tuple[int, Heartbeat]] = field(default_factory=dict)
    """By source: when it was heard last."""
    announced: dict[str, BrokerAddress] = field(default_factory=dict)
    """By broker, where an operator has announced it; also of one that was removed."""
    removed: set[str] = field(default_factory=set)
    """The brokers that an operator has removed."""
    leaves: set[str] = field(default_factory=set)
    """Those that are leaves (E5)."""
    withheld: dict[str, dict[str, Withheld]] = field(default_factory=dict)
    """By broker that withholds something, who says so and of what (E4)."""

    def hears(self, broker: str, now_ms: int) -> bool:
        """Whether a broker has been heard of late."""
        said_ms = self.stats[broker][0] if broker in self.stats else -HEARD_MS
        return f"broker/{broker}" in self.heard or now_ms - said_ms < HEARD_MS

    def is_none(self, broker: BrokerAddress) -> bool:
        """Whether what a home names was removed: by its key, for its address may be another one's by now (R8)."""
        named = [name for name, at in self.announced.items() if at.public == broker.public]
        return bool(named) and self.removed.issuperset(named)

    def take(self, event: Event) -> None:
        """Take in one signal; what cannot be read says nothing."""
        levels = event.topic.split("/")
        try:
            if event.type == "dsmt.broker.stats":
                self.stats[levels[1]] = (event.time_ms, from_data(BrokerStats, event.data))
            elif event.type == "dsmt.notice":
                self.gaps += from_data(BrokerNotice, event.data).kind in ("gap", "equivocation")
            elif event.type == "dsmt.keeper":
                said = from_data(KeeperReplaced, event.data)
                self.keepers[event.source] = KeeperDeath(event.time_ms, event.incarnation, said)
            elif event.type == "dsmt.config.broker":
                word = from_data(BrokerWord, event.data)
                self.announced[levels[2]] = address_of(word)
                (self.removed.add if word.removed else self.removed.discard)(levels[2])
                (self.leaves.add if word.leaf else self.leaves.discard)(levels[2])
            elif event.type == "dsmt.broker.withheld":
                self._withheld(levels[3], levels[1], from_data(Withheld, event.data))
            elif event.type == "dsmt.heartbeat":
                self.heard[event.source] = (event.time_ms, from_data(Heartbeat, event.data))
        except UnusableEventError:
            return

    def _withheld(self, broker: str, by: str, told: Withheld) -> None:
        self.withheld.setdefault(broker, {})[by] = told
        if not told.count:
            del self.withheld[broker][by]


@dataclass
class Sight:
    """A view at a time. `broker` is where it comes from, `whole` that broker's word that nothing is missing."""

    view: View
    now_ms: int
    as_of_ms: int
    broker: str
    whole: bool
    passing: Passing = field(default_factory=Passing)

    @cached_property
    def fleet(self) -> Fleet:
        """The nodes at this time."""
        return Fleet(self.view, self.now_ms, self.broker)

    @cached_property
    def governing(self) -> Governing:
        """What governs slots at this time."""
        return Governing(self.fleet)

    def slot(self, key: SlotKey) -> SlotEntry:
        """One slot; an empty one where nothing is known of it."""
        return self.view.slot(key) or NO_SLOT

    def newest_session(self, source: str) -> Held[Session] | None:
        """The last word of a broker on the connection of a source; None where nothing is known of it."""
        attachments: Attachments[Held[Session]] | None = self.view.sessions.of.get(source)
        return None if attachments is None or attachments.newest is None else attachments.newest[1]

    def began_ms(self, source: str) -> int:
        """When the present process of a source has begun, also by its heartbeats; 0 where nothing tells that."""
        newest, heard = self.newest_session(source), self.passing.heard.get(source)
        return max(0 if newest is None else newest.record.incarnation, 0 if heard is None else heard[1].incarnation)

    def spec_of(self, key: SlotKey) -> ComponentSpec | None:
        """What governs a slot: its component as the revision has it that does; None where no spec that stands wants it."""
        governs = self.governing.of(key)
        return None if governs is None else governs.component

    @cached_property
    def brake(self) -> Brake:
        """The brake at this time."""
        return brake(self.fleet)

    @property
    def unheard_brokers(self) -> list[str]:
        """The brokers that are lost here, and were not removed."""
        return sorted(self.fleet.lost_brokers.keys() - self.passing.removed)

    @property
    def unheard(self) -> list[str]:
        """The warning, for who is told that all is so already, that what was said at a broker which is lost is not known."""
        lost = self.unheard_brokers
        if not lost:
            return []
        said = f"{some(lost)} {'are' if len(lost) > 1 else 'is'} not heard at {self.broker}"
        return [f"{said}: what was said there since is not known here, and may come to stand; next: dsmt brokers"]

    @property
    def unsaid(self) -> dict[str, list[SlotKey]]:
        """Slots that are wanted, by service, of services of which nobody who is believed has said what they are (J3)."""
        found = {}
        for name, entry in sorted(self.view.services.items()):
            if entry.spec is None and f"service/{name}/spec" not in self.view.quarantined:
                placed = [at for at, slot in entry.slots.items() if slot.fact and slot.fact.record.desired != "gone"]
                found[name] = [SlotKey(name, *at) for at in sorted(placed)]
        return {name: keys for name, keys in found.items() if keys}

    @property
    def age_s(self) -> float:
        """How old the view is, in seconds."""
        return max(0.0, (self.now_ms - self.as_of_ms) / 1000)


async def look(bus: BusReader, *, passing: bool = False, of: Collection[str] = ()) -> Sight:
    """See the realm now; with `passing` also what signals say, and with `of` no other services than these.

    What is done to one service costs what that service is large. Raises `TransportError`.
    """
    patterns = patterns_of(of) if of else PATTERNS
    async with patience("the realm's facts"):
        told = Passing()
        if passing:
            await _passing(bus, told)
        following = ViewFollower()
        async with bus.subscribe(Interest(patterns, conflate=True, signals=False, follow=False)) as batches:
            async for batch in batches:
                for delivery in batch:
                    following.take(delivery)
                if following.complete:
                    break
        if not following.complete:
            raise TransportError("bus.ended", "the broker did not send all facts", next="try again")
        sight = sight_of(following, bus, told)
        if sight.fleet.lost_brokers and not passing:  # one that was removed is none, and not lost
            await _take(bus, told, _OF_BROKERS)
        return sight


async def look_at(bus: BusReader, service: str, *, passing: bool = False) -> Sight:
    """See one service, and no other; all of the realm where none has that name, or can have it. Raises `TransportError`."""
    if is_level(service):
        sight = await look(bus, passing=passing, of=(service,))
        if service in sight.view.services:
            return sight
    return await look(bus, passing=passing)


async def _passing(bus: BusReader, told: Passing) -> None:
    now_ms = bus.now_ms()
    windows = (
        (("broker/+/stats", "broker/+/notice"), STATS_MS),
        (("broker/+/keeper", "controller/+/keeper", "node/+/keeper"), KEEPER_MS),
        (("node/+/heartbeat", "broker/+/heartbeat"), HEARD_MS),
        (("controller/+/heartbeat",), CONTROLLER_MS),
    )
    asked = [
        Interest(patterns, start=Start.HISTORY, since=now_ms - window, conflate=True, follow=False)
        for patterns, window in windows
    ]
    await _take(bus, told, *asked, _OF_BROKERS)


async def _take(bus: BusReader, told: Passing, *interests: Interest) -> None:
    for interest in interests:
        async with bus.subscribe(interest) as batches:
            async for batch in batches:
                for delivery in batch:
                    if isinstance(delivery, Arrived):
                        told.take(delivery.signed.event)
    if short(bus.broker) in told.removed >= told.announced.keys() - told.leaves:  # where all were removed none was (R8)
        told.removed.clear()


async def watch(bus: BusReader) -> AsyncGenerator[Sight, None]:
    """The view again after each change, and at least each quarter of a second, for as long as it is iterated."""
    following = ViewFollower()
    while True:
        async with bus.subscribe(Interest(PATTERNS, conflate=True, signals=False, bookmarks=True)) as batches:
            async for batch in batches:
                if any(_begins_anew(following, delivery) for delivery in batch):
                    break  # what is left of the batch is of the subscription that ends
                if following.complete:
                    yield sight_of(following, bus)
            else:
                return


def _begins_anew(following: ViewFollower, delivery: Delivery) -> bool:
    """Take in what came; whether all is to be read anew: where a key has ended, what is held may be void (J3)."""
    if isinstance(delivery, Notice) and delivery.type == KEY_ENDED:
        following.begin()
        return True
    return following.take(delivery) is Step.BEHIND


def sight_of(following: ViewFollower, bus: BusReader, told: Passing | None = None) -> Sight:
    """What is seen now of what a bus has delivered."""
    now_ms = bus.now_ms()
    following.view.expire(now_ms)
    return Sight(following.view, now_ms, following.as_of_ms, short(bus.broker), following.whole, told or Passing())


def short(broker: str) -> str:
    """A broker's name without its role."""
    return broker.removeprefix("broker/")
