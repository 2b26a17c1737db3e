"""Applying: what service files declare is planned, compared, and said as spec facts.

Rule 1: nothing is said before all of it is checked, and all that it names is in the depot.
Rule 2: a spec that says what stands already makes no new revision, unless that was refused, or a slot has another one of
    its number, or a later one: it was overruled, or is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from dsmt.controllers.left_data import left_by
from dsmt.errors import NotFoundError, UnusableEventError
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import from_data
from dsmt.operations.read.ahead.planning import (
    ApplyPlan,
    Difference,
    base_of,
    check_plan,
    difference,
    implemented,
    left_data,
    plan,
    plan_id,
)
from dsmt.operations.read.ahead.whatif import WhatIf, what_if
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.instances import instances, is_ready
from dsmt.operations.read.rows.revisions import following, overtaken, refused
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target, no_service
from dsmt.operations.write.brokers import announced
from dsmt.operations.write.declaring import Declared, stage
from dsmt.operations.write.nodesets import nodes_of, staying, unknown_names, unlabelled
from dsmt.operations.write.writing import anew, bury, follow, say
from dsmt.ports.bus import Bus, BusReader, Draft
from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.view import View

SAID_AT_ONCE: Final = 256
"""Specs that are said before the answers to them are awaited."""


def _services(declared: Iterable[Declared]) -> list[str]:
    return [one.spec.service for one in declared]


async def plan_all(bus: BusReader, declared: list[Declared], *, by: str) -> list[ApplyPlan]:
    """The plan of each service."""
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus)
    return await _plans(bus, sight, declared, specs, by=by, trial=sight.view.copy())


async def _plans(
    bus: BusReader, sight: Sight, declared: list[Declared], specs: list[ServiceSpec], *, by: str, trial: View
) -> list[ApplyPlan]:
    """The plans of services, made one after the other on one copy of the view."""
    earlier = await _earlier(bus, sight, specs)
    return [
        plan(sight, spec, by=by, warnings=_warnings(sight, one), trial=trial, earlier=earlier)
        for spec, one in zip(specs, declared, strict=True)
    ]


async def _earlier(bus: BusReader, sight: Sight, specs: list[ServiceSpec]) -> dict[str, ServiceSpec]:
    """What slots implement that does not stand, by its event's id, as far as the history has it and it can be read."""
    ids, found = implemented(sight, [one.service for one in specs]), dict[str, ServiceSpec]()
    if ids:
        async with patience("what runs"):
            events = await bus.fetch(ids)
        for one in events:
            with suppress(UnusableEventError):
                found[str(one.id)] = from_plain(from_data(SpecFact, one.event.data).spec)
    return found


async def foresee(bus: BusReader, declared: list[Declared], *, kill: Sequence[str], drain: Sequence[str], by: str) -> WhatIf:
    """What would become of the realm if services were applied, nodes died, and others were drained, all at once.

    `kill` and `drain` are nodes, named sets or expressions. Raises `NotFoundError`, `NodeSetError`, `InputError`.
    """
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus)
    trial = sight.view.copy()
    plans = await _plans(bus, sight, declared, specs, by=by, trial=trial)
    return what_if(sight, plans, trial, kill=nodes_of(sight, kill), drain=nodes_of(sight, drain), by=by)


def _warnings(sight: Sight, declared: Declared) -> list[str]:
    """What may not be meant: in the file, and as the realm is now."""
    of_nodes = (*unknown_names(sight, declared.spec), *staying(sight, declared.spec))
    named = ((("nodes",), component, said) for component, said in of_nodes)
    told = list(declared.warnings)
    for path, component, said in (*named, *unlabelled(sight, declared.spec)):
        line, _ = declared.places.of(("components", component, *path))
        told.append(f"{declared.file}:{line}: {said}" if declared.file else said)
    return told


def _before(sight: Sight, declared: Declared, spec: ServiceSpec) -> list[str]:
    """The same, and what is so of a service that was removed before."""
    return [*_warnings(sight, declared), *left_data(sight, spec)]


async def diff_all(bus: BusReader, declared: list[Declared]) -> list[Difference]:
    """What differs between each service and what is applied."""
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus, of=_services(declared))
    return [difference(sight, spec) for spec in specs]


async def apply(bus: Bus, declared: list[Declared], *, by: str, reason: str, plans: tuple[str, ...] = ()) -> list[Applied]:
    """Say every spec, durably acknowledged; with `plans`, exactly those. Raises `RefusedError` (`plan.changed`)."""
    sight = await look(bus, of=_services(declared))
    dry = [await stage(one, None) for one in declared]
    _check_plans(sight.view, dry, plans)
    staged = [await stage(one, bus) for one in declared]
    _check_plans(sight.view, staged, plans)  # a file may be another by now
    done, drafts = [], []
    for one, spec in zip(declared, staged, strict=True):
        said, own_drafts = _to_say(sight, spec, by=by, reason=reason, planned=bool(plans))
        done.append(_warned(said, _before(sight, one, spec)))
        drafts += own_drafts
    copies = [(await say(bus, drafts[n : n + SAID_AT_ONCE])).copies for n in range(0, len(drafts), SAID_AT_ONCE)]
    alone = await _alone(bus) if min(copies, default=2) == 1 else []
    return [one if one.outcome == "unchanged" else _warned(one, alone) for one in done]


