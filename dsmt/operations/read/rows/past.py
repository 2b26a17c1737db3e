"""The past of a service: its revisions since it was made, as the history has them, and what became of each."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dsmt.controllers.rollout import standing
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, EventId
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.order import newer
from dsmt.event.phrases import whose
from dsmt.event.records import from_data
from dsmt.event.status import State
from dsmt.operations.read.realm.facts import ever_said
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.revisions import refused
from dsmt.operations.words.targets import no_service, service_meant
from dsmt.ports.bus import BusReader
from dsmt.view import ServiceEntry, SlotKey

ROLLED_BACK: Final = "rollout.rolled_back"
_WHAT: Final = "its revisions"


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision.

    `state` is any of: `current`, which was applied last, `running` (an instance of it runs now), `good` (each component was
    ready with it for long enough, or with one that has only another number of instances), and `refused` (it was rolled
    back; `refusal` says why). Whatever else it is, one that is `overruled` was said while another one was under the same
    number, on the other side of a partition, which stands, or while the service was removed there (E2).
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
    refused: dict[str, str] = field(default_factory=dict)
    """Why a spec was rolled back, by its event's id; empty where nothing says so."""
    _same: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By a spec's id, those before it that said the same but for the number of instances."""
    _firsts: dict[str, str] = field(default_factory=dict)
    """By a spec's id, the first of these, as far as it was looked for."""

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
        self._same[str(event.id)] = fact.same
        self._firsts.clear()
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
        return number in self.said and self.is_good(self.said[number], in_part=in_part)

    def is_good(self, event: Event, *, in_part: bool = False) -> bool:
        """Whether what a spec says was good, also one that was overruled."""
        first, components = self._first(str(event.id)), from_data(SpecFact, event.data).spec.get("components")
        names = components if isinstance(components, dict) else ()  # an operator's key says what it likes there
        known = [self.good[name] for name in names if name in self.good]
        found = [any(self._first(one.spec) == first for one in each) for each in known]
        return any(found) if in_part else bool(found) and all(found)

    def was_refused(self, number: int) -> bool:
        """Whether a revision was rolled back."""
        return number in self.said and str(self.said[number].id) in self.refused

    def refusal(self, event: Event) -> str:
        """Why a spec was rolled back; of one with only another number of instances that is told of the one it says again."""
        own = str(event.id)
        if own not in self.refused:
            return ""
        first = self._first(own)
        alike = [one for one in self.refused if self._first(one) == first]
        why = next((self.refused[one] for one in (own, *alike) if self.refused[one]), "")
        numbers = [number for number, one in self.said.items() if str(one.id) in alike]
        tried = min(numbers, default=event.version)
        if not why or tried == event.version:
            return why
        return f"as r{tried}, with another number of instances: {why}"

    def _first(self, spec: str) -> str:
        """The first spec, as far as is known, that said the same as one but for the number of instances."""
        passed: dict[str, str] = {}
        while spec not in self._firsts and spec not in passed:  # two specs may name each other
            passed[spec] = spec
            spec = (self._same.get(spec) or (spec,))[-1]
        first = self._firsts.get(spec, spec)
        self._firsts.update(dict.fromkeys(passed, first))
        return first

    def place(self, event: Event) -> tuple[int, bool, int]:
        """By which specs are listed: the newest first, and what stands before what was overruled."""
        return -(event.version or 0), event.id in self.overruled, event.time

    def take_slot(self, component: str, slot: Slot) -> None:
        """Take in what a slot was good with, and what it was rolled back from."""
        if slot.good is not None or slot.desired == "running":
            self.add_good(component, slot.good)
        if slot.refuses is not None:
            why = slot.reason.message if slot.reason is not None and slot.reason.code == ROLLED_BACK else ""
            self.refused[slot.refuses.spec] = why or self.refused.get(slot.refuses.spec, "")

    def add_good(self, component: str, good: Good | None) -> None:
        """Take in what was good in a slot of a component that was to run."""
        self.good.setdefault(component, set()).update(() if good is None else (good,))


def good_now(sight: Sight, service: str) -> dict[str, set[Good]]:
    """The revisions that are good in an instance now, by component: nobody says of what runs on that it has become so."""
    found: dict[str, set[Good]] = {}
    for key, slot in sight.view.services[service].slots.items():
        component = standing(sight.fleet, SlotKey(service, *key))
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
    found = ServicePast(good=good_now(sight, service))
    found.take(now)
    for (component, _), slot in entry.slots.items():
        for said in (one.application for one in slot.instances.values()):
            if said is not None and said.record.good is not None:
                found.add_good(component, said.record.good)
    if (denied := refused(entry)) is not None:  # also where only the number changed since, and no slot said so yet
        found.refused[str(now.id)] = "" if denied.reason is None else denied.reason.message
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
        raise no_service(sight.view, service, service_meant(sight.view, service))
    known = sorted((*told.said.values(), *told.overruled.values()), key=told.place)
    return [_revision(event, ["overruled"] if event.id in told.overruled else [], told) for event in known]


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
    said = sorted((*told.said.values(), *told.overruled.values()), key=told.place)
    return [_revision(event, _state(entry, told, event, runs=runs), told) for event in said]


def _revision(event: Event, state: list[str], told: ServicePast) -> Revision:
    number, fact = event.version or 0, from_data(SpecFact, event.data)
    return Revision(
        revision=number,
        at=rfc3339(event.time_ms),
        by=whose(fact.by, event.source),
        reason=fact.reason,
        removed=fact.removed,
        state=state,
        refusal=told.refusal(event) or None,
    )


def running_now(sight: Sight, service: str) -> set[str]:
    """The specs, by their events' ids, of which an instance runs, as its slot's fact names them."""
    found: set[str] = set()
    for slot in sight.view.services[service].slots.values():
        if slot.fact is None:
            continue
        own, *before = slot.fact.record.revisions
        for node, one in slot.instances.items():
            said = None if one.application is None else one.application.record
            if said is None or said.state is not State.RUNNING or sight.fleet.state(node) == "dead":
                continue
            named = (own, *before) if said.generation >= slot.fact.version else (*before, own)
            found.update([known.spec for known in named if known.revision == said.revision][:1])
    return found


def _state(entry: ServiceEntry, told: ServicePast, event: Event, *, runs: Collection[str]) -> list[str]:
    own = str(event.id)
    words = {
        "overruled": event.id in told.overruled,
        "current": entry.spec is not None and event.id == entry.spec.id,
        "running": own in runs,
        "good": told.is_good(event),
        "refused": own in told.refused,
    }
    return [word for word, so in words.items() if so]
