"""The brake: nothing is replaced while too many nodes have gone silent at once (rule F5).

Rule 1: L = nodes dead by silence, or silent already and not judged yet, that still own slots which would be replaced;
    N = nodes with attributes, not left or excluded. The brake is on when |L| > max(2, 20 % of N). Nodes whose sessions
    were closed do not count, unless too many were closed at once (`evidence`). (Many that fall silent at once are
    judged over a second: the first of them would be replaced before the others counted.)
Rule 2: while it is on, nothing is published for the nodes of L until most have returned, an operator releases those silent
    up to a time, or 5 min have passed since the newest of L. Who was lost with them, and has returned, counts for `CALM_MS`
    still: the others may be as alive, and about to return.
Rule 3: then they are replaced in order of loss, at most max(1, 2 % of N) nodes in 10 s; those already begun are told
    from `moved_at_ms` and `moved_for` of slot facts. A node of which nothing can be placed now (there is no room, or it
    must wait) keeps nobody behind it waiting.
Rule 4: an operator's hold stops all replacing. Everything here is a function of facts and now.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from dsmt.controllers.evidence import Closes
from dsmt.controllers.replacing import any_replaced, due_ms, replaced
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.phrases import quoted, whose
from dsmt.event.reason import Reason, reason
from dsmt.view import Fleet, Held, View
from dsmt.view.sessions import is_closed

LEAST: Final = 2
PERCENT: Final = 20
LIFT_MS: Final = 5 * 60_000
PACE_MS: Final = 10_000
PACE_PERCENT: Final = 2
CALM_MS: Final = 10_000
TOGETHER_MS: Final = 60_000
"""Those whose silences began in so long were lost together."""


class Brake(msgspec.Struct, frozen=True):
    """How the brake stands: whether it is on, whom it concerns in order of loss, and of whom it lets go now."""

    on: bool
    held: bool = False
    silent: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    """Who counts still, though it has returned (rule 2)."""
    total: int = 0
    released: frozenset[str] = frozenset()
    wake_ms: int | None = None
    word: Held[BrakeWord] | None = None
    """The operator's, where that holds it."""

    def allows(self, node: str) -> bool:
        """Whether the slots of a dead node may be replaced now."""
        return not self.held and (not self.on or node in self.released or node not in self.silent)

    def lets_go_as(self, other: Brake) -> bool:
        """Whether it lets go of no other nodes than another, but for those that were lost or came back meanwhile."""
        return (self.on, self.held, self.released) == (other.on, other.held, other.released)

    @property
    def reason(self) -> Reason | None:
        """Why replacing waits; None when it does not."""
        if not self.on:
            return None
        why = reason("wait.brake", k=len(self.silent) + len(self.returned), n=self.total)
        if self.word is None:
            return why
        holder, event = self.word.record, self.word.signed.event
        said = f"replacing is on hold: {whose(holder.by, event.source)} holds the brake{quoted(holder.reason)}"
        return replace(why, message=said, next="dsmt brake release")


LOOSE: Final = Brake(on=False)


