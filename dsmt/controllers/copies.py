"""Copies: where a copy of a slot may still run, for what may not run beside another one (rule A8).

Rule 1: of a node that the slot's fact does not name, what is said there decides: what has ended, or was never made, runs no
    more. Of the node that its fact names, one that has not answered to that fact may have begun.
Rule 2: a copy on a node that is dead or has left is waited for by nobody.
Rule 3: a slot that was told to end before its node has answered is placed anew when that has, and no later than any word is
    waited for (A4): of what never came there nothing is said. One of each node, or with its data, goes nowhere else.
"""

from __future__ import annotations

from dsmt.controllers.rollout import Rollout
from dsmt.controllers.unknown_words import UNKNOWN_MS
from dsmt.event.kinds.instance import Status
from dsmt.event.kinds.slot import Slot
from dsmt.event.status import State
from dsmt.view import Fleet, Held, SlotEntry, SlotKey


def works_beside(fleet: Fleet, entry: SlotEntry, *these: str | None) -> str | None:
    """A node that lives, other than these, which may still run a copy of it; None where there is none."""
    others = (node for node in entry.holders if node not in these)
    return next((node for node in others if _works(entry, node) and not fleet.is_lost(node)), None)


def _works(entry: SlotEntry, node: str) -> bool:
    """Whether an instance may be running on a node, or run again, by what is said there.

    Where its agent has said nothing, who could not make its container, or start any agent of it, runs nothing.
    """
    instance = entry.instances.get(node)
    if instance is None or not instance.left:
        return False
    if instance.application is None:
        below = instance.agent or instance.container
        return below is not None and below.record.state is not State.STOPPED and not _never_began(below.record)
    said = instance.application.record
    return said.state not in (State.STOPPED, State.GONE) and not said.has_ended


def may_work(entry: SlotEntry, fact: Held[Slot]) -> bool:
    """The same of the node to which a fact gives it, which may have begun it and not have been heard since."""
    node, instance = fact.record.node or "", entry.instance
    if instance is None or instance.generation < fact.version:
        return True
    said = instance.application
    if said is not None and said.record.generation >= fact.version:
        return _works(entry, node)
    below = [one.record for one in (instance.agent, instance.container) if one is not None]
    never_began = any(_never_began(one) for one in below if one.generation >= fact.version)
    return _works(entry, node) if never_began else instance.left


def ends_until(rollout: Rollout, key: SlotKey) -> int | None:
    """Until when (realm ms) a slot that is gone, and may not run twice, is placed nowhere (rule 3); None where it may be."""
    slot = rollout.slot(key)
    fact, node = slot.fact, None if slot.record is None else slot.record.node
    if fact is None or node is None or fact.record.desired != "gone" or not rollout.rolls_in_place_only(slot):
        return None
    is_tied = rollout.component.each_node or rollout.home_of(key) is not None
    if is_tied or rollout.fleet.is_lost(node) or _works(slot, node) or not may_work(slot, fact):
        return None  # what it is said to run is waited for where it goes
    until = fact.time_ms + UNKNOWN_MS
    return until if rollout.now_ms < until else None


def _never_began(said: Status) -> bool:
    """Whether a container could not be made, or no agent was begun in it: one that was, and has ended, says how."""
    return said.state is State.FAILED and said.last_exit is None
