"""Decided: whether it was decided of all that a spec wants where it is to be, and what is left of what it does not want."""

from __future__ import annotations

from collections import Counter

from dsmt.controllers.each_node import indexes_of_nodes
from dsmt.event.phrases import some
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instances import is_wanted, living_holders
from dsmt.operations.words.targets import Target
from dsmt.view import SlotKey


def all_there(sight: Sight, target: Target) -> bool:
    """Whether what the spec does not want any more is gone, to its last program, and each slot of it has been decided."""
    entry = sight.view.services[target.service]
    parsed = None if entry.spec is None or entry.spec.record.removed else entry.parsed
    return parsed is not None and not unwanted(sight, target) and all_decided(sight, target)


def all_decided(sight: Sight, target: Target) -> bool:
    """Whether each slot that the spec wants has been decided; one whose fact says gone has not: it is to come back."""
    entry = sight.view.services[target.service]
    taken = ((*place, slot.fact) for place, slot in entry.slots.items() if target.takes(SlotKey(target.service, *place)))
    told = [(name, fact.record) for name, _, fact in taken if fact is not None]
    here = Counter(name for name, slot in told if slot.desired != "gone")
    known = here.keys() | {name for name, slot in told if slot.ended is not None}  # which stays so
    for name, one in ({} if entry.parsed is None else entry.parsed.components).items():
        if target.component not in (None, name):
            continue
        if one.each_node and name not in known and _has_a_node(sight, target, name):
            return False
        if here[name] < (1 if target.index is not None else one.instances or 0):
            return False
    return True


def _has_a_node(sight: Sight, target: Target, component: str) -> bool:
    """Whether any node is in the set of a component that runs once on each node."""
    known = sight.governing.of(SlotKey(target.service, component, 0))
    return known is not None and bool(indexes_of_nodes(sight.fleet, known.entry, known.chooser))


def unwanted(sight: Sight, target: Target) -> list[str]:
    """What is to end, and where: what a spec does not want any more, and is not gone from each node that may live."""
    entry = sight.view.services[target.service]
    found = []
    for (name, index), slot in sorted(entry.slots.items()):
        key = SlotKey(target.service, name, index)
        holders = living_holders(sight, slot)
        left = slot.fact is not None and (slot.fact.record.desired != "gone" or holders)
        if left and not is_wanted(sight, key) and target.takes(key):
            found.append(f"{key} is to end{f' on {some(holders)}' if holders else ''}")
    return found
