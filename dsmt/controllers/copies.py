"""Copies: where a copy of a slot may still run, for what may not run beside another one (rule A8).

Rule 1: of a node that the slot's fact does not name, what is said there decides: what has ended, or was never made, runs no
    more. Of the node that its fact names, one that has not answered to that fact may have begun.
Rule 2: a copy on a node that is dead or has left is waited for by nobody.
"""

from __future__ import annotations

from dsmt.event.kinds.slot import Slot
from dsmt.event.status import State
from dsmt.view import Fleet, Held, SlotEntry


def works_beside(fleet: Fleet, entry: SlotEntry, *these: str | None) -> str | None:
    """A node that lives, other than these, which may still run a copy of it; None where there is none."""
    others = (node for node in entry.holders if node not in these)
    return next((node for node in others if _works(entry, node) and not fleet.is_lost(node)), None)


def _works(entry: SlotEntry, node: str) -> bool:
    """Whether an instance may be running on a node, or run again, by what is said there.

    Where its agent has said nothing, who could not make its container, or start its agent, runs nothing.
    """
    instance = entry.instances.get(node)
    if instance is None or not instance.left:
        return False
    if instance.application is None:
        below = instance.agent or instance.container
        return below is not None and below.record.state not in (State.STOPPED, State.FAILED)
    said = instance.application.record
    return said.state not in (State.STOPPED, State.GONE) and not said.has_ended


def may_work(entry: SlotEntry, fact: Held[Slot]) -> bool:
    """The same of the node to which a fact gives it, which may have begun it and not have been heard since."""
    node, instance = fact.record.node or "", entry.there
    if instance is None or instance.generation < fact.version:
        return True
    said = instance.application
    if said is not None and said.record.generation >= fact.version:
        return _works(entry, node)
    below = [one.record for one in (instance.agent, instance.container) if one is not None]
    has_failed = any(one.state is State.FAILED for one in below if one.generation >= fact.version)
    return _works(entry, node) if has_failed else instance.left
