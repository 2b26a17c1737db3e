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
    that store, as the broker says all of that anew: it is not folded. Where a store was written before its broker ran,
    as when a realm comes back from NATS, all that was written then was a fact in it.
Rule 6: who begins after a revocation is never given what that key had said. So where the digest is not that of rule 1, the
    view is tried of who began with this incarnation, or folded anew with a key's end, for the view held what was void by
    that: the winners of then that were believed, with what void ones had displaced, and what came since. Where the broker
    had no room yet to let that stand again (`bus/broker/void`), or waited for others to say it again, it is tried without
    it, too: as of the end of the key, of the decision, for what came in between had no room either, and of each row between
    that loses to that key, for what comes after the broker has seen to its words stands at once. Each try folds all
    rows anew, so of one controller there are `TRIES`: a thief of its key begins as often as it likes, and names no view
    that there was.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

import msgspec

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.intents import Intent
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import TOMBSTONE, Event, SignedEvent, thing_of
from dsmt.event.kinds.controller import Decision
from dsmt.event.records import from_data
from dsmt.event.registry import row_of
from dsmt.trust.grants import is_said_again
from dsmt.trust.keys import verify
from dsmt.trust.proven import Verify
from dsmt.trust.revocations import is_void
from dsmt.view import View

TRIES: Final = 500

RevokedAt = Callable[[SignedEvent], float]
"""The row with which the key of an event was revoked; infinite where none did that."""
Comparison = Literal["same", "inputs incomplete", "different", "other ruleset"]


class ReplayedDecision(msgspec.Struct, frozen=True):
    """What replaying one decision showed; `details` are sentences, empty when it was the same."""

    decision: SignedEvent
    outcome: Comparison
    details: tuple[str, ...] = ()
    stale: int = 0
    """How many of its products were refused, for another controller's of the same moment was first."""


@dataclass(slots=True)
class ReplayReport:
    """All findings, in the order of the decisions' rows for each controller."""

    findings: list[ReplayedDecision] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no decision came out different."""
        return not any(finding.outcome == "different" for finding in self.findings)

    def count(self, outcome: Comparison) -> int:
        """How many decisions had an outcome."""
        return sum(finding.outcome == outcome for finding in self.findings)

    @property
    def stale(self) -> int:
        """How many products were refused as stale."""
        return sum(finding.stale for finding in self.findings)


class Rows:
    """Of the rows of one store those that a replay needs, in order, and the numbers of all: most of a history nobody folds.

    Needed are what is folded, what controllers say, the first word of each source, key and incarnation, and the first two of
    all, which say how the store began.
    """

    def __init__(self, rows: Iterable[tuple[int, SignedEvent]] = ()) -> None:
        self.needed: list[tuple[int, SignedEvent]] = []
        self.numbers = array("Q")
        self._begun: set[tuple[str, int, bytes]] = set()
        for row, signed in rows:
            self.add(row, signed)

    def add(self, row: int, signed: SignedEvent) -> None:
        """Take in the next row."""
        event = signed.event
        self.numbers.append(row)
        speaker, kind = (event.source, event.incarnation, signed.key_id), row_of(event.topic)
        folds = kind is not None and kind.folded
        if folds or len(self.numbers) <= 2 or speaker not in self._begun or event.source.startswith("controller/"):
            self.needed.append((row, signed))
            self._begun.add(speaker)


class _History:
    """The rows of one store, and what is looked up in them."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self._numbers = rows.needed, rows.numbers
        self.by_id = {str(signed.id): (row, signed) for row, signed in self.rows}
        self._by_topic: dict[str, list[tuple[int, Event]]] = {}
        self._began: dict[tuple[str, int], int] = {}
        for row, signed in self.rows:
            self._by_topic.setdefault(signed.event.topic, []).append((row, signed.event))
            self._began.setdefault((signed.event.source, signed.event.incarnation), row)
        self._first_absent = next((n for n, row in enumerate(self._numbers, 1) if row != n), len(self._numbers) + 1)

    def began(self, event: Event) -> int:
        """The row with which its source began its incarnation, as far as it is there."""
        return self._began.get((event.source, event.incarnation), 0)

    def facts(self, broker: str) -> Iterator[tuple[int, SignedEvent]]:
        """The rows that a reader of this broker folds (rule 5)."""
        name, life = f"broker/{broker.removeprefix('broker/')}", 0
        written = self._written(name)
        for row, signed in self.rows:
            if signed.event.source == name and signed.event.incarnation != written:
                life = max(life, signed.event.incarnation)
                if signed.event.incarnation < life:
                    continue
            yield row, signed

    def _written(self, name: str) -> int:
        """The incarnation in which this broker's store was written before it ran, as its head says; 0 where it was not."""
        for _, signed in self.rows[:2]:
            about = signed.event.data
            if signed.event.topic == f"{name}/stats" and about.get("pid") is None and not about.get("address"):
                return signed.event.incarnation
        return 0

    def was_first(self, topic: str, place: tuple[int, int], *, than: str, after: int, before: float) -> bool:
        """Whether, between two rows, another source than one said what a fact of this (epoch, version) is stale after."""
        for row, event in self._by_topic.get(topic, ()):
            if after < row < before and (event.epoch or 0, event.version or 0) >= place:
                return event.source != than
        ended = self._by_topic.get(TOMBSTONE + thing_of(topic), ())
        return any(after < row < before and event.source != than and (event.epoch or 0) >= place[0] for row, event in ended)

    def late(self, ended: RevokedAt) -> list[int]:
        """The rows behind a key's end whose facts lose to its words: a broker that keeps these gives none of them."""
        words = _words(self.rows, ended)
        return [row for row, signed in self.rows if _loses(row, signed.event, words)]

    def without(self, upto: int) -> str:
        """Why the rows up to one give another view."""
        said = f"the rows up to {upto} do not give the view that it was made from"
        absent = upto - bisect_right(self._numbers, upto)
        return f"{said}: {absent} of them not in the file, row {self._first_absent} the first" if absent > 0 else said


