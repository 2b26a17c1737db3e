"""Sight: what an operator's command sees of the realm: the view of all facts, and what passes by beside them.

It is a snapshot with its age and its source; a command that watches looks again at each batch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from functools import cached_property

from dsmt.controllers.brake import Brake, brake
from dsmt.controllers.rollout import Governing
from dsmt.errors import TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.slot import DataHome
from dsmt.event.phrases import some
from dsmt.event.slots import SlotKey
from dsmt.event.topic import is_level
from dsmt.operations.read.realm.passing import Passing, of_brokers
from dsmt.operations.read.realm.passing import passing as passing_by
from dsmt.operations.read.realm.patience import patience
from dsmt.ports.bus import BusReader, Delivery, Interest, Notice
from dsmt.ports.realm import KEY_ENDED
from dsmt.spec.records import ComponentSpec
from dsmt.trust.revocations import REVOKED
from dsmt.view import PATTERNS, Fleet, Held, View, patterns_of
from dsmt.view.following import DeliveryEffect, ViewFollower
from dsmt.view.sessions import Attachments


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

    def newest_session(self, source: str) -> Held[SessionFact] | None:
        """The last word of a broker on the connection of a source; None where nothing is known of it."""
        attachments: Attachments[Held[SessionFact]] | None = self.view.sessions.of.get(source)
        return None if attachments is None or attachments.newest is None else attachments.newest[1]

    def began_ms(self, source: str) -> int:
        """When the present process of a source has begun, also by its heartbeats; 0 where nothing tells that."""
        newest, heard = self.newest_session(source), self.passing.heard.get(source)
        return max(0 if newest is None else newest.record.incarnation, 0 if heard is None else heard[1].incarnation)

    def spec_of(self, key: SlotKey) -> ComponentSpec | None:
        """What governs a slot: its component as the revision has it that does; None where no spec that stands wants it."""
        governs = self.governing.of(key)
        return None if governs is None else governs.component

    def home_of(self, key: SlotKey) -> DataHome | None:
        """Where the data is that a slot stays with; None for one that may be anywhere, or was nowhere yet."""
        governs = self.governing.of(key)
        return None if governs is None else governs.home_of(key)

    @cached_property
    def brake(self) -> Brake:
        """The brake at this time."""
        return brake(self.fleet)

    @cached_property
    def revocations(self) -> dict[str, list[SignedEvent]]:
        """The revocations that stand, by whose key each has ended."""
        found: dict[str, list[SignedEvent]] = {}
        for signed in self.view.winners():
            if signed.event.topic.startswith(REVOKED):
                found.setdefault(str(signed.event.data.get("name", "")), []).append(signed)
        return found

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
        following = ViewFollower()
        async with bus.subscribe(Interest(patterns, conflate=True, signals=False, follow=False)) as batches:
            told = await passing_by(bus) if passing else Passing()
            async for batch in batches:
                for delivery in batch:
                    following.take(delivery)
                if following.complete:
                    break
        if not following.complete:
            raise TransportError("bus.ended", "the broker did not send all facts", next="try again")
        sight = sight_of(following, bus, told)
        if sight.fleet.lost_brokers and not passing:  # one that was removed is none, and not lost
            sight.passing = await of_brokers(bus)
        return sight


async def look_at(bus: BusReader, service: str, *, passing: bool = False) -> Sight:
    """See one service, and no other; all of the realm where none has that name, or can have it. Raises `TransportError`."""
    if is_level(service):
        sight = await look(bus, passing=passing, of=(service,))
        if service in sight.view.services:
            return sight
    return await look(bus, passing=passing)


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
    return following.take(delivery) is DeliveryEffect.BEHIND


def sight_of(following: ViewFollower, bus: BusReader, told: Passing | None = None) -> Sight:
    """What is seen now of what a bus has delivered."""
    now_ms = bus.now_ms()
    following.view.expire(now_ms)
    told = told or Passing()
    return Sight(following.view, now_ms, following.as_of_ms, short(bus.broker), following.whole and told.whole, told)


def short(broker: str) -> str:
    """A broker's name without its role."""
    return broker.removeprefix("broker/")
