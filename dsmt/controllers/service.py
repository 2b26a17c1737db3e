"""One service: what its facts ask for, done in the order and at the pace that its spec allows.

Rule 1: what repairs (`place`, `lost`), and what an operator said, is done at once; what would take a working instance
    away goes at most `update.max_parallel` at a time, each after those before were ready for `healthy_after`, and no later
    than `update.deadline` after that word. Instances that do not work go first. One whose node died is waited for, too,
    where it has a revision that was good nowhere yet: as long as it might have taken to be ready.
Rule 2: a new revision goes no further while an instance of it is parked, or was not ready within `update.deadline`
    (and is then rolled back, see `wants`). Where it stands, all other slots are decided about by what they have. Nor do
    the restarts that one command has asked for, while what was good, and was restarted by it, is parked, held, on a node
    that is dead, or was not ready in time.
Rule 3: a service with no spec that can be read is left alone: absence is never an order (A5, R4).
Rule 4: whatever number is asked for, a decision looks at the slots that are somewhere, or have their data there, and at
    so many that are nowhere (`AHEAD`), the first of each component. The others have their turn when those have a place (D5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final

from dsmt.controllers.acting import act
from dsmt.controllers.context import ComponentContext
from dsmt.controllers.each_node import keeps
from dsmt.controllers.ended import stays_ended
from dsmt.controllers.endings import end_orphans, end_slots, remove
from dsmt.controllers.look import Places
from dsmt.controllers.plan import NOTHING, Outcome, Plan, ProposedAction
from dsmt.controllers.wants import want
from dsmt.event.kinds.slot import Slot
from dsmt.view import Held, ServiceEntry, SlotEntry, SlotKey

AHEAD: Final = 250
"""So many slots of a service that are nowhere are looked at, in equal parts for its components."""
AHEAD_LEAST: Final = 25
"""So many of each component at least."""


def decide_service(plan: Plan, entry: ServiceEntry, only: Places | None = None) -> Outcome:
    """Decide one service; `only` looks at these slots alone, and at all when one of them must wait its turn.

    `plan` is what was planned for others, and takes up what is planned here.
    """
    spec, parsed = entry.spec, entry.parsed
    if spec is None or parsed is None:
        if f"service/{entry.name}/spec" in plan.fleet.view.quarantined:
            return NOTHING
        return end_orphans(plan, entry, entry.slots if only is None else only)
    if spec.record.removed:
        return remove(plan, entry)
    contexts = {
        name: ComponentContext(plan, entry=entry, spec=spec, component=entry.component(name) or component)
        for name, component in sorted(parsed.components.items())
    }
    if only is not None and not _stand_alone(contexts, only):
        return decide_service(plan, entry)
    wanted = {name: _wanted(context, only) for name, context in contexts.items()}
    places = sorted(entry.slots if only is None else [place for place in only if place in entry.slots])
    extra = [place for place in places if place[0] not in contexts or place[1] not in wanted[place[0]]]
    outcomes = [end_slots(plan, entry, extra, components=contexts)]
    ahead = max(AHEAD_LEAST, AHEAD // max(1, len(contexts)))
    somewhere = _somewhere(entry, [name for name, one in contexts.items() if (one.component.instances or 0) > ahead])
    for name, context in contexts.items():
        looked = _looked(wanted[name], somewhere[name], ahead) if name in somewhere else wanted[name]
        indexes = looked if only is None else [i for c, i in sorted(only) if c == name and i in looked]
        outcomes.append(_decide_component(context, indexes, wanted[name], looked))
        outcomes.append(Outcome(look_at_all=len(looked) < len(wanted[name])))
    tried = [context for context in contexts.values() if context.keeps_former_data or context.held_in is not None]
    # when what is tried becomes good in one slot, others may leave, or have it, too
    outcomes += [Outcome.look_again(*context.trials) for context in tried]
    return Outcome.merged(outcomes)


def _stand_alone(contexts: Mapping[str, ComponentContext], only: Places) -> bool:
    """Whether single slots can be decided by themselves: none must wait its turn, or is one of a set yet to be made."""
    for component, index in sorted(only):
        context = contexts.get(component)
        if context is None:
            continue
        key = context.key(index)
        if context.component.each_node:
            if not keeps(context.fleet, context.chooser, context.slot(key)):
                return False
        elif index >= (context.component.instances or 0):
            continue
        wanted, _ = _want(context, key)
        if wanted is not None and (wanted.gated or wanted.kind == "rollback"):
            return False
    return True


def _want(context: ComponentContext, key: SlotKey) -> tuple[ProposedAction | None, Outcome]:
    """What a slot wants, and when to look again; found out once while nothing is put anywhere."""
    taken = context.plan.allocations.taken
    known = context.wants.get(key)
    if known is None or known[0] != taken:
        known = context.wants[key] = taken, want(context, key)
    return known[1]


def _wanted(context: ComponentContext, only: Places | None) -> Collection[int]:
    """The indexes that are to exist; with `only`, those of its slots that exist and stay as they are."""
    if not context.component.each_node:
        return range(context.component.instances or 0)
    if only is None:
        return context.nodes.keys()
    facts = {i: context.entry.slots[c, i].fact for c, i in only if c == context.component.name}
    return sorted(i for i, fact in facts.items() if fact is not None and fact.record.desired != "gone")


def _somewhere(entry: ServiceEntry, components: Iterable[str]) -> dict[str, set[int]]:
    """By component, the indexes of its slots that are somewhere, or stay with data."""
    found: dict[str, set[int]] = {name: set() for name in components}
    for (name, index), slot in entry.slots.items() if found else ():
        if name in found and _is_somewhere(slot):
            found[name].add(index)
    return found


def _is_somewhere(slot: SlotEntry) -> bool:
    told = slot.record
    if told is None:
        return slot.quarantined or bool(slot.holders)
    return told.home is not None or told.wanted_on is not None


def _looked(wanted: Collection[int], somewhere: set[int], ahead: int) -> Collection[int]:
    """Rule 4: the indexes of a component to look at, in order."""
    nowhere = islice((index for index in wanted if index not in somewhere), ahead)
    return dict.fromkeys(sorted({*nowhere, *(index for index in somewhere if index in wanted)}))


def _decide_component(
    context: ComponentContext, indexes: Iterable[int], wanted: Collection[int], looked: Collection[int]
) -> Outcome:
    found = [_want(context, context.key(index)) for index in indexes]
    wants = [w for w, _ in found if w is not None]
    later = [w.at_ms for w in wants if w.at_ms > context.now_ms]
    gated = [w for w in wants if w.gated and w.at_ms <= context.now_ms]
    waits = Outcome(wakes=tuple(later), look_at_all=bool(gated) or any(w.kind == "rollback" for w in wants))
    now = {w.key: w for w in wants if not w.gated and w.at_ms <= context.now_ms}
    said = {key: act(context, w) for key, w in now.items()}
    outcomes = [*(notes for _, notes in found), waits, *said.values()]
    if gated:
        done = {key: now[key] for key, outcome in said.items() if outcome.intents}
        outcomes += _in_turn(context, gated, done, looked, context.component.update.max_parallel.of(len(wanted)))
    return Outcome.merged(outcomes)


def _in_turn(
    context: ComponentContext,
    gated: list[ProposedAction],
    done: Mapping[SlotKey, ProposedAction],
    looked: Collection[int],
    most: int,
) -> list[Outcome]:
    """What would take working instances away: so much of it as may be done now, beside what is `done` at once."""
    waiting = {w.key for w in gated}
    others = [key for key in map(context.key, looked) if key not in waiting and key not in done]
    moving = [w for w in done.values() if w.kind not in ("hold", "keep")]
    controls = (slot.control.time_ms for slot in map(context.slot, map(context.key, looked)) if slot.control is not None)
    said_ms = max(context.spec.time_ms, context.fleet.node_words_ms, *controls)
    pace = _Pace(context, others, done, said_ms)
    outcomes = [Outcome(wakes=tuple(pace.wakes))]
    room = most - len(moving) - len(pace.in_flight)
    for w in sorted(gated, key=lambda w: _turn(context, w)) if room > 0 else ():
        if room <= 0:
            break
        if pace.ends(context, w):
            continue
        outcomes.append(act(context, w))
        room -= bool(outcomes[-1].intents)
    return outcomes


def _turn(context: ComponentContext, w: ProposedAction) -> tuple[bool, bool, SlotKey]:
    """Whose turn comes first: those that do not work, but on nodes that are silent last of all."""
    entry = context.slot(w.key)
    node = None if entry.record is None else entry.record.node
    return context.fleet.state(node or "") != "alive", context.ready_since(entry) is not None, w.key


class _Pace:
    """Which other instances must become ready before the next one is touched, and what goes no further.

    `said_ms` is when an operator's last word was said of the component, or of nodes (realm ms). One that is ready, and
    never for long enough, holds up no longer than it may take to be ready after that.
    """

    def __init__(self, context: ComponentContext, others: Iterable[SlotKey], done: Iterable[SlotKey], said_ms: int) -> None:
        self.in_flight: list[SlotKey] = []
        self.wakes: list[int] = []
        self._failed: set[str] = set()
        """Which revisions were not ready in time somewhere, and which commands have restarted what was good, and is not."""
        for key in done:
            entry = context.slot(key)
            if entry.fact is not None and context.is_overdue(entry):
                self._not_ready(context, entry, entry.fact)
        for key in others:
            self._look(context, key, said_ms)

    def _look(self, context: ComponentContext, key: SlotKey, said_ms: int) -> None:
        """Whether one that nothing is done to now must be waited for, or what it has goes no further."""
        entry = context.slot(key)
        fact = entry.fact
        if fact is None or fact.record.node is None or stays_ended(entry):
            return
        if entry.hold is not None:
            self._not_ready(context, entry, fact)
            return
        due, good_from = context.ready_by(fact), context.good_from(entry)
        if context.fleet.is_lost(fact.record.node):
            self._not_ready(context, entry, fact)
            if context.was_lost_untold(fact):
                self._wait(key, due)
                self.wakes += context.trials  # or until it is known to be good elsewhere
            return
        if (good_from is None or good_from > context.now_ms) and not context.is_over_there(entry, fact.record):
            until = due if good_from is None else max(due, said_ms + context.allowed_ms(fact.record))
            self.wakes += [] if good_from is None else [good_from]
            if context.is_overdue(entry) or until <= context.now_ms:
                self._failed.add(fact.record.spec)
                self._not_ready(context, entry, fact)
            else:
                self._wait(key, until)

    def _wait(self, key: SlotKey, until: int) -> None:
        self.in_flight.append(key)
        self.wakes.append(until)

    def _not_ready(self, context: ComponentContext, entry: SlotEntry, fact: Held[Slot]) -> None:
        """The command that has restarted a slot goes no further, if what it restarted was good."""
        control = entry.effective_control
        if control.restart and fact.record.restart >= control.restart and context.good(entry) == fact.record.implements:
            self._failed.add(control.restart_of)

    def ends(self, context: ComponentContext, w: ProposedAction) -> bool:
        """Whether an action would go on with what has failed (rule 2)."""
        match w.kind:
            case "renew":
                return context.basis.spec in self._failed
            case "restart":
                return context.slot(w.key).effective_control.restart_of in self._failed - {""}
        return False
