"""Ended: a program that has ended with 0 and is not run again, and what of that goes with its slot (rule A20).

Rule 1: an agent says how its program has ended. Until it has answered to a later fact, that fact carries it, if nothing was
    asked for anew.
Rule 2: what has ended well is moved as that, and not run again, but where an operator moves it. It is moved in the revision
    in which it has ended, and is given the next one when its agent has said that it knows: only a node can tell whether
    that changes anything of it. So it is not moved before its agent has answered to the revision that it was given.
Rule 3: while another revision is tried after it, the fact says how it has ended: it stays so where that one is refused,
    also on another node.
Rule 4: what has ended on each node of a set has ended on that machine: another one that comes up under its name runs it.
"""

from __future__ import annotations

from msgspec.structs import replace

from dsmt.controllers.context import ComponentContext
from dsmt.controllers.plan import NOTHING, Outcome
from dsmt.controllers.unknown_words import UNKNOWN_MS
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Ended, Slot
from dsmt.event.status import State
from dsmt.view import Fleet, SlotEntry


def stays_ended(slot: SlotEntry) -> bool:
    """Whether its program has ended by itself and is not run again, and what is wanted of it was good."""
    told, said = slot.record, slot.current_status
    if told is None or said is None or told.desired != "running":
        return False
    return said.record.has_ended and said.record.good == told.implements


def ended_well(slot: SlotEntry) -> Ended | None:
    """How its program has ended that has ended with 0 and stays so; also where nobody has taken that over yet."""
    fact = slot.fact
    if fact is None or fact.record.desired != "running":
        return None
    held = slot.status
    if held is None or held.record.generation < fact.version or held.record.state is State.REQUESTED:
        return fact.record.ended
    last = held.record.last_exit
    return Ended(at_ms=last.at_ms, ran_s=last.ran_s) if stays_ended(slot) and last is not None and last.code == 0 else None


def ended_before(slot: SlotEntry) -> bool:
    """Whether its program had ended with 0, and its agent has not answered yet to what it was given since."""
    fact, held = slot.fact, slot.status
    if fact is None or held is None or fact.record.desired != "running" or held.record.generation >= fact.version:
        return False
    return held.record.ended_well and held.record.good in fact.record.revisions


def carried(fleet: Fleet, entry: SlotEntry, slot: Slot) -> Ended | None:
    """How what it implements has ended that is not run again; None where anything is asked for anew, or it stays here."""
    ended = _carried(entry, slot)
    return ended if ended is None or slot.node is None or fleet.is_machine(slot.node, ended.key) else None


def _carried(entry: SlotEntry, slot: Slot) -> Ended | None:
    before = entry.record
    if before is None or slot.desired != "running" or _asks_anew(slot, before):
        return None
    if slot.spec != before.spec:
        goes_back = slot.refuses is not None and before.good is not None and slot.spec == before.good.spec
        return before.good_ended if goes_back else None
    if before.desired == "stopped" and not before.held:  # only to go elsewhere
        return before.ended
    return ended_well(entry) if slot.node != before.node else before.ended


def good_ended(entry: SlotEntry, slot: Slot) -> Ended | None:
    """How what was good last has ended, for who goes back to that (rule 3); None where anything is asked for anew."""
    before = entry.record
    if before is None or slot.good is None or _asks_anew(slot, before):
        return None
    if slot.good.spec == before.spec:
        return ended_well(entry)
    return before.good_ended if slot.good == before.good else None


def _asks_anew(slot: Slot, before: Slot) -> bool:
    return (slot.restart, slot.move_number) != (before.restart, before.move_number)


def moved_as_ended(fleet: Fleet, entry: SlotEntry, before: Slot, slot: Slot) -> Slot:
    """A slot that is moved, or back, in the revision in which it has ended well, if no more is asked for anew (rule 2)."""
    as_before = replace(slot, spec=before.spec, revision=before.revision, former=before.former, refuses=before.refuses)
    ended = carried(fleet, entry, as_before)
    return slot if ended is None else replace(as_before, ended=ended)


def waits_as_ended(context: ComponentContext, entry: SlotEntry) -> Outcome | None:
    """When to look again at what has ended well: its agent cannot say now, or has not said yet, that it knows that (rule 2).

    One that has yet to be brought the revision in which it has ended is waited for, as long as for any word (A4).
    """
    fact = entry.fact
    if fact is None or ended_well(entry) is None:
        return None
    said = entry.current_status
    if said is None or context.fleet.state(fact.record.node or "") != "alive":
        return NOTHING
    until = min(said.record.since_ms, said.time_ms) + UNKNOWN_MS
    return Outcome(wakes=(until,)) if said.record.state is State.REQUESTED and context.now_ms < until else None


def keeping_its_end(fleet: Fleet, slot: SlotEntry, ended: Slot) -> Slot:
    """A fact that ends one of each node, with how its program has ended there, if nobody asked for it anew since.

    Where its agent has not answered to the revision that it was given, the fact is of the one before, in which it has ended.
    """
    ended = _keeping_its_end(slot, ended)
    key = fleet.key_of(ended.node or "")
    return ended if ended.ended is None else replace(ended, ended=replace(ended.ended, key=key))


def _keeping_its_end(slot: SlotEntry, ended: Slot) -> Slot:
    held = slot.status
    good, last = (None, None) if held is None else (held.record.good, held.record.last_exit)
    if good is None or last is None or not ended_before(slot) or _asked_since(ended, last):
        return replace(ended, ended=ended_well(slot))
    as_before = Ended(at_ms=last.at_ms, ran_s=last.ran_s)
    return replace(ended, spec=good.spec, revision=good.revision, former=None, ended=as_before)


def _asked_since(fact: Slot, last: LastExit) -> bool:
    """Whether a restart was asked for after the run that has ended so: by its number or, where none is said, by time."""
    return fact.restart > (last.at_ms - round(last.ran_s * 1000) if last.restart is None else last.restart)
