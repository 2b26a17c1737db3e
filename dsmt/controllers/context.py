"""The context of a component: all that a decision about it reads, and how its slot facts are written."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import msgspec

from dsmt.controllers.brake import Brake
from dsmt.controllers.each_node import indexes_of_nodes
from dsmt.controllers.intents import Intent
from dsmt.controllers.placement import Chooser
from dsmt.controllers.plan import NOTHING, Outcome, Plan
from dsmt.controllers.replacing import running_since
from dsmt.event.envelope import EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot, SlotControl
from dsmt.event.status import State
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, Held, ServiceEntry, SlotEntry, SlotKey
from dsmt.view.allocation import need_of

NO_SLOT: Final = SlotEntry()
_UP: Final = frozenset({State.INSTALLED, State.RUNNING})
"""What is said of a container, and of an agent, that has done its part."""


class ComponentContext:
    """One component of one service, at one time."""

    def __init__(
        self,
        fleet: Fleet,
        brake: Brake,
        plan: Plan,
        *,
        entry: ServiceEntry,
        spec: Held[SpecFact],
        component: ComponentSpec,
        kept: Good | None = None,
    ) -> None:
        self.fleet, self.brake, self.plan, self.entry, self.spec = fleet, brake, plan, entry, spec
        self.component = component
        """What governs its slots: what stands or, where that was refused, what was gone back to."""
        self._kept = kept
        self.now_ms = fleet.now_ms
        self.spec_id = str(spec.id)
        self.keeps_former_data = self._keeps_former_data()
        """Whether data stays where it is that may be gone back to, while a revision is tried that keeps none (A10)."""
        if self.keeps_former_data:
            self.component = msgspec.structs.replace(component, on_partition="pinned")

    def key(self, index: int) -> SlotKey:
        """The key of one of its slots."""
        return SlotKey(self.entry.name, self.component.name, index)

    def slot(self, key: SlotKey) -> SlotEntry:
        """What is known of one of its slots."""
        return self.entry.slots.get((key.component, key.index), NO_SLOT)

    @property
    def _slots(self) -> list[SlotEntry]:
        """Its slots."""
        return [slot for (component, _), slot in self.entry.slots.items() if component == self.component.name]

    @cached_property
    def chooser(self) -> Chooser:
        """Chooses nodes for it."""
        return Chooser(self.fleet, self.entry.name, self.component, allocations=self.plan.allocations)

    @cached_property
    def nodes(self) -> dict[int, str]:
        """With `each_node`: which node an index stands for."""
        return indexes_of_nodes(self.fleet, self.entry, self.chooser) if self.component.each_node else {}

    @property
    def rolls_in_place_only(self) -> bool:
        """Whether no two copies of one slot may run at once."""
        return self.component.update.order == "stop_first" or self.component.on_partition != "at_least_one"

    def _keeps_former_data(self) -> bool:
        was = [components.get(self.component.name) for components in self.entry.earlier.values()]
        if self.component.on_partition == "pinned" or all(one is None or one.on_partition != "pinned" for one in was):
            return False
        return any(map(self._may_go_back_to_data, self._slots))

    def _may_go_back_to_data(self, slot: SlotEntry) -> bool:
        fact = slot.fact
        if fact is None or fact.record.home is None or fact.record.desired == "gone":
            return False
        good = self.good(slot)
        return good is not None and good.revision < self.entry.since

    # --- the revision --------------------------------------------------------------------------------------------

    @cached_property
    def refusal(self) -> Held[Slot] | None:
        """A slot fact that says that what the spec says was rolled back, and implements what that was before."""
        return self.entry.refusal(self.component.name)

    @property
    def basis(self) -> tuple[str, int]:
        """What slots are to implement: the id of a spec event and its revision."""
        if self._kept is not None:
            return self._kept.spec, self._kept.revision
        refusal = self.refusal
        return (self.spec_id, self.spec.version) if refusal is None else (refusal.record.spec, refusal.record.revision)

    def of(self, key: SlotKey) -> ComponentContext:
        """What decides about one slot: while what stands has failed in another, a slot is left with what it has."""
        fact = self.slot(key).fact
        if fact is None or fact.record.node is None or not self.lags(fact.record) or not self.has_failed:
            return self
        return ComponentContext(
            self.fleet,
            self.brake,
            self.plan,
            entry=self.entry,
            spec=self.spec,
            component=self.runs(fact.record),
            kept=implemented(fact.record),
        )

    def lags(self, slot: Slot) -> bool:
        """Whether a slot fact implements another revision than what is tried."""
        return self.refusal is None and slot.desired != "gone" and slot.spec != self.basis[0]

    @cached_property
    def has_failed(self) -> bool:
        """Whether what stands has failed in a slot in which it was never good; a new signature asks for nothing new."""
        return not self.is_anew and any(map(self._has_failed, self._tried))

    def _has_failed(self, slot: SlotEntry) -> bool:
        good = self.good(slot)
        never = good is None or good.revision < self.entry.since
        return never and (self.is_overdue(slot) or (slot.fact is not None and slot.fact.record.moves > 0))

    @property
    def _tried(self) -> list[SlotEntry]:
        """The slots that are to run what stands, where somebody could say so, and are not ready."""
        return [
            slot
            for slot in self._slots
            if slot.fact is not None
            and slot.fact.record.spec == self.spec_id
            and slot.fact.record.node is not None
            and slot.fact.record.desired == "running"
            and self.control(slot).hold is None
            and self.fleet.state(slot.fact.record.node) not in ("dead", "left")
            and self.ready_since(slot) is None
        ]

    @cached_property
    def tried_until(self) -> list[int]:
        """When (realm ms) it is over what slots may take to be ready with what stands."""
        found = [self.due(slot.fact) for slot in self._tried if slot.fact is not None]
        return [due for due in found if due > self.now_ms]

    @property
    def is_anew(self) -> bool:
        """Whether what stands was signed anew, for a key was revoked (J3): it names then what it says again."""
        return bool(self.spec.signed.event.cause)

    @cached_property
    def before(self) -> Good | None:
        """What to go back to: the newest revision that was good in a slot of the component before what stands was said."""
        known = [self.good(slot) for slot in self._slots if slot.fact is not None and slot.fact.record.desired != "gone"]
        before = (good for good in known if good is not None and 0 < good.revision < self.entry.since)
        return max(before, key=lambda good: (good.revision, good.spec), default=None)

    def good(self, slot: SlotEntry) -> Good | None:
        """The last revision that was good in a slot: the present one, what its agent says, or what its fact carries.

        An agent is believed of what the slot's fact names: the present revision, the one before, the last good one. What
        stands now is good where it says again what was (`_stands_for`): the earlier event may be one that nobody believes.
        """
        found = self._known_good(slot)
        if found is None or slot.fact is None or not self._stands_for(found, slot.fact.record):
            return found
        return Good(spec=self.spec_id, revision=self.spec.version)

    def _stands_for(self, good: Good, told: Slot) -> bool:
        """Whether what stands now says again what was good in a slot; but for how many instances there are.

        Or it was signed anew as it runs, where a later revision was refused: it then follows from what the slot implements.
        """
        return good.revision >= self.entry.since or (
            told.refused > 0 and told.spec in map(str, self.spec.signed.event.cause)
        )

    def _known_good(self, slot: SlotEntry) -> Good | None:
        fact = slot.fact
        if fact is None:
            return None
        present, told = implemented(fact.record), fact.record
        due, node = self.good_from(slot), told.node or ""
        if due is not None and due <= lost_since(self.fleet, node):
            return present
        if told.good == present:
            return present
        said = slot.application(node)
        known = {one for one in (present, told.former, told.good) if one is not None}
        believed = said is not None and said.record.generation >= fact.version and said.record.good in known
        return said.record.good if said is not None and believed else told.good

    @property
    def ripening(self) -> list[int]:
        """When (realm ms) earlier revisions will have been ready for long enough in slots that still implement them."""
        earlier = [slot for slot in self._slots if slot.fact is not None and slot.fact.record.revision < self.entry.since]
        return [at for at in map(self.good_from, earlier) if at is not None and at > self.now_ms]

    @property
    def trials(self) -> list[int]:
        """When (realm ms) what its slots implement will have been ready for long enough in them."""
        return [at for at in map(self.good_from, self._slots) if at is not None and at > self.now_ms]

    # --- readiness -----------------------------------------------------------------------------------------------

    def ready_since(self, slot: SlotEntry) -> int | None:
        """Since when the present generation is ready (realm ms): healthy, or running where nothing is checked."""
        since = running_since(slot)
        if since is None or slot.fact is None:
            return None
        health = slot.instances[slot.fact.record.node or ""].health
        if health is None:
            return since if self.runs(slot.fact.record).health is None else None
        if health.record.generation < slot.fact.version or health.record.health == "unready":
            return None
        return max(since, health.record.since_ms if health.record.health == "ready" else since)

    def unready_from(self, slot: SlotEntry) -> int | None:
        """From when on (realm ms) it counts that the present generation is not ready; None while nobody says so.

        That nobody says anything proves nothing (R4): words die, a broker comes up empty, a node boots. Who speaks for the
        program knows what was good, and the time counts from the slot's fact; who speaks only of what is to run it does not,
        and the time counts from that word.
        """
        fact = slot.fact
        instance = None if fact is None else slot.instances.get(fact.record.node or "")
        if fact is None or instance is None:
            return None
        said = instance.application
        if said is not None and said.record.generation >= fact.version:
            health = None if instance.health is None else instance.health.record
            is_unready = health is not None and health.generation >= fact.version and health.health == "unready"
            return fact.time_ms if said.record.state is not State.RUNNING or is_unready else None
        below = [one.record for one in (instance.container, instance.agent) if one is not None]
        waits = [one for one in below if one.generation >= fact.version and one.state not in _UP]
        return max([fact.time_ms, *(one.since_ms for one in waits)]) if waits else None

    def good_from(self, slot: SlotEntry) -> int | None:
        """When the present generation will have been ready for long enough (realm ms), if it stays so."""
        since = self.ready_since(slot)
        if since is None or slot.fact is None:
            return None
        return since + round(self.runs(slot.fact.record).update.healthy_after_s * 1000)

    def due(self, fact: Held[Slot]) -> int:
        """When (realm ms) the present generation is to be ready."""
        return fact.time_ms + self.allowed_ms(fact.record)

    def allowed_ms(self, slot: Slot) -> int:
        """How long it may take until the program of a slot fact is ready: one that must end first has its time to end."""
        runs, former = self.runs(slot), slot.former
        ends_ms = 0 if former is None or runs.overlaps else self.ending_ms(former.spec)
        return round(runs.update.deadline_s * 1000) + ends_ms

    def ending_ms(self, spec: str) -> int:
        """How long a program of a revision may take to end."""
        stop = (self.entry.component_of(self.component.name, spec) or self.component).stop
        return round((stop.delay_s + stop.grace_s) * 1000)

    def is_overdue(self, slot: SlotEntry) -> bool:
        """Whether the present generation is parked, or was not ready in time."""
        if slot.fact is None or self.ready_since(slot) is not None:
            return False
        return self.parked(slot) or self.due(slot.fact) <= self.now_ms

    def runs(self, slot: Slot) -> ComponentSpec:
        """The component as the revision has it that a slot fact implements."""
        return self.entry.component_of(self.component.name, slot.spec) or self.component

    def parked(self, slot: SlotEntry) -> bool:
        """Whether the present generation is parked on its node, or was when it was stopped to leave it."""
        fact = slot.fact
        if fact is not None and fact.record.parked:
            return True
        held = None if fact is None else slot.application(fact.record.node)
        if fact is None or held is None:
            return False
        said = held.record
        return said.state is State.FAILED and said.parked and said.generation >= fact.version

    # --- writing -------------------------------------------------------------------------------------------------

    def say(self, key: SlotKey, slot: Slot, cause: tuple[EventId, ...], because: str) -> Outcome:
        """Say a slot fact, unless the winner says it already (A13). It takes what governs it."""
        intent = slot_intent(key, self.slot(key), slot, cause, because)
        if intent is None:
            return NOTHING
        node = None if slot.desired == "gone" else slot.node
        refuses = self.refusal is None and slot.refused >= self.entry.since
        governs = self.component if self._kept is None else self.entry.component(self.component.name) or self.component
        self.plan.allocations.put(key, node, need_of(self.runs(slot) if refuses else governs))
        return Outcome((intent,))

    def control(self, slot: SlotEntry) -> SlotControl:
        """The operator's will for a slot."""
        return slot.control.record if slot.control is not None else SlotControl(hold=slot.hold)


