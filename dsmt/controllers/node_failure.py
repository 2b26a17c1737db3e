"""Node failure: the two ways in which a node is found to be dead (rule F2, F4).

Rule 1, closed: the newest attachments of all of a node's sources (`Fleet.words`) were closed by the peer at a live
    broker, and none has attached anew for `CLOSED_MS`: dead. Where too many were closed at once (`evidence`), the second
    way decides, after `REATTACH_GRACE_MS`.
Rule 2, silent: none of its sources has an open attachment, and nothing was heard of any for `dead_after`; it has answered
    no probe since then; and, when there is another node alive, one of those had one fail, not long ago (`evidence`).
    Sources whose broker was lost count as heard when it was lost, and only after `REATTACH_GRACE_MS`.
Rule 3: one source that is open keeps the node alive: the manager alone closed is no death.
Rule 4: the verdict names the attachments it judged, of many agents their sum, so that a greater one undoes it; and its
    evidence by event ids.
Rule 5: only a controller that has watched long enough may accuse by silence (A4, iii).
Rule 6: a node of which nothing is known but what is to run there is dead, by silence, when it has not come back within
    `RETURN_MS` to a store that begins anew, and another node is alive (R4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from dsmt.controllers.evidence import Closes, probes
from dsmt.controllers.intents import Intent
from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.node import NodeVerdict
from dsmt.trust.proven import Verify
from dsmt.view import Fleet, Held
from dsmt.view.entries import NodeEntry
from dsmt.view.liveness import REATTACH_GRACE_MS, RETURN_MS, judged
from dsmt.view.sessions import AttachmentState, is_closed, is_open

CLOSED_MS: Final = 300
MAX_EVIDENCE: Final = 16


def verdicts(fleet: Fleet, *, may_accuse: bool, check: Verify) -> tuple[list[Intent], int | None]:
    """The verdicts that are due, and when the next could be (realm ms). `check` verifies the signatures of answers."""
    closes = Closes(fleet)
    said: list[Intent | int | None] = []
    for node in fleet.in_doubt:
        words = fleet.words(node)
        if is_open(words):
            continue
        if is_closed(words) and not closes.are_many(node):
            said.append(_closed(fleet, node, words))
        elif may_accuse:
            said.append(_silent(fleet, node, words, check))
    if may_accuse:
        only_named = fleet.view.allocations.unequipped - fleet.view.standing.keys()
        said += [_not_returned(fleet, node) for node in sorted(only_named)]
    return [one for one in said if isinstance(one, Intent)], min((at for at in said if isinstance(at, int)), default=None)


def _closed(fleet: Fleet, node: str, words: Sequence[AttachmentState[Held[SessionFact]]]) -> Intent | int:
    first, last = words[0], max(word.since_ms for word in words)
    due = last + CLOSED_MS
    if fleet.now_ms < due:
        return due
    message = f"all {len(words)} connections from {node} closed, the last at {first.broker}, none reopened"
    return _verdict(fleet, node, road="closed", since_ms=last, evidence=[word.held.id for word in words], message=message)


def _silent(
    fleet: Fleet, node: str, words: Sequence[AttachmentState[Held[SessionFact]]], check: Verify
) -> Intent | int | None:
    heard = max(word.since_ms for word in words)
    grace = [word.since_ms + REATTACH_GRACE_MS for word in words if word.state == "unknown" or is_closed(words)]
    due = max([heard + fleet.dead_after_ms, *grace])
    if fleet.now_ms < due:
        return due
    passed_until_ms, failed = probes(fleet, fleet.view.nodes[node], heard, check)
    if passed_until_ms is not None:
        return passed_until_ms
    if not failed and fleet.speaking:
        return None
    witnesses = f"probes by {', '.join(observer for observer, _ in failed)} failed" if failed else "no other node is left"
    message = f"{node} has been silent for {(fleet.now_ms - heard) / 1000:.1f} s; {witnesses}"
    evidence = [*(word.held.id for word in words), *(probe.id for _, probe in failed)]
    return _verdict(fleet, node, road="silent", since_ms=heard, evidence=evidence, message=message)


def _not_returned(fleet: Fleet, node: str) -> Intent | int | None:
    due = fleet.return_until_ms(node)
    if due is None or not fleet.speaking:
        return None
    if fleet.now_ms < due:
        return due
    message = f"nothing is known of {node} but what is to run there; it has not come back in {RETURN_MS // 1000} s"
    slots = map(fleet.view.slot, sorted(fleet.view.allocations.node(node).slots))
    named = [slot.fact.id for slot in slots if slot is not None and slot.fact is not None]
    return _verdict(fleet, node, road="silent", since_ms=due - RETURN_MS, evidence=named, message=message)


def _verdict(
    fleet: Fleet, node: str, *, road: Literal["closed", "silent"], since_ms: int, evidence: list[EventId], message: str
) -> Intent:
    entry = fleet.view.nodes.get(node, NodeEntry(node))
    cause = tuple(evidence[:1] + evidence[1:][-MAX_EVIDENCE:])
    attachments, others = judged(entry)
    record = NodeVerdict(
        state="dead",
        road=road,
        attachments=attachments,
        others=others,
        evidence=tuple(map(str, cause)),
        message=message,
        since_ms=since_ms,
    )
    return Intent(
        topic=f"node/{node}/verdict",
        record=record,
        replaces=None if entry.verdict is None else entry.verdict.signed,
        cause=cause,
        because=f"{node} is dead: {message}",
        subject=node,
    )
