"""Revisions: which of a service's revisions runs, and whether the one that stands was refused (rule A10)."""

from __future__ import annotations

import msgspec

from dsmt.event.reason import Reason
from dsmt.view import ServiceEntry


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The revision that stands was tried and rolled back."""

    revision: int
    reason: Reason | None


def running(entry: ServiceEntry) -> list[int]:
    """The revisions that slots implement, the newest first."""
    facts = (slot.fact for slot in entry.slots.values())
    found = {fact.record.revision for fact in facts if fact is not None and fact.record.desired != "gone"}
    return sorted(found, reverse=True)


def refused(entry: ServiceEntry) -> Refused | None:
    """The revision that stands, if it was rolled back, and why."""
    refusal = entry.refusal()
    if entry.spec is None or refusal is None:
        return None
    return Refused(revision=entry.spec.version, reason=refusal.record.reason)


def in_words(revisions: list[int], denied: Refused | None, standing: int) -> str:
    """`r3`; `r3, r2` while one follows the other; `r1, r2 refused`."""
    told = ", ".join(f"r{one}" for one in revisions) or f"r{standing}"
    return told if denied is None else f"{told}, r{denied.revision} refused"
