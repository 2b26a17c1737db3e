"""Planning: what `apply` would do, by the very decisions that controllers make, on a copy of the live view.

Rule 1: a plan's id binds the service, the revision that it starts from and the content of the new spec; `apply --plan`
    applies that spec over that revision or refuses. Which nodes take it is decided then: they may differ from the plan's.
Rule 2: steps are found by deciding again and again, each decision being obeyed at once by nodes that do all well:
    a slot fact is followed by a status `running` and a health `ready`, and the time passes that the spec asks for.
Rule 3: nothing of it leaves this process.
Rule 4: the services of one command are planned one after the other on one copy: each finds what those before have taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec

from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Intent
from dsmt.controllers.placement import Chooser
from dsmt.errors import FailedError
from dsmt.event.envelope import NO_LEAF, Event, Link, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.instance import Status as StatusRecord
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.payload import canonical
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.event.status import Layer, State
from dsmt.operations.read.plan_words import Places, masked, promises, why_replaced
from dsmt.operations.read.revisions import following, refused, running
from dsmt.operations.read.sight import Sight
from dsmt.spec.changes import Change, changes, run_key
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.view import Fleet, SlotKey, View

MAX_ROUNDS: Final = 2_000
_INCARNATION: Final = 2**52


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is done. `action`: `new`, `replace`, `update` (while it runs), `restart`, `move`, `stop`, `remove`."""

    instance: str
    action: str
    node: str | None
    because: str


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """An instance for which there is no place now, and why."""

    instance: str
    reason: Reason | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` would do. `base_revision` 0: there is no such service yet."""

    id: str
    service: str
    base_revision: int
    revision: int
    changes: list[Change]
    steps: list[Step]
    unplaced: list[Unplaced]
    min_ready: int
    estimate_s: float
    warnings: list[str]
    promises: list[str] = []


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between a file and what is applied."""

    service: str
    base_revision: int
    changes: list[Change]


def difference(sight: Sight, spec: ServiceSpec) -> Difference:
    """Compare one service with what is applied."""
    differs = changes(_live(sight.view, spec.service), spec)
    told = [masked(change) for change in differs]
    return Difference(service=spec.service, base_revision=base_of(sight.view, spec.service), changes=told)


def _live(view: View, service: str) -> ServiceSpec | None:
    entry = view.services.get(service)
    return None if entry is None or entry.spec is None or entry.spec.record.removed else entry.parsed


def base_of(view: View, service: str) -> int:
    """The revision that a change of a service would start from; 0 when there is none that stands."""
    entry = view.services.get(service)
    return 0 if entry is None or entry.spec is None else entry.spec.version


def plan_id(service: str, base_revision: int, spec: ServiceSpec) -> str:
    """Rule 1's id."""
    content = canonical([service, base_revision, to_plain(spec)])
    return f"p-{sha256(content).hexdigest()[:8]}"


def _back(view: View, service: str) -> int:
    """The revision that a change which fails goes back to, as far as is known; 0 where there is none."""
    entry = view.services.get(service)
    base = base_of(view, service)
    return base if entry is None or refused(entry) is None else min(running(entry), default=base)


def check_plan(view: View, spec: ServiceSpec, given: str) -> None:
    """Raise `FailedError` unless a plan is exactly of this spec and of what stands now."""
    base = base_of(view, spec.service)
    if given == plan_id(spec.service, base, spec):
        return
    raise FailedError(
        "plan.changed",
        f"plan {given} does not match this file and the current revision, r{base} of {spec.service}; nothing was done",
        next="dsmt plan FILE makes a new one",
    )


def plan(sight: Sight, spec: ServiceSpec, *, by: str, warnings: list[str], trial: View | None = None) -> Plan:
    """Plan one service. `trial` is a copy of the view, on which others may be planned already (rule 4)."""
    live = _live(sight.view, spec.service)
    base = base_of(sight.view, spec.service)
    differs = changes(live, spec)
    rehearsal = _Rehearsal(sight, spec, sight.view.copy() if trial is None else trial, by=by, changes=differs)
    if differs or live is None:
        rehearsal.run()
    return Plan(
        id=plan_id(spec.service, base, spec),
        service=spec.service,
        base_revision=base,
        revision=base + 1 if differs or live is None else base,
        changes=[masked(change) for change in differs],
        steps=rehearsal.steps,
        unplaced=rehearsal.unplaced(),
        min_ready=rehearsal.min_ready,
        estimate_s=round(rehearsal.took_ms / 1000, 1),
        warnings=[*warnings, *_best_effort(spec), *_data(sight, live, spec), *rehearsal.behind()],
        promises=[
            said for _, one in sorted(spec.components.items()) for said in promises(one, _back(sight.view, spec.service))
        ],
    )


def _best_effort(spec: ServiceSpec) -> list[str]:
    limits = ((name, component.limits) for name, component in sorted(spec.components.items()))
    names = [name for name, one in limits if one.enforce == "best_effort" and one.memory_bytes]
    return [f"{name}: its memory limit is enforced as well as the node can (best_effort)" for name in names]


def _data(sight: Sight, live: ServiceSpec | None, spec: ServiceSpec) -> list[str]:
    """What becomes of data: who stays with it where it should not be, and who may now lose it."""
    told = []
    for name, component in sorted(spec.components.items()):
        before = None if live is None else live.components.get(name)
        if component.data and component.on_partition != "pinned":
            told += [f"{name}: an instance that moves leaves its data behind, and starts without"]
        entry = sight.view.services.get(spec.service)
        if entry is None or before is None or component.on_partition != "pinned":
            continue
        chooser = Chooser(sight.fleet, spec.service, component)
        for (other, index), slot in sorted(entry.slots.items()):
            fact = slot.fact if other == name and not component.each_node else None
            home = None if fact is None else fact.record.home
            fault = None if home is None else chooser.stays(home.node)
            if home is not None and fault is not None:
                key = SlotKey(spec.service, name, index)
                told.append(
                    f"{key} stays on {home.node} with its data, though {fault.says}; dsmt move {key} --accept-data-loss"
                )
    return told


@dataclass(slots=True)
class _Rehearsal:
    """A copy of the view on which a change is played through (rule 2)."""

    sight: Sight
    spec: ServiceSpec
    by: str
    changes: list[Change]
    view: View = field(init=False)
    now_ms: int = field(init=False)
    steps: list[Step] = field(default_factory=list)
    min_ready: int = 0
    took_ms: int = 0
    _sequence: int = 0

    def __init__(self, sight: Sight, spec: ServiceSpec, view: View, *, by: str, changes: list[Change]) -> None:
        self.sight, self.spec, self.by, self.changes = sight, spec, by, changes
        self.view, self.now_ms = view, sight.now_ms
        self.steps, self.took_ms, self._sequence = [], 0, 0
        self.min_ready = self._ready()

    def run(self) -> None:
        """Play it through."""
        fact = SpecFact(spec=to_plain(self.spec), by=self.by, reason="")
        fact = following(self.view.services.get(self.spec.service), fact)
        self._say("operator/plan", f"service/{self.spec.service}/spec", to_data(fact), shared=True)
        began = self.now_ms
        for _ in range(MAX_ROUNDS):
            decided = decide(
                self.view, self.now_ms, may_accuse=False, broker=self.sight.broker, scope={self.spec.service: None}
            )
            intents = [one for one in decided.intents if one.topic.startswith(f"service/{self.spec.service}/slot/")]
            if not intents:
                wake = decided.wakes.get(self.spec.service)
                if wake is None or wake <= self.now_ms or wake - self.now_ms > self._longest_ms():
                    break
                self.now_ms = wake
                continue
            self._round(intents)
        self.took_ms = self.now_ms - began if self.steps else 0

    def _longest_ms(self) -> int:
        return round(1000 * max(1.0, *(c.update.healthy_after_s for c in self.spec.components.values()))) + 1_000

    def _round(self, intents: list[Intent]) -> None:
        before = {key: self.view.slot(key) for key in map(_key, intents)}
        told = {key: None if entry is None or entry.fact is None else entry.fact.record for key, entry in before.items()}
        down = 0
        places = Places(Fleet(self.view, self.now_ms, self.sight.broker), self.spec.service)
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
                self.steps.append(Step(instance=str(key), action=action, node=slot.node, because=because))
            in_place = old is not None and old.desired == "running" and old.node == slot.node
            down += in_place and not self._stays_up(key, action) and self._is_ready(key)
            version = intent.next_version
            self._say("controller/plan", intent.topic, intent.data, version=version)
        self.min_ready = min(self.min_ready, self._ready_before(down))
        for intent in intents:
            if isinstance(intent.record, Slot):
                self._obey(_key(intent), intent.record, intent.next_version, told[_key(intent)])
        self.now_ms += 1_000

    def _why(self, key: SlotKey, action: str, slot: Slot, intent: Intent, places: Places) -> str:
        """Why a step is made, and why there."""
        component = self.spec.components.get(key.component)
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
                return why_replaced(component, self.changes)
            case "update":
                return "it will go on as it is: nothing that it runs with changes"
            case _:
                return said

    def _stays_up(self, key: SlotKey, action: str | None) -> bool:
        """Whether an instance is served all the while: what runs goes on, or its successor starts beside it."""
        component = self.spec.components.get(key.component)
        return action == "update" or (action == "replace" and component is not None and component.overlaps)

    def _runs_on(self, key: SlotKey) -> bool:
        """Whether the new spec is taken over by what runs, without a restart."""
        live = _live(self.sight.view, self.spec.service)
        old = None if live is None else live.components.get(key.component)
        new = self.spec.components.get(key.component)
        return old is not None and new is not None and run_key(old) == run_key(new)

    def _ready_before(self, down: int) -> int:
        return max(0, self._ready() - down)

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
                health="ready", generation=generation, check="plan", evidence="", failures=0, since_ms=self.now_ms
            )
            source = f"agent/{slot.node}/{key}"
            self._say(source, f"service/{key.service}/health/{key.component}/{key.index}/{slot.node}", to_data(health))

    def _status(self, key: SlotKey, node: str, state: State, generation: int) -> None:
        layers = ((Layer.APPLICATION, f"agent/{node}/{key}", state),)
        if state is State.GONE:
            layers = (*layers, (Layer.CONTAINER, f"node/{node}", state))  # type: ignore[assignment]
        for layer, source, said in layers:
            record = StatusRecord(
                state=said,
                layer=layer,
                node=node,
                generation=generation,
                attempt=1,
                since_ms=self.now_ms,
                emit_rate_s=30.0,
            )
            topic = f"service/{key.service}/status/{key.component}/{key.index}/{node}/{layer}"
            self._say(source, topic, to_data(record))

    def _say(
        self, source: str, topic: str, data: dict[str, Any], *, version: int | None = None, shared: bool = False
    ) -> None:
        """Fold a fact that nobody has signed into the copy."""
        self._sequence += 1
        match = lookup(topic)
        before = self.view.winner(topic)
        if shared:
            version = 1 + (0 if before is None else before.event.version or 0)
        event = Event(
            source=source,
            incarnation=_INCARNATION,
            sequence=self._sequence,
            chain=Link(1, NO_LEAF),
            type="" if match is None else match.row.event_type,
            topic=topic,
            subject=topic,
            time=hlc(self.now_ms, self._sequence % 65_536),
            data=data,
            epoch=None if version is None else self.view.epoch(topic),
            version=version,
            replaces=before.id if version is not None and before is not None else None,
        )
        leaf = sha256(f"{self.spec.service} {self._sequence}".encode()).digest()
        self.view.apply(SignedEvent(event, b"", leaf, b""))

    def _ready(self) -> int:
        entry = self.view.services.get(self.spec.service)
        if entry is None:
            return 0
        return sum(self._is_ready(SlotKey(entry.name, component, index)) for component, index in entry.slots)

    def _is_ready(self, key: SlotKey) -> bool:
        slot = self.view.slot(key)
        if slot is None:
            return False
        for instance in slot.instances.values():
            said = instance.application
            if said is not None and said.record.state is State.RUNNING:
                return instance.health is None or instance.health.record.health != "unready"
        return False

    def behind(self) -> list[str]:
        """What is said of instances that have no turn before others have a place (D5)."""
        entry, told = self.view.services.get(self.spec.service), []
        for name, component in sorted(self.spec.components.items()):
            known = (
                () if entry is None else [at for at, slot in entry.slots.items() if at[0] == name and slot.fact is not None]
            )
            more = (component.instances or 0) - len(known)
            if entry is not None and self.steps and more > 0:
                told.append(f"{name}: {more} more instances wait for those that have no place; add nodes, or ask for fewer")
        return told

    def unplaced(self) -> list[Unplaced]:
        """The slots that the play has left without a node."""
        entry = self.view.services.get(self.spec.service)
        slots = {} if entry is None else entry.slots
        return [
            Unplaced(instance=f"{self.spec.service}/{component}/{index}", reason=slot.fact.record.reason)
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
