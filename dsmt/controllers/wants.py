"""Wants: what one slot's facts ask for, as the one action that is proposed, before a place is chosen (rule A8, A10).

Rule 1: a slot leaves its node only for a cause that is a fact: the node is dead, has left or is drained, an operator
    moved the slot, its instance is parked and its escalation ends in `move`, or the node lastingly does not fit. That it
    was parked ends with its stop: the fact that stops it first says so, until it is elsewhere.
Rule 2: a forced move waits after the one before, the longer the more there were (`replacing`, rule 2).
Rule 3: what would take a working instance away (`gated`) waits its turn; all else is done at once.
Rule 4: a revision that was never good in a slot, because its instance did not become ready within `update.deadline`, or was
    parked in that time, is rolled back: the slot fact implements the last revision that was good in a slot of the
    component, and names the refused one; all its slots follow, until there is another spec. One that says the same but
    for how many instances there are is no other. Where none was ever good there is nothing to go back to: it stays. Which
    was good an agent says, and is believed of what its slot's fact names: no node makes up what all others go back to.
Rule 5: a move that an operator asked for is done when the slot is there, or elsewhere than it was where no node was named;
    its fact then has the number of that move. Until then it stands, whatever moved the slot meanwhile, and whatever else
    was said; and what cannot be done now keeps no other cause from moving it. Where there is no other place a slot that is
    wanted again comes up on the node that it is yet to leave.
Rule 6: a held slot is moved by an operator or a drain only, a pinned one by an operator only (`pinning`), also off a dead
    node. It is held as its control says; one that was stopped by a hold and of which no control is known stays so (R5).
Rule 7: what an agent said dies by itself within a day. So the fact of a slot on a dead node says what was good there,
    `KEEP_MS` before that dies; and at once where it was signed anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from dsmt.controllers.context import ComponentContext
from dsmt.controllers.pinning import home_of, is_there, lets_go
from dsmt.controllers.replacing import backoff_ms, due_ms
from dsmt.event.envelope import EventId
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.reason import Reason, reason
from dsmt.view import Held, SlotEntry, SlotKey

KEEP_MS: Final = 6 * 3_600_000
"""Agents say what they said again at half of its life, which is a day: one that has so much left is said by nobody."""
Kind = Literal["place", "lost", "keep", "move", "moved", "hold", "release", "restart", "renew", "rollback"]


@dataclass(frozen=True, slots=True)
class ProposedAction:
    """What is wanted for one slot, why, and from when (realm ms). `forced` moves count as moves."""

    key: SlotKey
    kind: Kind
    cause: tuple[EventId, ...]
    because: str
    gated: bool = False
    at_ms: int = 0
    target: str | None = None
    avoid: frozenset[str] = frozenset()
    reason: Reason | None = None
    forced: bool = False
    tied: bool = False
    """It goes to its target or nowhere."""
    basis: Good | None = None
    """What to go back to."""


def want(context: ComponentContext, key: SlotKey) -> ProposedAction | None:  # noqa: C901, PLR0911 - an order of precedence
    """What a slot that is to exist wants; None when it is as it should be."""
    entry = context.slot(key)
    if entry.quarantined:
        return None
    fact, control = entry.fact, context.control(entry)
    if fact is None or fact.record.node is None or fact.record.desired == "gone":
        return _place(context, key, entry)
    node = fact.record.node
    if context.fleet.state(node) in ("dead", "left"):
        lost, kept = _lost(context, key, entry, fact, node), _keep(context, key, entry, fact)
        if kept is None or (lost is not None and lost.at_ms <= context.now_ms and target_of(context, lost) is not None):
            return lost
        context.outcome.unschedulable = context.outcome.unschedulable or lost is not None
        return kept
    said = () if entry.control is None else (entry.control.id,)
    desired = "running" if control.hold is None else "stopped"
    why = hold_reason(context, entry, key)
    if why is not None and not fact.record.held:
        return ProposedAction(key, "hold", said, f"{control.by or 'an operator'} stopped it", reason=why)
    back = _rollback(context, key, entry, fact)
    if back is not None:
        return back
    if _is_moved(context, entry, fact):
        return ProposedAction(key, "moved", said, f"{control.by or 'an operator'} asked for it to be on {node}, where it is")
    leaving = _moves(context, key, entry, fact)
    if leaving is not None:
        return leaving
    if fact.record.desired != desired:
        return ProposedAction(key, "release", said, f"{control.by or 'nobody'} holds it no more")
    if control.restart > fact.record.restart:
        return ProposedAction(
            key, "restart", said, f"restart asked for by {control.by or 'an operator'}", gated=desired == "running"
        )
    if fact.record.spec != context.basis[0]:
        return _renew(context, key, entry, fact)
    return None


def _renew(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction:
    refusal = context.refusal
    if refusal is None:
        because = f"revision {context.spec.version} of {key.service} was applied by {context.spec.record.by}"
        return ProposedAction(key, "renew", (context.spec.id,), because, gated=fact.record.desired == "running")
    because = f"revision {context.spec.version} of {key.service} was rolled back"
    gated = fact.record.desired == "running" and context.ready_since(entry) is not None
    return ProposedAction(key, "rollback", (refusal.id,), because, gated=gated, reason=refusal.record.reason)


def _rollback(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction | None:
    update, node = context.runs(fact.record).update, fact.record.node or ""
    if not update.rollback or fact.record.desired != "running" or fact.record.spec != context.spec_id:
        return None
    good = context.good(entry)
    if context.fleet.state(node) != "alive" or (good is not None and good.revision >= context.entry.since):
        return None
    if context.refusal is not None or context.ready_since(entry) is not None:
        return None
    said = entry.application(node)
    deadline = fact.time_ms + round(update.deadline_s * 1000)
    if said is not None and context.parked(entry) and said.record.since_ms <= deadline:
        its = said.record.reason.message if said.record.reason is not None else "parked"
    elif context.now_ms >= deadline:
        its = f"{key} was not ready within {update.deadline_s:g} s"
    else:
        context.outcome.wakes += [deadline] if context.entry.since > 1 else []  # else there is nothing to go back to
        return None
    basis = context.before
    if basis is None:
        context.outcome.needs_full_pass = True
        context.outcome.wakes += context.ripening
        return None
    why = reason("rollout.rolled_back", rev=f"r{context.spec.version}", its=its, good=f"r{basis.revision}")
    cause = () if said is None else (said.id,)
    return ProposedAction(key, "rollback", (*cause, context.spec.id), why.message, reason=why, basis=basis)


def hold_reason(context: ComponentContext, entry: SlotEntry, key: SlotKey) -> Reason | None:
    """Why a slot is held; None when it is not."""
    hold = context.control(entry).hold
    if hold is None:
        return None
    if entry.control is None and entry.fact is not None:
        return entry.fact.record.reason
    return reason("hold.operator", by=hold.by, time=rfc3339(hold.at_ms), their=hold.reason, target=key)


def _place(context: ComponentContext, key: SlotKey, entry: SlotEntry) -> ProposedAction:
    """A slot with no node: where a node runs it with no fact, and may have it, it is adopted there (A5)."""
    orphans = (node for node in entry.holders if entry.instances[node].orphan and entry.fact is None)
    orphan = next((node for node in orphans if _adopts(context, node)), None)
    cause, because = [context.spec.id], f"{context.spec.record.by} applied revision {context.spec.version} of {key.service}"
    if orphan is not None:
        said = entry.instances[orphan].orphan
        cause = [said.id, *cause] if said is not None else cause
        return ProposedAction(key, "place", tuple(cause), f"{orphan} runs it already", target=orphan)
    home, asked = home_of(context.component, entry), entry.move_asked
    goes = lets_go(entry) and (not asked or context.chooser.misfit(asked) is None)
    if home is not None and not goes:
        return ProposedAction(key, "place", tuple(cause), because, target=home.node, tied=True)
    avoid = frozenset() if entry.leaves is None else frozenset({entry.leaves})
    return ProposedAction(key, "place", tuple(cause), because, target=asked or None, avoid=avoid)


def _adopts(context: ComponentContext, node: str) -> bool:
    """Whether a node may have what it runs with no fact: there is room for that, and data is nowhere else."""
    if context.component.on_partition == "pinned":
        return context.fleet.state(node) == "alive"
    return context.chooser.admits(node) is None


def _lost(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot], node: str) -> ProposedAction | None:
    component, verdict = context.component, context.fleet.verdict(node)
    if component.each_node:
        return None
    if component.on_partition == "pinned" or context.control(entry).hold is not None:
        asked = _asked_to_move(context, key, entry, fact)
        return None if asked is None else replace(asked, kind="lost")
    if verdict is None or verdict.record.state == "left":
        cause = () if verdict is None else (verdict.id,)
        return ProposedAction(key, "lost", cause, f"{node} has left", avoid=frozenset({node}), forced=True)
    since = verdict.record.since_ms
    if not context.brake.allows(node):
        return None
    return ProposedAction(
        key,
        "lost",
        (verdict.id,),
        f"{node} is dead: {verdict.record.message}",
        at_ms=due_ms(component, entry, fact, since),
        avoid=frozenset({node}),
        reason=reason("node.lost", node=node, time=rfc3339(since), evidence=verdict.record.message),
        forced=True,
    )


def _keep(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction | None:
    """What was good in a slot on a dead node, and its fact does not say, when it is time to keep that (rule 7)."""
    good = context.good(entry)
    if good is None or good == fact.record.good:
        return None
    node = fact.record.node or ""
    said = entry.application(node)
    if context.is_anew and good.spec == context.spec_id != fact.record.spec:
        return ProposedAction(key, "keep", (context.spec.id,), "what was good in it was signed anew")
    until = None if said is None else said.signed.event.expires_ms
    if said is None or until is None:
        return None
    if until - KEEP_MS > context.now_ms:
        context.outcome.wakes.append(until - KEEP_MS)
        return None
    return ProposedAction(key, "keep", (said.id,), f"what was good in it is kept, for {node} says it no more")


def target_of(context: ComponentContext, wanted: ProposedAction) -> str | None:
    """The node to which a slot would go now, or None when there is none. One that is there already takes no more room."""
    fact, target = context.slot(wanted.key).fact, wanted.target
    if target is not None:
        there = fact is not None and fact.record.node == target and context.fleet.state(target) == "alive"
        fault = context.chooser.stays(target) if there else context.chooser.misfit(target)
        return target if fault is None else None
    return context.chooser.choose(wanted.key, wanted.avoid)


def _is_moved(context: ComponentContext, entry: SlotEntry, fact: Held[Slot]) -> bool:
    """Whether a slot is where an operator wants it moved, and its fact does not say so yet."""
    home, asked, node = fact.record.home, entry.move_asked, fact.record.node
    there = asked == node if asked != "" else entry.leaves != node
    return there and (home is None or is_there(context.fleet, home))


def _moves(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction | None:
    """The first cause to leave that can be followed now or in time: a move that cannot now keeps no other waiting."""
    for cause in (_asked_to_move, _leaving):
        leaving = cause(context, key, entry, fact)
        if leaving is not None:
            context.outcome.unschedulable = True
            if leaving.at_ms > context.now_ms or target_of(context, leaving) is not None:
                return leaving
    return None


def _asked_to_move(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction | None:
    """An operator's move that is not done yet."""
    control, target = entry.control, entry.move_asked
    if control is None or target is None or (home_of(context.component, entry) is not None and not lets_go(entry)):
        return None
    because = f"{control.record.by or 'an operator'} asked for a move{f' to {target}' if target else ''}"
    avoid = frozenset({fact.record.node or ""})
    return ProposedAction(key, "move", (control.id,), because, target=target or None, avoid=avoid)


