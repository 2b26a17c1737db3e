"""The past of a service: its revisions since it was made, as the history has them, and what became of each."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dsmt.controllers.good import component_of
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.order import newer
from dsmt.event.phrases import person
from dsmt.event.records import from_data
from dsmt.event.status import State
from dsmt.operations.read.revisions import refused
from dsmt.operations.read.sight import Sight, ever_said
from dsmt.operations.words.targets import LISTS, no_service
from dsmt.operations.words.times import rfc3339
from dsmt.ports.bus import BusReader
from dsmt.view import ServiceEntry, SlotKey

ROLLED_BACK: Final = "rollout.rolled_back"
_WHAT: Final = "its revisions"


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision.

    `state` is any of: `current`, which was applied last, `running` (an instance of it runs now), `good` (each component was
    ready with it for long enough, or with one that has only another number of instances), and `refused` (it was rolled
    back; `refusal` says why). One that is `overruled` was said while another one was under the same number, on the other
    side of a partition, which stands, or while the service was removed there (E2).
    """

    revision: int
    at: str | None
    by: str
    reason: str
    removed: bool
    state: list[str]
    refusal: str | None = None


@dataclass(slots=True)
class ServicePast:
    """What the history has of a service since it was made anew last: its specs by revision, what was good, what refused."""

    said: dict[int, Event] = field(default_factory=dict)
    specs: dict[int, SpecFact] = field(default_factory=dict)
    overruled: dict[EventId, Event] = field(default_factory=dict)
    """Specs in the place of which another one of their number stands."""
    good: dict[str, set[Good]] = field(default_factory=dict)
    """What was good in a slot, by component: each that was ever to run has an entry."""
    refused: dict[int, str] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take in a spec or a slot's fact; of two specs that were said at once fact order says which one stands."""
        with suppress(UnusableEventError):
            if event.type == "dsmt.service.spec":
                self._take_spec(event, from_data(SpecFact, event.data))
            elif event.type == "dsmt.slot":
                self.take_slot(event.topic.split("/")[3], from_data(Slot, event.data))

    def _take_spec(self, event: Event, fact: SpecFact) -> None:
        number = event.version or 0
        held = self.said.get(number)
        if held is not None and held.id == event.id:
            return
        if held is not None and newer(held, event):
            self.overruled[event.id] = event
            return
        if held is not None:
            self.overruled[held.id] = held
        self.said[number], self.specs[number] = event, fact

    def was_good(self, number: int, *, in_part: bool = False) -> bool:
        """Whether what a revision says was good: in it, or in one that says the same but for the number of instances.

        It was in each of its components that was ever to run; `in_part`: in any.
        """
        fact = self.specs.get(number)
        said = self.good if fact is None else fact.spec["components"]
        found = [self._was_good(number, self.good[name]) for name in said if name in self.good]
        return any(found) if in_part else bool(found) and all(found)

    def _was_good(self, number: int, known: set[Good]) -> bool:
        lost = set(map(str, self.overruled))
        good = {one.revision for one in known if one.spec not in lost}
        return number in good or self._since(number) in map(self._since, good)

    def _since(self, number: int) -> int:
        fact = self.specs.get(number)
        return number if fact is None else fact.since or number

    def take_slot(self, component: str, slot: Slot) -> None:
        """Take in what a slot was good with, and what it was rolled back from."""
        if slot.good is not None or slot.desired == "running":
            self.add_good(component, slot.good)
        if slot.refused:
            why = slot.reason.message if slot.reason is not None and slot.reason.code == ROLLED_BACK else ""
            self.refused[slot.refused] = why or self.refused.get(slot.refused, "")

    def add_good(self, component: str, good: Good | None) -> None:
        """Take in what was good in a slot of a component that was to run."""
        self.good.setdefault(component, set()).update(() if good is None else (good,))


def good_now(sight: Sight, service: str) -> dict[str, set[Good]]:
    """The revisions that are good in an instance now, by component: nobody says of what runs on that it has become so."""
    found: dict[str, set[Good]] = {}
    for key, slot in sight.view.services[service].slots.items():
        component = component_of(sight.fleet, SlotKey(service, *key))
        good = None if component is None else component.good(slot)
        if good is not None:
            found.setdefault(key[0], set()).add(good)
    return found


