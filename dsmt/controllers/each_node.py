"""`instances: each_node`: which index stands for which node.

Rule 1: there is one on each node that fits; a node keeps its index while it is in the set, and is given it again when it
    comes back, before a node that had none is given one, if nobody else has it. The index of what has its data on a node
    is nobody else's (A17), nor that of what has ended well there (A20).
Rule 2: one that an operator holds is kept for its node when it has left the set: the hold is of that node's instance.
Rule 3: one that was begun again on its node ends there no sooner than a forced move may follow the one before (`replacing`):
    where it is parked its node may leave the set by that alone, and comes back when it has ended.
Rule 4: what ends names the fact for which its node is of the set no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from dsmt.controllers.left_data import data_left
from dsmt.controllers.placement import Chooser
from dsmt.controllers.replacing import next_move_ms
from dsmt.event.envelope import EventId
from dsmt.event.kinds.slot import Slot
from dsmt.event.phrases import whose
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, ServiceEntry, SlotEntry


def indexes_of_nodes(fleet: Fleet, entry: ServiceEntry, chooser: Chooser) -> dict[int, str]:
    """By index, in their order, the node that it stands for."""
    kept: dict[int, str] = {}
    own = [(index, slot) for (component, index), slot in sorted(entry.slots.items()) if component == chooser.component.name]
    former = _left(fleet, entry, chooser.component) | _last_there(fleet, own)
    taken: set[str] = set()
    used = set(former.values())
    for index, slot in own:
        if slot.hold is not None:
            used.add(index)
        if slot.fact is None:
            former |= dict.fromkeys(slot.holders, index)
            continue
        node = slot.fact.record.node
        if _keeps_index(fleet, slot.fact.record) is not None:
            used.add(index)
        elif node is None or slot.fact.record.desired == "gone":
            former.setdefault(node or "", index)
        else:
            used.add(index)
            if node not in taken and _takes(fleet, chooser, node, slot):
                kept[index] = node
                taken.add(node)
    came = [node for node in chooser.candidates() if node not in taken and chooser.misfit(node) is None]
    kept = _had(came, former) | kept
    free = (index for index in count() if index not in kept and index not in used)
    for node in came:
        if kept.get(former.get(node, -1)) != node:
            kept[next(free)] = node
    return dict(sorted(kept.items()))


def _had(nodes: Iterable[str], former: dict[str, int]) -> dict[int, str]:
    """By index, the node that had it before; of several the first."""
    return {former[node]: node for node in sorted(nodes, reverse=True) if node in former}


def _last_there(fleet: Fleet, slots: Iterable[tuple[int, SlotEntry]]) -> dict[str, int]:
    """By node, the index that is kept for it, of several the one that was there last: another one has older data."""
    facts = ((slot.fact, index) for index, slot in slots if slot.fact is not None)
    last = sorted(
        (fact.record.last_revision, fact.time_ms, index, _keeps_index(fleet, fact.record)) for fact, index in facts
    )
    return {node: index for _, _, index, node in last if node is not None}


def _keeps_index(fleet: Fleet, fact: Slot) -> str | None:
    """The node for which a slot keeps its index though it is nowhere, for its data or its end is there; None for none."""
    if fact.wanted_on is not None:
        return None
    if fact.home is not None:
        return fact.home.node
    if fact.ended is None or fact.node is None or fleet.state(fact.node) == "left":
        return None
    return fact.node if fleet.is_machine(fact.node, fact.ended.key) else None


def _left(fleet: Fleet, entry: ServiceEntry, component: ComponentSpec) -> dict[str, int]:
    """By node, the index whose data is there since the service was removed, the last of several (`good`, rule 3)."""
    left = data_left(fleet, entry.name) if component.on_partition == "pinned" else {}
    own = {index: home.node for (name, index), home in left.items() if name == component.name}
    facts = {index: slot.fact for (name, index), slot in entry.slots.items() if name == component.name}
    return {node: index for index, node in reversed(own.items()) if facts.get(index) is None}


def keeps(fleet: Fleet, chooser: Chooser, slot: SlotEntry) -> bool:
    """Whether a slot stands for its node beyond doubt, whatever the others are: it has it alone, and it stays in the set."""
    node = slot.wanted_on
    return node is not None and chooser.own.get(node) == 1 and _takes(fleet, chooser, node, slot)


def _takes(fleet: Fleet, chooser: Chooser, node: str, slot: SlotEntry) -> bool:
    entry = fleet.view.nodes.get(node)
    if fleet.state(node) == "left" or fleet.drain_of(node) is not None:
        return False
    if entry is None or entry.attributes is None:
        return True
    return chooser.misfit_to_stay(node) is None or next_move_ms(slot) > fleet.now_ms


def left_for(fleet: Fleet, chooser: Chooser, node: str) -> tuple[tuple[EventId, ...], str] | None:
    """For which facts a node is of the set no more, and a clause that says it; None where none of them says so."""
    drain, verdict, fault = fleet.drain_of(node), fleet.verdict(node), chooser.misfit_to_stay(node)
    if drain is not None:
        return (drain.id,), f"{node} is drained by {whose(drain.record.by, drain.signed.event.source, drain.record.reason)}"
    if verdict is not None and verdict.record.state == "left":
        return (verdict.id,), f"{node} has left"
    return None if fault is None else (chooser.sets, fault.says)
