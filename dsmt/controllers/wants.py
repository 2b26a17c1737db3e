"""Wants: what one slot's facts ask for, as the one action that is proposed, before a place is chosen (rule A8, A10, A18).

Rule 1: a slot leaves its node only for a cause that is a fact: the node is dead, has left or is drained, an operator
    moved the slot, its instance is parked and its escalation ends in `move`, or the node lastingly does not fit. That it
    was parked ends with its stop: the fact that stops it first says so, until it is elsewhere.
Rule 2: a forced move waits after the one before, the longer the more there were (`replacing`, rule 2): after a death, where
    it is parked (rule 3 there), and where its node does not fit. Another revision counts anew. What waits so waits for
    nothing else: a restart, or another revision, is done where it is.
Rule 3: what would take a working instance away (`gated`) waits its turn; all else is done at once.
Rule 4: a revision that was never good in a slot, because its instance did not become ready within `update.deadline`, or was
    parked in that time, is rolled back: the slot fact implements the last revision that was good in a slot of the
    component, and names the refused one; all its slots follow, until there is another spec. One that says the same but
    for how many instances there are is no other. Where none was ever good there is nothing to go back to: it stays. Which
    was good an agent says, and is believed of what its slot's fact names: no node makes up what all others go back to.
Rule 5: a move that an operator asked for is done when the slot is there, or elsewhere than it was where no node was named;
    its fact then has the number of that move. Until then it stands, whatever else moves it or is said, and keeps no other
    cause from moving it. A slot that is wanted again, and has no other place, comes up on the node that it is to leave.
Rule 6: a held slot leaves a dead node for an operator only, one that lives for a drain, too, or where it lastingly does not
    fit; a pinned one moves for an operator only (`pinning`). It is held as its control says; one that was stopped by a
    hold and of which no control is known stays so (R5).
Rule 7: what an agent said dies within a day. So the fact of a slot on a dead node says what was good there `KEEP_MS` before
    that; and at once where it was signed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from msgspec.structs import replace

from dsmt.controllers.context import ComponentContext
from dsmt.controllers.copies import ends_until
from dsmt.controllers.ended import ended_well
from dsmt.controllers.pinning import is_bound, is_there, lets_go, may_return_until
from dsmt.controllers.plan import NO_PLACE, NOTHING, Kind, Outcome, ProposedAction
from dsmt.controllers.replacing import due_ms, next_move_ms, parked_move_ms
from dsmt.controllers.rollout import held_because, who_applied
from dsmt.event.envelope import EventId
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.slot import DataHome, Slot, SlotControl
from dsmt.event.phrases import quoted, whose
from dsmt.event.reason import Reason, happened, reason
from dsmt.view import Held, SlotEntry, SlotKey

KEEP_MS: Final = 6 * 3_600_000
"""Agents say what they said again at half of its life, which is a day: one that has so much left is said by nobody."""


class Case(NamedTuple):
    """A slot that is on a node: what a rule of precedence is asked about."""

    context: ComponentContext
    key: SlotKey
    entry: SlotEntry
    fact: Held[Slot]

    @property
    def node(self) -> str:
        """The node that its fact names."""
        return self.fact.record.node or ""

    @property
    def control(self) -> SlotControl:
        """The operator's will for it."""
        return self.entry.effective_control

    @property
    def word(self) -> tuple[EventId, ...]:
        """The event that says the operator's will."""
        return () if self.entry.control is None else (self.entry.control.id,)

    @property
    def by(self) -> str:
        """Whose will it is."""
        told = self.entry.control
        return "an operator" if told is None or not told.record.by else whose(told.record.by, told.signed.event.source)

    @property
    def desired(self) -> Literal["running", "stopped"]:
        """What the operator's will asks for."""
        return "running" if self.control.hold is None else "stopped"

    def proposes(
        self, kind: Kind, cause: tuple[EventId, ...], because: str, *, gated: bool = False, reason: Reason | None = None
    ) -> ProposedAction:
        """An action for this slot."""
        return ProposedAction(self.key, kind, cause, because, gated=gated, reason=reason)


Rule = Callable[[Case], ProposedAction | Outcome | None]
"""Asks for an action; or says when to look again, and lets the next rule be asked; or has nothing to say."""


