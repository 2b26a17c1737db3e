"""Replay: fold what a controller had folded, decide again, and compare (rule H2, H4, H5).

Rule 1: for each decision, the rows of its store up to its row are folded, and what had expired at its time is dropped.
Rule 2: unless the digest of the winners is the one that it recorded, its inputs are incomplete, and nothing is compared.
Rule 3: what it produced must be among what is decided now: same topic, same version, same content. What it left unsaid
    (another controller was first) is no difference; ids, clocks and signatures are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.intents import Intent
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.records import from_data
from dsmt.trust.keys import verify
from dsmt.trust.probing import Verify
from dsmt.view import View

Outcome = Literal["same", "inputs incomplete", "different", "other ruleset"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What replaying one decision showed; `details` are sentences, empty when it was the same."""

    decision: SignedEvent
    outcome: Outcome
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """All findings, in the order of the decisions' rows for each controller."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no decision came out different."""
        return not any(finding.outcome == "different" for finding in self.findings)

    def count(self, outcome: Outcome) -> int:
        """How many decisions had an outcome."""
        return sum(finding.outcome == outcome for finding in self.findings)


def replay(
    rows: Iterable[tuple[int, SignedEvent]],
    decisions: Iterable[SignedEvent],
    *,
    store: str | None = None,
    check: Verify = verify,
) -> Report:
    """Replay decision events over the rows of one store, in order from its base.

    `store` is the id of that store: decisions on another one's rows have incomplete inputs. None trusts the rows.
    `check` verifies the signatures of those who answered probes.
    """
    kept = list(rows)
    produced = {str(signed.id): signed for _, signed in kept}
    by_controller: dict[str, list[tuple[Decision, SignedEvent]]] = {}
    report = Report()
    for signed in decisions:
        try:
            record = from_data(Decision, signed.event.data)
        except UnusableEventError as error:
            report.findings.append(Finding(signed, "inputs incomplete", (error.message,)))
            continue
        by_controller.setdefault(signed.event.source, []).append((record, signed))
    for source in sorted(by_controller):
        batch = sorted(by_controller[source], key=lambda each: (each[0].now_ms, each[1].event.sequence))
        report.findings += _replay_one(kept, batch, produced, store, check)
    return report


def _replay_one(
    rows: Sequence[tuple[int, SignedEvent]],
    batch: Sequence[tuple[Decision, SignedEvent]],
    produced: dict[str, SignedEvent],
    store: str | None,
    check: Verify,
) -> list[Finding]:
    view, at = View(), 0
    found = []
    for decision, signed in batch:
        if store is not None and decision.store != store:
            found.append(Finding(signed, "inputs incomplete", (f"it read store {decision.store}, not {store}",)))
            continue
        while at < len(rows) and rows[at][0] <= decision.row:
            view.apply(rows[at][1])
            at += 1
        view.expire(decision.now_ms)
        found.append(_compare(view, decision, signed, produced, check))
    return found


def _compare(
    view: View, decision: Decision, signed: SignedEvent, produced: dict[str, SignedEvent], check: Verify
) -> Finding:
    if decision.ruleset != RULESET:
        return Finding(signed, "other ruleset", (f"it was made by ruleset {decision.ruleset}, this is {RULESET}",))
    missing = [name for name in decision.produced if name not in produced]
    if view.digest != decision.view_digest or missing:
        said = [f"{missing[0]} is not among the rows"] if missing else []
        if view.digest != decision.view_digest:
            said.append(f"the rows up to {decision.row} do not give the view that it was made from")
        return Finding(signed, "inputs incomplete", tuple(said))
    decided = decide(view, decision.now_ms, may_accuse=decision.may_accuse, broker=decision.broker, check=check)
    intents = {intent.topic: intent for intent in decided.intents}
    said_then = [produced[name] for name in decision.produced]
    details = [_difference(signed_then, intents.get(signed_then.event.topic)) for signed_then in said_then]
    differing = tuple(detail for detail in details if detail)
    return Finding(signed, "different" if differing else "same", differing)


def _difference(said: SignedEvent, intent: Intent | None) -> str:
    event = said.event
    if intent is None:
        return f"{said.id} on {event.topic} would not be said now"
    if intent.next_version != event.version:
        return f"{said.id} on {event.topic} has version {event.version}, now it would have {intent.next_version}"
    now = intent.data
    keys = sorted(key for key in {*now, *event.data} if now.get(key) != event.data.get(key))
    if keys:
        changes = ", ".join(f"{key}: {event.data.get(key)!r} -> {now.get(key)!r}" for key in keys)
        return f"{said.id} on {event.topic} would differ: {changes}"
    return ""