def fold_and_decide(
    rows: Rows | Iterable[tuple[int, SignedEvent]],
    decisions: Iterable[SignedEvent],
    *,
    store: str | None = None,
    check: Verify = verify,
    ended: RevokedAt = lambda _: inf,
) -> ReplayReport:
    """Replay decision events over the rows of one store, in order from its base.

    `store` is the id of that store: decisions on another one's rows have incomplete inputs. None trusts the rows.
    `check` verifies the signatures of those who answered probes; `ended` tells which keys were revoked.
    """
    history = _History(rows if isinstance(rows, Rows) else Rows(rows))
    by_controller: dict[str, list[tuple[Decision, SignedEvent]]] = {}
    report = ReplayReport()
    for signed in decisions:
        try:
            record = from_data(Decision, signed.event.data)
        except UnusableEventError as error:
            report.findings.append(ReplayedDecision(signed, "inputs incomplete", (error.message,)))
            continue
        by_controller.setdefault(signed.event.source, []).append((record, signed))
    for source in sorted(by_controller):
        batch = sorted(by_controller[source], key=lambda each: (each[0].now_ms, each[1].event.sequence))
        report.findings += _replay_one(history, batch, store, check, ended)
    return report


def _of_another(decision: Decision, store: str) -> str:
    where = f"it read broker {decision.broker.removeprefix('broker/')}, store {decision.store}; this is store {store}"
    advice = "replay an export of that broker (dsmt export --bus, with its address in dsmt brokers)"
    return f"{where}: {advice}; where it is gone, or has another store now, nothing decides it again"


_Words = dict[str, tuple[float, tuple[float, float]]]
"""Words of ended keys by topic, or by the thing that a tombstone hides: the first end, the greatest (epoch, version)."""
_Place = tuple[float, Callable[[SignedEvent], bool]]
"""A row, and what stands there of the keys that had ended."""