def want(context: ComponentContext, key: SlotKey) -> tuple[ProposedAction | None, Outcome]:
    """What a slot that is to exist wants, None when it is as it should be; and when to look again."""
    entry = context.slot(key)
    if (waits := context.waits(entry)) is not None:
        return None, waits
    fact, node = entry.fact, entry.wanted_on
    if fact is None or node is None:
        tried = Outcome.look_again(*context.tried_until) if context.has_earlier else NOTHING
        context = context.of(key)
        placed, until = _place(context, key, entry), may_return_until(context.fleet, context.entry, context.component, entry)
        until = until or ends_until(context, key)
        if until is None or placed.kind == "adopt":
            return placed, tried
        return None, Outcome.merged((tried, Outcome(wakes=(until,))))
    notes = [Outcome.look_again(*context.tried_until)] if context.lags(fact.record) else []
    context = context.of(key)
    case = Case(context, key, entry, fact)
    for rule in ON_A_LOST_NODE if context.fleet.is_lost(node) else ON_A_NODE:
        found = rule(case)
        if isinstance(found, ProposedAction):
            notes += [_no_place(case)] if found.kind == "move" else []  # it may wait until it has none
            return found, Outcome.merged(notes)
        if found is not None:
            notes.append(found)
    return None, Outcome.merged(notes)


# --- on a node ---------------------------------------------------------------------------------------------------


def _hold(case: Case) -> ProposedAction | None:
    """An operator holds it, and its fact does not say so yet."""
    why = held_because(case.entry, case.key)
    if why is None or case.fact.record.held:
        return None
    return case.proposes("hold", case.word, f"{case.by} stopped it", reason=why)


def _rollback(case: Case) -> ProposedAction | Outcome | None:
    """What stands was never good in it, and did not become ready in time, or is parked."""
    context, entry, told = case.context, case.entry, case.fact.record
    said, deadline = entry.status, context.refused_at(entry)
    if deadline is None or not context.runs(told).update.rollback:
        return None
    if said is not None and context.parked(entry) and said.record.since_ms <= deadline:
        its = happened(said.record.reason) if said.record.reason is not None else "parked"
    elif context.now_ms >= deadline:
        its = f"{case.key} {context.lateness(entry, context.allowed_ms(told))}"
    else:
        return Outcome(wakes=(deadline,)) if context.has_earlier else None
    basis = context.before
    if basis is None:
        return Outcome.look_again(*context.ripening)
    why = reason("rollout.rolled_back", rev=f"r{context.spec.version}", its=its, good=context.called(basis))
    cause = () if said is None else (said.id,)
    return replace(case.proposes("rollback", (*cause, context.spec.id), why.message, reason=why), back_to=basis)


def _moved(case: Case) -> ProposedAction | None:
    """It is where an operator wants it moved, and its fact does not say so yet."""
    home, asked = case.context.home_of(case.key), case.entry.move_asked
    there = asked == case.node if asked != "" else case.entry.leaves != case.node
    if not there or (home is not None and not is_there(case.context.fleet, home)):
        return None
    return case.proposes("moved", case.word, f"{case.by} asked for it to be on {case.node}, where it is")


def _let_go(case: Case) -> ProposedAction | None:
    """Its data counts no more (`good`), and the node that had it is another machine now: it may begin there with none."""
    home, view = case.fact.record.home, case.context.fleet.view
    if home is None or case.context.stays(case.entry) or is_there(case.context.fleet, home):
        return None
    told = view.nodes[home.node].attributes
    because = f"{home.node} is another machine now, and {case.key} keeps no data"
    return case.proposes("release", () if told is None else (told.id,), because)


def _move_asked(case: Case) -> ProposedAction | Outcome | None:
    """An operator asked for a move that is not done yet, and it can be done."""
    return _if_it_can_go(case, _asked_to_move(case))


def _leave(case: Case) -> ProposedAction | Outcome | None:
    """It must leave its node now, and can; who must later waits for nothing else. One of each node ends instead."""
    parked_ms = _parked_move_ms(case)
    leaving = _leaving(case, parked_ms)
    if case.context.component.each_node:
        due = next_move_ms(case.entry)
    else:
        due = (parked_ms or 0) if leaving is None else leaving.at_ms
    if due <= case.context.now_ms:
        return _if_it_can_go(case, leaving)
    later = Outcome(wakes=(due,))
    return later if leaving is None else Outcome.merged((later, _no_place(case)))  # it may have none by then


def _release(case: Case) -> ProposedAction | None:
    """Its fact says stopped and its control says running, or the other way round."""
    if case.fact.record.desired == case.desired:
        return None
    because = f"it stays on {case.node}: there is no other place for it"
    if case.fact.record.waited:
        because = "no other copy of it runs"
    elif case.fact.record.held:
        because = f"{case.by} holds it no more"
    return case.proposes("release", case.word, because)


