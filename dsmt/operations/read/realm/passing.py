"""Passing: what signals of the last minutes have said: brokers' stats and notices, heartbeats; and what brokers are."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.kinds.broker import BrokerNotice, BrokerStats, Withheld
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.kinds.source import Heartbeat, KeeperReplaced
from dsmt.event.records import from_data
from dsmt.ports.bus import Arrived, BusReader, Complete, Interest, Start
from dsmt.ports.realm import BrokerAddress, address_of

STATS_MS: Final = 70_000
"""Brokers say their stats each 30 s."""
KEEPER_MS: Final = 300_000
"""How long `status` tells of the death of a keeper or spawner."""
KEEPERS_BYTES: Final = 1 << 20
"""So much is read of what was said of that: a node may say as much as a broker takes, and each screen would wait for it."""
_OF_BROKERS: Final = Interest((f"{BROKERS}+", "broker/+/withheld/+"), conflate=True, signals=False, follow=False)
HEARD_MS: Final = 5_000
"""How far back heartbeats are looked for."""
CONTROLLER_EACH_S: Final = 30
CONTROLLER_MS: Final = 65_000
"""How far back those of controllers are, which say one each 30 s: one may be lost."""


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
    whole: bool = True
    """Whether the broker had everything when it gave these: one that reads the others gives what was said long ago."""

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


async def passing(bus: BusReader) -> Passing:
    """What has passed by of late, and what brokers are. Raises `TransportError`."""
    now_ms = bus.now_ms()
    windows = (
        (("broker/+/stats", "broker/+/notice"), STATS_MS, inf),
        (("broker/+/keeper", "controller/+/keeper", "node/+/keeper"), KEEPER_MS, KEEPERS_BYTES),
        (("node/+/heartbeat", "broker/+/heartbeat"), HEARD_MS, inf),
        (("controller/+/heartbeat",), CONTROLLER_MS, inf),
    )
    asked = [
        (Interest(patterns, start=Start.HISTORY, since=now_ms - window, conflate=True, follow=False), most)
        for patterns, window, most in windows
    ]
    return await _taken(bus, *asked, (_OF_BROKERS, inf))


async def of_brokers(bus: BusReader) -> Passing:
    """What brokers are: which were removed, and which withhold. Raises `TransportError`."""
    return await _taken(bus, (_OF_BROKERS, inf))


async def _taken(bus: BusReader, *interests: tuple[Interest, float]) -> Passing:
    """What is said on each, as far as so many bytes of it."""
    told = Passing()
    async with AsyncExitStack() as stack:
        asked = [(await stack.enter_async_context(bus.subscribe(interest)), most) for interest, most in interests]
        for batches, left in asked:  # all are asked for at once: that lasts as long as the longest of them
            async for batch in batches:
                arrived = [one.signed for one in batch if isinstance(one, Arrived)]
                for signed in arrived:
                    told.take(signed.event)
                told.whole &= all(one.whole for one in batch if isinstance(one, Complete))
                left -= sum(len(signed.raw) for signed in arrived)  # noqa: PLW2901 - it is this one's
                if left <= 0:
                    break
    if (
        bus.broker.removeprefix("broker/") in told.removed >= told.announced.keys() - told.leaves
    ):  # where all were removed none was (R8)
        told.removed.clear()
    return told
