"""Replacing: which slots of a node that died are placed elsewhere, and from when on.

Rule 1: a slot is replaced when it is to run, there or elsewhere once it has stopped, nobody holds it, and neither its kind
    nor its data (`good`) ties it to its node.
Rule 2: it waits for its component's `lost_after`, and, moved before, for min(cap, base x 2^moves) since that move, as the
    slot fact itself says; the count begins anew when the instance had run for `STABLE_MS`, and with
    another revision.
Rule 3: what is parked is moved as often as its escalation says, and then once in each `park.retry`, as long as a try where
    it is would have to wait; but at once where it was moved last for a node that had died.
"""

from __future__ import annotations

from typing import Final

from dsmt.controllers.readiness import running_since
from dsmt.controllers.rollout import Governing, Rollout
from dsmt.event.kinds.slot import Slot
from dsmt.event.slots import SlotKey
from dsmt.spec.records import ComponentSpec, RestartPolicy
from dsmt.view import Held, SlotEntry

BACKOFF_BASE_MS: Final = 1_000
BACKOFF_CAP_MS: Final = 300_000
STABLE_MS: Final = 60_000


def replaced(governing: Governing, key: SlotKey) -> Rollout | None:
    """What governs a slot that is replaced when its node dies (rule 1); None for one that is not."""
    slot = governing.fleet.view.slot(key)
    if slot.record is None or slot.record.desired == "gone" or slot.hold is not None:
        return None
    known = governing.of(key)
    if known is None or known.stays(slot):
        return None
    wanted = known.component.instances
    return None if wanted is None or key.index >= wanted else known


def any_replaced(governing: Governing, node: str) -> bool:
    """Whether a node owns slots that are replaced."""
    return any(replaced(governing, key) is not None for key in governing.fleet.view.allocations.node(node).slots)


def due_ms(component: ComponentSpec, slot: SlotEntry, fact: Held[Slot], since_ms: int) -> int:
    """From when on (realm ms) a slot is replaced whose node is dead since `since_ms` (rule 2)."""
    due = since_ms + round((component.lost_after_s or 0) * 1000)
    moved_at, moves = fact.record.moved_at_ms, fact.record.moves
    if moved_at is None or not moves or stable(slot, since_ms):
        return due
    return max(due, moved_at + backoff_ms(moves))


def backoff_ms(moves: int) -> int:
    """How long after a forced move the next one must wait."""
    return min(BACKOFF_CAP_MS, BACKOFF_BASE_MS << min(moves, 20))


def next_move_ms(slot: SlotEntry) -> int:
    """From when on (realm ms) a forced move may follow the one before, while the node of the slot lives (rule 2)."""
    fact = slot.fact
    if fact is None or fact.record.moved_at_ms is None or not fact.record.moves:
        return 0
    due, since = fact.record.moved_at_ms + backoff_ms(fact.record.moves), running_since(slot)
    return due if since is None else min(due, since + STABLE_MS)


def parked_move_ms(slot: SlotEntry, policy: RestartPolicy) -> int | None:
    """From when on (realm ms) what is parked is moved by its escalation (rule 3); None where that has no such step."""
    times = sum(step.times for step in policy.escalate if step.action == "move")
    told = slot.record
    if not times:
        return None
    if told is None or told.moved_at_ms is None or told.moved_for or told.moves < times:
        return next_move_ms(slot)
    return max(next_move_ms(slot), told.moved_at_ms + round(policy.park.retry_s * 1000))


def stable(slot: SlotEntry, until_ms: int) -> bool:
    """Whether the present instance had run for `STABLE_MS` at a time."""
    since = running_since(slot)
    return since is not None and until_ms - since >= STABLE_MS
