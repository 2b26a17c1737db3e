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
from dsmt.event.kinds.slot import DataHome, Good, Previous, Slot
from dsmt.event.reason import Reason, reason
from dsmt.event.status import State
from dsmt.view import SlotEntry

RETOLD_MS: Final = 60_000
"""How long the reason stands for which a slot has no place: who is at another broker may see another one."""


def act(context: ComponentContext, wanted: ProposedAction) -> Outcome:
    """Do what is wanted: the fact that says it, unless that stands already or there is no place."""
    return _Action(context.of(wanted.key), wanted).done()


class _Action:
    """One action that is wanted for a slot, in the context that decides about it."""

    __slots__ = ("_context", "_entry", "_fleet", "_following", "_key", "_wanted")

    def __init__(self, context: ComponentContext, wanted: ProposedAction) -> None:
        self._context, self._fleet = context, context.fleet
        self._wanted, self._key, self._entry = wanted, wanted.key, context.slot(wanted.key)
        self._following = wanted.back_to or context.basis  # the revision that the next fact of the slot implements

    def done(self) -> Outcome:
        """What it brings."""
        context, entry, fact = self._context, self._entry, self._entry.fact
        match self._wanted.kind:
            case "place" | "adopt":
                return self._place()
            case "lost" | "move":
                return self._move()
            case "keep" if fact is not None:
                return self._say(msgspec.structs.replace(fact.record, good=context.good(entry), ended=ended_well(entry)))
            case "moved" if fact is not None:  # that is all that is said: what it is to run has its turn
                there = self._slot(node=fact.record.node)
                return self._say(msgspec.structs.replace(fact.record, move_number=there.move_number, home=there.home))
            case "renew" | "rollback" if (later := waits_as_ended(context, entry)) is not None:
                return later
            case _:
                kept = self._kept()
                said = self._say(kept)
                waits = kept.desired == "stopped" and entry.hold is None
                return Outcome.merged((said, NO_PLACE)) if waits else said

    def _say(self, slot: Slot, because: str = "") -> Outcome:
        return self._context.say(self._key, slot, self._wanted.cause, because or self._wanted.because)

    def _kept(self) -> Slot:
        """The slot on the node where it is, with all that is new; stopped, while it waits for a copy elsewhere (rule 1)."""
        node = None if self._entry.record is None else self._entry.record.node
        if self._runs_alone():
            return self._alone(self._slot(node=node))
        return self._slot(node=node, previous=self._renewed(self._still_previous()))

    def _alone(self, slot: Slot) -> Slot:
        """A slot that may not run beside another copy: stopped, while there is one elsewhere, if it would run (rule 1)."""
        before = self._entry.record
        is_restarted = before is None or slot.restart != before.restart
        if slot.ended is not None or (not is_restarted and ended_well(self._entry) is not None):
            return slot
        beside = works_beside(self._fleet, self._entry, slot.node)
        if beside is None or slot.desired != "running":
            return slot
        why = slot.reason or reason("wait.copy", node=beside)
        return msgspec.structs.replace(slot, desired="stopped", reason=why)

    def _slot(
        self,
        *,
        node: str | None,
        previous: Previous | None = None,
        moves: int | None = None,
        moved_at_ms: int | None = None,
        moved_for: str = "",
    ) -> Slot:
        context, entry, wanted = self._context, self._entry, self._wanted
        before, control = entry.record, entry.effective_control
        old = None if before is None or before.desired == "gone" else before
        spec, revision = self._following.spec, self._following.revision
        former = None if before is None else before.former if before.spec == spec else before.implements
        stays = context.runs(self._following).on_partition == "pinned" or context.may_go_back_to_data(entry)
        home = settled(self._fleet, context.data_of(self._key), node, moves=self._moves) if stays else None
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
            move_number=self._move_number(node, home),
            reason=held_because(entry, self._key) or wanted.reason,
            refuses=None if wanted.back_to is None and context.refusal is None else context.stands,
            good=self._good,
            former=former,
            home=home,
        )
        ends = {"ended": carried(self._fleet, entry, slot), "good_ended": good_ended(entry, slot)}
        return msgspec.structs.replace(slot, **ends, tried=context.tried_in(entry, slot))

    def _move_number(self, node: str | None, home: DataHome | None) -> int:
        """The number of the last move by an operator that is done once a slot is on a node, and its data at its home."""
        entry = self._entry
        before, asked = entry.record, entry.move_asked
        done = 0 if before is None else before.move_number
        if asked is None or node is None or (home is not None and not is_there(self._fleet, home)):
            return done
        return entry.effective_control.move_number if node == asked or (not asked and node != entry.leaves) else done

    def _still_previous(self) -> Previous | None:
        """The `previous` of the fact as it is, while it still has a meaning."""
        entry = self._entry
        before = None if entry.record is None else entry.record.previous
        if before is None or before.deadline_ms <= self._context.now_ms or self._context.ready_since(entry) is not None:
            return None
        return None if self._fleet.is_lost(before.node) or _is_over(entry, before.node) else before

    def _place(self) -> Outcome:
        context = self._context
        node = context.nodes.get(self._key.index)
        if node is not None and context.kept is not None and context.chooser.misfit(node) is not None:
            return NO_PLACE
        node = node or self._chosen()
        return self._no_place() if node is None else self._placed(node)

    def _chosen(self) -> str | None:
        """Where a slot that has no node yet goes."""
        key, wanted, chooser = self._key, self._wanted, self._context.chooser
        if wanted.target is not None and self._takes():
            return wanted.target
        if wanted.tied:
            return None
        return (chooser.choose(key, wanted.avoid) if wanted.avoid else None) or chooser.choose(key)

    def _placed(self, node: str) -> Outcome:
        context, fact = self._context, self._entry.fact
        again = self._begun_again(node)
        slot = self._slot(node=node, moves=again, moved_at_ms=context.now_ms if again else None)
        if fact is not None and context.component.each_node and fact.record.node == node:
            slot = moved_as_ended(self._fleet, self._entry, fact.record, slot)
        if self._wanted.kind != "adopt" and self._runs_alone():
            slot = self._alone(slot)
        return self._say(slot, f"{self._key} goes to {node}: {self._wanted.because}")

    def _no_place(self) -> Outcome:
        """It waits: why is told by rule 2."""
        why = self._away() if self._wanted.tied else self._context.chooser.reason(self._key)
        slot, nowhere = self._slot(node=None), Outcome(wakes=self._fleet.next_away_ms, no_place=True)
        fact, told = self._entry.fact, self._entry.record
        if fact is not None and told is not None and told.reason is not None:
            waits = (told.spec, told.desired, told.node) == (slot.spec, slot.desired, None)
            if waits and told.reason.code == why.code:
                return nowhere
            if waits and self._context.now_ms < fact.time_ms + RETOLD_MS:
                return Outcome(wakes=(fact.time_ms + RETOLD_MS,), no_place=True)
        slot = msgspec.structs.replace(slot, reason=why)
        said = self._say(slot, f"{self._key} has no place: {why.message}")
        return Outcome.merged((said, nowhere))

    def _begun_again(self, node: str) -> int | None:
        """How often one of each node was begun again on its node before long; None where that says nothing."""
        context, before = self._context, self._entry.record
        if before is None or not context.component.each_node or before.node != node or before.spec != context.basis.spec:
            return None
        was_long = before.moved_at_ms is not None and context.now_ms - before.moved_at_ms > 2 * BACKOFF_CAP_MS
        return 1 if was_long else before.moves + 1

    def _takes(self) -> bool:
        """Whether a slot goes to the node that it is to go to: one that runs already is adopted where it is."""
        home = self._context.data_of(self._key)
        if self._wanted.tied and home is not None and not is_there(self._fleet, home):
            return False
        return self._wanted.kind == "adopt" or self._context.chooser.misfit(self._wanted.target or "") is None

    def _away(self) -> Reason:
        """Why a pinned slot cannot come back to its home."""
        context, key = self._context, self._key
        home = context.home_of(key)
        told = None if home is None else away(self._fleet, key, home, context.component)
        fault = context.chooser.misfit(self._wanted.target or "")
        is_now = "does not take it" if fault is None else f"does not take it: {fault.says}"
        return told or reason("wait.pinned", node=self._wanted.target, is_now=is_now, target=key)

    def _move(self) -> Outcome:
        context, entry, wanted, fleet = self._context, self._entry, self._wanted, self._fleet
        fact = entry.fact
        if fact is None or fact.record.node is None:
            return NOTHING
        lives = wanted.kind == "move"
        if lives and entry.move_asked is None and ended_before(entry):
            return NOTHING
        node = target_of(context, wanted)
        if node is None:
            return NO_PLACE
        if lives and context.rolls_in_place_only(entry) and may_work(entry, fact) and ended_well(entry) is None:
            return self._stopped_first(fact.record, node)
        if self._runs_alone() and works_beside(fleet, entry, fact.record.node, node) is not None:
            return NO_PLACE
        until = context.now_ms if lives else fleet.lost_since(fact.record.node)
        begins_anew = stable(entry, until) or fact.record.spec != self._following.spec
        moves = (0 if begins_anew else fact.record.moves) + 1 if wanted.forced else None
        slot = self._slot(
            node=node,
            previous=self._previous(),
            moves=moves,
            moved_at_ms=context.now_ms,
            moved_for=str(wanted.cause[0]) if wanted.kind == "lost" and wanted.forced and wanted.cause else "",
        )
        slot = moved_as_ended(fleet, entry, fact.record, slot)
        return self._say(slot, f"{self._key} moves from {fact.record.node} to {node}: {wanted.because}")

    def _stopped_first(self, before: Slot, node: str) -> Outcome:
        """What may not run beside another copy ends where it is before it goes to a node (rule 1)."""
        if before.desired == "stopped":
            return NOTHING
        if works_beside(self._fleet, self._entry, before.node, node) is not None:
            return NO_PLACE
        here = self._slot(node=before.node)
        ended = here.ended if here.spec != before.spec else None  # what is stopped here has not ended
        parked = self._context.parked(self._entry)
        stopping = msgspec.structs.replace(here, desired="stopped", parked=parked, ended=ended)
        return self._say(stopping, f"{self._key} stops on {before.node} first: {self._wanted.because}")

    @property
    def _moves(self) -> bool:
        return self._wanted.kind in ("move", "lost")

    @property
    def _good(self) -> Good | None:
        """What it goes back to where this is refused."""
        return self._wanted.back_to or self._context.good(self._entry)

    def _runs_alone(self) -> bool:
        """Whether what a slot is to implement may not run beside another copy of it."""
        return self._context.rolls_in_place_only(self._entry, self._context.runs(self._following))

    def _previous(self) -> Previous | None:
        entry, fact = self._entry, self._entry.fact
        if self._context.rolls_in_place_only(entry):
            return None
        before = self._still_previous()
        if before is not None:
            failed = self._wanted.kind == "move" and self._wanted.forced and self._context.parked(entry)
            return before if failed else self._renewed(before)
        if self._wanted.kind == "lost" or fact is None or fact.record.node is None:
            return None
        if fact.record.desired != "running" or entry.hold is not None or _is_over(entry, fact.record.node):
            return None
        return self._renewed(Previous(node=fact.record.node, generation=fact.version, deadline_ms=0))

    def _renewed(self, previous: Previous | None) -> Previous | None:
        """A `previous` with all the time that what begins now may take: twice that where it may yet be refused (rule 3)."""
        context, fact = self._context, self._entry.fact
        if previous is None:
            return None
        good, following = self._good, self._following
        update = context.runs(following).update
        is_tried = update.rollback and context.has_earlier and (good is None or good.spec != following.spec)
        ends = None if fact is None or self._moves else fact.record.spec
        ends_ms = 0 if ends is None else context.ending_ms(ends)
        allowed_ms = (1 + is_tried) * round(update.deadline_s * 1000) + ends_ms
        return msgspec.structs.replace(previous, deadline_ms=context.now_ms + allowed_ms)


def _restart_number(entry: SlotEntry) -> int:
    """The number of the last restart by an operator that is done: what is held is restarted when it is let go."""
    control, done = entry.effective_control, 0 if entry.record is None else entry.record.restart
    return done if control.hold is not None else max(control.restart, done)


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
