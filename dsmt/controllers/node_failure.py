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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from dsmt.controllers.evidence import Closes, probes
from dsmt.controllers.intents import Intent
from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import Session
from dsmt.event.kinds.node import NodeVerdict, Probe
from dsmt.trust.proven import Verify
from dsmt.view import Fleet, Held
from dsmt.view.liveness import REATTACH_GRACE_MS, judged
from dsmt.view.sessions import Word, is_closed, is_open

CLOSED_MS: Final = 300
MAX_EVIDENCE: Final = 16


def verdicts(fleet: Fleet, *, may_accuse: bool, check: Verify) -> tuple[list[Intent], int | None]:
    """The verdicts that are due, and when the next could be (realm ms). `check` verifies the signatures of answers."""
    closes = Closes(fleet)
    found: list[Intent] = []
    wakes: list[int] = []
    said: Intent | int | None
    for node in fleet.in_doubt:
        words = fleet.words(node)
        if is_open(words):
            continue
        if is_closed(words) and not closes.are_many(node):
            said = _closed(fleet, node, words)
        elif may_accuse:
            said = _silent(fleet, node, words, check)
        else:
            said = None
        if isinstance(said, int):
            wakes.append(said)
        elif said is not None:
            found.append(said)
    return found, min(wakes, default=None)


def _closed(fleet: Fleet, node: str, words: Sequence[Word[Held[Session]]]) -> Intent | int:
    first, last = words[0], max(word.since_ms for word in words)
    due = last + CLOSED_MS
    if fleet.now_ms < due:
        return due
    message = f"all {len(words)} connections from {node} closed, the last at {first.broker}, none reopened"
    return _verdict(fleet, node, road="closed", since_ms=last, words=words, failed=(), message=message)


def _silent(fleet: Fleet, node: str, words: Sequence[Word[Held[Session]]], check: Verify) -> Intent | int | None:
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
    held = [probe for _, probe in failed]
    return _verdict(fleet, node, road="silent", since_ms=heard, words=words, failed=held, message=message)


def _verdict(
    fleet: Fleet,
    node: str,
    *,
    road: Literal["closed", "silent"],
    since_ms: int,
    words: Sequence[Word[Held[Session]]],
    failed: Sequence[Held[Probe]],
    message: str,
) -> Intent:
    entry = fleet.view.nodes[node]
    evidence: list[EventId] = [*(word.held.id for word in words), *(probe.id for probe in failed)]
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