class _Reading:
    """What one controller had folded at each of its decisions (rules 1, 5 and 6)."""

    def __init__(self, history: _History, broker: str, ended: RevokedAt) -> None:
        self._history, self._broker, self._ended = history, broker, ended
        self._tried: set[tuple[int, _Place]] = set()
        self._begun: set[_Place] = set()
        self._tries = 0
        self._ends: list[float] | None = None
        self._late: list[int] = []
        self.view, self._since = View(), 0.0
        self._rows = history.facts(broker)
        self._next = next(self._rows, None)

    def follow(self, decision: Decision, event: Event) -> bool:
        """Fold what a decision was made from; whether the view is the one that it recorded."""
        self._fold(decision.row)
        self.view.expire(decision.now_ms)
        if self.view.digest == decision.view_digest:
            return True
        return any(self._begin(decision, place) for place in self._places(decision, event))

    def _places(self, decision: Decision, event: Event) -> Iterator[_Place]:
        """Where who decided may have begun: with its incarnation, or where something became void, the last first.

        Each is given with what stands there of ended keys, and once, until one of them is found for the first time: each try
        folds all rows anew.
        """
        if self._ends is None:
            void = {self._ended(one) for _, one in self._history.rows}
            self._ends = sorted(void - {inf}, reverse=True)
            self._late = self._history.late(self._ended)[::-1]
        began = self._history.began(event)
        ends = [(one, stands) for one in self._ends if one <= decision.row for stands in (_said_again, _nothing, _all)]
        begins = [(began, stands) for stands in (_said_again, _nothing)[: 2 if self._ends else 1]]
        rows = (decision.row, *(row for row in self._late if row < decision.row)) if ends else ()
        late = [(row, _all) for row in rows]  # the broker had no room until then
        for place in (*begins, *ends, *late):
            if (event.incarnation, place) not in self._tried and self._tries < TRIES:
                self._tries += 1
                self._tried.add((event.incarnation, place))
                yield min(place[0], decision.row), place[1]

    def _fold(self, upto: float, *, beginning: Callable[[SignedEvent], bool] | None = None) -> None:
        """Fold the rows up to one; `beginning`: there nobody believes a key that had ended, but for what stands by this."""
        since = self._since if beginning is None else upto
        while self._next is not None and self._next[0] <= upto:
            signed = self._next[1]
            if self._ended(signed) > since or (beginning is not None and beginning(signed)):
                self.view.apply(signed)
            self._next = next(self._rows, None)

    def _begin(self, decision: Decision, place: _Place) -> bool:
        """Rule 6. Whether that is the view; else all stays as it was."""
        began, stands = place
        other = _Reading(self._history, self._broker, self._ended)
        other._fold(began, beginning=stands)
        believed, other.view = [one for one in other.view.winners() if self._ended(one) > began], View()
        for one in believed:
            other.view.apply(one)
        other._since = began
        other._fold(decision.row)
        other.view.expire(decision.now_ms)
        if other.view.digest != decision.view_digest:
            return False
        self.view, self._since = other.view, began
        if place not in self._begun:
            self._begun.add(place)
            self._tried.clear()
        return True


def _words(rows: Sequence[tuple[int, SignedEvent]], ended: RevokedAt) -> _Words:
    found: _Words = {}
    for _, signed in rows:
        event, end = signed.event, ended(signed)
        if end < inf and event.version is not None:
            epoch = event.epoch or 0
            _keep(found, event.topic, end, (epoch, event.version))
            if event.topic.startswith(TOMBSTONE):
                _keep(found, event.topic.removeprefix(TOMBSTONE), end, (epoch, inf))
    return found


def _keep(words: _Words, place: str, end: float, number: tuple[float, float]) -> None:
    first, greatest = words.get(place, (end, number))
    words[place] = min(first, end), max(greatest, number)


def _loses(row: int, event: Event, words: _Words) -> bool:
    """Whether what came with a row loses to a word of a key that had ended before it."""
    over = [words[place] for place in (event.topic, thing_of(event.topic)) if place in words]
    return any(end < row and (event.epoch or 0, event.version or 0) <= greatest for end, greatest in over)


def _said_again(signed: SignedEvent) -> bool:
    """What controllers say again of an ended key has the time for that (J3)."""
    return is_said_again(signed.event.topic) and not is_void(signed, lambda _: True)


def _nothing(_: SignedEvent) -> bool:
    """That time is over: what the key had displaced stands again."""
    return False


def _all(_: SignedEvent) -> bool:
    """A broker was late to displace it: its disk was full."""
    return True


def _replay_one(
    history: _History, batch: Sequence[tuple[Decision, SignedEvent]], store: str | None, check: Verify, ended: RevokedAt
) -> list[ReplayedDecision]:
    reading: _Reading | None = None
    found = []
    for decision, signed in batch:
        if store is not None and decision.store != store:
            found.append(ReplayedDecision(signed, "inputs incomplete", (_of_another(decision, store),)))
            continue
        reading = reading or _Reading(history, decision.broker, ended)
        is_known = reading.follow(decision, signed.event)
        if decision.ruleset != RULESET:
            said = f"it was made by ruleset {decision.ruleset}, this is {RULESET}"
            found.append(ReplayedDecision(signed, "other ruleset", (said,)))
        elif not is_known:
            found.append(ReplayedDecision(signed, "inputs incomplete", (history.without(decision.row),)))
        else:
            found.append(_compare(reading.view, decision, signed, history, check))
    return found


def _compare(view: View, decision: Decision, signed: SignedEvent, history: _History, check: Verify) -> ReplayedDecision:
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
        return ReplayedDecision(signed, "different", differing)
    if len(missing) > stale:
        said = f"{', '.join(missing)} not among the rows, where others were first on {stale} of its topics"
        return ReplayedDecision(signed, "inputs incomplete", (said,))
    return ReplayedDecision(signed, "same", stale=len(missing))


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
