"""Rehearsal: a change of a service, played through on a copy of the live view.

Rule 1: steps are found by deciding again and again, each decision being obeyed at once by nodes that do all well:
    a slot fact is followed by a status `running` and a health `ready`, and the time passes that the spec asks for.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Intent
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.instance import Status as StatusRecord
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.event.status import Layer, State
from dsmt.operations.read.plan_words import Places, why_replaced
from dsmt.operations.read.revisions import following
from dsmt.operations.read.sight import Sight
from dsmt.spec.changes import Change, run_key
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.view import Fleet, SlotKey, View

MAX_ROUNDS: Final = 2_000
_INCARNATION: Final = 2**52


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is done. `action`: `new`, `replace`, `update` (while it runs), `restart`, `move`, `stop`, `remove`."""

    instance: str
    action: str
    node: str | None
    because: str


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """An instance for which there is no place now, and why."""

    instance: str
    reason: Reason | None


class Rehearsal:
    """A change that is played through on a copy of the view: `view`, which others may have changed before.

    `live` is the spec that stands, `changes` what differs from that. `steps`, `min_ready` (how many instances are ready
    at the least moment) and `took_ms` are there when it has run.
    """

    def __init__(
        self, sight: Sight, spec: ServiceSpec, view: View, *, live: ServiceSpec | None, changes: list[Change], by: str
    ) -> None:
        self.steps: list[PlannedStep] = []
        self.took_ms = 0
        self._sight, self._spec, self._view, self._live, self._changes, self._by = sight, spec, view, live, changes, by
        self._now_ms = sight.now_ms
        self._sequence = 0
        self.min_ready = self._ready()

    def run(self) -> None:
        """Play it through."""
        fact = SpecFact(spec=to_plain(self._spec), by=self._by, reason="")
        fact = following(self._view.services.get(self._spec.service), fact)
        self._say("operator/plan", f"service/{self._spec.service}/spec", to_data(fact), shared=True)
        began = self._now_ms
        for _ in range(MAX_ROUNDS):
            decided = decide(
                self._view, self._now_ms, may_accuse=False, broker=self._sight.broker, scope={self._spec.service: None}
            )
            intents = [one for one in decided.intents if one.topic.startswith(f"service/{self._spec.service}/slot/")]
            if not intents:
                wake = decided.wakes.get(self._spec.service)
                if wake is None or wake <= self._now_ms or wake - self._now_ms > self._longest_ms():
                    break
                self._now_ms = wake
                continue
            self._round(intents)
        self.took_ms = self._now_ms - began if self.steps else 0

    def _longest_ms(self) -> int:
        return round(1000 * max(1.0, *(c.update.healthy_after_s for c in self._spec.components.values()))) + 1_000

    def _round(self, intents: list[Intent]) -> None:
        before = {key: self._view.slot(key) for key in map(_key, intents)}
        told = {key: None if entry is None or entry.fact is None else entry.fact.record for key, entry in before.items()}
        down = 0
        places = Places(Fleet(self._view, self._now_ms, self._sight.broker), self._spec.service)
        for intent in intents:
            if not isinstance(intent.record, Slot):
                continue
            key, slot = _key(intent), intent.record
            old = told[key]
            action = _action(old, slot)
            if action == "replace" and self._runs_on(key):
                action = "update"
            if action is not None:
                because = self._why(key, action, slot, intent, places)
                self.steps.append(PlannedStep(instance=str(key), action=action, node=slot.node, because=because))
            in_place = old is not None and old.desired == "running" and old.node == slot.node
            down += in_place and not self._stays_up(key, action) and self._is_ready(key)
            version = intent.next_version
            self._say("controller/plan", intent.topic, intent.data, version=version)
        self.min_ready = min(self.min_ready, max(0, self._ready() - down))
        for intent in intents:
            if isinstance(intent.record, Slot):
                self._obey(_key(intent), intent.record, intent.next_version, told[_key(intent)])
        self._now_ms += 1_000

    def _why(self, key: SlotKey, action: str, slot: Slot, intent: Intent, places: Places) -> str:
        """Why a step is made, and why there."""
        component = self._spec.components.get(key.component)
        said = intent.because.partition(": ")[2] or intent.because
        if component is None or action == "remove":
            return "it is not wanted any more"
        match action:
            case "stop":
                return "it is held: it will stay stopped"
            case "new" if slot.node is not None:
                return places.why(component, slot.node)
            case "move" if slot.node is not None:
                return f"{said}; {places.why(component, slot.node)}"
            case "replace":
                return why_replaced(component, self._changes)
            case "update":
                return "it will go on as it is: nothing that it runs with changes"
            case _:
                return said

    def _stays_up(self, key: SlotKey, action: str | None) -> bool:
        """Whether an instance is served all the while: what runs goes on, or its successor starts beside it."""
        component = self._spec.components.get(key.component)
        return action == "update" or (action == "replace" and component is not None and component.overlaps)

    def _runs_on(self, key: SlotKey) -> bool:
        """Whether the new spec is taken over by what runs, without a restart."""
        old = None if self._live is None else self._live.components.get(key.component)
        new = self._spec.components.get(key.component)
        return old is not None and new is not None and run_key(old) == run_key(new)

    def _obey(self, key: SlotKey, slot: Slot, generation: int, old: Slot | None) -> None:
        """Nodes do at once what a slot fact asks for."""
        if old is not None and old.node is not None and old.node != slot.node:
            self._status(key, old.node, State.GONE, generation)
        if slot.node is None:
            return
        state = {"running": State.RUNNING, "stopped": State.STOPPED, "gone": State.GONE}[slot.desired]
        self._status(key, slot.node, state, generation)
        if state is State.RUNNING:
            health = Health(
                health="ready", generation=generation, check="plan", evidence="", failures=0, since_ms=self._now_ms
            )
            self._say(key.agent(slot.node), key.on("health", slot.node), to_data(health))

    def _status(self, key: SlotKey, node: str, state: State, generation: int) -> None:
        layers = ((Layer.APPLICATION, key.agent(node), state),)
        if state is State.GONE:
            layers = (*layers, (Layer.CONTAINER, f"node/{node}", state))  # type: ignore[assignment]
        for layer, source, said in layers:
            record = StatusRecord(
                state=said,
                layer=layer,
                node=node,
                generation=generation,
                attempt=1,
                since_ms=self._now_ms,
                emit_rate_s=30.0,
            )
            self._say(source, key.status_topic(node, layer), to_data(record))

    def _say(
        self, source: str, topic: str, data: dict[str, Any], *, version: int | None = None, shared: bool = False
    ) -> None:
        """Fold a fact that nobody has signed into the copy."""
        self._sequence += 1
        match = lookup(topic)
        before = self._view.winner(topic)
        if shared:
            version = 1 + (0 if before is None else before.event.version or 0)
        event = Event(
            source=source,
            incarnation=_INCARNATION,
            sequence=self._sequence,
            chain=ChainLink(1, NO_LEAF),
            type="" if match is None else match.row.event_type,
            topic=topic,
            subject=topic,
            time=hlc(self._now_ms, self._sequence % 65_536),
            data=data,
            epoch=None if version is None else self._view.epoch(topic),
            version=version,
            replaces=before.id if version is not None and before is not None else None,
        )
        leaf = sha256(f"{self._spec.service} {self._sequence}".encode()).digest()
        self._view.apply(SignedEvent(event, b"", leaf, b""))

    def _ready(self) -> int:
        entry = self._view.services.get(self._spec.service)
        if entry is None:
            return 0
        return sum(self._is_ready(SlotKey(entry.name, component, index)) for component, index in entry.slots)

    def _is_ready(self, key: SlotKey) -> bool:
        slot = self._view.slot(key)
        if slot is None:
            return False
        for instance in slot.instances.values():
            said = instance.application
            if said is not None and said.record.state is State.RUNNING:
                return instance.health is None or instance.health.record.health != "unready"
        return False

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
        """The slots that the play has left without a node."""
        entry = self._view.services.get(self._spec.service)
        slots = {} if entry is None else entry.slots
        return [
            Unplaced(instance=f"{self._spec.service}/{component}/{index}", reason=slot.fact.record.reason)
            for (component, index), slot in sorted(slots.items())
            if slot.fact is not None and slot.fact.record.node is None and slot.fact.record.desired != "gone"
        ]


def _key(intent: Intent) -> SlotKey:
    _, service, _, component, index = intent.topic.split("/")
    return SlotKey(service, component, int(index))


def _action(old: Slot | None, new: Slot) -> str | None:
    """What a slot fact does; None when it only says that there is no place."""
    if new.desired == "gone":
        return "remove"
    if old is None or old.desired == "gone" or old.node is None:
        return "new" if new.node is not None else None
    if new.desired == "stopped":
        return "stop"
    if new.node != old.node:
        return "move"
    return "replace" if new.spec != old.spec else "restart"
