"""Pending: why a slot is not where it is to be, or as it is to be, and nothing is decided of it now.

Rule 1: the first of these that holds is the reason, in the order of `waits_for`: of what is gone, a copy that ends (A8), or
    data that may come back (A17); an unknown word (A4); a home that is not there (A17); the brake (F5); no place; a copy on
    another node (A8); a revision that it keeps (`rollout`).
Rule 2: these are the tests that decisions make: what waits here is what a decision leaves as it is.
"""

from __future__ import annotations

from msgspec.structs import replace

from dsmt.controllers.brake import Brake, brake
from dsmt.controllers.copies import ends_until, may_work, works_beside
from dsmt.controllers.pinning import away, may_return_until
from dsmt.controllers.replacing import replaced
from dsmt.controllers.rollout import Governing, Rollout
from dsmt.controllers.unknown_words import waits_for_word
from dsmt.event.hlc import rfc3339
from dsmt.event.reason import Reason, reason
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, SlotEntry, SlotKey


def waits_for(governing: Governing, key: SlotKey) -> Reason | None:
    """Why a slot is on no node that lives, or keeps what it has (rule 1); None where nothing keeps it."""
    fleet, known = governing.fleet, governing.of(key)
    slot = fleet.view.slot(key)
    if known is None:
        return None
    if slot.record is None or slot.record.desired == "gone":
        ends = None if slot.record is None or ends_until(known, key) is None else slot.record.node
        return _waits_for_return(fleet, key, known.component, slot) if ends is None else _copy(ends)
    unknown = waits_for_word(fleet, slot, known.spec, known.chooser)
    if unknown is not None:
        return reason("wait.word", target=key, until=rfc3339(min(unknown.wakes)))
    return waits_for_home(governing, key) or _waits_to_go(governing, key, slot, known) or _keeps(key, known)


def waits_for_home(governing: Governing, key: SlotKey) -> Reason | None:
    """Why a pinned slot is not running that is to run: its home is not there; None when it is."""
    known = governing.of(key)
    told = None if known is None else known.slot(key).record
    if known is None or told is None or told.desired == "gone":
        return None
    home = known.home_of(key)
    return None if home is None else away(known.fleet, key, home, known.component)


def waits_for_brake(governing: Governing, held: Brake, key: SlotKey, node: str) -> Reason | None:
    """Why what a slot has on a node stays as it is until the brake is off; None where it is not for the brake.

    That is what a dead node ran, and what a node runs with no slot fact (A5).
    """
    fleet, why = governing.fleet, held.reason
    slot = fleet.view.slot(key)
    if why is None:
        return None
    if slot.record is None:
        is_orphan = node in slot.instances and slot.instances[node].orphan is not None
        said = f"{node} runs it, and nothing asks for it; once the brake is off it is ended, or kept where it is wanted"
        return replace(why, message=said) if is_orphan else None
    if slot.record.node != node or not fleet.is_lost(node) or held.allows(node) or replaced(governing, key) is None:
        return None
    return replace(why, message=f"{node} is dead; {why.message}")


def waits_for_place(governing: Governing, key: SlotKey, node: str) -> Reason | None:
    """Why what a dead node ran is placed nowhere else; None where it is placed next, or is to stay where it is."""
    known = replaced(governing, key)
    if known is None or known.chooser.choose(key, (node,)) is not None:
        return None
    return known.chooser.reason(key, (node,))


def _waits_to_go(governing: Governing, key: SlotKey, slot: SlotEntry, known: Rollout) -> Reason | None:
    """Why a slot on a node, or on none, is not on another one; None where it need not be."""
    fleet, node = governing.fleet, None if slot.record is None else slot.record.node
    if node is None:
        place = known.chooser.choose(key)
        return known.chooser.reason(key) if place is None else _copy_beside(fleet, slot, known, place)
    if not fleet.is_lost(node):
        drained = fleet.drain_of(node) is not None
        leaves = drained or slot.move_asked is not None or known.chooser.misfit_to_stay(node) is not None
        return _copy_beside(fleet, slot, known, node) or _stops_first(slot, node) if leaves else None
    if replaced(governing, key) is None:
        return None
    waits = waits_for_brake(governing, brake(fleet), key, node) or waits_for_place(governing, key, node)
    return waits or _copy_beside(fleet, slot, known, node, known.chooser.choose(key, (node,)))


def _waits_for_return(fleet: Fleet, key: SlotKey, component: ComponentSpec, slot: SlotEntry) -> Reason | None:
    """Why a slot of which no fact is known is placed nowhere yet (`pinning`, rule 5); None when it is."""
    until = may_return_until(fleet, fleet.view.services[key.service], component, slot)
    if until is None:
        return None
    return reason("wait.pinned", node="an unknown node", is_now=f"has until {rfc3339(until)} to come back", target=key)


def _stops_first(slot: SlotEntry, node: str) -> Reason | None:
    """That its node has not said yet that it has stopped it, to go elsewhere."""
    fact = slot.fact
    waits = fact is not None and fact.record.desired == "stopped" and not fact.record.held and may_work(slot, fact)
    return _copy(node) if waits else None


def _copy_beside(fleet: Fleet, slot: SlotEntry, known: Rollout, *these: str | None) -> Reason | None:
    """That a slot waits for a copy on another node than these, if it may not run beside that."""
    beside = works_beside(fleet, slot, *these) if known.rolls_in_place_only(slot) else None
    return None if beside is None else _copy(beside)


def _copy(node: str) -> Reason:
    return reason("wait.copy", node=node)


def _keeps(key: SlotKey, known: Rollout) -> Reason | None:
    """Why a slot keeps the revision that it has: what stands has failed in another one, or was stopped there by hand."""
    code, index = ("rollout.held", known.held_in) if known.failed_in is None else ("rollout.failed", known.failed_in)
    if known.kept is None or index is None:
        return None
    return reason(code, rev=f"r{known.spec.version}", instance=key._replace(index=index))