def _serves_before(entry: SlotEntry, fact: Held[Slot]) -> bool:
    """Whether the node of a slot still serves the copy before the present one, which may never become ready (A8)."""
    instance = entry.instances.get(fact.record.node or "")
    served = None if instance is None else instance.endpoint
    return served is not None and served.record.ready and served.record.generation < fact.version


def _leaving(context: ComponentContext, key: SlotKey, entry: SlotEntry, fact: Held[Slot]) -> ProposedAction | None:
    node = fact.record.node or ""
    if context.component.on_partition == "pinned":
        return None
    on_the_way = fact.record.desired == "stopped"
    avoid = frozenset({node})
    cause: tuple[EventId, ...]
    told = context.fleet.view.nodes.get(node)
    control = None if told is None else told.control
    if control is not None and control.record.mode == "draining":
        why = reason("node.drained", node=node, by=control.record.by, their=control.record.reason)
        because = f"{node} is drained by {control.record.by}: {control.record.reason}"
        return ProposedAction(key, "move", (control.id,), because, gated=not on_the_way, avoid=avoid, reason=why)
    if context.component.each_node:
        return None
    if (
        context.parked(entry)
        and not _serves_before(entry, fact)
        and any(step.action == "move" for step in context.component.restart.escalate)
    ):
        due = (fact.record.moved_at_ms or 0) + (backoff_ms(fact.record.moves) if fact.record.moves else 0)
        because = f"it is parked on {node}, and its escalation ends in a move"
        said = entry.application(node)
        cause = (fact.id,) if fact.record.parked or said is None else (said.id,)
        return ProposedAction(key, "move", cause, because, at_ms=due, avoid=avoid | context.chooser.parked, forced=True)
    fault = context.chooser.stays(node)
    if fault is not None and told is not None and told.attributes is not None:
        cause = (context.spec.id, told.attributes.id)
        return ProposedAction(key, "move", cause, f"it cannot stay: {fault.says}", gated=not on_the_way, avoid=avoid)
    return None
