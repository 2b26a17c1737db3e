"""Screens say which revision runs and which was refused; what was refused can be applied again."""

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from dsmt.cli import screens
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import reason
from dsmt.event.records import from_data
from dsmt.event.status import State
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.revisions import (
    SAME_MOST,
    RefusedRevision,
    following,
    in_words,
    instead,
    refused,
    refused_and_runs,
    running,
    same,
)
from dsmt.operations.read.screens.summaries import service
from dsmt.operations.words.targets import Target
from dsmt.operations.write import applying, declaring, revising
from dsmt.operations.write.writing import Acknowledged
from dsmt.spec.parsing import parse
from tests.controllers.build import Realm, key, spec, web

from .sights import sight

POLICY = "restart: {escalate: [restart: 3]}\n"
BAD = web(3, component=POLICY + "env: {A: b}")


def rolled_back(besides: str = "") -> Realm:
    """A realm in which an r2 was rolled back; `besides`: what else the service has."""
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3, component=POLICY) + besides)
    realm.settle(seconds=1)
    realm.after(100).apply(BAD + besides)
    realm.step()
    why = reason("start.exited", exit_code=1, time="0.1 s", target="web/app/0")
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True, reason=why)
    realm.step()
    return realm


def test_after_a_rollback_what_runs_is_the_good_revision_and_the_refused_one_is_named_with_its_reason() -> None:
    realm = rolled_back()
    seen = sight(realm)
    told = service(seen, "web")
    assert told is not None
    assert (told.revision, told.running) == (2, [1])
    assert told.refused is not None
    assert told.refused.revision == 2
    assert told.refused.reason is not None
    assert "exited with 1" in told.refused.reason.message
    assert told.refused.reason.next == "dsmt logs web/app/0 --revision r2", "other runs may end before somebody reads it"
    screen = screens.services([told], seen)
    assert "r1, r2 refused" in screen
    assert "r2 failed" in screen
    assert told.ready == 2, "the others were not touched"


def test_a_revision_that_one_component_has_and_another_refused_is_refused_in_part() -> None:
    assert in_words([2, 1], RefusedRevision(revision=2, reason=None, in_part=True), 2) == "r2, r1, r2 refused in part"
    parts = {"app": [1], "job": [2]}
    in_part = RefusedRevision(revision=2, reason=None, in_part=True, by=["app"])
    assert in_words([2, 1], in_part, 2, parts) == "job r2; app r1 (r2 refused)"
    assert in_words([1], RefusedRevision(revision=2, reason=None), 2) == "r1, r2 refused"
    assert in_words([1], None, 2) == "r1, r2 waits"
    assert in_words([], None, 2) == "r2"
    assert in_words([2], RefusedRevision(revision=2, reason=None, overruled=True), 2) == "r2 (overruled), r2 refused"
    for besides, by in (("", []), ("  job:\n    run: ./job\n", ["app"])):
        denied = refused(rolled_back(besides).view.services["web"])
        assert denied is not None
        assert (denied.revision, denied.in_part, denied.by) == (2, bool(by), by)


def test_of_what_was_refused_in_part_it_is_said_for_which_components_and_what_the_others_run() -> None:
    def told(*by: str, **parts: list[int]) -> str:
        denied = RefusedRevision(revision=2, reason=None, in_part=bool(by), by=list(by))
        said = "; ".join(refused_and_runs(denied, [2, 1], parts))
        return f"{said} -- {instead(denied, [1], parts)}"

    assert told() == "r2 was refused; r2, r1 run -- on r1 (r2 was refused)"
    assert told("a", a=[1], b=[2]) == "r2 was refused for a, which runs r1; b runs r2 -- a on r1 (r2 was refused)"
    alike = "r2 was refused for a and c, which run r1; b and d run r3 -- a and c on r1 (r2 was refused)"
    assert told("a", "c", a=[1], b=[3], c=[1], d=[3]) == alike
    several = "r2 was refused for a, which runs r1, and for c, which runs r0; b runs r2 -- a on r1, c on r0 (r2 was refused)"
    assert told("a", "c", a=[1], b=[2], c=[0]) == several


def test_every_screen_tells_what_was_refused_in_part_alike_and_by_the_revision_in_which_it_was_tried() -> None:
    besides = "  job:\n    run: ./job\n"
    realm = rolled_back(besides)
    realm.settle(seconds=1)
    realm.apply(web(4, component=POLICY + "env: {A: b}") + besides)
    realm.settle(seconds=1)
    seen = sight(realm)
    (row,) = instances(seen, Target("web", "job"))
    denied = refused(realm.view.services["web"])
    assert denied is not None
    assert (denied.revision, denied.by) == (2, ["app"])
    said = f"web: job runs r{row.revision}; r2 was refused for app, which runs r1: r2 failed"
    assert said in screens.ps(instances(seen, Target("web")), seen)


