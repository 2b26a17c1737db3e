"""Planning: what `apply` would do, by the very decisions that controllers make, on a copy of the live view.

Rule 1: a plan's id binds the service, the event of the revision that it starts from (several may have its number, A18)
    and the content of the new spec; `apply --plan` applies that spec over that revision or refuses. Which nodes take it is
    decided then: they may differ from the plan's.
Rule 2: nothing of it leaves this process.
Rule 3: the services of one command are planned one after the other on one copy: each finds what those before have taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import msgspec

from dsmt.controllers.left_data import data_of
from dsmt.controllers.placement import Chooser
from dsmt.errors import RefusedError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.slot import DataHome
from dsmt.event.payload import canonical
from dsmt.operations.read.ahead.plan_words import masked, promises
from dsmt.operations.read.ahead.rehearsal import Rehearsal
from dsmt.operations.read.ahead.trial import PlannedStep, Unplaced
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.past import good_now
from dsmt.operations.read.rows.revisions import RefusedRevision, names_of, overtaken, refused, running, was_refused
from dsmt.spec.changes import Change, changes
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.view import SlotKey, View

NO_SPECS: Final[Mapping[str, ServiceSpec]] = MappingProxyType({})


class ApplyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` would do. `base_revision` 0: there is no such service yet."""

    id: str
    service: str
    base_revision: int
    revision: int
    changes: list[Change]
    steps: list[PlannedStep]
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
    refused: RefusedRevision | None = None
    """The revision that is compared with, where it was rolled back."""


def difference(sight: Sight, spec: ServiceSpec) -> Difference:
    """Compare one service with what is applied."""
    differs = changes(_live(sight.view, spec.service), spec)
    told = [masked(change) for change in differs]
    entry, base = sight.view.services.get(spec.service), base_of(sight.view, spec.service)
    denied = None if entry is None else refused(entry)
    return Difference(service=spec.service, base_revision=base, changes=told, refused=denied)


def _live(view: View, service: str) -> ServiceSpec | None:
    entry = view.services.get(service)
    return None if entry is None or entry.spec is None or entry.spec.record.removed else entry.parsed


def base_of(view: View, service: str) -> int:
    """The revision that a change of a service would start from; 0 when there is none that stands."""
    entry = view.services.get(service)
    return 0 if entry is None or entry.spec is None else entry.spec.version


def plan_id(view: View, spec: ServiceSpec) -> str:
    """Rule 1's id."""
    entry = view.services.get(spec.service)
    base = "" if entry is None or entry.spec is None else str(entry.spec.id)
    return f"p-{sha256(canonical([spec.service, base, to_plain(spec)])).hexdigest()[:8]}"


def _back(sight: Sight, service: str, component: str) -> int | None:
    """The revision that a change of a component which fails goes back to; None where none of it was good yet."""
    entry = sight.view.services.get(service)
    if entry is None:
        return None
    base = base_of(sight.view, service)
    stands = base if refused(entry) is None else min(running(entry), default=base)
    if not any(name == component for name, _ in entry.slots):
        return stands  # it is new in this service, which then is as it was
    good = {one.revision for one in good_now(sight, service).get(component, ())}
    return stands if stands in good else max(good, default=None)


def check_plan(view: View, spec: ServiceSpec, given: str) -> None:
    """Raise `RefusedError` unless a plan is exactly of this spec and of what stands now."""
    if given == plan_id(view, spec):
        return
    stands = f"r{base_of(view, spec.service)} of {spec.service}"
    raise RefusedError(
        "plan.changed",
        f"plan {given or repr(given)} does not match this file and the current revision, {stands}; nothing was done",
        next="dsmt plan FILE makes a new one",
    )


def implemented(sight: Sight, services: Iterable[str]) -> list[EventId]:
    """The specs that slots of some services implement, and that do not stand: what they say is in the history alone."""
    found = set[str]()
    for entry in (sight.view.services[name] for name in services if name in sight.view.services):
        stands = "" if entry.spec is None else str(entry.spec.id)
        found |= {fact.spec for fact in entry.records if fact.desired == "running"} - {stands}
    return sorted(map(EventId.parse, found))


