"""Braked: what waits for the brake (F5) or a place: what a dead node ran, and what a node runs with no slot fact (A5)."""

from __future__ import annotations

import msgspec

from dsmt.controllers.replacing import Replacing
from dsmt.event.reason import Reason
from dsmt.operations.read.sight import Sight
from dsmt.view import SlotEntry, SlotKey


def waits_for_brake(sight: Sight, key: SlotKey, entry: SlotEntry, node: str | None) -> Reason | None:
    """Why a slot's instance on a node stays as it is until the brake is off; None where it is not for the brake."""
    why = sight.brake.reason
    if why is None or node is None:
        return None
    if is_orphan(entry, node):
        said = f"{node} runs it, and nothing asks for it"
        return msgspec.structs.replace(why, message=f"{said}; once the brake is off it is ended, or kept where it is wanted")
    if entry.fact is None or entry.fact.record.node != node or not sight.fleet.is_lost(node) or sight.brake.allows(node):
        return None
    if Replacing(sight.fleet).of(key) is None:
        return None
    return msgspec.structs.replace(why, message=f"{node} is dead; {why.message}")


def waits_for_place(sight: Sight, key: SlotKey, node: str) -> Reason | None:
    """Why what a dead node ran is placed nowhere else; None where it is placed next, or is to stay where it is."""
    known = sight.governing.of(key)
    if known is None or Replacing(sight.fleet).of(key) is None or known.chooser.choose(key, (node,)) is not None:
        return None
    return known.chooser.reason(key, (node,))


def move_waits(sight: Sight, key: SlotKey, to: str | None) -> str:
    """Why an operator's move of a slot to a node (empty for any other) is not made now; empty where it can be, or none is.

    A sentence without the slot, which is its subject.
    """
    known, entry = sight.governing.of(key), sight.view.slot(key)
    node = None if entry is None or entry.record is None else entry.record.node
    if to is None or known is None or node is None or node == to:
        return ""
    if to:
        fault = known.chooser.misfit(to)
        return "" if fault is None else f"goes to {to} once it can: {fault.says}"
    if known.chooser.choose(key, (node,)) is not None:
        return ""
    return f"goes once there is another place: {known.chooser.reason(key, (node,)).message}"


def to_replace(sight: Sight) -> list[str]:
    """The nodes that are dead by silence and have something that is replaced elsewhere."""
    replacing = Replacing(sight.fleet)
    return sorted(node for node in sight.view.silenced if replacing.any_of(node))


def is_orphan(entry: SlotEntry, node: str) -> bool:
    """Whether a node tells that it runs what no slot fact asks for."""
    return entry.fact is None and node in entry.instances and entry.instances[node].orphan is not None
