"""Recorded inputs give the same decisions, and a defect shows as a difference, missing inputs as missing."""

import re
from math import inf

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.controllers.placement import Chooser
from dsmt.controllers.replay import ReplayReport, Rows, _Reading, fold_and_decide
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.kinds.service import SpecFact
from dsmt.view import View

from .build import Realm, spec, web
from .scenario import Life
from .signing import signed


def lived(seed: int, steps: int = 80) -> Life:
    life = Life(seed)
    for _ in life.live(steps):
        pass
    assert len(life.decisions) > 10
    return life


def replayed(life: Life, **about: str) -> ReplayReport:
    return fold_and_decide(life.realm.rows, life.decisions, **about)


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_life_replays_the_same(seed: int) -> None:
    life = lived(seed)
    report = replayed(life, store="s1")
    assert report.ok
    assert report.count("same") == len(life.decisions)


def test_a_conflated_history_replays_as_far_as_it_goes() -> None:
    """Below the horizon only winners are kept: decisions after it replay, those before have incomplete inputs."""
    life = lived(1)
    middle = msgspec.convert(life.decisions[len(life.decisions) // 2].event.data, Decision, builtin_types=(bytes,))
    latest = {event.event.topic: row for row, event in life.realm.rows if row <= middle.row}
    kept = [(row, e) for row, e in life.realm.rows if row > middle.row or latest[e.event.topic] == row]
    report = fold_and_decide(kept, life.decisions)
    outcomes = [finding.outcome for finding in report.findings]
    assert set(outcomes) == {"same", "inputs incomplete"}
    assert set(outcomes[len(outcomes) // 2 :]) == {"same"}


def test_a_planted_defect_in_a_decision_shows_as_different(monkeypatch: pytest.MonkeyPatch) -> None:
    life = lived(2)
    assert replayed(life).ok
    monkeypatch.setattr(Chooser, "_score", lambda _self, node, _start: node)
    monkeypatch.setattr(Chooser, "_walk", lambda self, key, avoid: self._best_of(self.candidates(), key, avoid))
    report = replayed(life)
    assert not report.ok
    assert any("would" in d for f in report.findings if f.outcome == "different" for d in f.details)


def changed(signed_event: SignedEvent, **fields: object) -> SignedEvent:
    """The same event, with other content in its record."""
    event = signed_event.event
    return signed(
        event.source, event.topic, event.data | fields, sequence=event.sequence, time_ms=event.time_ms,
        counter=event.time & 0xFFFF, version=event.version, cause=event.cause, ttl=event.ttl, to=event.to,
    )  # fmt: skip


def test_a_product_that_was_altered_shows_as_different() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    life = Life(0)
    life.realm = realm
    life.decide(realm.decide())
    (decision,) = life.decisions
    rows = [(row, changed(e, node="n9") if "/slot/" in e.event.topic else e) for row, e in realm.rows]
    (finding,) = fold_and_decide(rows, [decision]).findings
    assert finding.outcome == "different"
    assert "node: 'n9' -> 'n" in finding.details[0]


def test_what_the_stores_broker_said_before_it_had_that_store_is_history_and_no_fact_in_it() -> None:
    """Its disk was new; others brought back its own former words, which no controller was given as facts."""
    life = lived(1)
    first = next(one for _, one in life.realm.rows if one.event.topic.startswith("broker/b1/session/node/"))
    former = signed(
        "broker/b1",
        "broker/b1/session/node/n99",
        first.event.data,
        incarnation=first.event.incarnation - 1,
        ttl=first.event.ttl,
    )
    at = next(n for n, (_, one) in enumerate(life.realm.rows, 1) if one is first)
    rows = [*life.realm.rows[:at], (at, former), *life.realm.rows[at:]]
    report = fold_and_decide(rows, life.decisions, store="s1")
    assert report.count("same") == len(life.decisions)


def test_what_the_stores_broker_said_before_is_a_fact_in_a_store_that_was_written_before_it_ran() -> None:
    """A realm came back from NATS: the store begins with words in an incarnation above all that was taken into it."""
    life = lived(1)
    first = next(one for _, one in life.realm.rows if one.event.source == "broker/b1")
    head = signed("broker/b1", "broker/b1/stats", {"pid": None, "address": ""}, incarnation=first.event.incarnation + 1)
    report = fold_and_decide([(0, head), *life.realm.rows], life.decisions, store="s1")
    assert report.count("same") == len(life.decisions)


def test_what_nobody_folds_is_not_kept_in_memory_and_its_rows_count_as_there() -> None:
    """Most of a long history is that: heartbeats, figures, what users say."""
    life = lived(2)
    said = [signed("operator/bob", "user/said", {"n": n}) for n in range(9)]
    filled = [(10 * row + n, one) for row, event in life.realm.rows for n, one in enumerate((event, *said), -9)]
    rows = Rows(filled)
    assert len(rows.needed) <= len(life.realm.rows) + 1
    assert len(rows.numbers) == len(filled)
    decisions = [_moved(one, 10 * one.event.data["row"]) for one in life.decisions]
    assert fold_and_decide(rows, decisions, store="s1").count("same") == len(decisions)
    lacking = [each for each in filled if not each[1].event.topic.endswith("/spec")]
    found = [one.details[0] for one in fold_and_decide(lacking, decisions, store="s1").findings if one.details]
    assert re.search(r"view that it was made from: 1 of them not in the file, row \d+1 the first", found[0])


def _moved(decision: SignedEvent, row: int) -> SignedEvent:
    """The same, made from the rows up to another one."""
    return replace(decision, event=replace(decision.event, data={**decision.event.data, "row": row}))


def test_a_missing_row_is_incomplete_and_never_different() -> None:
    life = lived(3)
    spec_row = next(row for row, event in life.realm.rows if event.event.topic.endswith("/spec"))
    rows = [each for each in life.realm.rows if each[0] != spec_row]
    report = fold_and_decide(rows, life.decisions)
    assert report.ok
    assert report.count("inputs incomplete") > 0


def test_a_product_that_is_not_there_is_incomplete() -> None:
    life = lived(4)
    last = life.decisions[-1].event.data["produced"][-1]
    rows = [(row, e) for row, e in life.realm.rows if str(e.id) != last]
    finding = fold_and_decide(rows, life.decisions).findings[-1]
    assert finding.outcome == "inputs incomplete"
    assert last in finding.details[0]


def test_a_decision_that_cannot_be_read_is_incomplete_and_it_is_said_why() -> None:
    (finding,) = fold_and_decide([], [signed("controller/c1", "controller/c1/decision", {"store": 7})]).findings
    assert finding.outcome == "inputs incomplete"
    assert "store" in finding.details[0]


def raced(*lost: str) -> tuple[Realm, SignedEvent]:
    """A realm in which a controller's facts on these topics were stale, and its decision."""
    life = Life(0)
    realm = life.realm = Realm("n1", "n2")
    realm.apply(web(3))
    life.decide(realm.decide())
    realm.rows = [(row, e if e.event.topic not in lost else by_another(e)) for row, e in realm.rows]
    (decision,) = life.decisions
    return realm, decision


def by_another(one: SignedEvent) -> SignedEvent:
    """The same fact, by another controller that was first."""
    event = one.event
    return signed(
        "controller/first", event.topic, event.data, sequence=event.sequence, time_ms=event.time_ms - 1,
        version=event.version, epoch=event.epoch, cause=event.cause, ttl=event.ttl, to=event.to,
    )  # fmt: skip


SLOTS = [f"service/web/slot/app/{i}" for i in range(3)]


@pytest.mark.parametrize("lost", [SLOTS[:1], SLOTS[1:], SLOTS])
def test_what_was_refused_as_stale_is_counted_and_all_else_compared(lost: list[str]) -> None:
    realm, decision = raced(*lost)
    (finding,) = fold_and_decide(realm.rows, [decision]).findings
    assert (finding.outcome, finding.details, finding.stale) == ("same", (), len(lost))


def test_a_product_that_differs_is_told_beside_one_that_was_stale() -> None:
    realm, decision = raced(SLOTS[0])
    rows = [(row, changed(e, node="n9") if e.event.topic == SLOTS[1] else e) for row, e in realm.rows]
    (finding,) = fold_and_decide(rows, [decision]).findings
    assert finding.outcome == "different"


def test_a_product_that_is_missing_beside_one_that_was_stale_is_named() -> None:
    realm, decision = raced(SLOTS[0])
    rows = [(row, e) for row, e in realm.rows if e.event.topic != SLOTS[1]]
    (finding,) = fold_and_decide(rows, [decision]).findings
    (gone,) = [str(e.id) for _, e in realm.rows if e.event.topic == SLOTS[1]]
    assert finding.outcome == "inputs incomplete"
    assert gone in finding.details[0]


def test_what_another_said_only_after_the_decision_was_stored_explains_no_missing_product() -> None:
    realm, decision = raced(SLOTS[0])
    (stale,) = [(row, e) for row, e in realm.rows if e.event.topic == SLOTS[0]]
    rows = [each for each in realm.rows if each != stale]
    last = rows[-1][0]
    (finding,) = fold_and_decide([*rows, (last + 1, decision), (last + 2, stale[1])], [decision]).findings
    assert finding.outcome == "inputs incomplete"


def test_how_many_of_the_rows_of_a_view_are_missing_is_said_and_which_the_first() -> None:
    life = lived(3)
    spec_row = next(row for row, event in life.realm.rows if event.event.topic.endswith("/spec"))
    rows = [each for each in life.realm.rows if each[0] not in (spec_row, spec_row + 1)]
    lacking = [f for f in fold_and_decide(rows, life.decisions).findings if f.outcome == "inputs incomplete"]
    assert lacking[-1].details[0].endswith(f": 2 of them not in the file, row {spec_row} the first")
    ends = life.decisions[-1].event.data["row"] - 1
    (finding,) = fold_and_decide(life.realm.rows[:ends], life.decisions[-1:]).findings
    assert finding.details[0].endswith(f": 1 of them not in the file, row {ends + 1} the first")


def test_another_store_and_another_ruleset_are_not_compared() -> None:
    life = lived(5)
    findings = replayed(life, store="s2").findings
    assert {f.outcome for f in findings} == {"inputs incomplete"}
    ((said,),) = {f.details for f in findings}
    assert said.startswith("it read broker b1, store s1; this is store s2: replay an export of that broker")
    assert said.endswith("; where it is gone, or has another store now, nothing decides it again")
    other = [changed(d, ruleset=99) for d in life.decisions]
    assert {f.outcome for f in fold_and_decide(life.realm.rows, other).findings} == {"other ruleset"}


def test_what_another_controller_said_first_is_no_difference() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(3))
    decided = realm.decide()
    life = Life(0)
    life.realm = realm
    life.decide(type(decided)(decided.intents[:1]))
    assert replayed(life).count("same") == 1


@pytest.mark.parametrize("later", [0, 1])
def test_what_is_decided_by_who_began_after_a_revocation_replays_without_what_that_key_had_said(later: int) -> None:
    """And what was decided before by who believed it replays with it; the revocation may be the last row that was read."""
    life = Life(0)
    realm = life.realm = Realm("n1", "n2", "n3")
    realm.apply(web(2))
    life.decide(realm.decide())
    realm.obey()
    revoked = len(realm.rows) + later
    believed, realm.view = [one for one in realm.view.winners() if not of_n3(one)], View()
    for one in believed:
        realm.view.apply(one)
    for instances in (3, 4):
        realm.apply(web(instances))
        life.decide(realm.after(1).decide(), controller="c2")
    assert len(life.decisions) == 3

    def ended(one: SignedEvent) -> float:
        return revoked if of_n3(one) else inf

    assert [one.outcome for one in fold_and_decide(realm.rows, life.decisions, ended=ended).findings] == ["same"] * 3
    unaware = fold_and_decide(realm.rows, life.decisions).findings
    assert [one.outcome for one in unaware] == ["same"] + ["inputs incomplete"] * 2
    rows = [each for each in realm.rows if not each[1].event.topic.startswith("node/n1/")]
    lacking = fold_and_decide(rows, life.decisions, ended=ended)
    assert [one.outcome for one in lacking.findings] == ["inputs incomplete"] * 3


def test_who_began_between_two_revocations_goes_on_with_what_the_second_key_had_said_and_nothing_of_the_first() -> None:
    """Nor does what the first one's key had said come later, nor count what had expired."""
    life = Life(0)
    realm = life.realm = Realm("n1", "n2", "n3", "n4")
    realm.say("monitor/n5", "node/n5/attributes", dict(realm.attributes("n5").event.data), ttl=500)
    revoked = {"n3": len(realm.rows)}
    believed, realm.view = [one for one in realm.view.winners() if not of_n3(one)], View()
    for one in believed:
        realm.view.apply(one)
    realm.say("controller/c2", "config/begun", {"value": True})
    revoked["n4"] = len(realm.rows) + 1
    for instances in (3, 4):
        realm.apply(web(instances))
        heard, realm.view = realm.view, View()
        realm.attributes("n3", load=instances)
        realm.view = heard
        life.decide(realm.after(1).decide(), controller="c2")
    assert len(life.decisions) == 2

    def ended(one: SignedEvent) -> float:
        return revoked.get(one.event.source.partition("/")[2], inf)

    assert [one.outcome for one in fold_and_decide(realm.rows, life.decisions, ended=ended).findings] == ["same"] * 2


def test_what_is_decided_by_who_folds_anew_for_a_void_spec_replays_with_the_one_that_it_had_displaced() -> None:
    life = Life(0)
    realm = life.realm = Realm("n1", "n2")
    realm.apply(web(2))
    before, stood = realm.view.winner("service/web/spec"), realm.view.copy()
    void = realm.say("operator/eve", "service/web/spec", SpecFact(spec=spec(web(4)), by="eve", reason=""))
    life.decide(realm.decide())
    realm.obey()
    revoked = len(realm.rows)
    held = [one for one in realm.view.winners() if one != void]
    realm.view = stood
    for one in held:
        realm.view.apply(one)
    assert realm.view.winner("service/web/spec") == before
    realm.apply(web(1, service="other"))
    life.decide(realm.after(1).decide())

    def ended(one: SignedEvent) -> float:
        return revoked if one.event.source == "operator/eve" else inf

    assert [one.outcome for one in fold_and_decide(realm.rows, life.decisions, ended=ended).findings] == ["same"] * 2


def test_what_is_decided_before_the_one_that_it_had_displaced_stands_again_replays_without_it_and_then_with_it() -> None:
    """The broker's disk was full."""
    life = Life(0)
    realm = life.realm = Realm("n1", "n2")
    realm.apply(web(2))
    before = realm.view.winner("service/web/spec")
    void = realm.say("operator/eve", "service/web/spec", SpecFact(spec=spec(web(4)), by="eve", reason=""))
    life.decide(realm.decide())
    realm.obey()
    revoked = len(realm.rows)
    held, realm.view = [one for one in realm.view.winners() if one != void], View()
    for one in held:
        realm.view.apply(one)
    for name in ("other", "third"):
        realm.apply(web(1, service=name))
        life.decide(realm.after(1).decide())
        assert before is not None
        realm.view.apply(before)

    def ended(one: SignedEvent) -> float:
        return revoked if one.event.source == "operator/eve" else inf

    assert [one.outcome for one in fold_and_decide(realm.rows, life.decisions, ended=ended).findings] == ["same"] * 3


def test_whether_somebody_began_after_a_revocation_is_tried_once_for_each_time_it_began(monkeypatch) -> None:
    """Each try folds all rows anew: a file that lacks some would be replayed for hours."""
    life, tried = lived(3), []
    begin = _Reading._begin
    monkeypatch.setattr(_Reading, "_begin", lambda *given: (tried.append(given), begin(*given))[1])
    report = fold_and_decide(life.realm.rows[1:], life.decisions)
    assert report.count("inputs incomplete") > 1
    assert len(tried) == len({one.event.incarnation for one in life.decisions})


def of_n3(one: SignedEvent) -> bool:
    return one.event.source.endswith("/n3") or one.event.source.startswith("agent/n3/")


def test_who_begins_without_end_and_names_no_view_that_there_was_is_folded_anew_so_often_and_no_more(monkeypatch) -> None:
    """A thief of a controller's key: `replay` is to show which of its decisions do not follow from what it saw."""
    life, tries = lived(1), []
    begin = _Reading._begin
    monkeypatch.setattr(_Reading, "_begin", lambda self, *where: (tries.append(where), begin(self, *where))[1])
    monkeypatch.setattr("dsmt.controllers.replay.TRIES", 5)
    lie = changed(life.decisions[-1], view_digest=bytes(32))
    lies = [replace(lie, event=replace(lie.event, incarnation=9**9 + n)) for n in range(20)]
    report = fold_and_decide(life.realm.rows, [*life.decisions, *lies])
    assert report.count("same") == len(life.decisions)
    assert report.count("inputs incomplete") == len(lies)
    assert len(tries) == 5
