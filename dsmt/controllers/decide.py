"""Decide: from a view and a time to the facts that move what is observed toward what is desired (rule R6).

Rule 1: it reads facts, the time, and what a decision event records beside them (the attached broker, `may_accuse`);
    nothing else; and it changes nothing but its own plan.
Rule 2: verdicts on nodes come first, and are facts before anything follows from them.
Rule 3: where the whole realm is to be looked at, a decision does so for so many slots (`most`), in the order of the names
    of services, and says which is the first that is left. What it says of those before that one is what a look at all says.
Rule 4: `RULESET` is raised whenever the same inputs may give another decision; a test hashes golden ones (H4).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from dsmt.controllers.brake import LOOSE, Brake, brake
from dsmt.controllers.context import waits_for_word
from dsmt.controllers.copies import ends_until, may_work, works_beside
from dsmt.controllers.intents import Decided
from dsmt.controllers.node_failure import verdicts
from dsmt.controllers.pinning import waits_for_home, waits_for_return
from dsmt.controllers.plan import Plan
from dsmt.controllers.replacing import Replacing
from dsmt.controllers.rollout import Governing, Rollout
from dsmt.controllers.service import decide_service
from dsmt.event.hlc import rfc3339
from dsmt.event.reason import Reason, reason
from dsmt.trust.keys import verify
from dsmt.trust.proven import Verify
from dsmt.view import Fleet, SlotEntry, SlotKey, View

RULESET: Final = 42

Scope = Mapping[str, Collection[tuple[str, int]] | None]
"""Services to look at: whole (None), or only these slots (component, index)."""


def decide(
    view: View,
    now_ms: int,
    *,
    may_accuse: bool,
    broker: str = "",
    scope: Scope | None = None,
    rest: str | None = None,
    most: int | None = None,
    before: Brake = LOOSE,
    check: Verify = verify,
) -> Decided:
    """The intents, in the order in which they are to be published, and when to look again.

    `may_accuse`: whether the reader has watched long enough to judge by silence (A4, iii). `broker`: the one that the
    reader is attached to (F1). `scope` None looks at every service; verdicts on nodes are always looked at, and every
    service where the brake keeps back other nodes than it did `before`, at the last decision. `rest` is the first service
    of those in the scope that a look at all had left, `most` as rule 3 says. `check` verifies the signatures of those who
    answered probes (F4).
    """
    fleet = Fleet(view, now_ms, broker)
    intents, wake = verdicts(fleet, may_accuse=may_accuse, check=check)
    held = brake(fleet)
    if not held.lets_go_as(before):
        scope = None
    rest = "" if scope is None else rest
    realm = [at for at in (wake, held.wake_ms) if at is not None]
    wakes = {"": min(realm)} if realm else {}
    look_at_all, no_place = set(), set()
    plan, left, looked = Plan(view), None, 0
    for name in sorted(view.services if scope is None else scope):
        entry = view.services.get(name)
        if entry is None:
            continue
        if most is not None and rest is not None and name >= rest:
            if looked >= most:
                left = name
                break
            looked += 1 + len(entry.slots)
        outcome = decide_service(fleet, held, entry, plan, None if scope is None else scope[name])
        intents += outcome.intents
        if outcome.wakes:
            wakes[name] = min(outcome.wakes)
        if outcome.look_at_all:
            look_at_all.add(name)
        if outcome.no_place:
            no_place.add(name)
    return Decided(tuple(intents), wakes, frozenset(look_at_all), frozenset(no_place), held, scope is None, left)


def waits_for(fleet: Fleet, key: SlotKey) -> Reason | None:
    """Why a slot has no node that lives, or nothing is decided of it: a later word, the brake, or no place; else None."""
    slot = fleet.view.slot(key)
    governing = Governing(fleet)
    known = governing.of(key)
    if known is None:
        return None
    if slot is None or slot.fact is None or slot.fact.record.desired == "gone":
        ends = None if slot is None or slot.record is None or ends_until(known, key) is None else slot.record.node
        waits = None if ends is None else reason("wait.copy", node=ends, target=key)
        return waits or waits_for_return(fleet, key, known.component, slot)
    unknown = waits_for_word(fleet, slot, known.spec, known.chooser)
    if unknown is not None:
        return reason("wait.word", target=key, until=rfc3339(min(unknown.wakes)))
    node = slot.fact.record.node
    return waits_for_home(governing, key) or _waits_for_place(fleet, key, slot, known, node) or _keeps(key, known)


def _keeps(key: SlotKey, known: Rollout) -> Reason | None:
    """Why a slot keeps the revision that it has: what stands has failed in another one, or was stopped there by hand."""
    code, index = ("rollout.held", known.held_in) if known.failed_in is None else ("rollout.failed", known.failed_in)
    if known.kept is None or index is None:
        return None
    return reason(code, rev=f"r{known.spec.version}", instance=key._replace(index=index))


def _waits_for_place(fleet: Fleet, key: SlotKey, slot: SlotEntry, known: Rollout, node: str | None) -> Reason | None:
    """Why a slot on a node, or on none, is not on another one; None where it need not be."""
    if node is not None and not fleet.is_lost(node):
        leaves = (
            fleet.drain_of(node) is not None or slot.move_asked is not None or known.chooser.misfit_to_stay(node) is not None
        )
        return _copy_beside(fleet, key, slot, known, node) or _stops_first(key, slot, node) if leaves else None
    if node is not None:
        if Replacing(fleet).of(key) is None:
            return None
        held = brake(fleet)
        if not held.allows(node):
            return held.reason
    avoid = () if node is None else (node,)
    place = known.chooser.choose(key, avoid)
    if place is None:
        return known.chooser.reason(key, avoid)
    return _copy_beside(fleet, key, slot, known, node, place)


def _stops_first(key: SlotKey, slot: SlotEntry, node: str) -> Reason | None:
    """That its node has not said yet that it has stopped it, to go elsewhere."""
    fact = slot.fact
    waits = fact is not None and fact.record.desired == "stopped" and not fact.record.held and may_work(slot, fact)
    return reason("wait.copy", node=node, target=key) if waits else None


def _copy_beside(fleet: Fleet, key: SlotKey, slot: SlotEntry, known: Rollout, *these: str | None) -> Reason | None:
    """That a slot waits for a copy on another node than these, if it may not run beside that."""
    beside = works_beside(fleet, slot, *these) if known.rolls_in_place_only(slot) else None
    return None if beside is None else reason("wait.copy", node=beside, target=key)
