"""The context of a component: all that a decision about it reads, and how its slot facts are written."""

from __future__ import annotations

from functools import cached_property

from msgspec.structs import replace

from dsmt.controllers.each_node import indexes_of_nodes
from dsmt.controllers.intents import Intent
from dsmt.controllers.placement import Chooser
from dsmt.controllers.plan import NOTHING, Outcome, Plan, ProposedAction
from dsmt.controllers.rollout import Rollout
from dsmt.controllers.unknown_words import waits_for_word
from dsmt.event.envelope import EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, Held, ServiceEntry, SlotEntry, SlotKey
from dsmt.view.allocation import need_of


class ComponentContext(Rollout):
    """One component of one service, at one time."""

    def __init__(
        self,
        plan: Plan,
        *,
        entry: ServiceEntry,
        spec: Held[SpecFact],
        component: ComponentSpec,
        kept: Good | None = None,
        standing: ComponentContext | None = None,
    ) -> None:
        super().__init__(plan.fleet, entry, spec, component, kept)
        self._standing = standing
        self.plan = plan
        self.wants: dict[SlotKey, tuple[int, tuple[ProposedAction | None, Outcome]]] = {}
        """By slot, what it wants (`service`), and at which state of what is taken that was found out."""
        self._keeping: dict[Good, tuple[int, ComponentContext]] = {}
        """The same of what decides about slots that keep a revision: many keep one."""

    def key(self, index: int) -> SlotKey:
        """The key of one of its slots."""
        return SlotKey(self.entry.name, self.component.name, index)

    @cached_property
    def chooser(self) -> Chooser:
        """Chooses nodes for it."""
        return Chooser(self.fleet, self.entry.name, self.component, allocations=self.plan.allocations)

    @cached_property
    def nodes(self) -> dict[int, str]:
        """With `each_node`: which node an index stands for, by what stands."""
        if self._standing is not None:
            return self._standing.nodes
        return indexes_of_nodes(self.fleet, self.entry, self.chooser) if self.component.each_node else {}

    @cached_property
    def keeps_former_data(self) -> bool:
        """Whether a slot stays with data of an earlier revision, while one is tried that keeps none."""
        own = (self.entry.slots[place] for place in sorted(self.entry.at_home) if place[0] == self.component.name)
        return self.component.on_partition != "pinned" and any(map(self.may_go_back_to_data, own))

    def waits(self, slot: SlotEntry) -> Outcome | None:
        """When to look again at a slot of which nothing can be decided now; None when it can."""
        if slot.quarantined:
            return NOTHING
        return waits_for_word(self.fleet, slot, self.spec, self.chooser)

    def of(self, key: SlotKey) -> ComponentContext:
        """What decides about a slot: while what stands has failed in another, it keeps what it has, or gets what is good."""
        kept = self.kept_of(self.slot(key).fact)
        if kept is None:
            return self
        taken = self.plan.allocations.taken
        known = self._keeping.get(kept)
        if known is None or known[0] != taken:
            known = self._keeping[kept] = taken, self._as(kept)
        return known[1]

    def _as(self, kept: Good) -> ComponentContext:
        component = self.as_kept(kept)
        return ComponentContext(self.plan, entry=self.entry, spec=self.spec, component=component, kept=kept, standing=self)

    # --- writing -------------------------------------------------------------------------------------------------

    def say(self, key: SlotKey, slot: Slot, cause: tuple[EventId, ...], because: str) -> Outcome:
        """Say a slot fact, unless the winner says it already (A13). It takes what governs it."""
        intent = slot_intent(self.fleet, key, self.slot(key), slot, cause, because=because, spec=self.spec)
        if intent is None:
            return NOTHING
        refuses = self.refusal is None and slot.refuses is not None and self.entry.says_again(slot.refuses.spec)
        governs = self.component if self.kept is None else self.entry.component(self.component.name) or self.component
        self.plan.allocations.put(key, slot.node, need_of(self.runs(slot) if refuses else governs))
        return Outcome((intent,))


def slot_intent(
    fleet: Fleet,
    key: SlotKey,
    entry: SlotEntry,
    slot: Slot,
    cause: tuple[EventId, ...],
    *,
    because: str,
    spec: Held[SpecFact] | None,
) -> Intent | None:
    """The next fact of a slot, addressed as A1 says; None when the winner has the same content.

    Its generation is one more than any that is known of the slot, in a fact or in a status. By which words it was decided
    is said in it, and is no content.
    """
    fact = entry.fact
    control_version, control_ms = entry.followed_control
    slot = replace(
        slot,
        spec_version=0 if spec is None else spec.version,
        control_version=control_version,
        control_ms=control_ms,
        node_words_ms=fleet.node_words_ms,
    )
    if fact is not None and fact.record.says(slot):
        return None
    named = {*slot.nodes, *(node for node, one in entry.instances.items() if one.left)}
    if fact is not None and fact.record.node is not None:
        named.add(fact.record.node)
    following = 1 + (0 if fact is None else fact.version)
    generation = entry.generation + 1
    return Intent(
        topic=key.topic,
        record=slot,
        replaces=None if fact is None else fact.signed,
        cause=tuple(dict.fromkeys(cause)),
        because=because,
        to=tuple(sorted(f"node/{node}" for node in named)),
        version=None if generation == following else generation,
        subject=str(key),
    )
