"""Revising: `scale`, and other nodes: a new revision in which one thing of one component is another (A7)."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.errors import InputError, RefusedError
from dsmt.event.kinds.service import SpecFact
from dsmt.operations.read.realm.sight import Sight, look_at
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target
from dsmt.operations.write.applying import changed, current, said_now, say_spec, unchanged
from dsmt.operations.write.nodesets import check_known, nowhere, staying, unknown_names
from dsmt.ports.bus import Bus, BusReader
from dsmt.spec import nodeset
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.spec.supported import unsupported

MANY_TIMES: Final = 10
MANY: Final = 100
"""A component that is to have so many times as many instances, and so many more, was likely not meant."""


async def scale(bus: Bus, target: Target, count: int, *, by: str, reason: str) -> Applied:
    """Change how many instances a component has: a new revision. Raises `NotFoundError`, `RefusedError`, `InputError`."""
    sight = await look_at(bus, target.service)
    spec, component, _ = _counted(sight, target)
    after = changed(spec, component, instances=count)
    return await _respec(bus, sight, spec, after, fact_reason=reason, by=by)


async def slip(bus: BusReader, target: Target, count: int) -> str:
    """What is said of a count that is likely a slip (`MANY_TIMES`); empty for any other. Raises as `scale` does."""
    _, component, now = _counted(await look_at(bus, target.service), target)
    if count <= MANY_TIMES * now or count - now < MANY:
        return ""
    return f"from {now} to {count} instances of {target.service}/{component} is more than {MANY_TIMES} times as many"


def _counted(sight: Sight, target: Target) -> tuple[ServiceSpec, str, int]:
    """The spec of which a component is scaled, which one, and how many it has now. Raises as `scale` does."""
    spec, _ = current(sight, target.service)
    component = _component(target, spec)
    if component not in spec.components:
        return spec, component, 0
    if spec.components[component].each_node:
        said = f"{target.service}/{component} has one instance on each node"
        raise RefusedError("scale.each_node", said, next="change `instances` in its file")
    return spec, component, spec.components[component].instances or 0


async def use_nodes(bus: Bus, target: Target, nodes: str, *, by: str, reason: str) -> Applied:
    """Have a component on another node set: a new revision. Raises `NodeSetError`, `InputError`.

    Raises `NotFoundError` also for a name that is neither a node nor a set: who types one has mistyped it.
    """
    sight = await look_at(bus, target.service)
    spec, _ = current(sight, target.service)
    check_known(sight, nodeset.parse(nodes))
    component = _component(target, spec)
    after = changed(spec, component, nodes=nodes)
    done = await _respec(bus, sight, spec, after, fact_reason=reason, by=by)
    warnings = [*done.warnings, *nowhere(sight, component, after.components[component])]
    return msgspec.structs.replace(done, warnings=warnings)


async def _respec(bus: Bus, sight: Sight, before: ServiceSpec, after: ServiceSpec, *, fact_reason: str, by: str) -> Applied:
    held = sight.view.services[after.service].spec
    revision = 0 if held is None else held.version
    if after == before:
        return unchanged(sight, after.service, revision)
    stood = set(unsupported(before))
    refused = [str(one) for one in unsupported(after) if one not in stood]  # what is applied already is not asked about
    if refused:
        raise InputError("spec.unsupported", "; ".join(refused), next="dsmt explain KEY")
    fact = SpecFact(spec=to_plain(after), by=by, reason=fact_reason)
    revision = await say_spec(bus, sight, fact, after.service)
    warnings = [said for _, said in (*unknown_names(sight, after), *staying(sight, after))]
    said = said_now(after, revision, sight.view.epoch(f"service/{after.service}/spec"))
    return msgspec.structs.replace(said, warnings=warnings)


def _component(target: Target, spec: ServiceSpec) -> str:
    """The component that a target names, or the only one of its service. Raises `InputError`."""
    if target.component is None and len(spec.components) == 1:
        return next(iter(spec.components))
    if target.component is None or target.index is not None:
        named = [target.component] if target.component else sorted(spec.components)
        forms = " or ".join(f"{target.service}/{one}" for one in named)
        raise InputError("target.form", f"{target} is not a component", next=f"write SERVICE/COMPONENT: {forms}")
    return target.component
