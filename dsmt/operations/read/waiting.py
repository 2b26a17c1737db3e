"""Waiting: watch the view until instances are as wanted. A wait that ends changes nothing: what was asked for goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, TypeVar

import msgspec

from dsmt.errors import InputError, TimedOutError, TransportError
from dsmt.event.status import Shown
from dsmt.operations.read.instances import Row, instances, is_ready
from dsmt.operations.read.revisions import refused
from dsmt.operations.read.sight import Sight, watch
from dsmt.operations.words.targets import Target, slots_of
from dsmt.operations.write.applying import Applied
from dsmt.ports.bus import Bus

Result = TypeVar("Result")
READY: Final = "ready"
UNREADY: Final = "unready"
STATES: Final = (READY, UNREADY, *(state.value for state in Shown))


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """What a wait has seen at its end."""

    target: str
    wanted: str
    reached: bool
    instances: list[Row]


async def until(bus: Bus, seen: Callable[[Sight], Result | None], *, limit_s: float | None, what: str) -> Result:
    """What `seen` says of the view, as soon as it says anything. Raises `TimedOutError`."""
    try:
        async with asyncio.timeout(limit_s), aclosing(watch(bus)) as sights:
            async for sight in sights:
                found = seen(sight)
                if found is not None:
                    return found
    except TimeoutError as error:
        raise TimedOutError(
            "wait.timeout",
            f"waited {limit_s:g} s for {what}, and it is not so yet; what was asked for goes on",
            next="dsmt status shows how far it is",
        ) from error
    raise TransportError("wait.ended", f"the view ended while waiting for {what}", next="try again")


async def wait_for(bus: Bus, target: Target, state: str, *, limit_s: float | None) -> Waited:
    """Wait until every instance of a target is in a state. Raises `InputError`, `NotFoundError`, `TimedOutError`."""
    if state not in STATES:
        raise InputError("wait.state", f"there is no state {state}", next=f"one of {', '.join(STATES)}")

    def seen(sight: Sight) -> Waited | None:
        if state == Shown.GONE:
            entry = sight.view.services.get(target.service)
            if entry is None or not entry.slots:
                return Waited(target=str(target), wanted=state, reached=True, instances=[])
        slots_of(sight.view, target, gone=state == Shown.GONE)
        rows = instances(sight, target, everything=state == Shown.GONE)
        if (rows or state == Shown.GONE) and all(_is(sight, row, state) for row in rows):
            return Waited(target=str(target), wanted=state, reached=True, instances=rows)
        return None

    return await until(bus, seen, limit_s=limit_s, what=f"{target} to be {state}")


def _is(sight: Sight, row: Row, state: str) -> bool:
    if state == READY:
        return is_ready(sight, row)
    if state == UNREADY:
        return row.state is Shown.RUNNING and not is_ready(sight, row)
    return row.state == state


async def settled(bus: Bus, applied: Applied, *, limit_s: float | None) -> Applied:
    """Wait until an applied revision is ready everywhere, was rolled back, or is parked. Raises `TimedOutError`."""

    def seen(sight: Sight) -> Applied | None:
        rows = instances(sight, Target(applied.service))
        entry = sight.view.services[applied.service]
        if entry.spec is not None and entry.spec.version > applied.revision:
            return msgspec.structs.replace(applied, outcome="superseded")
        free = [row for row in rows if row.held is None]
        standing = [row for row in free if row.revision == applied.revision]
        current = [row for row in standing if not _behind(sight, row)]  # what still runs of an older one is not it
        ready = sum(is_ready(sight, row) for row in current)
        wanted = len(free)
        told = msgspec.structs.replace(applied, ready=ready, wanted=wanted)
        if refused(entry) is not None:
            return msgspec.structs.replace(told, outcome="rolled_back", ready=sum(is_ready(sight, row) for row in free))
        if len(current) == wanted and ready == wanted and _all_there(sight, applied):
            return msgspec.structs.replace(told, outcome="ready")
        if any(row.state is Shown.PARKED for row in current):
            return msgspec.structs.replace(told, outcome="parked")
        return None

    return await until(bus, seen, limit_s=limit_s, what=f"{applied.service} r{applied.revision} to be ready")


def _all_there(sight: Sight, applied: Applied) -> bool:
    """Whether what the spec does not want any more is gone, and each slot of it has been decided."""
    entry = sight.view.services[applied.service]
    parsed = entry.parsed
    if parsed is None:
        return False
    for (name, index), slot in entry.slots.items():
        component = parsed.components.get(name)
        unwanted = component is None or (component.instances is not None and index >= component.instances)
        if unwanted and slot.fact is not None and slot.fact.record.desired != "gone":
            return False
    each = [name for name, component in parsed.components.items() if component.each_node]
    return all(any(slot.fact is not None for (c, _), slot in entry.slots.items() if c == name) for name in each)


async def restarted(bus: Bus, target: Target, *, limit_s: float | None) -> Waited:
    """Wait until every restart that was asked for is done and ready. Raises `TimedOutError`."""

    def seen(sight: Sight) -> Waited | None:
        rows = instances(sight, target)
        for row in rows:
            entry = sight.view.slot(row.key)
            asked = 0 if entry is None or entry.control is None else entry.control.record.restart
            done = 0 if entry is None or entry.fact is None else entry.fact.record.restart
            if done < asked or not is_ready(sight, row) or _behind(sight, row):
                return None
        return Waited(target=str(target), wanted=READY, reached=True, instances=rows)

    return await until(bus, seen, limit_s=limit_s, what=f"{target} to be restarted and ready")


async def moved(bus: Bus, target: Target, *, limit_s: float | None) -> Waited:
    """Wait until every move that was asked for is done and ready. Raises `TimedOutError`."""

    def seen(sight: Sight) -> Waited | None:
        rows = instances(sight, target)
        for row in rows:
            entry = sight.view.slot(row.key)
            asked = None if entry is None else entry.move_asked
            if asked is not None or not is_ready(sight, row) or _behind(sight, row):
                return None
        return Waited(target=str(target), wanted=READY, reached=True, instances=rows)

    return await until(bus, seen, limit_s=limit_s, what=f"{target} to be moved and ready")


def _behind(sight: Sight, row: Row) -> bool:
    """Whether the instance that runs is of an older generation than its slot."""
    entry = sight.view.slot(row.key)
    instance = None if entry is None or row.node is None else entry.instances.get(row.node)
    said = None if instance is None else instance.application
    return said is None or said.record.generation < row.generation


async def ended(bus: Bus, service: str, *, limit_s: float | None) -> Waited:
    """Wait until nothing of a service is left. Raises `TimedOutError`."""

    def seen(sight: Sight) -> Waited | None:
        entry = sight.view.services.get(service)
        left = [] if entry is None else [node for slot in entry.slots.values() for node in slot.holders]
        living = [node for node in left if sight.fleet.state(node) not in ("dead", "left")]
        if entry is None or (entry.spec is None and not living):
            return Waited(target=service, wanted=Shown.GONE.value, reached=True, instances=[])
        return None

    return await until(bus, seen, limit_s=limit_s, what=f"{service} to be gone")
