"""Dirty: what changed in the view since it was last asked, so that a decision looks only where it could differ."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsmt.event.slots import SlotKey


@dataclass(slots=True)
class Dirty:
    """What changed: single slots, whole services, nodes (in what placement or liveness reads), or the realm."""

    slots: set[SlotKey] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    realm: bool = False

    def __bool__(self) -> bool:
        return bool(self.realm or self.slots or self.services or self.nodes)
