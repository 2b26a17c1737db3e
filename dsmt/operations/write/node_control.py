"""Node control: drain, exclude, include: an operator's will for a node, as a fact."""

from __future__ import annotations

from typing import Literal

import msgspec

from dsmt.controllers.pinning import home_of
from dsmt.event.records import NodeControl
from dsmt.operations.read.instances import component_of
from dsmt.operations.read.members import NodeShown, find, node_shown
from dsmt.operations.read.sight import Sight, look
from dsmt.operations.read.waiting import until
from dsmt.operations.write.writing import follow, say
from dsmt.ports.bus import Bus

Mode = Literal["active", "draining", "excluded"]


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to be used for now. `pinned` are the instances that stay there with their data."""

    node: str
    mode: str
    changed: bool
    instances: int
    pinned: list[str] = []


async def set_mode(bus: Bus, name: str, mode: Mode, *, by: str, reason: str) -> Controlled:
    """Say how a node is to be used. Raises `NotFoundError`."""
    sight = await look(bus)
    entry = find(sight, name)
    count = len(sight.view.rooms.room(name).slots)
    if entry.mode == mode:
        return Controlled(node=name, mode=mode, changed=False, instances=count, pinned=pinned_on(sight, name))
    record = NodeControl(mode=mode, by=by, reason=reason)
    await say(bus, [follow(sight.view, f"node/{name}/control", record, subject=f"node/{name}")])
    return Controlled(node=name, mode=mode, changed=True, instances=count, pinned=pinned_on(sight, name))


async def drained(bus: Bus, name: str, *, limit_s: float | None) -> Controlled:
    """Wait until nothing is left on a node that is drained but what stays with its data. Raises `TimedOutError`."""

    def seen(sight: Sight) -> tuple[NodeShown, list[str]] | None:
        shown, held = node_shown(sight, name), pinned_on(sight, name)
        only_held = bool(held) and len(held) == len(sight.view.rooms.room(name).slots)
        return (shown, held) if shown.mode == "drained" or only_held else None

    shown, held = await until(bus, seen, limit_s=limit_s, what=f"{name} to be drained")
    return Controlled(node=name, mode=shown.mode, changed=True, instances=shown.instances, pinned=held)


def pinned_on(sight: Sight, name: str) -> list[str]:
    """The instances on a node that no drain moves: their data is there."""
    found = []
    for key in sorted(sight.view.rooms.room(name).slots):
        spec, slot = component_of(sight, key), sight.view.slot(key)
        if spec is not None and slot is not None and not spec.each_node and home_of(spec, slot) is not None:
            found.append(str(key))
    return found
