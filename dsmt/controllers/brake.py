"""The brake: nothing is replaced while too many nodes have gone silent at once (SEMANTICS F5).

Rule 1: L = nodes dead by silence, or silent already and not judged yet, that still own slots which would be replaced;
    N = nodes with attributes, not left or excluded. The brake is on when |L| > max(2, 20 % of N). Nodes whose sessions
    were closed do not count. (Many that fall silent at once are judged over a second: the first of them would be
    replaced before the others counted.)
Rule 2: while it is on, nothing is published for the nodes of L until some return, an operator releases those silent up
    to a time, or 5 min have passed since the newest of L.
Rule 3: then they are replaced in order of loss, at most max(1, 2 % of N) nodes in 10 s; those already begun are told
    from `moved_at_ms` and the verdicts that recent slot facts name as their cause.
Rule 4: an operator's hold stops all replacing. Everything here is a function of facts and now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dsmt.event.envelope import EventId
from dsmt.event.reason import Reason, reason
from dsmt.view import Fleet, View
from dsmt.view.rooms import SlotKey

LEAST: Final = 2
PERCENT: Final = 20
LIFT_MS: Final = 5 * 60_000
PACE_MS: Final = 10_000
PACE_PERCENT: Final = 2


@dataclass(frozen=True, slots=True)
class Brake:
    """How the brake stands: whether it is on, whom it concerns in order of loss, and of whom it lets go now."""

    on: bool
    held: bool = False
    silent: tuple[str, ...] = ()
    total: int = 0
    released: frozenset[str] = frozenset()
    wake_ms: int | None = None

    def allows(self, node: str) -> bool:
        """Whether the slots of a dead node may be replaced now."""
        return not self.held and (not self.on or node in self.released or node not in self.silent)

    @property
    def reason(self) -> Reason | None:
        """Why replacing waits; None when it does not."""
        return reason("wait.brake", k=len(self.silent), n=self.total) if self.on else None


def replaceable(view: View, key: SlotKey) -> bool:
    """Whether a slot would be replaced on another node if its own were dead."""
    slot, parsed = view.slot(key), view.services[key.service].parsed
    component = None if parsed is None else parsed.components.get(key.component)
    if slot is None or slot.fact is None or component is None or slot.fact.record.desired != "running":
        return False
    return component.on_partition != "pinned" and component.instances is not None and key.index < component.instances


def brake(fleet: Fleet) -> Brake:
    """The brake at the fleet's time."""
    view, now_ms = fleet.view, fleet.now_ms
    order = view.brake.record if view.brake is not None else None
    held = order is not None and order.held
    lost = _lost(fleet)
    if not held and not lost:
        return Brake(on=False)
    silent = (*(node for _, node, _ in lost), *_falling(fleet))
    if not held and len(silent) <= LEAST:
        return Brake(on=False)
    total = sum(view.nodes[node].mode != "excluded" for node in fleet.members)
    if held or len(silent) * 100 <= total * PERCENT or len(silent) <= LEAST:
        return Brake(on=held, held=held, silent=silent, total=total)
    lift = max(since for since, _, _ in lost) + LIFT_MS
    released_ms = 0 if order is None else order.released_ms
    free = [(node, verdict) for since, node, verdict in lost if since <= released_ms or now_ms >= lift]
    if not free:
        return Brake(on=True, silent=silent, total=total, wake_ms=lift)
    recent = _recent(view, now_ms)
    begun = [node for node, verdict in free if verdict in recent]
    budget = max(0, max(1, total * PACE_PERCENT // 100) - len(recent))
    rest = [node for node, verdict in free if verdict not in recent]
    wakes = [moved + PACE_MS for moved in recent.values()] if len(rest) > budget else []
    return Brake(
        on=True,
        silent=silent,
        total=total,
        released=frozenset([*begun, *rest[:budget]]),
        wake_ms=min([*wakes, *([lift] if now_ms < lift else [])], default=None),
    )


def _lost(fleet: Fleet) -> list[tuple[int, str, EventId]]:
    """L in order of loss: (since when, node, its verdict)."""
    found = []
    for node in fleet.view.judged:
        verdict = fleet.verdict(node)
        if verdict is None or verdict.record.state != "dead" or verdict.record.road != "silent":
            continue
        if _owns(fleet.view, node):
            found.append((verdict.record.since_ms, node, verdict.id))
    return sorted(found)


def _falling(fleet: Fleet) -> list[str]:
    """Those of L that are not judged yet: no session is open, and not all were closed by the node itself."""
    suspects = {*fleet.view.troubled, *(n for b in sorted(fleet.lost_brokers) for n in fleet.view.seats.get(b, ()))}
    found = []
    for node in sorted(suspects):
        if fleet.state(node) != "suspect":
            continue
        words = fleet.words(node)
        closed = all(word.state == "closed" and word.held.record.how == "peer" for word in words)
        if not closed and _owns(fleet.view, node):
            found.append(node)
    return found


def _owns(view: View, node: str) -> bool:
    """Whether a node owns slots that would be replaced."""
    return any(replaceable(view, key) for key in view.rooms.room(node).slots)


def _recent(view: View, now_ms: int) -> dict[EventId, int]:
    """The verdicts for which slots were moved within the last `PACE_MS`, and when."""
    recent: dict[EventId, int] = {}
    for service in view.services.values():
        for slot in service.slots.values():
            fact = slot.fact
            if fact is None or (fact.record.moved_at_ms or 0) <= now_ms - PACE_MS or not fact.signed.event.cause:
                continue
            if fact.record.reason is not None and fact.record.reason.code == "node.lost":
                recent[fact.signed.event.cause[0]] = fact.record.moved_at_ms or 0
    return recent
