"""Acting: from the action that is wanted for a slot to the fact that says it.

Rule 1: a move away from a node that lives is start-first: the old node is named as `previous` until the new instance
    is ready (A8); where two copies must not run it is stopped first, and moved when it has stopped. A revision that says
    so, and comes while an earlier one has its copy on another node, begins when that has ended.
Rule 2: a slot on a dead node stays there, unchanged, until there is a place for it; a new one with no place is told
    with its reason, and with another one no sooner than `RETOLD_MS` later.
Rule 3: what begins anew, on another node or in another revision, gives the old node its time anew; a move that follows from
    a failure does not, so that a drain ends. What may be refused has twice its deadline: one more for what is gone back to.
    Where a program must end first on its node, it has its time to end.
Rule 4: what has ended well is moved as that, and not run again (`ended`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.controllers.context import ComponentContext
from dsmt.controllers.copies import may_work, works_beside
from dsmt.controllers.ended import carried, ended_before, ended_well, good_ended, moved_as_ended, waits_as_ended
from dsmt.controllers.pinning import away, is_there, settled
from dsmt.controllers.plan import NO_PLACE, NOTHING, Outcome, ProposedAction
from dsmt.controllers.replacing import BACKOFF_CAP_MS, stable
from dsmt.controllers.rollout import held_because
from dsmt.controllers.wants import target_of
from dsmt.event.kinds.slot import Good, Home, Previous, Slot
from dsmt.event.reason import Reason, reason
from dsmt.event.status import State
from dsmt.view import SlotEntry

RETOLD_MS: Final = 60_000
"""How long the reason stands for which a slot has no place: who is at another broker may see another one."""


def act(context: ComponentContext, w: ProposedAction) -> Outcome:
    """Do what is wanted: the fact that says it, unless that stands already or there is no place."""
    context, entry = context.of(w.key), context.slot(w.key)
    match w.kind:
        case "place" | "adopt":
            return _place(context, w, entry)
        case "lost" | "move":
            return _move(context, w, entry)
        case "keep" if entry.fact is not None:
            kept = msgspec.structs.replace(entry.fact.record, good=context.good(entry), ended=ended_well(entry))
            return context.say(w.key, kept, w.cause, w.because)
        case "moved" if entry.fact is not None:  # that is all that is said: what it is to run has its turn
            there, before = _slot(context, w, entry, node=entry.fact.record.node), entry.fact.record
            moved = msgspec.structs.replace(before, move_number=there.move_number, home=there.home)
            return context.say(w.key, moved, w.cause, w.because)
        case "renew" | "rollback" if (later := waits_as_ended(context, entry)) is not None:
            return later
        case _:
            kept = _kept(context, w, entry)
            said = context.say(w.key, kept, w.cause, w.because)
            waits = kept.desired == "stopped" and entry.hold is None
            return Outcome.merged((said, NO_PLACE)) if waits else said


def _kept(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Slot:
    """The slot on the node where it is, with all that is new; stopped, while it waits for a copy elsewhere (rule 1)."""
    node = None if entry.record is None else entry.record.node
    before = _still_previous(context, entry)
    if not _runs_alone(context, w, entry):
        return _slot(context, w, entry, node=node, previous=_renewed(context, w, entry, before))
    return _alone(context, w, entry, _slot(context, w, entry, node=node))


def _alone(context: ComponentContext, w: ProposedAction, entry: SlotEntry, slot: Slot) -> Slot:
    """A slot that may not run beside another copy: stopped, while there is one elsewhere, if it would run (rule 1)."""
    before = entry.record
    if slot.ended is not None or (before is not None and slot.restart == before.restart and ended_well(entry) is not None):
        return slot
    beside = works_beside(context.fleet, entry, slot.node)
    if beside is None or slot.desired != "running":
        return slot
    why = slot.reason or reason("wait.copy", node=beside, target=w.key)
    return msgspec.structs.replace(slot, desired="stopped", reason=why)


def _slot(
    context: ComponentContext,
    w: ProposedAction,
    entry: SlotEntry,
    *,
    node: str | None,
    previous: Previous | None = None,
    moves: int | None = None,
    moved_at_ms: int | None = None,
    moved_for: str = "",
) -> Slot:
    before, control = entry.record, entry.effective_control
    old = None if before is None or before.desired == "gone" else before
    following = _next(context, w)
    spec, revision = following.spec, following.revision
    former = None if before is None else before.former if before.spec == spec else before.implements
    stays = context.runs(following).on_partition == "pinned" or context.may_go_back_to_data(entry)
    home = settled(context.fleet, context.data_of(w.key), node, moves=w.kind in ("move", "lost")) if stays else None
    slot = Slot(
        node=node,
        spec=spec,
        revision=revision,
        desired="running" if control.hold is None else "stopped",
        previous=previous,
        moves=moves if moves is not None else old.moves if old is not None and old.spec == spec else 0,
        moved_at_ms=moved_at_ms if moved_at_ms is not None else None if old is None else old.moved_at_ms,
        moved_for=moved_for or ("" if old is None else old.moved_for),
        restart=_restart_number(entry),
        move_number=_move_number(context, entry, node, home),
        reason=held_because(entry, w.key) or w.reason,
        refuses=None if w.back_to is None and context.refusal is None else context.stands,
        good=w.back_to or context.good(entry),
        former=former,
        home=home,
    )
    ends = {"ended": carried(context.fleet, entry, slot), "good_ended": good_ended(entry, slot)}
    return msgspec.structs.replace(slot, **ends, tried=context.tried_in(entry, slot))


def _restart_number(entry: SlotEntry) -> int:
    """The number of the last restart by an operator that is done: what is held is restarted when it is let go."""
    control, done = entry.effective_control, 0 if entry.record is None else entry.record.restart
    return done if control.hold is not None else max(control.restart, done)


def _move_number(context: ComponentContext, entry: SlotEntry, node: str | None, home: Home | None) -> int:
    """The number of the last move by an operator that is done once a slot is on a node, and its data at its home."""
    before, asked = entry.record, entry.move_asked
    done = 0 if before is None else before.move_number
    if asked is None or node is None or (home is not None and not is_there(context.fleet, home)):
        return done
    return entry.effective_control.move_number if node == asked or (not asked and node != entry.leaves) else done


def _still_previous(context: ComponentContext, entry: SlotEntry) -> Previous | None:
    """The `previous` of the fact as it is, while it still has a meaning."""
    before = None if entry.record is None else entry.record.previous
    if before is None or before.deadline_ms <= context.now_ms or context.ready_since(entry) is not None:
        return None
    return None if context.fleet.is_lost(before.node) or _is_over(entry, before.node) else before


def _is_over(entry: SlotEntry, node: str) -> bool:
    """Whether a node has said that nothing is left there that could be served: it has ended, or is parked."""
    instance = entry.instances.get(node)
    if instance is None or not instance.statuses:
        return False
    said = instance.application
    if said is None or not instance.left:
        return not instance.left
    if said.record.is_left_alone:
        return instance.endpoint is None or not instance.endpoint.record.ready
    return said.record.state in (State.STOPPED, State.GONE)


def _place(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Outcome:
    node = context.nodes.get(w.key.index)
    if node is not None and context.kept is not None and context.chooser.misfit(node) is not None:
        return NO_PLACE
    if node is None and w.target is not None and _takes(context, w):
        node = w.target
    if node is None and not w.tied:
        node = (context.chooser.choose(w.key, w.avoid) if w.avoid else None) or context.chooser.choose(w.key)
    if node is not None:
        again = _begun_again(context, entry, node)
        slot = _slot(context, w, entry, node=node, moves=again, moved_at_ms=context.now_ms if again else None)
        if entry.fact is not None and context.component.each_node and entry.fact.record.node == node:
            slot = moved_as_ended(context.fleet, entry, entry.fact.record, slot)
        if w.kind != "adopt" and _runs_alone(context, w, entry):
            slot = _alone(context, w, entry, slot)
        return context.say(w.key, slot, w.cause, f"{w.key} goes to {node}: {w.because}")
    why = _away(context, w) if w.tied else context.chooser.reason(w.key)
    slot, nowhere = _slot(context, w, entry, node=None), Outcome(wakes=context.fleet.next_away_ms, no_place=True)
    fact, told = entry.fact, entry.record
    if fact is not None and told is not None and told.reason is not None:
        waits = (told.spec, told.desired, told.node) == (slot.spec, slot.desired, None)
        if waits and told.reason.code == why.code:
            return nowhere
        if waits and context.now_ms < fact.time_ms + RETOLD_MS:
            return Outcome(wakes=(fact.time_ms + RETOLD_MS,), no_place=True)
    slot = msgspec.structs.replace(slot, reason=why)
    said = context.say(w.key, slot, w.cause, f"{w.key} has no place: {why.message}")
    return Outcome.merged((said, nowhere))


def _begun_again(context: ComponentContext, entry: SlotEntry, node: str) -> int | None:
    """How often one of each node was begun again on its node before long; None where that says nothing."""
    before = entry.record
    if before is None or not context.component.each_node or before.node != node or before.spec != context.basis.spec:
        return None
    was_long = before.moved_at_ms is not None and context.now_ms - before.moved_at_ms > 2 * BACKOFF_CAP_MS
    return 1 if was_long else before.moves + 1


def _takes(context: ComponentContext, w: ProposedAction) -> bool:
    """Whether a slot goes to the node that it is to go to: one that runs already is adopted where it is."""
    home = context.data_of(w.key)
    if w.tied and home is not None and not is_there(context.fleet, home):
        return False
    return w.kind == "adopt" or context.chooser.misfit(w.target or "") is None


def _away(context: ComponentContext, w: ProposedAction) -> Reason:
    """Why a pinned slot cannot come back to its home."""
    home = context.home_of(w.key)
    told = None if home is None else away(context.fleet, w.key, home, context.component)
    fault = context.chooser.misfit(w.target or "")
    is_now = "does not take it" if fault is None else f"does not take it: {fault.says}"
    return told or reason("wait.pinned", node=w.target, is_now=is_now, target=w.key)


def _move(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Outcome:
    fact = entry.fact
    if fact is None or fact.record.node is None:
        return NOTHING
    lives = w.kind == "move"
    if lives and entry.move_asked is None and ended_before(entry):
        return NOTHING
    node = target_of(context, w)
    if node is None:
        return NO_PLACE
    if lives and context.rolls_in_place_only(entry) and may_work(entry, fact) and ended_well(entry) is None:
        if fact.record.desired == "stopped":
            return NOTHING
        if works_beside(context.fleet, entry, fact.record.node, node) is not None:
            return NO_PLACE
        here = _slot(context, w, entry, node=fact.record.node)
        ended = here.ended if here.spec != fact.record.spec else None  # what is stopped here has not ended
        stopping = msgspec.structs.replace(here, desired="stopped", parked=context.parked(entry), ended=ended)
        return context.say(w.key, stopping, w.cause, f"{w.key} stops on {fact.record.node} first: {w.because}")
    if _runs_alone(context, w, entry) and works_beside(context.fleet, entry, fact.record.node, node) is not None:
        return NO_PLACE
    until = context.now_ms if lives else context.fleet.lost_since(fact.record.node)
    begins_anew = stable(entry, until) or fact.record.spec != _next(context, w).spec
    moves = (0 if begins_anew else fact.record.moves) + 1 if w.forced else None
    slot = _slot(
        context,
        w,
        entry,
        node=node,
        previous=_previous(context, w, entry),
        moves=moves,
        moved_at_ms=context.now_ms,
        moved_for=str(w.cause[0]) if w.kind == "lost" and w.forced and w.cause else "",
    )
    slot = moved_as_ended(context.fleet, entry, fact.record, slot)
    return context.say(w.key, slot, w.cause, f"{w.key} moves from {fact.record.node} to {node}: {w.because}")


def _runs_alone(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> bool:
    """Whether what a slot is to implement may not run beside another copy of it."""
    return context.rolls_in_place_only(entry, context.runs(_next(context, w)))


def _next(context: ComponentContext, w: ProposedAction) -> Good:
    """The revision that the next fact of a slot implements."""
    return w.back_to or context.basis


def _previous(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Previous | None:
    fact = entry.fact
    if context.rolls_in_place_only(entry):
        return None
    before = _still_previous(context, entry)
    if before is not None:
        failed = w.kind == "move" and w.forced and context.parked(entry)
        return before if failed else _renewed(context, w, entry, before)
    if w.kind == "lost" or fact is None or fact.record.node is None:
        return None
    if fact.record.desired != "running" or entry.hold is not None or _is_over(entry, fact.record.node):
        return None
    return _renewed(context, w, entry, Previous(node=fact.record.node, generation=fact.version, deadline_ms=0))


def _renewed(context: ComponentContext, w: ProposedAction, entry: SlotEntry, previous: Previous | None) -> Previous | None:
    """A `previous` with all the time that what begins now may take: twice that where it may yet be refused (rule 3)."""
    if previous is None:
        return None
    good, following = w.back_to or context.good(entry), _next(context, w)
    update = context.runs(following).update
    is_tried = update.rollback and context.has_earlier and (good is None or good.spec != following.spec)
    ends = None if entry.fact is None or w.kind in ("move", "lost") else entry.fact.record.spec
    ends_ms = 0 if ends is None else context.ending_ms(ends)
    allowed_ms = (1 + is_tried) * round(update.deadline_s * 1000) + ends_ms
    return msgspec.structs.replace(previous, deadline_ms=context.now_ms + allowed_ms)