def lost_since(fleet: Fleet, node: str) -> int:
    """Since when a node is lost (realm ms), by the verdict on it; now where there is none."""
    verdict = fleet.verdict(node)
    return fleet.now_ms if verdict is None else verdict.record.since_ms


def implemented(slot: Slot) -> Good:
    """The revision that a slot fact implements, as it is named once it was good."""
    return Good(spec=slot.spec, revision=slot.revision)


def slot_topic(key: SlotKey) -> str:
    """The topic of a slot's fact."""
    return f"service/{key.service}/slot/{key.component}/{key.index}"


def slot_intent(key: SlotKey, entry: SlotEntry, slot: Slot, cause: tuple[EventId, ...], because: str) -> Intent | None:
    """The next fact of a slot, addressed as A1 says; None when the winner has the same content.

    Its generation is one more than any that is known of the slot, in a fact or in a status.
    """
    fact = entry.fact
    if fact is not None and fact.record == slot:
        return None
    named = {*slot.nodes, *entry.holders}
    if fact is not None and fact.record.node is not None:
        named.add(fact.record.node)
    following = 1 + (0 if fact is None else fact.version)
    generation = entry.generation + 1
    return Intent(
        topic=slot_topic(key),
        record=slot,
        replaces=None if fact is None else fact.signed,
        cause=tuple(dict.fromkeys(cause)),
        because=because,
        to=tuple(sorted(f"node/{node}" for node in named)),
        version=None if generation == following else generation,
        subject=str(key),
    )


def gone(fact: Slot, good: Good | None = None) -> Slot:
    """A slot fact that ends its slot. `good` is what was good there last, which nobody says any more once it is gone."""
    return msgspec.structs.replace(
        fact, desired="gone", previous=None, reason=None, parked=False, good=good if good is not None else fact.good
    )
