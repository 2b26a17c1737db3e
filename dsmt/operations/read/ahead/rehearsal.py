"""Rehearsal: a change of a service, played through on a copy of the live view.

Rule 1: steps are found by deciding again and again, each decision being obeyed at once by nodes that do all well:
    a slot fact is followed by a status `running` and a health `ready`, and the time passes that the spec asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Intent
from dsmt.controllers.left_data import data_of
from dsmt.controllers.look import Look
from dsmt.controllers.pinning import away
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.phrases import person
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.ahead.plan_words import PlacementReasons, why_replaced
from dsmt.operations.read.ahead.trial import (
    MAX_ROUNDS,
    PlannedStep,
    Trial,
    Unplaced,
    Wanted,
    action_of,
    key_of,
    reason_in,
    wanted_in,
)
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.advice import foreseen
from dsmt.operations.read.rows.revisions import following
from dsmt.spec.changes import Change, run_key
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.view import SlotEntry, SlotKey, View


class Rehearsal:
    """A change that is played through on a copy of the view: `view`, which others may have changed before.

    `live` is the spec that stands, `changes` what differs from that, `earlier` what slots implement else, by its event's id.
    `steps`, `min_ready` (how many instances are ready at the least moment) and `took_ms` are there when it has run.
    """

    def __init__(
        self,
        sight: Sight,
        spec: ServiceSpec,
        view: View,
        *,
        live: ServiceSpec | None,
        earlier: Mapping[str, ServiceSpec],
        changes: list[Change],
        by: str,
    ) -> None:
        self.steps: list[PlannedStep] = []
        self.took_ms = 0
        self._sight = sight
        self._spec, self._view, self._live, self._changes, self._by = spec, view, live, changes, by
        self._trial = Trial(view, sight.now_ms, sight.broker, spec.service)
        entry = view.services.get(spec.service)
        stands = {} if entry is None or entry.spec is None or live is None else {str(entry.spec.id): live}
        self._known = {**earlier, **stands}
        self.min_ready = self._ready()

    def run(self) -> None:
        """Play it through."""
        fact = SpecFact(spec=to_plain(self._spec), by=self._by, reason="")
        fact = following(self._view.services.get(self._spec.service), fact)
        trial = self._trial
        trial.changed = {name for name in self._spec.components if not self._runs_alike(name, self._live)}
        trial.say(f"operator/{person(self._by)}", f"service/{self._spec.service}/spec", to_data(fact), shared=True)
        began = trial.now_ms
        for _ in range(MAX_ROUNDS):
            look = Look({self._spec.service: None})
            decided = decide(self._view, trial.now_ms, may_accuse=False, broker=trial.broker, look=look)
            wanted = wanted_in(decided.intents)
            if not wanted:
                wake = decided.wakes.get(self._spec.service)
                if wake is None or wake <= trial.now_ms or wake - trial.now_ms > self._longest_ms():
                    break
                trial.now_ms = wake
                continue
            self._round(wanted)
        self.took_ms = trial.now_ms - began if self.steps else 0

    def _longest_ms(self) -> int:
        return round(1000 * max(1.0, *(c.update.healthy_after_s for c in self._spec.components.values()))) + 1_000

    def _round(self, wanted: Sequence[Wanted]) -> None:
        down = 0
        places = PlacementReasons(self._trial.fleet, self._spec.service)
        for intent, slot in wanted:
            key = key_of(intent)
            old = self._trial.told(key)
            action = action_of(old, slot)
            if action == "replace" and old is not None and self._runs_on(key, old):
                action = "update"
            if action is not None and (slot.desired != "running" or self._trial.begins(slot)):
                because = self._why(key, action, slot, intent, places)
                self.steps.append(PlannedStep(instance=str(key), action=action, node=slot.node, because=because))
            in_place = old is not None and old.desired == "running" and old.node == slot.node
            down += in_place and not self._stays_up(key, action) and self._is_ready(key)
        self._trial.play(wanted, lambda: self._note(down))

    def _note(self, down: int) -> None:
        """See how many are ready now, of which so many are about to be ended."""
        self.min_ready = min(self.min_ready, max(0, self._ready() - down))

    def _why(self, key: SlotKey, action: str, slot: Slot, intent: Intent, places: PlacementReasons) -> str:
        """Why a step is made, and why there."""
        component = self._spec.components.get(key.component)
        said = reason_in(intent)
        if component is None or action == "remove":
            return "it is not wanted any more"
        match action:
            case "stop":
                return "it is held: it will stay stopped"
            case "new" if slot.node is not None:
                has_data = slot.home is not None and slot.home == data_of(self._trial.fleet, key.service).get(key[1:])
                return "its data is there" if has_data else places.why(component, slot.node)
            case "move" if slot.node is not None:
                return f"{said}; {places.why(component, slot.node)}"
            case "replace" if self._changes:
                return why_replaced(component, self._changes)
            case "replace":
                return f"it runs what was good before; {why_replaced(component, ())}"
            case "update":
                return "it will go on as it is: nothing that it runs with changes"
            case _:
                return said

    def _stays_up(self, key: SlotKey, action: str | None) -> bool:
        """Whether an instance is served all the while: what runs goes on, or its successor starts beside it."""
        component = self._spec.components.get(key.component)
        return action == "update" or (action == "replace" and component is not None and component.overlaps)

    def _runs_on(self, key: SlotKey, old: Slot) -> bool:
        """Whether the new spec is taken over by what runs, without a restart; of what is not known that is not said."""
        return self._runs_alike(key.component, self._known.get(old.spec))

    def _runs_alike(self, component: str, spec: ServiceSpec | None) -> bool:
        """Whether a component runs as in another spec."""
        before = None if spec is None else spec.components.get(component)
        new = self._spec.components.get(component)
        return before is not None and new is not None and run_key(before) == run_key(new)

    def _ready(self) -> int:
        entry = self._view.services.get(self._spec.service)
        if entry is None:
            return 0
        return sum(self._is_ready(SlotKey(entry.name, component, index)) for component, index in entry.slots)

    def _is_ready(self, key: SlotKey) -> bool:
        slot = self._view.slot(key)
        for node, instance in slot.instances.items():
            said = instance.application
            if said is not None and said.record.state is State.RUNNING and not self._is_gone(slot, node):
                return instance.health is None or instance.health.record.health != "unready"
        return False

    def _is_gone(self, slot: SlotEntry, node: str) -> bool:
        """Whether what was said of a slot's instance on a node was said of a machine that is not there any more."""
        told = slot.record
        return self._trial.is_lost(node) or (told is not None and told.node == node and not self._trial.begins(told))

    def behind(self) -> list[str]:
        """What is said of instances that have no turn before others have a place (D5)."""
        entry, told = self._view.services.get(self._spec.service), []
        for name, component in sorted(self._spec.components.items()):
            known = (
                () if entry is None else [at for at, slot in entry.slots.items() if at[0] == name and slot.fact is not None]
            )
            more = (component.instances or 0) - len(known)
            if entry is not None and self.steps and more > 0:
                told.append(f"{name}: {more} more instances wait for those that have no place; add nodes, or ask for fewer")
        return told

    def unplaced(self) -> list[Unplaced]:
        """The slots that the play has left without a node, or with their data on what is not there: nobody begins those."""
        entry = self._view.services.get(self._spec.service)
        slots = {} if entry is None else entry.slots
        found = []
        for (component, index), slot in sorted(slots.items()):
            told = slot.record
            if told is None or told.desired == "gone":
                continue
            key = SlotKey(self._spec.service, component, index)
            if told.node is None:
                wanted = self._spec.components.get(component)
                why = told.reason if wanted is None else foreseen(self._sight, wanted, told.reason)
                found.append(Unplaced(instance=str(key), reason=why))
            elif (why := self._away(key, told)) is not None:
                found.append(Unplaced(instance=str(key), reason=why))
        return found

    def _away(self, key: SlotKey, told: Slot) -> Reason | None:
        """Why nobody begins a slot that stays with its data; None where somebody does."""
        component = self._spec.components.get(key.component)
        if component is None or told.home is None or told.desired != "running":
            return None
        return away(self._trial.fleet, key, told.home, component)