def _restart(case: Case) -> ProposedAction | None:
    """An operator asked for a restart that is not done yet; what is held is restarted when it is let go."""
    if case.control.restart <= case.fact.record.restart or case.desired == "stopped":
        return None
    because = f"restart asked for by {case.by}"
    return case.proposes("restart", case.word, because, gated=True)


def _renew(case: Case) -> ProposedAction | None:
    """It implements another revision than it is to."""
    context, fact = case.context, case.fact
    if fact.record.spec == context.basis.spec:
        return None
    refusal, is_running = context.refusal, fact.record.desired == "running"
    if refusal is None:
        because = f"revision {context.spec.version} of {case.key.service} was applied by {who_applied(context.spec)}"
        return case.proposes("renew", (context.spec.id,), because, gated=is_running)
    because = f"revision {context.spec.version} of {case.key.service} was rolled back"
    gated = is_running and context.ready_since(case.entry) is not None
    return case.proposes("rollback", (refusal.id,), because, gated=gated, reason=context.refused_because)


# --- on a node that is dead or has left --------------------------------------------------------------------------


def _replace(case: Case) -> ProposedAction | Outcome | None:
    """It is to be replaced, and there is a place for it now."""
    lost = _lost(case)
    if lost is None or lost.at_ms > case.context.now_ms:
        return None
    return lost if target_of(case.context, lost) is not None else NO_PLACE


def _keep(case: Case) -> ProposedAction | Outcome | None:
    """What was good in it, and its fact does not say, when it is time to keep that."""
    context, fact, said = case.context, case.fact, case.entry.status
    good, ended = context.good(case.entry), ended_well(case.entry)
    if good in (None, fact.record.good) and ended in (None, fact.record.ended):
        return None
    if context.is_anew and good is not None and good.spec == context.stands.spec != fact.record.spec:
        return case.proposes("keep", (context.spec.id,), "what was good in it was signed anew")
    until = None if said is None else said.signed.event.expires_ms
    if said is None or until is None:
        return None
    if until - KEEP_MS > context.now_ms:
        return Outcome(wakes=(until - KEEP_MS,))
    return case.proposes("keep", (said.id,), f"what was good in it is kept, for {case.node} says it no more")


def _lost(case: Case) -> ProposedAction | None:
    """It is to be replaced, as soon as there is a place for it and it must not wait."""
    context, node = case.context, case.node
    component, verdict = context.component, context.fleet.verdict(node)
    if component.each_node:
        return None
    if context.stays(case.entry) or case.control.hold is not None:
        asked = _asked_to_move(case)
        return None if asked is None else replace(asked, kind="lost")
    avoid = frozenset({node})
    if verdict is None or verdict.record.state == "left":
        cause = () if verdict is None else (verdict.id,)
        return ProposedAction(case.key, "lost", cause, f"{node} has left", avoid=avoid, forced=True)
    since, contested = verdict.record.since_ms, context.fleet.contested_until_ms(node)
    if not context.plan.brake.allows(node):
        return None
    return ProposedAction(
        case.key,
        "lost",
        (verdict.id,),
        f"{node} is dead: {verdict.record.message}",
        at_ms=max(due_ms(component, case.entry, case.fact, since), contested),
        avoid=avoid,
        reason=reason("node.lost", node=node, time=rfc3339(since), evidence=verdict.record.message),
        forced=True,
    )


ON_A_NODE: Final[tuple[Rule, ...]] = (
    _hold, _rollback, _moved, _let_go, _move_asked, _leave, _release, _restart, _renew,
)  # fmt: skip
"""What is asked of a slot on a node that lives or may live: the first rule that asks for an action has its way."""
ON_A_LOST_NODE: Final[tuple[Rule, ...]] = (_replace, _keep, _lost)
"""The same on a node that is dead or has left."""


def _place(context: ComponentContext, key: SlotKey, entry: SlotEntry) -> ProposedAction:
    """A slot with no node: where a node runs it with no fact, and may have it, it is adopted there (A5)."""
    told = (node for node in entry.holders if entry.instances[node].orphan and entry.fact is None)
    orphans = (node for node in told if node == context.nodes.get(key.index, node))
    home, asked = context.home_of(key), entry.move_asked
    orphan = next((node for node in orphans if _adopts(context, home, node)), None)
    cause = [context.spec.id]
    because = f"{who_applied(context.spec)} applied revision {context.spec.version} of {key.service}"
    if orphan is not None:
        said = entry.instances[orphan].orphan
        cause = [said.id, *cause] if said is not None else cause
        return ProposedAction(key, "adopt", tuple(cause), f"{orphan} runs it already", target=orphan)
    goes = lets_go(entry) and (not asked or context.chooser.misfit(asked) is None)
    if home is not None and not goes:
        return ProposedAction(key, "place", tuple(cause), because, target=home.node, tied=True)
    avoid = frozenset() if entry.leaves is None else frozenset({entry.leaves})
    return ProposedAction(key, "place", tuple(cause), because, target=asked or None, avoid=avoid)


