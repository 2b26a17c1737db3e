"""One service: what its facts ask for, done in the order and at the pace that its spec allows.

Rule 1: what repairs (`place`, `lost`), and what an operator said, is done at once; what would take a working instance
    away goes at most `update.max_parallel` at a time, each after those before were ready for `healthy_after`.
    Instances that do not work go first.
Rule 2: a new revision goes no further while an instance of it is parked, or was not ready within `update.deadline`
    (and is then rolled back, see `wants`).
Rule 3: a move away from a node that lives is start-first: the old node is named as `previous` until the new instance
    is ready (A8); where two copies must not run it is stopped first, and moved when it has stopped.
Rule 4: a slot on a dead node stays there, unchanged, until there is a place for it; a new one with no place is told
    with its reason.
Rule 5: a service with no spec that can be read is left alone: absence is never an order (A5, R4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count

import msgspec

from dsmt.controllers.brake import Brake
from dsmt.controllers.context import ComponentContext, Outcome, implemented, lost_since
from dsmt.controllers.endings import Places, end_orphans, end_slots, remove
from dsmt.controllers.pinning import is_there, settled, waits_for_home
from dsmt.controllers.replacing import stable
from dsmt.controllers.wants import ProposedAction, hold_reason, target_of, want
from dsmt.event.kinds.slot import Home, Previous, Slot
from dsmt.event.reason import Reason, reason
from dsmt.event.status import State
from dsmt.view import Fleet, ServiceEntry, SlotEntry, SlotKey


def decide_service(fleet: Fleet, brake: Brake, entry: ServiceEntry, only: Places | None = None) -> Outcome:
    """Decide one service; `only` looks at these slots alone, and at all when one of them must wait its turn."""
    outcome = Outcome()
    spec, parsed = entry.spec, entry.parsed
    if spec is None or parsed is None:
        if f"service/{entry.name}/spec" not in fleet.view.quarantined:
            end_orphans(fleet, brake, entry, entry.slots if only is None else only, outcome)
        return outcome
    if spec.record.removed:
        remove(fleet, brake, entry, outcome)
        return outcome
    contexts = {
        name: ComponentContext(
            fleet, brake, entry=entry, spec=spec, component=entry.component(name) or component, outcome=outcome
        )
        for name, component in sorted(parsed.components.items())
    }
    if only is not None and not _stand_alone(contexts, only):
        return decide_service(fleet, brake, entry)
    wanted = {name: _wanted(context, only) for name, context in contexts.items()}
    places = sorted(entry.slots if only is None else [place for place in only if place in entry.slots])
    extra = [place for place in places if place[0] not in contexts or place[1] not in wanted[place[0]]]
    last = {name: context.good for name, context in contexts.items()}
    end_slots(fleet, brake, entry, extra, outcome, good=lambda name, slot: last[name](slot) if name in last else None)
    for name, context in contexts.items():
        indexes = wanted[name] if only is None else [i for c, i in sorted(only) if c == name and i in wanted[name]]
        _decide_component(context, indexes, wanted[name])
    return outcome


def _stand_alone(contexts: Mapping[str, ComponentContext], only: Places) -> bool:
    """Whether single slots can be decided by themselves: none must wait its turn, or is one of a set yet to be made."""
    for component, index in sorted(only):
        context = contexts.get(component)
        if context is None:
            continue
        key = context.key(index)
        if context.component.each_node:
            if context.slot(key).fact is None:
                return False
        elif index >= (context.component.instances or 0):
            continue
        wanted = want(context, key)
        if wanted is not None and (wanted.gated or wanted.kind == "rollback"):
            return False
    return True


def _wanted(context: ComponentContext, only: Places | None) -> Collection[int]:
    """The indexes that are to exist; with `only`, those of its slots that exist and stay as they are."""
    if not context.component.each_node:
        return range(context.component.instances or 0)
    if only is None:
        return _each_node(context)
    facts = {i: context.entry.slots[c, i].fact for c, i in only if c == context.component.name}
    return sorted(i for i, fact in facts.items() if fact is not None and fact.record.desired != "gone")


def _each_node(context: ComponentContext) -> Collection[int]:
    """The indexes of one instance on each node that fits; a node keeps its index while it is in the set.

    One that an operator holds is kept for its node when it has left the set: the hold is of that node's instance.
    """
    kept: dict[int, str] = {}
    former: dict[str, int] = {}
    taken: set[str] = set()
    used: set[int] = set()
    for (component, index), slot in sorted(context.entry.slots.items()):
        if component != context.component.name:
            continue
        if slot.hold is not None:
            used.add(index)
        if slot.fact is None:
            former |= dict.fromkeys(slot.holders, index)
            continue
        node = slot.fact.record.node
        if node is None or slot.fact.record.desired == "gone":
            former.setdefault(node or "", index)
        else:
            used.add(index)
            if node not in taken and _keeps(context, node):
                kept[index] = node
                taken.add(node)
    free = (index for index in count() if index not in kept and index not in used)
    for node in context.chooser.candidates():
        if node not in taken and context.chooser.misfit(node) is None:
            index = former.get(node, -1)
            kept[next(free) if index < 0 or index in kept else index] = node
    context.nodes = kept
    return dict.fromkeys(sorted(kept))


def _keeps(context: ComponentContext, node: str) -> bool:
    entry = context.fleet.view.nodes.get(node)
    if context.fleet.state(node) == "left" or (entry is not None and entry.mode == "draining"):
        return False
    if entry is None or entry.attributes is None:
        return True
    return context.chooser.stays(node) is None


# --- one component -----------------------------------------------------------------------------------------------


def _decide_component(context: ComponentContext, indexes: Iterable[int], wanted: Collection[int]) -> None:
    found = (want(context, context.key(index)) for index in indexes)
    wants = [w for w in found if w is not None]
    done = {w.key: w for w in wants if not w.gated and w.at_ms <= context.now_ms and _act(context, w)}
    for w in wants:
        if w.at_ms > context.now_ms:
            context.outcome.wakes.append(w.at_ms)
    gated = [w for w in wants if w.gated]
    context.outcome.needs_full_pass = (
        context.outcome.needs_full_pass or bool(gated) or any(w.kind == "rollback" for w in wants)
    )
    if not gated:
        return
    waiting = {w.key for w in gated}
    others = [key for key in map(context.key, wanted) if key not in waiting and key not in done]
    moving = [w for w in done.values() if w.kind not in ("hold", "keep")]
    pace = _Pace(context, others)
    room = context.component.update.max_parallel.of(len(wanted)) - len(moving) - len(pace.in_flight)
    for w in sorted(gated, key=lambda w: _turn(context, w)):
        if room <= 0:
            break
        if w.kind == "renew" and pace.stands:
            continue
        room -= _act(context, w)


def _turn(context: ComponentContext, w: ProposedAction) -> tuple[bool, bool, SlotKey]:
    """Whose turn comes first: those that do not work, but on nodes that are silent last of all."""
    entry = context.slot(w.key)
    node = entry.fact.record.node if entry.fact is not None else None
    return context.fleet.state(node or "") != "alive", context.ready_since(entry) is not None, w.key


class _Pace:
    """Which other instances must become ready before the next one is touched, and whether the revision stands."""

    def __init__(self, context: ComponentContext, others: Iterable[SlotKey]) -> None:
        self.in_flight: list[SlotKey] = []
        self.stands = False
        update = context.component.update
        for key in others:
            entry = context.slot(key)
            fact = entry.fact
            if fact is None or fact.record.node is None or context.control(entry).hold is not None:
                continue
            if context.fleet.state(fact.record.node) in ("dead", "left"):
                continue
            since = context.ready_since(entry)
            due = context.good_from(entry)
            if due is not None and due <= context.now_ms:
                continue
            deadline = fact.time_ms + round(update.deadline_s * 1000)
            overdue = since is None and (context.parked(entry) or deadline <= context.now_ms)
            if overdue:
                self.stands = self.stands or fact.record.spec == context.basis[0]
                continue
            self.in_flight.append(key)
            context.outcome.wakes.append(deadline if due is None else due)


# --- acting ------------------------------------------------------------------------------------------------------


def _act(context: ComponentContext, w: ProposedAction) -> bool:
    """Do what is wanted; whether a fact is to be published."""
    entry = context.slot(w.key)
    match w.kind:
        case "place":
            return _place(context, w, entry)
        case "lost" | "move":
            return _move(context, w, entry)
        case "keep" if entry.fact is not None:
            kept = msgspec.structs.replace(entry.fact.record, good=context.good(entry))
            return context.write(w.key, kept, w.cause, w.because)
        case _:
            return context.write(w.key, _kept(context, w, entry), w.cause, w.because)


def _kept(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Slot:
    """The slot on the node where it is, with all that is new."""
    old = entry.fact.record if entry.fact is not None else None
    return _slot(context, w, entry, node=None if old is None else old.node, previous=_still_previous(context, entry))


def _slot(
    context: ComponentContext,
    w: ProposedAction,
    entry: SlotEntry,
    *,
    node: str | None,
    previous: Previous | None = None,
    moves: int | None = None,
    moved_at_ms: int | None = None,
) -> Slot:
    old = entry.fact.record if entry.fact is not None and entry.fact.record.desired != "gone" else None
    control = context.control(entry)
    spec, revision = context.basis if w.basis is None else (w.basis.spec, w.basis.revision)
    before = None if entry.fact is None else entry.fact.record
    former = None if before is None else before.former if before.spec == spec else implemented(before)
    governs = context.component if w.basis is None else context.entry.component_of(context.component.name, spec)
    home = settled(context.fleet, governs or context.component, entry, node, moves=w.kind in ("move", "lost"))
    return Slot(
        node=node,
        spec=spec,
        revision=revision,
        desired="running" if control.hold is None else "stopped",
        previous=previous,
        moves=moves if moves is not None else 0 if old is None else old.moves,
        moved_at_ms=moved_at_ms if moved_at_ms is not None else None if old is None else old.moved_at_ms,
        restart=max(control.restart, 0 if before is None else before.restart),
        move_number=_move_number(context, entry, node, home),
        reason=hold_reason(context, entry, w.key) or w.reason,
        refused=0 if w.basis is None and context.refusal is None else context.spec.version,
        good=w.basis or context.good(entry),
        former=former,
        home=home,
    )


def _move_number(context: ComponentContext, entry: SlotEntry, node: str | None, home: Home | None) -> int:
    """The number of the last move by an operator that is done once a slot is on a node, and its data at its home."""
    before, asked = None if entry.fact is None else entry.fact.record, entry.move_asked
    done = 0 if before is None else before.move_number
    if asked is None or node is None or (home is not None and not is_there(context.fleet, home)):
        return done
    return context.control(entry).move_number if node == asked or (not asked and node != entry.leaves) else done


def _still_previous(context: ComponentContext, entry: SlotEntry) -> Previous | None:
    """The `previous` of the fact as it is, while it still has a meaning."""
    before = entry.fact.record.previous if entry.fact is not None else None
    if before is None or before.deadline_ms <= context.now_ms or context.ready_since(entry) is not None:
        return None
    return None if context.fleet.state(before.node) in ("dead", "left") or _is_over(entry, before.node) else before


def _is_over(entry: SlotEntry, node: str) -> bool:
    """Whether a node has said that nothing is left there that could be served."""
    instance = entry.instances.get(node)
    if instance is None or not instance.statuses:
        return False
    said = instance.application
    return not instance.left or (said is not None and said.record.state in (State.STOPPED, State.GONE))


def _place(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> bool:
    node = context.nodes.get(w.key.index)
    if node is None and w.target is not None and _takes(context, w, entry):
        node = w.target
    if node is None and not w.tied:
        node = (context.chooser.choose(w.key, w.avoid) if w.avoid else None) or context.chooser.choose(w.key)
    if node is not None:
        return context.write(w.key, _slot(context, w, entry, node=node), w.cause, f"{w.key} goes to {node}: {w.because}")
    context.outcome.unschedulable = True
    why = _away(context, w, entry) if w.tied else context.chooser.reason(w.key)
    slot = _slot(context, w, entry, node=None)
    told = entry.fact.record if entry.fact is not None else None
    same = told is not None and told.reason is not None and told.reason.code == why.code
    if same and told is not None and (told.spec, told.desired, told.node) == (slot.spec, slot.desired, None):
        return False
    slot = msgspec.structs.replace(slot, reason=why)
    return context.write(w.key, slot, w.cause, f"{w.key} has no place: {why.message}")


def _takes(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> bool:
    """Whether a slot goes to the node that it is to go to: one that runs already is adopted where it is."""
    home = None if entry.fact is None else entry.fact.record.home
    if w.tied and home is not None and not is_there(context.fleet, home):
        return False
    return entry.fact is None or context.chooser.misfit(w.target or "") is None


def _away(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> Reason:
    """Why a pinned slot cannot come back to its home."""
    told = waits_for_home(context.fleet, w.key, context.component, entry)
    fault = context.chooser.misfit(w.target or "")
    is_now = "does not take it" if fault is None else f"does not take it: {fault.says}"
    return told or reason("wait.pinned", node=w.target, is_now=is_now, target=w.key)


def _move(context: ComponentContext, w: ProposedAction, entry: SlotEntry) -> bool:
    fact = entry.fact
    if fact is None or fact.record.node is None:
        return False
    lives = w.kind == "move"
    node = target_of(context, w)
    if node is None:
        context.outcome.unschedulable = True
        return False
    if lives and context.rolls_in_place_only and _works(entry, fact.record.node):
        if fact.record.desired == "stopped":
            return False
        here = _slot(context, w, entry, node=fact.record.node)
        stopping = msgspec.structs.replace(here, desired="stopped", parked=context.parked(entry))
        return context.write(w.key, stopping, w.cause, f"{w.key} stops on {fact.record.node} first: {w.because}")
    until = context.now_ms if lives else lost_since(context.fleet, fact.record.node)
    moves = (0 if stable(entry, until) else fact.record.moves) + 1 if w.forced else fact.record.moves
    slot = _slot(
        context,
        w,
        entry,
        node=node,
        previous=_previous(context, entry, lives=lives),
        moves=moves,
        moved_at_ms=context.now_ms,
    )
    return context.write(w.key, slot, w.cause, f"{w.key} moves from {fact.record.node} to {node}: {w.because}")


def _works(entry: SlotEntry, node: str) -> bool:
    """Whether an instance may be running on a node."""
    instance = entry.instances.get(node)
    if instance is None or not instance.left:
        return False
    said = instance.application
    return said is not None and said.record.state not in (State.STOPPED, State.GONE)


def _previous(context: ComponentContext, entry: SlotEntry, *, lives: bool) -> Previous | None:
    fact = entry.fact
    before = _still_previous(context, entry)
    if before is not None or not lives or fact is None or fact.record.node is None or context.rolls_in_place_only:
        return before
    if fact.record.desired != "running" or context.control(entry).hold is not None or _is_over(entry, fact.record.node):
        return None
    deadline = context.now_ms + round(context.component.update.deadline_s * 1000)
    return Previous(node=fact.record.node, generation=fact.version, deadline_ms=deadline)
