"""Endings: slots that are not wanted, what runs with no slot fact, and services that were removed.

Rule 1: slots beyond the spec, and what nodes report with no slot fact that a spec wants, are told to be gone (rule A5).
Rule 2: the latter only while the brake is off, to nodes that are alive, in facts that live for `ORPHAN_MS`, and in so many
    of each node at once: whatever a node makes up costs no more. What it still reports afterwards is told again.
Rule 3: a removed service ends in one tombstone, when nothing of it is left on any node that may still live, and its
    slots have been gone for `BURIAL_MS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final

from dsmt.controllers.brake import Brake
from dsmt.controllers.context import Outcome, gone, slot_intent
from dsmt.controllers.intents import Intent
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Good, Slot
from dsmt.view import Fleet, ServiceEntry, SlotEntry, SlotKey

BURIAL_MS: Final = 5_000
"""How old the last `gone` of a removed service must be: a node may not yet have told that it has something."""

ORPHAN_MS: Final = 10 * 60_000
"""How long a fact lives that ends an orphan."""
ORPHANS_AT_ONCE: Final = 100
"""How many of them may live of one node."""

Places = Collection[tuple[str, int]]
"""Slots of one service: (component, index)."""


def end_slots(
    fleet: Fleet,
    brake: Brake,
    entry: ServiceEntry,
    places: Iterable[tuple[str, int]],
    outcome: Outcome,
    *,
    good: Callable[[str, SlotEntry], Good | None] = lambda _component, _slot: None,
) -> None:
    """Tell slots that are not wanted to be gone. `good` tells which revision was good last in a slot of a component."""
    for component, index in places:
        slot, key = entry.slots[component, index], SlotKey(entry.name, component, index)
        fact, spec = slot.fact, entry.spec
        if slot.quarantined or spec is None:
            continue
        if fact is None:
            _end_orphan(fleet, brake, key, slot, outcome)
        elif fact.record.desired != "gone" or spec.signed.event.cause:
            because = f"{key} is not wanted by revision {spec.version} of {entry.name}, applied by {spec.record.by}"
            ended = gone(fact.record, good(component, slot))
            _publish(fleet, key, slot_intent(key, slot, ended, (spec.id,), because), outcome)


def _publish(fleet: Fleet, key: SlotKey, intent: Intent | None, outcome: Outcome) -> None:
    if intent is not None:
        outcome.intents.append(intent)
        fleet.view.rooms.release(key)


def end_orphans(fleet: Fleet, brake: Brake, entry: ServiceEntry, places: Places, outcome: Outcome) -> None:
    """Tell what runs of a service with no spec and no slot fact to be gone."""
    for component, index in sorted(place for place in places if place in entry.slots):
        slot = entry.slots[component, index]
        if slot.fact is None and not slot.quarantined:
            _end_orphan(fleet, brake, SlotKey(entry.name, component, index), slot, outcome)


def _end_orphan(fleet: Fleet, brake: Brake, key: SlotKey, slot: SlotEntry, outcome: Outcome) -> None:
    """Rule 2: a node runs what no fact asks for. Of which revision it is nobody knows: the fact names none."""
    told = [(node, said) for node in slot.holders if (said := slot.instances[node].orphan) is not None]
    found = [(node, said) for node, said in told if fleet.state(node) == "alive"]
    if not found:
        return
    if brake.on:
        outcome.needs_full_pass = True
        return
    node, said = next((one for one in found if _has_room(fleet, one[0])), (None, None))
    if node is None or said is None:
        return
    slot_fact = Slot(node=node, spec=str(said.id), revision=0, desired="gone")
    because = f"{node} reports that it runs {key} with no slot fact, and no spec wants it"
    intent = slot_intent(key, slot, slot_fact, tuple(each.id for _, each in found), because)
    if intent is not None:
        fleet.ending[node] += 1
        outcome.intents.append(replace(intent, ttl_ms=ORPHAN_MS))


def _has_room(fleet: Fleet, node: str) -> bool:
    return len(fleet.view.ended.get(node, ())) + fleet.ending[node] < ORPHANS_AT_ONCE


def remove(fleet: Fleet, brake: Brake, entry: ServiceEntry, outcome: Outcome) -> None:
    """Rule 3."""
    spec = entry.spec
    if spec is None:
        return
    outcome.needs_full_pass = True
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