def _adopts(context: ComponentContext, home: DataHome | None, node: str) -> bool:
    """Whether a node may have what it runs with no fact: data unless it is known elsewhere; all else as if it came there."""
    if context.component.on_partition == "pinned":
        return context.fleet.state(node) == "alive" and (home is None or home.node == node)
    return context.chooser.misfit_to_adopt(node) is None


def target_of(context: ComponentContext, wanted: ProposedAction) -> str | None:
    """The node to which a slot would go now, or None when there is none. One that is there already takes no more room."""
    fact, target = context.slot(wanted.key).fact, wanted.target
    if target is not None:
        there = fact is not None and fact.record.node == target and context.fleet.state(target) == "alive"
        fault = context.chooser.misfit_to_stay(target) if there else context.chooser.misfit(target)
        return target if fault is None else None
    return context.chooser.choose(wanted.key, wanted.avoid)


def _if_it_can_go(case: Case, leaving: ProposedAction | None) -> ProposedAction | Outcome | None:
    """A move that can be made; one that cannot keeps no other cause waiting."""
    if leaving is None:
        return None
    return leaving if target_of(case.context, leaving) is not None else _no_place(case)


def _no_place(case: Case) -> Outcome:
    """A move waits for nodes; one of what is parked also for the others, for it goes where none of them is parked."""
    return Outcome(no_place=True, look_at_all=case.context.parked(case.entry))


def _asked_to_move(case: Case) -> ProposedAction | None:
    """An operator's move that is not done yet."""
    context, control, target = case.context, case.entry.control, case.entry.move_asked
    home = context.home_of(case.key)
    if control is None or target is None or is_bound(context.fleet, context.component, home, case.entry):
        return None
    because = f"{case.by} asked for a move{f' to {target}' if target else ''}"
    return ProposedAction(case.key, "move", (control.id,), because, target=target or None, avoid=frozenset({case.node}))


def _serves_before(case: Case) -> bool:
    """Whether the node of a slot still serves the copy before the present one, which may never become ready (A8)."""
    served = None if case.entry.instance is None else case.entry.instance.endpoint
    return served is not None and served.record.ready and served.record.generation < case.fact.version


def _parked_move_ms(case: Case) -> int | None:
    """From when on (realm ms) it is to leave its node for being parked there; None where it is not."""
    context, entry = case.context, case.entry
    is_over = context.parked(entry) and not _serves_before(case)
    return parked_move_ms(entry, context.component.restart) if is_over else None


def _leaving(case: Case, parked_ms: int | None) -> ProposedAction | None:
    """A cause to leave its node, other than the node's death and an operator's move (rule 1).

    `parked_ms`: from when on it is to leave for being parked there.
    """
    context, key, entry, fact, node = case.context, case.key, case.entry, case.fact, case.node
    if context.stays(entry):
        return None
    on_the_way = fact.record.desired == "stopped"
    avoid = frozenset({node})
    cause: tuple[EventId, ...]
    told, drain = context.fleet.view.nodes.get(node), context.fleet.drain_of(node)
    if drain is not None:
        by, their = whose(drain.record.by, drain.signed.event.source), drain.record.reason
        why = reason("node.drained", node=node, by=by, their=their or "no reason given")
        because = f"{node} is drained by {by}{quoted(their)}"
        return ProposedAction(key, "move", (drain.id,), because, gated=not on_the_way, avoid=avoid, reason=why)
    if context.component.each_node:
        return None
    is_new = fact.record.spec != context.basis.spec  # another revision counts anew
    if parked_ms is not None and (parked_ms <= context.now_ms or not is_new):
        because = f"it is parked on {node}, and its escalation ends in a move"
        said = entry.status
        cause = (fact.id,) if fact.record.parked or said is None else (said.id,)
        avoid |= context.chooser.parked
        return ProposedAction(key, "move", cause, because, at_ms=parked_ms, avoid=avoid, forced=True)
    fault = context.chooser.misfit_to_stay(node)
    if fault is not None and told is not None and told.attributes is not None:
        cause = (context.spec.id, *(context.chooser.sets if fault.clause == "nodes" else ()), told.attributes.id)
        because, gated = f"it cannot stay: {fault.says}", not on_the_way
        due = 0 if is_new else next_move_ms(entry)
        return ProposedAction(key, "move", cause, because, gated=gated, at_ms=due, avoid=avoid, forced=True)
    return None