@pytest.mark.parametrize("word", ["hold", "drain"])
def test_why_a_revision_was_refused_is_never_what_a_slot_was_told_since(word: str) -> None:
    realm = rolled_back()
    if word == "hold":
        realm.hold(key(0))
    else:
        realm.control_node(realm.slot(0).node, "draining")
    realm.settle(seconds=1)
    assert realm.slot(0).reason.code != "rollout.rolled_back"
    denied = refused(realm.view.services["web"])
    assert denied is not None
    assert (denied.revision, denied.reason) == (2, None), "no fact says any more why"
    realm.apply(web(4, component=POLICY + "env: {A: b}"))
    realm.settle(seconds=1)
    assert [realm.slot(index).revision for index in range(4)] == [1, 1, 1, 1]
    assert refused(realm.view.services["web"]).reason is None


def test_while_one_revision_follows_another_both_are_shown() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle(seconds=1)
    realm.after(100).apply(web(3, component="env: {A: b}"))
    realm.step()
    entry = realm.view.services["web"]
    assert (running(entry), refused(entry)) == ([2, 1], None)


def applied(realm: Realm, text: str, monkeypatch: Any) -> SpecFact:
    """What `apply` says of a file."""
    said: list[Any] = []

    async def look(_bus: Any, *, of: Any = ()) -> Any:
        return sight(realm)

    async def say(_bus: Any, drafts: list[Any]) -> Acknowledged:
        said.extend(drafts)
        return Acknowledged([], 2)

    monkeypatch.setattr(applying, "look", look)
    monkeypatch.setattr(applying, "say", say)
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=Path(), warnings=())
    bus: Any = None
    (done,) = asyncio.run(applying.apply(bus, [declared], by="operator/alice", reason=""))
    assert (done.outcome, done.revision) == ("applied", 3)
    (draft,) = said
    return from_data(SpecFact, draft.data)


def test_the_same_file_applied_again_after_a_rollback_is_a_new_revision(monkeypatch: Any) -> None:
    assert applied(rolled_back(), BAD, monkeypatch).same == ()


def test_a_file_that_changes_only_the_number_of_instances_asks_for_nothing_else_to_be_tried(monkeypatch: Any) -> None:
    realm = rolled_back()
    stands = realm.view.services["web"].spec
    assert applied(realm, BAD.replace("instances: 3", "instances: 5"), monkeypatch).same == (str(stands.id),)
    each = BAD.replace("instances: 3", "instances: each_node")
    assert applied(rolled_back(), each, monkeypatch).same == ()
    assert applied(rolled_back(), BAD + "    user: www\n", monkeypatch).same == ()


def test_a_spec_names_the_last_that_said_the_same_and_all_that_slots_name() -> None:
    realm = rolled_back()
    held = realm.view.services["web"].spec
    assert held is not None
    before = msgspec.structs.replace(held.record, same=tuple(f"s{number}" for number in range(SAME_MOST + 4)))
    (name,) = before.spec["components"]
    more = {**before.spec, "components": {name: {**before.spec["components"][name], "instances": 9}}}
    last = ("own", *(f"s{number}" for number in range(SAME_MOST - 1)))
    assert same(before, "own", more, ()) == last
    assert same(before, "own", more, {f"s{SAME_MOST + 1}"}) == (*last, f"s{SAME_MOST + 1}")


def test_a_service_that_is_applied_after_its_removal_says_nothing_again() -> None:
    realm = Realm("n1")
    realm.apply(web(2))
    realm.apply(web(2), removed=True)
    entry = realm.view.services["web"]
    assert entry.spec is not None
    fact = msgspec.structs.replace(entry.spec.record, removed=False, spec=spec(web(3)))
    assert (following(entry, fact).same, following(entry, fact).earlier) == ((), {})


def test_a_spec_says_nothing_of_what_ended_an_orphan() -> None:
    realm = Realm("n1")
    realm.controller("c1")
    realm.apply(web(2))
    realm.say("controller/c1", key(7).topic, Slot(node="n1", spec="of an orphan", revision=0, desired="gone"))
    entry = realm.view.services["web"]
    assert entry.spec is not None
    fact = msgspec.structs.replace(entry.spec.record, spec=spec(web(3, component="on_partition: pinned")))
    assert list(following(entry, fact).earlier) == [str(entry.spec.id)]


def test_what_is_not_built_and_was_applied_all_the_same_keeps_nobody_from_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by another dsmt: what stands is not asked about."""
    made, bus = Realm("n1"), cast(Any, None)
    made.apply(web(1, component="spread: {strict: true}\n"))

    async def look_at(*_: object) -> Any:
        return sight(made)

    async def say_spec(*_: object) -> int:
        return 2

    monkeypatch.setattr(revising, "look_at", look_at)
    monkeypatch.setattr(revising, "say_spec", say_spec)
    assert asyncio.run(revising.scale(bus, Target("web"), 2, by="alice", reason="")).revision == 2
