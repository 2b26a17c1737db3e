"""Node control: drain, exclude, include: an operator's will for a node, as a fact."""

from __future__ import annotations

from typing import Literal

import msgspec

from dsmt.event.records import NodeControl
from dsmt.operations.members import NodeShown, find, node_shown
from dsmt.operations.sight import Sight, look
from dsmt.operations.waiting import until
from dsmt.operations.writing import follow, say
from dsmt.ports.bus import Bus

Mode = Literal["active", "draining", "excluded"]


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to be used for now."""

    node: str
    mode: str
    changed: bool
    instances: int


async def set_mode(bus: Bus, name: str, mode: Mode, *, by: str, reason: str) -> Controlled:
    """Say how a node is to be used. Raises `NotFoundError`."""
    sight = await look(bus)
    entry = find(sight, name)
    count = len(sight.view.rooms.room(name).slots)
    if entry.mode == mode:
        return Controlled(node=name, mode=mode, changed=False, instances=count)
    record = NodeControl(mode=mode, by=by, reason=reason)
    await say(bus, [follow(sight.view, f"node/{name}/control", record, subject=f"node/{name}")])
    return Controlled(node=name, mode=mode, changed=True, instances=count)


async def drained(bus: Bus, name: str, *, limit_s: float | None) -> Controlled:
    """Wait until nothing is left on a node that is drained. Raises `TimedOutError`."""

    def seen(sight: Sight) -> NodeShown | None:
        shown = node_shown(sight, name)
        return shown if shown.mode == "drained" else None

    shown = await until(bus, seen, limit_s=limit_s, what=f"{name} is drained")
    return Controlled(node=name, mode=shown.mode, changed=True, instances=shown.instances)
