"""Running out: what waits by realm time, and would have waited for long enough if realm time went on to another (J4)."""

from __future__ import annotations

from dsmt.controllers.rollout import standing
from dsmt.operations.read.realm.sight import Sight
from dsmt.view import SlotKey


def running_out(sight: Sight, to_ms: int) -> list[str]:
    """The revisions that would be refused at a time, and that the brake would let go, in words."""
    found = [f"{one} goes back, for its new revision would be late" for one in _late(sight, to_ms)]
    stands = sight.brake
    if stands.on and not stands.held and stands.wake_ms is not None and stands.wake_ms <= to_ms:
        found.append("the brake lets go")
    return found


def _late(sight: Sight, to_ms: int) -> list[str]:
    """The components of which a revision is tried, and would not have been ready in time."""
    found = []
    for service, entry in sorted(sight.view.services.items()):
        for name in () if entry.parsed is None else sorted(entry.parsed.components):
            known = standing(sight.fleet, SlotKey(service, name, 0))
            if known is None or not known.component.update.rollback or known.before is None:
                continue
            if any(at is not None and at <= to_ms for at in map(known.refused_at, known.slots)):
                found.append(f"{service}/{name}")
    return found
