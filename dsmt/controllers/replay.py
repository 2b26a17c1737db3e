"""Replay: fold what a controller had folded, decide again, and compare (rule H2, H4, H5).

Rule 1: for each decision, the rows of its store up to its row are folded, and what had expired at its time is dropped.
Rule 2: unless the digest of the winners is the one that it recorded, its inputs are incomplete, and nothing is compared.
Rule 3: what it produced must be among what is decided now: same topic, same version, same content. What it left unsaid
    (another controller was first) is no difference; ids, clocks and signatures are not compared.
Rule 4: of two controllers that decide at once the second's facts are refused as stale (A3), and no store holds them, but
    each holds the decision that names them. So a product that is not there was stale, where between the decision's inputs
    and its event another source was first on a topic of which something else would be said now. Those of which there
    are more are named: they are missing.
Rule 5: what the store's broker had said in an earlier life, and others brought back behind its later words, was no fact in
    that store, as the broker says all of that anew: it is not folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.intents import Intent
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import TOMBSTONE, Event, SignedEvent, thing_of
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
    stale: int = 0
    """How many of its products were refused, for another controller's of the same moment was first."""


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

    @property
    def stale(self) -> int:
        """How many products were refused as stale."""
        return sum(finding.stale for finding in self.findings)


class _History:
    """The rows of one store, in order, and what is looked up in them."""

    def __init__(self, rows: Iterable[tuple[int, SignedEvent]]) -> None:
        self.rows = list(rows)
        self.by_id = {str(signed.id): (row, signed) for row, signed in self.rows}
        self._by_topic: dict[str, list[tuple[int, Event]]] = {}
        for row, signed in self.rows:
            self._by_topic.setdefault(signed.event.topic, []).append((row, signed.event))
        self._first_absent = next((n for n, (row, _) in enumerate(self.rows, 1) if row != n), len(self.rows) + 1)

    def was_first(self, topic: str, place: tuple[int, int], *, than: str, after: int, before: float) -> bool:
        """Whether, between two rows, another source than one said what a fact of this (epoch, version) is stale after."""
        for row, event in self._by_topic.get(topic, ()):
            if after < row < before and (event.epoch or 0, event.version or 0) >= place:
                return event.source != than
        ended = self._by_topic.get(TOMBSTONE + thing_of(topic), ())
        return any(after < row < before and event.source != than and (event.epoch or 0) >= place[0] for row, event in ended)

    def without(self, view_rows: int, upto: int) -> str:
        """Why rows up to one give another view, when only so many of them are there."""
        said = f"the rows up to {upto} do not give the view that it was made from"
        absent = upto - view_rows
        return f"{said}: {absent} of them not in the file, row {self._first_absent} the first" if absent > 0 else said


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
    history = _History(rows)
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
        report.findings += _replay_one(history, batch, store, check)
    return report


def _of_another(decision: Decision, store: str) -> str:
    where = f"it read broker {decision.broker.removeprefix('broker/')}, store {decision.store}; this is store {store}"
    return f"{where}: replay an export of that broker (dsmt export --bus, with its address in dsmt brokers)"


def _replay_one(
    history: _History, batch: Sequence[tuple[Decision, SignedEvent]], store: str | None, check: Verify
) -> list[Finding]:
    rows, view, at, life = history.rows, View(), 0, 0
    found = []
    for decision, signed in batch:
        if store is not None and decision.store != store:
            found.append(Finding(signed, "inputs incomplete", (_of_another(decision, store),)))
            continue
        while at < len(rows) and rows[at][0] <= decision.row:
            one, at = rows[at][1], at + 1
            own = one.event.source == f"broker/{decision.broker.removeprefix('broker/')}"
            life = max(life, one.event.incarnation) if own else life
            if not own or one.event.incarnation == life:  # rule 5
                view.apply(one)
        view.expire(decision.now_ms)
        if decision.ruleset != RULESET:
            said = f"it was made by ruleset {decision.ruleset}, this is {RULESET}"
            found.append(Finding(signed, "other ruleset", (said,)))
        elif view.digest != decision.view_digest:
            found.append(Finding(signed, "inputs incomplete", (history.without(at, decision.row),)))
        else:
            found.append(_compare(view, decision, signed, history, check))
    return found


def _compare(view: View, decision: Decision, signed: SignedEvent, history: _History, check: Verify) -> Finding:
    """Decide again, and compare what is there of its products; what is not there, see rule 4."""
    decided = decide(view, decision.now_ms, may_accuse=decision.may_accuse, broker=decision.broker, check=check)
    intents = {intent.topic: intent for intent in decided.intents}
    there = [history.by_id[name][1] for name in decision.produced if name in history.by_id]
    details = [_difference(said, intents.pop(said.event.topic, None)) for said in there]
    differing = tuple(detail for detail in details if detail)
    missing = [name for name in decision.produced if name not in history.by_id]
    before = history.by_id[str(signed.id)][0] if str(signed.id) in history.by_id else inf
    stale = sum(
        history.was_first(
            topic,
            (intent.epoch or view.epoch(topic), intent.next_version),
            than=signed.event.source,
            after=decision.row,
            before=before,
        )
        for topic, intent in intents.items()
    )
    if differing:
        return Finding(signed, "different", differing)
    if len(missing) > stale:
        said = f"{', '.join(missing)} not among the rows, where others were first on {stale} of its topics"
        return Finding(signed, "inputs incomplete", (said,))
    return Finding(signed, "same", stale=len(missing))


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
