"""Held here: a stop by hand on the node itself (`dsmt stop --local`), as it stands in its file (rule A24).

Rule 1: what cannot be read holds, too: somebody has stopped it, and nothing starts what was stopped by hand in silence.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.errors import UNDECODABLE
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import HeldHere
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.reason import Reason, reason

DAMAGED: Final = HeldHere(id="damaged", by="somebody", at_ms=0, reason="its file is damaged")


def dump_held(held: HeldHere) -> bytes:
    """A stop as JSON, which a person can read."""
    return msgspec.json.encode(held)


def load_held(raw: bytes | None) -> HeldHere | None:
    """Read a stop; None where there is none (rule 1)."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=HeldHere)
    except UNDECODABLE:
        return DAMAGED


def is_lifted(held: HeldHere, will: SlotControl | None) -> bool:
    """Whether an operator's word ends a stop."""
    return will is not None and will.lifts == held.id


def why_held(held: HeldHere, *, target: str, node: str) -> Reason:
    """The reason of what was stopped so."""
    time, their = rfc3339(held.at_ms), held.reason or "no reason given"
    return reason("hold.local", node=node, by=held.by, time=time, their=their, target=target)
