"""Reconcile: what a node owes a slot, and whether its manager makes a container for it (rules A1, A5, A8, A15).

Rule 1: only a signed fact starts, stops or moves anything; absence keeps what is (A5).
Rule 2: the greatest fact in fact order is obeyed; the caller brings it (`dsmt.event.order.newer`).
Rule 3: who is named nowhere leaves; the `previous` keeps its copy until the new one is ready, or the deadline (A8).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.slot import Slot

OFFLINE_START_AFTER_S: Final = 30.0
"""After a reboot with no broker: start from the kept facts after so long (A15)."""
OFFLINE_AGAIN_AFTER_S: Final = 2.0
"""Within one boot, with no broker, where nothing runs that an earlier agent had to do with: after so long (A15)."""


class Duty(StrEnum):
    """What a node owes a slot."""

    RUN = "run"
    STOP = "stop"
    """Stay, with nothing running."""
    KEEP = "keep"
    """Go on with what is there: as `previous`, or because no fact says anything."""
    LEAVE = "leave"
    """Stop, uninstall, be gone."""


class Owed(msgspec.Struct, frozen=True):
    """A duty, and until when (realm ms) if it ends by itself."""

    duty: Duty
    until_ms: int | None = None


def owed(node: str, slot: Slot | None, *, now_ms: int, successor_ready: bool) -> Owed:
    """What `node` owes a slot by its greatest fact; None is no fact at all (rule 1)."""
    if slot is None:
        return Owed(Duty.KEEP)
    if slot.desired == "gone":
        return Owed(Duty.LEAVE)
    if slot.node == node:
        return Owed(Duty.RUN if slot.desired == "running" else Duty.STOP)
    before = slot.previous
    if before is None or before.node != node or slot.desired != "running":
        return Owed(Duty.LEAVE)
    if successor_ready or now_ms >= before.deadline_ms:
        return Owed(Duty.LEAVE)
    return Owed(Duty.KEEP, before.deadline_ms)


def is_successor_ready(slot: Slot, generation: int, healths: Mapping[str, Health]) -> bool:
    """Whether the node that a slot's generation names has said that its copy is ready. `healths` is by node."""
    health = healths.get(slot.node or "")
    return health is not None and health.generation >= generation and health.health != "unready"


def is_to_be_made(node: str, slot: Slot | None, *, data_key: str) -> bool:
    """Whether a node's manager makes a container, which it has not, for a slot by its greatest fact.

    `data_key` is that of the node's data: a slot that is pinned to another machine of this name starts nothing here.
    """
    if slot is None or slot.wanted_on != node:
        return False
    home = slot.home
    return home is None or not home.key or home.key == data_key
