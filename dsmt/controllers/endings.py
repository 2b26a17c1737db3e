"""Endings: slots that are not wanted, what runs with no slot fact, and services that were removed.

Rule 1: slots beyond the spec, and what nodes report with no slot fact and no spec, are told to be gone (rule A5);
    the latter only while the brake is off.
Rule 2: a removed service ends in one tombstone, when nothing of it is left on any node that may still live, and its
    slots have been gone for `BURIAL_MS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from dsmt.controllers.brake import Brake
from dsmt.controllers.case import Outcome, gone, slot_intent
from dsmt.controllers.intents import Intent
from dsmt.event.records import Slot, Tombstone
from dsmt.view import Fleet, ServiceEntry, SlotEntry, SlotKey

BURIAL_MS: Final = 5_000
"""How old the last `gone` of a removed service must be: a node may not yet have told that it has something."""

Places = Collection[tuple[str, int]]
"""Slots of one service: (component, index)."""


def end_slots(fleet: Fleet, brake: Brake, entry: ServiceEntry, places: Iterable[tuple[str, int]], outcome: Outcome) -> None:
    """Tell slots that are not wanted to be gone."""
    for component, index in places:
        slot, key = entry.slots[component, index], SlotKey(entry.name, component, index)
        fact, spec = slot.fact, entry.spec
        if slot.quarantined or spec is None:
            continue
        if fact is None:
            _end_orphan(brake, key, slot, outcome)
        elif fact.record.desired != "gone":
            because = f"{key} is not wanted by revision {spec.version} of {entry.name}, applied by {spec.record.by}"
            _publish(fleet, key, slot_intent(key, slot, gone(fact.record), (spec.id,), because), outcome)


def _publish(fleet: Fleet, key: SlotKey, intent: Intent | None, outcome: Outcome) -> None:
    if intent is not None:
        outcome.intents.append(intent)
        fleet.view.rooms.release(key)


def end_orphans(brake: Brake, entry: ServiceEntry, places: Places, outcome: Outcome) -> None:
    """Tell what runs of a service with no spec and no slot fact to be gone."""
    for component, index in sorted(place for place in places if place in entry.slots):
        slot = entry.slots[component, index]
        if slot.fact is None and not slot.quarantined:
            _end_orphan(brake, SlotKey(entry.name, component, index), slot, outcome)


def _end_orphan(brake: Brake, key: SlotKey, slot: SlotEntry, outcome: Outcome) -> None:
    """A5: a node runs what no fact asks for. Of which revision it is nobody knows: the fact names none."""
    found = [(node, said) for node in slot.holders if (said := slot.instances[node].orphan) is not None]
    if not found:
        return
    if brake.on:
        outcome.restless = True
        return
    node, said = found[0]
    slot_fact = Slot(node=node, spec=str(said.id), revision=0, desired="gone")
    because = f"{node} reports that it runs {key} with no slot fact, and no spec wants it"
    intent = slot_intent(key, slot, slot_fact, tuple(each.id for _, each in found), because)
    if intent is not None:
        outcome.intents.append(intent)


def remove(fleet: Fleet, brake: Brake, entry: ServiceEntry, outcome: Outcome) -> None:
    """Rule 2."""
    spec = entry.spec
    if spec is None:
        return
    outcome.restless = True
    end_slots(fleet, brake, entry, sorted(entry.slots), outcome)
    if outcome.intents:
        return
    for slot in entry.slots.values():
        if slot.quarantined or any(fleet.state(node) not in ("dead", "left") for node in slot.holders):
            return
    last = max([spec.time_ms, *(slot.fact.time_ms for slot in entry.slots.values() if slot.fact is not None)])
    if fleet.now_ms < last + BURIAL_MS:
        outcome.wakes.append(last + BURIAL_MS)
        return
    topic = f"tombstone/service/{entry.name}"
    record = Tombstone(by=spec.record.by, reason=spec.record.reason)
    because = f"{entry.name} was removed by {spec.record.by}, and nothing of it is left"
    before = fleet.view.winner(topic)
    epoch = spec.signed.event.epoch
    outcome.intents.append(Intent(topic, record, before, (spec.id,), because, epoch=epoch, subject=entry.name))