def plan(
    sight: Sight,
    spec: ServiceSpec,
    *,
    by: str,
    warnings: list[str],
    trial: View | None = None,
    earlier: Mapping[str, ServiceSpec] = NO_SPECS,
) -> ApplyPlan:
    """Plan one service. `trial` is a copy of the view, on which others may be planned already (rule 3).

    `earlier` are specs that slots implement, by their event's id, as far as the history has them (`implemented`).
    """
    live = _live(sight.view, spec.service)
    base = base_of(sight.view, spec.service)
    differs = changes(live, spec)
    view = sight.view.copy() if trial is None else trial
    rehearsal = Rehearsal(sight, spec, view, live=live, earlier=earlier, changes=differs, by=by)
    again = [] if live is None or differs else _again(sight, spec)
    acts = bool(differs or live is None or again)
    if acts:
        rehearsal.run()
    return ApplyPlan(
        id=plan_id(sight.view, spec),
        service=spec.service,
        base_revision=base,
        revision=base + 1 if acts else base,
        changes=[masked(change) for change in differs],
        steps=rehearsal.steps,
        unplaced=rehearsal.unplaced(),
        min_ready=rehearsal.min_ready,
        estimate_s=round(rehearsal.took_ms / 1000, 1),
        warnings=[
            *warnings,
            *again,
            *_refused_still(sight, spec, differs),
            *_best_effort(spec),
            *left_data(sight, spec),
            *_data(sight, live, spec),
            *rehearsal.behind(),
        ],
        promises=[
            said
            for name, one in sorted(spec.components.items())
            for said in promises(one, base, _back(sight, spec.service, name))
        ],
    )


def _refused_still(sight: Sight, spec: ServiceSpec, differs: Sequence[Change]) -> list[str]:
    """That another number of instances alone has nothing tried that was refused, and how it is tried."""
    entry = sight.view.services.get(spec.service)
    denied = None if entry is None else refused(entry)
    if denied is None or {change.key for change in differs} != {"instances"}:
        return []
    told = "it is tried again when this is applied once more"
    return [f"only the number of instances differs, and {was_refused(denied)}: {told}"]


def _again(sight: Sight, spec: ServiceSpec) -> list[str]:
    """That what stands was refused, and would be tried again: who applies it as it stands asks for just that."""
    entry = sight.view.services[spec.service]
    denied, others = refused(entry), overtaken(entry)
    if entry.spec is None or entry.spec.record.spec != to_plain(spec):
        return []
    if denied is None and others:
        return [f"nothing differs, but {names_of(others, None)} runs, which stands no more, and would be replaced"]
    if denied is None:
        return []
    why = "" if denied.reason is None else f": {denied.reason.message}"
    return [f"nothing differs, but {was_refused(denied)}, and would be tried again{why}"]


def _best_effort(spec: ServiceSpec) -> list[str]:
    limits = ((name, component.limits) for name, component in sorted(spec.components.items()))
    names = [name for name, one in limits if one.enforce == "best_effort" and one.memory_bytes]
    told = "bounds the address space of each process, not what it uses: what reserves much, as Go and Java do, may not start"
    return [f"{name}: limits.memory {told} (best_effort)" for name in names]


def left_data(sight: Sight, spec: ServiceSpec) -> list[str]:
    """Of a service that was removed before: which instances come back to their data, and which do not use it."""
    told = []
    for (name, index), home in sorted(data_of(sight.fleet, spec.service).items()):
        component = spec.components.get(name)
        if component is not None and (component.each_node or index < (component.instances or 0)):
            told.append(_left(sight, SlotKey(spec.service, name, index), component, home))
    return [one for one in told if one]


def _left(sight: Sight, key: SlotKey, component: ComponentSpec, home: DataHome) -> str:
    """What becomes of the data of one slot; empty where that is as always."""
    entry = sight.view.services.get(key.service)
    stands = entry is not None and entry.spec is not None and not entry.spec.record.removed
    if stands:
        fact = sight.view.slot(key).fact
        if component.on_partition != "pinned" or fact is None or fact.record.home is not None:
            return ""
        back = f"dsmt move {key} --to {home.node} --accept-data-loss goes back to it"
        elsewhere = fact.record.node not in (None, home.node)
        return f"{key} begins on {fact.record.node} with no data: what it had is on {home.node}; {back}" if elsewhere else ""
    if component.on_partition != "pinned":
        unused = f"{key} keeps no data now: what it had before {key.service} was removed stays on {home.node}, unused"
        return "" if component.data else unused
    state = sight.fleet.state(home.node)
    waits = f", which is {state}: until it is alive, or dsmt move {key} --accept-data-loss, it waits"
    told = f"{key} keeps the data that it had before {key.service} was removed, on {home.node}"
    return told if state == "alive" or component.each_node else told + waits


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
            fault = None if home is None else chooser.misfit_to_stay(home.node)
            if home is not None and fault is not None:
                key = SlotKey(spec.service, name, index)
                told.append(
                    f"{key} stays on {home.node} with its data, though {fault.says}; dsmt move {key} --accept-data-loss"
                )
    return told