def acts_above(nodes: int) -> int:
    """How many nodes may be silent at once, of so many, before the brake is on (rule 1)."""
    return max(LEAST, nodes * PERCENT // 100)


def brake(fleet: Fleet) -> Brake:
    """The brake at the fleet's time."""
    view, now_ms = fleet.view, fleet.now_ms
    order = view.brake
    held = order is not None and order.record.held
    governing = Governing(fleet)
    lost = _lost(fleet, governing)
    if not held and not lost:
        return Brake(on=False)
    silent = (*(node for _, node, _ in lost), *_falling(fleet, governing))
    returned = _returned(fleet, governing, lost)
    if not held and len(silent) + len(returned) <= LEAST:
        return Brake(on=False)
    total = len(view.equipped - view.gone - view.excluded)
    stands = Brake(on=True, silent=silent, returned=tuple(sorted(returned)), total=total)
    if held or len(silent) + len(returned) <= acts_above(total):
        return replace(stands, on=held, held=held, word=order if held else None)
    lift = max(since for since, _, _ in lost) + LIFT_MS
    calm = [at + CALM_MS for at in returned.values()]
    released_ms = 0 if order is None else order.record.released_ms
    free = [(node, verdict) for since, node, verdict in lost if since <= released_ms or now_ms >= lift]
    if not free:
        return replace(stands, wake_ms=min([lift, *calm]))
    recent = _recent(view, now_ms)
    budget = max(0, max(1, total * PACE_PERCENT // 100) - len(recent))
    released = {node for node, verdict in free if str(verdict.id) in recent}
    queue = _Queue(fleet, governing, [(node, verdict) for node, verdict in free if str(verdict.id) not in recent])
    released |= queue.take(budget)
    wakes = [*queue.wakes, *calm, *([lift] if now_ms < lift else [])]
    if queue.waiting:
        wakes += [moved + PACE_MS for moved in recent.values()]
    return replace(stands, released=frozenset(released), wake_ms=min(wakes, default=None))


class _Queue:
    """The lost nodes that are to be replaced, in order of loss."""

    def __init__(self, fleet: Fleet, governing: Governing, lost: list[tuple[str, Held[NodeVerdict]]]) -> None:
        self._fleet, self._governing, self._lost = fleet, governing, lost
        self.waiting = False
        """Whether the budget ended before the queue."""
        self.wakes: list[int] = []
        """When slots must wait no more of nodes of which nothing could be placed now."""

    def take(self, budget: int) -> set[str]:
        """The first nodes of which something can be placed now, at most as many as the budget."""
        taken: set[str] = set()
        for node, verdict in self._lost:
            if len(taken) == budget:
                self.waiting = True
                break
            if self._can_place(node, verdict):
                taken.add(node)
        return taken

    def _can_place(self, node: str, verdict: Held[NodeVerdict]) -> bool:
        view, waits = self._fleet.view, []
        for key in sorted(view.allocations.node(node).slots):
            known, slot = replaced(self._governing, key), view.slot(key)
            if known is None or slot.fact is None:
                continue
            due = due_ms(known.component, slot, slot.fact, verdict.record.since_ms)
            if due > self._fleet.now_ms:
                waits.append(due)
                continue
            if known.chooser.choose(key) is not None:
                return True
        self.wakes += waits
        return False


def _lost(fleet: Fleet, governing: Governing) -> list[tuple[int, str, Held[NodeVerdict]]]:
    """L in order of loss: (since when, node, its verdict)."""
    found = []
    for node in fleet.view.silenced:
        if any_replaced(governing, node):
            verdict = fleet.view.standing[node]
            found.append((verdict.record.since_ms, node, verdict))
    return sorted(found, key=lambda each: each[:2])


def _returned(fleet: Fleet, governing: Governing, lost: list[tuple[int, str, Held[NodeVerdict]]]) -> dict[str, int]:
    """Who was lost with one of L, by silence, and has returned since, within `CALM_MS`; and when (realm ms)."""
    found = {}
    for node, entry in fleet.view.nodes.items() if lost else ():
        said = entry.verdict
        if said is None or said.record.road != "silent" or node in fleet.view.standing:
            continue
        with_it = [since for since, _, _ in lost if abs(said.record.since_ms - since) <= TOGETHER_MS]
        heard = fleet.words(node) if with_it else []
        back = min((min(one.since_ms, one.held.time_ms) for one in heard if one.state == "open"), default=0)
        if with_it and min(with_it) < back and fleet.now_ms < back + CALM_MS and any_replaced(governing, node):
            found[node] = back
    return found


def _falling(fleet: Fleet, governing: Governing) -> list[str]:
    """Those of L that are not judged yet: no session is open, and not all were closed by the node itself, or too many."""
    closes = Closes(fleet)
    found = []
    for node in fleet.in_doubt:
        if fleet.state(node) != "suspect":
            continue
        by_itself = is_closed(fleet.words(node)) and not closes.are_many(node)
        if not by_itself and any_replaced(governing, node):
            found.append(node)
    return found


def _recent(view: View, now_ms: int) -> dict[str, int]:
    """The verdicts for which slots were moved within the last `PACE_MS`, and when."""
    facts = (told for service in view.services.values() for told in service.records)
    moved = ((told.moved_for, told.moved_at_ms or 0) for told in facts if told.moved_for)
    return {verdict: at_ms for verdict, at_ms in moved if at_ms > now_ms - PACE_MS}