def _check_plans(view: View, specs: Iterable[ServiceSpec], plans: Sequence[str]) -> None:
    for spec in specs if plans else ():
        own = plan_id(view, spec)
        check_plan(view, spec, own if own in plans else plans[0])


def _warned(applied: Applied, more: list[str]) -> Applied:
    return msgspec.structs.replace(applied, warnings=[*applied.warnings, *more])


async def _alone(bus: Bus) -> list[str]:
    """A warning, where the one broker that has stored what was said is not the only one of the realm."""
    every = len(await announced(bus))
    if every < 2:
        return []
    said = f"only {bus.broker} of {every} brokers has stored it so far; until others read it, it is lost with its disk"
    return [f"{said}; next: dsmt brokers"]


def _to_say(sight: Sight, spec: ServiceSpec, *, by: str, reason: str, planned: bool) -> tuple[Applied, list[Draft]]:
    """What is to be told of a spec that is applied, and what says it; nothing where it stands already."""
    base = base_of(sight.view, spec.service)
    identity = plan_id(sight.view, spec) if planned else None
    entry = sight.view.services.get(spec.service)
    fact = SpecFact(spec=to_plain(spec), by=by, reason=reason)
    if entry is not None and entry.spec is not None and not entry.spec.record.removed:
        before = entry.spec.record
        if before.spec == fact.spec and refused(entry) is None and not overtaken(entry):  # else it is tried again
            return unchanged(sight, spec.service, base, plan=identity), []
    revision, drafts = _drafts_of(sight, fact, spec.service)
    return said_now(spec, revision, drafts[-1].epoch or 0, plan=identity), drafts


def said_now(spec: ServiceSpec, revision: int, epoch: int, *, plan: str | None = None) -> Applied:
    """What to say of a spec that was applied just now: nothing of it is ready yet."""
    wanted = sum(component.instances or 0 for component in spec.components.values())
    return Applied(
        service=spec.service, revision=revision, epoch=epoch, plan=plan, outcome="applied", ready=0, wanted=wanted
    )


def unchanged(sight: Sight, service: str, revision: int, *, plan: str | None = None) -> Applied:
    """What to say of a service that was left unchanged: how many of its instances are ready."""
    free = [row for row in instances(sight, Target(service)) if row.held is None]
    ready = sum(is_ready(sight, row) for row in free)
    epoch = sight.view.epoch(f"service/{service}/spec")
    said = Applied(
        service=service, revision=revision, epoch=epoch, plan=plan, outcome="unchanged", ready=ready, wanted=len(free)
    )
    return _warned(said, sight.unheard)


async def say_spec(bus: Bus, sight: Sight, fact: SpecFact, service: str) -> int:
    """Say a spec after the one that stands; its revision. Raises `FailedError` when another was first."""
    revision, drafts = _drafts_of(sight, fact, service)
    await say(bus, drafts)
    return revision


def _drafts_of(sight: Sight, fact: SpecFact, service: str) -> tuple[int, list[Draft]]:
    """What says a spec after the one that stands, and its revision.

    A service that was removed is made anew, in the next epoch: what is left of the removal must not end it (rule A6).
    It comes after what slots implement, too: that may have been said by a key that was revoked since (J3).
    Raises `BadSpecEventError` for one that nobody could read: its service would be none any more.
    """
    from_plain(fact.spec)
    topic = f"service/{service}/spec"
    entry = sight.view.services.get(service)
    before = None if entry is None else entry.spec
    if before is not None and before.record.removed and not fact.removed:
        data = left_by(sight.fleet, service)
        grave = bury(sight.view, f"service/{service}", by=before.record.by, reason=before.record.reason, data=data)
        return 1, [grave, anew(sight.view, topic, fact, subject=service)]
    placed = () if entry is None else (fact.revision for fact in entry.records)
    draft = follow(sight.view, topic, following(entry, fact), subject=service, above=max(placed, default=0))
    return draft.version or 1, [draft]


def current(sight: Sight, service: str) -> tuple[ServiceSpec, SpecFact]:
    """A service's spec as it stands. Raises `NotFoundError`."""
    entry = sight.view.services.get(service)
    if entry is None or entry.spec is None or entry.parsed is None or entry.spec.record.removed:
        raise no_service(sight.view, service)
    return entry.parsed, entry.spec.record


def changed(spec: ServiceSpec, component: str, **about: object) -> ServiceSpec:
    """A spec with one component changed. Raises `NotFoundError`."""
    known = spec.components.get(component)
    if known is None:
        named = ", ".join(sorted(spec.components))
        raise NotFoundError("component.unknown", f"{spec.service} has no component {component}", next=f"it has {named}")
    one: ComponentSpec = msgspec.structs.replace(known, **about)
    return msgspec.structs.replace(spec, components={**spec.components, component: one})