async def past(bus: BusReader, sight: Sight, service: str) -> ServicePast:
    """What is known of a service's revisions. Raises `NotFoundError`."""
    entry = sight.view.services.get(service)
    if entry is None or entry.spec is None:
        raise no_service(sight.view, service)
    now, former = entry.spec.signed.event, []
    number = now.version or 0
    found = ServicePast({number: now}, {number: entry.spec.record}, good=good_now(sight, service))
    for (component, _), slot in entry.slots.items():
        for said in (one.application for one in slot.instances.values()):
            if said is not None and said.record.good is not None:
                found.add_good(component, said.record.good)
    if (denied := refused(entry)) is not None:  # also where only the number changed since, and no slot said so yet
        found.refused[number] = "" if denied.reason is None else denied.reason.message
    for signed in await ever_said(bus, (now.topic, f"service/{service}/slot/"), _WHAT):
        event = signed.event
        if event.epoch == now.epoch:
            found.take(event)
        elif event.topic == now.topic and event.epoch == (now.epoch or 1) - 1:
            former.append(event)
    found.overruled |= {event.id: event for event in _beside_removal(former)}
    return found


def _beside_removal(specs: Collection[Event]) -> list[Event]:
    """Of the specs of an epoch that has ended, what was said on the other side of a partition while it was ended."""
    removals = [event for event in specs if _removes(event)]
    last = max((event.version or 0 for event in removals), default=None)
    return [] if last is None else [event for event in specs if (event.version or 0) >= last and not _removes(event)]


def _removes(event: Event) -> bool:
    with suppress(UnusableEventError):
        return from_data(SpecFact, event.data).removed
    return False


async def _of_removed(bus: BusReader, sight: Sight, service: str) -> list[Revision]:
    """The revisions of a service that was removed. Raises `NotFoundError` where the history has none."""
    ended = sight.view.epoch(f"service/{service}/spec") - 1
    said = await ever_said(bus, (f"service/{service}/spec",), _WHAT)
    specs = [signed.event for signed in said if signed.event.epoch == ended]
    told = ServicePast(overruled={event.id: event for event in _beside_removal(specs)})
    for event in specs:
        if event.id not in told.overruled:
            told.take(event)
    if not told.said:
        raise no_service(sight.view, service, LISTS)
    found = [(event, list[str]()) for event in told.said.values()]
    lost = [(event, ["overruled"]) for event in told.overruled.values()]
    return [_revision(event, state, told) for event, state in sorted((*found, *lost), key=_place)]


async def history(bus: BusReader, sight: Sight, service: str) -> list[Revision]:
    """Every revision that the history still has, the newest first, also of a service that was removed.

    Raises `NotFoundError`.
    """
    entry, topic = sight.view.services.get(service), f"service/{service}/spec"
    if (entry is None or entry.spec is None) and sight.view.epoch(topic) > 1 and topic not in sight.view.quarantined:
        return await _of_removed(bus, sight, service)
    told = await past(bus, sight, service)
    entry = sight.view.services[service]
    runs = running_now(sight, service)
    stood = [(event, _state(entry, told, number, runs=runs)) for number, event in told.said.items()]
    lost = [(event, ["overruled"]) for event in told.overruled.values()]
    return [_revision(event, state, told) for event, state in sorted((*stood, *lost), key=_place)]


def _place(one: tuple[Event, list[str]]) -> tuple[int, bool, int]:
    """The newest first, and what stands before what was overruled."""
    event, state = one
    return -(event.version or 0), state == ["overruled"], event.time


def _revision(event: Event, state: list[str], told: ServicePast) -> Revision:
    number, fact = event.version or 0, from_data(SpecFact, event.data)
    refusal = told.refused.get(number) or None
    return Revision(
        revision=number,
        at=rfc3339(event.time_ms),
        by=person(fact.by),
        reason=fact.reason,
        removed=fact.removed,
        state=state,
        refusal=None if state == ["overruled"] else refusal,
    )


def running_now(sight: Sight, service: str) -> set[int]:
    """The revisions of which an instance runs."""
    entry = sight.view.services[service]
    told = [(node, one.application) for slot in entry.slots.values() for node, one in slot.instances.items()]
    alive = [said.record for node, said in told if said is not None and sight.fleet.state(node) != "dead"]
    return {status.revision for status in alive if status.state is State.RUNNING}


def _state(entry: ServiceEntry, told: ServicePast, number: int, *, runs: Collection[int]) -> list[str]:
    words = {
        "current": entry.spec is not None and number == entry.spec.version,
        "running": number in runs,
        "good": told.was_good(number),
        "refused": number in told.refused,
    }
    return [word for word, so in words.items() if so]
