"""Roads: the two ways in which a node is found to be dead (SEMANTICS F2, F4).

Rule 1, closed: the newest attachments of all of a node's sources (`Fleet.words`) were closed by the peer at a live
    broker, and none has attached anew for `CLOSED_MS`: dead. When the managers of more than max(2, 5 %) of that
    broker's nodes were closed within `MASS_WINDOW_MS` of this one, it is `REATTACH_GRACE_MS` instead: a firewall flush
    is no massacre.
Rule 2, silent: none of its sources has an open attachment, and nothing was heard of any for `dead_after`; no node that
    is alive has had a probe answered since then; and, when there is another node alive, one of those had one fail.
    Sources whose broker was lost count as heard when it was lost, and only after `REATTACH_GRACE_MS`.
Rule 3: one source that is open keeps the node alive: the manager alone closed is no death.
Rule 4: the verdict names the attachments it judged, of many agents their sum, so that a greater one undoes it; and its
    evidence by event ids.
Rule 5: only a controller that has watched long enough may accuse by silence (A4, iii).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from dsmt.controllers.intents import Intent
from dsmt.event.envelope import EventId
from dsmt.event.records import NodeVerdict, Probe, Session
from dsmt.view import Fleet, Held
from dsmt.view.liveness import REATTACH_GRACE_MS, judged
from dsmt.view.sessions import Word, is_closed, is_open

CLOSED_MS: Final = 300
MASS_WINDOW_MS: Final = 1_000
MASS_LEAST: Final = 2
MASS_PERCENT: Final = 5
MAX_EVIDENCE: Final = 16


def verdicts(fleet: Fleet, *, may_accuse: bool) -> tuple[list[Intent], int | None]:
    """The verdicts that are due, and when the next could be (realm ms)."""
    seats = fleet.view.seats
    suspects = {
        *fleet.view.troubled,
        *(node for broker in sorted(fleet.lost_brokers) for node in seats.get(broker, ())),
    }
    closes = _closes(fleet)
    found: list[Intent] = []
    wakes: list[int] = []
    said: Intent | int | None
    for node in sorted(suspects):
        words = fleet.words(node)
        if fleet.state(node) in ("dead", "left") or is_open(words):
            continue
        if is_closed(words):
            said = _closed(fleet, node, words, closes)
        else:
            said = _silent(fleet, node, words, may_accuse=may_accuse)
        if isinstance(said, int):
            wakes.append(said)
        elif said is not None:
            found.append(said)
    return found, min(wakes, default=None)


def _closes(fleet: Fleet) -> Mapping[str, list[int]]:
    """By broker, when managers were closed there, in order."""
    closes: dict[str, list[int]] = {}
    for node in fleet.view.troubled:
        for word in fleet.words(node)[:1]:
            if word.state == "closed":
                closes.setdefault(word.broker, []).append(word.since_ms)
    return {broker: sorted(times) for broker, times in closes.items()}


def _closed(fleet: Fleet, node: str, words: Sequence[Word[Held[Session]]], closes: Mapping[str, list[int]]) -> Intent | int:
    first, last = words[0], max(word.since_ms for word in words)
    times = closes.get(first.broker, [])
    count = bisect_right(times, first.since_ms + MASS_WINDOW_MS) - bisect_left(times, first.since_ms - MASS_WINDOW_MS)
    of = len(fleet.view.seats.get(first.broker, ()))
    mass = count > MASS_LEAST and count * 100 > of * MASS_PERCENT
    due = last + (REATTACH_GRACE_MS if mass else CLOSED_MS)
    if fleet.now_ms < due:
        return due
    message = f"all {len(words)} sessions of {node} were closed by it, the last at {first.broker}, none has come back"
    return _verdict(fleet, node, road="closed", since_ms=last, words=words, probes=(), message=message)


def _silent(fleet: Fleet, node: str, words: Sequence[Word[Held[Session]]], *, may_accuse: bool) -> Intent | int | None:
    heard = max(word.since_ms for word in words)
    grace = [word.since_ms + REATTACH_GRACE_MS for word in words if word.state == "unknown"]
    due = max([heard + fleet.dead_after_ms, *grace])
    if not may_accuse:
        return None
    if fleet.now_ms < due:
        return due
    probes = [
        (observer, probe)
        for observer, probe in sorted(fleet.view.nodes[node].probes.items())
        if observer != node and probe.time_ms > heard and fleet.state(observer) == "alive"
    ]
    failed = [(observer, probe) for observer, probe in probes if probe.record.result == "failed"]
    if len(failed) < len(probes) or (not failed and fleet.speaking):
        return None
    witnesses = f"probes by {', '.join(observer for observer, _ in failed)} failed" if failed else "no other node is left"
    message = f"{node} has been silent for {(fleet.now_ms - heard) / 1000:.1f} s; {witnesses}"
    return _verdict(
        fleet, node, road="silent", since_ms=heard, words=words, probes=[probe for _, probe in failed], message=message
    )


def _verdict(
    fleet: Fleet,
    node: str,
    *,
    road: Literal["closed", "silent"],
    since_ms: int,
    words: Sequence[Word[Held[Session]]],
    probes: Sequence[Held[Probe]],
    message: str,
) -> Intent:
    entry = fleet.view.nodes[node]
    evidence: list[EventId] = [*(word.held.id for word in words), *(probe.id for probe in probes)]
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
