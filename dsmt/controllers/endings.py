"""Endings: slots that are not wanted, what runs with no slot fact, and services that were removed.

Rule 1: slots beyond the spec, and what nodes report with no slot fact that a spec wants, are told to be gone (rule A5).
Rule 2: the latter only while the brake is off, to nodes that are alive, in facts that live for `ORPHAN_MS`, and in so many
    of each node at once: whatever a node makes up costs no more. What it still reports afterwards is told again.
Rule 3: a removed service ends in one tombstone, when nothing of it is left on any node that may still live, and its
    slots have been gone for `BURIAL_MS`, or for `UNKNOWN_MS` where a node lives and has not answered. It says where the data
    of its slots lies (`good`, rule 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from dsmt.controllers.context import ComponentContext, slot_intent
from dsmt.controllers.copies import may_work
from dsmt.controllers.each_node import left_for
from dsmt.controllers.ended import keeping_its_end
from dsmt.controllers.good import gone
from dsmt.controllers.intents import Intent
from dsmt.controllers.left_data import left_by
from dsmt.controllers.look import Places
from dsmt.controllers.plan import LOOK_AT_ALL, NOTHING, Outcome, Plan
from dsmt.controllers.rollout import who_applied
from dsmt.controllers.unknown_words import UNKNOWN_MS, waits_for_word
from dsmt.event.envelope import EventId
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.view import Fleet, Held, ServiceEntry, SlotEntry, SlotKey

BURIAL_MS: Final = 5_000
"""How old the last `gone` of a removed service must be: a node may not yet have told that it has something."""

ORPHAN_MS: Final = 10 * 60_000
"""How long a fact lives that ends an orphan."""
ORPHANS_AT_ONCE: Final = 100
"""How many of them may live of one node."""


def end_slots(
    plan: Plan,
    entry: ServiceEntry,
    places: Iterable[tuple[str, int]],
    *,
    components: Mapping[str, ComponentContext] = MappingProxyType({}),
) -> Outcome:
    """Tell slots that are not wanted to be gone. `components` are those that are wanted, and know what was good in them."""
    outcomes = []
    for component, index in places:
        slot, key = entry.slots[component, index], SlotKey(entry.name, component, index)
        fact, spec = slot.fact, entry.spec
        if slot.quarantined or spec is None:
            continue
        if fact is None:
            outcomes.append(_end_orphan(plan, key, slot))
            continue
        known = components.get(component)
        waits = waits_for_word(plan.fleet, slot, spec, None if known is None else known.chooser)
        if waits is not None:
            outcomes.append(waits)
        elif fact.record.desired != "gone" or spec.signed.event.cause or (known is None and fact.record.ended is not None):
            left = _left(known, fact.record)
            ended = _gone_fact(known, slot, fact.record, is_left=left is not None)
            cause, because = _not_wanted_for(key, spec, left)
            intent = slot_intent(plan.fleet, key, slot, ended, cause, because=because, spec=spec)
            if intent is not None:
                plan.allocations.release(key)
                outcomes.append(Outcome((intent,)))
    return Outcome.merged(outcomes)


def _gone_fact(known: ComponentContext | None, slot: SlotEntry, fact: Slot, *, is_left: bool) -> Slot:
    """The fact that ends a slot; `is_left`: because its node is none of its nodes any more.

    What the spec does not have any more has neither ended nor failed in it, whenever it has it again. All else has failed
    there until it is good there (A21), and what has ended stays so when its node is back (A20).
    """
    if known is None:
        return replace(gone(fact), ended=None, tried=False)
    ended = known.gone_fact(slot, fact)
    if fact.desired == "gone":
        return ended
    ended = keeping_its_end(known.fleet, slot, ended) if is_left else ended
    return replace(ended, tried=known.tried_in(slot, ended))


def _left(known: ComponentContext | None, fact: Slot) -> tuple[tuple[EventId, ...], str] | None:
    """For which facts the node of one of each node is of the set no more, and a clause that says it."""
    if known is None or not known.component.each_node or fact.node is None:
        return None
    return left_for(known.fleet, known.chooser, fact.node)


def _not_wanted_for(
    key: SlotKey, spec: Held[SpecFact], left: tuple[tuple[EventId, ...], str] | None
) -> tuple[tuple[EventId, ...], str]:
    """For which facts a slot is not wanted, and a sentence that says it."""
    if left is not None:
        return (*left[0], spec.id), f"{key} ends: {left[1]}"
    return (spec.id,), f"{key} is not wanted by revision {spec.version} of {key.service}, applied by {who_applied(spec)}"


def end_orphans(plan: Plan, entry: ServiceEntry, places: Places) -> Outcome:
    """Tell what runs of a service with no spec and no slot fact to be gone."""
    found = {place: entry.slots[place] for place in sorted(places) if place in entry.slots}
    return Outcome.merged(
        _end_orphan(plan, SlotKey(entry.name, *place), slot)
        for place, slot in found.items()
        if slot.fact is None and not slot.quarantined
    )


def _end_orphan(plan: Plan, key: SlotKey, slot: SlotEntry) -> Outcome:
    """Rule 2: a node runs what no fact asks for. Of which revision it is nobody knows: the fact names none."""
    fleet = plan.fleet
    told = [(node, said) for node in slot.holders if (said := slot.instances[node].orphan) is not None]
    found = [(node, said) for node, said in told if fleet.state(node) == "alive"]
    if not found:
        return NOTHING
    if plan.brake.on:
        return LOOK_AT_ALL
    node, said = next((one for one in found if _has_room(plan, one[0])), (None, None))
    if node is None or said is None:
        return NOTHING
    slot_fact = Slot(node=node, spec=str(said.id), revision=0, desired="gone")
    because = f"{node} reports that it runs {key} with no slot fact, and no spec wants it"
    intent = slot_intent(fleet, key, slot, slot_fact, tuple(each.id for _, each in found), because=because, spec=None)
    if intent is None:
        return NOTHING
    plan.endings[node] += 1
    return Outcome((replace(intent, ttl_ms=ORPHAN_MS),))


def _has_room(plan: Plan, node: str) -> bool:
    return len(plan.fleet.view.ended_orphans.get(node, ())) + plan.endings[node] < ORPHANS_AT_ONCE


def remove(plan: Plan, entry: ServiceEntry) -> Outcome:
    """Rule 3."""
    fleet, spec = plan.fleet, entry.spec
    if spec is None:
        return NOTHING
    ends = end_slots(plan, entry, sorted(entry.slots))
    if ends.intents or ends.wakes:  # what was decided of a slot may follow a spec that is yet to come
        return Outcome.merged((ends, LOOK_AT_ALL))
    for slot in entry.slots.values():
        if slot.quarantined or not all(map(fleet.is_lost, slot.holders)):
            return Outcome.merged((ends, LOOK_AT_ALL))
    until = max([spec.time_ms + BURIAL_MS, *(_buried_from(fleet, slot) for slot in entry.slots.values())])
    if fleet.now_ms < until:
        return Outcome.merged((ends, Outcome.look_again(until)))
    topic = f"tombstone/service/{entry.name}"
    record = Tombstone(by=spec.record.by, reason=spec.record.reason, data=left_by(fleet, entry.name))
    because = f"{entry.name} was removed by {who_applied(spec)}, and nothing of it is left"
    before = fleet.view.winner(topic)
    epoch = spec.signed.event.epoch
    intent = Intent(topic, record, before, (spec.id,), because, epoch=epoch, subject=entry.name)
    return Outcome((intent,), look_at_all=True)


def _buried_from(fleet: Fleet, slot: SlotEntry) -> int:
    """From when on (realm ms) a slot holds up no burial; one whose node lives, and has not answered, as late as any word."""
    fact = slot.fact
    if fact is None:
        return 0
    node = fact.record.node
    is_unanswered = node is not None and not fleet.is_lost(node) and may_work(slot, fact)
    return fact.time_ms + (UNKNOWN_MS if is_unanswered else BURIAL_MS)
