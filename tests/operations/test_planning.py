"""Plans: the very decisions of controllers, on a copy of the live view."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from dsmt.cli.plan_screen import difference as difference_screen
from dsmt.cli.plan_screen import screens
from dsmt.controllers.service import AHEAD
from dsmt.errors import RefusedError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.operations.read.ahead.plan_words import HIDDEN
from dsmt.operations.read.ahead.planning import ApplyPlan, check_plan, difference, left_data, plan, plan_id
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.write import applying, declaring, removing
from dsmt.ports.bus import Bus
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.view import View
from tests.controllers.build import Realm, key, web

from .sights import sight
from .test_revisions import BAD, rolled_back


def spec(text: str) -> ServiceSpec:
    return parse(text, file="service.yaml")[0]


def running(instances: int = 3) -> Realm:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(instances))
    realm.settle()
    return realm


def test_a_new_service_is_planned_onto_nodes_and_nothing_is_said() -> None:
    realm = Realm("n1", "n2", "n3")
    before = realm.view.digest
    found = plan(sight(realm), spec(web(3)), by="alice", warnings=[])
    assert [(step.instance, step.action) for step in found.steps] == [(f"web/app/{i}", "new") for i in range(3)]
    assert {step.node for step in found.steps} == {"n1", "n2", "n3"}
    assert (found.base_revision, found.revision, found.unplaced) == (0, 1, [])
    assert realm.view.digest == before


def test_a_plan_is_what_controllers_then_do() -> None:
    realm = Realm("n1", "n2", "n3")
    planned = {step.instance: step.node for step in plan(sight(realm), spec(web(3)), by="alice", warnings=[]).steps}
    realm.apply(web(3))
    realm.step()
    done = {}
    for index in range(3):
        slot = realm.view.slot(key(index))
        assert slot is not None
        assert slot.fact is not None
        done[str(key(index))] = slot.fact.record.node
    assert done == planned


def test_a_changed_command_replaces_one_after_the_other() -> None:
    realm = running()
    found = plan(sight(realm), spec(web(3, component="env: {LOG: debug}")), by="alice", warnings=[])
    assert [(step.instance, step.action) for step in found.steps] == [(f"web/app/{i}", "replace") for i in range(3)]
    assert (found.base_revision, found.revision, found.min_ready) == (1, 2, 3)
    assert found.estimate_s >= 20
    assert [change.key for change in found.changes] == ["env.LOG"]


def test_where_two_copies_are_forbidden_one_is_down_at_a_time() -> None:
    realm = running()
    one_by_one = "env: {LOG: debug}\nupdate: {order: stop_first}\n"
    found = plan(sight(realm), spec(web(3, component=one_by_one)), by="alice", warnings=[])
    assert found.min_ready == 2


def test_scaling_down_removes_and_up_adds() -> None:
    realm = running()
    down = plan(sight(realm), spec(web(1)), by="alice", warnings=[])
    assert sorted((step.instance, step.action) for step in down.steps if step.action == "remove") == [
        ("web/app/1", "remove"),
        ("web/app/2", "remove"),
    ]
    up = plan(sight(realm), spec(web(4)), by="alice", warnings=[])
    assert [(step.instance, step.action) for step in up.steps if step.action == "new"] == [("web/app/3", "new")]
    assert {step.action for step in up.steps if step.instance != "web/app/3"} == {"update"}
    assert up.min_ready == 3


def dead(realm: Realm, index: int) -> str:
    """The node of an instance is dead."""
    slot = realm.view.slot(key(index))
    assert slot is not None
    assert slot.fact is not None
    node = str(slot.fact.record.node)
    realm.silence(node)
    realm.after(10)
    realm.verdict(node, road="silent", since_ms=realm.now_ms - 10_000)
    return node


def test_what_was_removed_and_is_wanted_again_is_new() -> None:
    realm = running()
    realm.apply(web(1))
    realm.settle()
    up = plan(sight(realm), spec(web(2)), by="alice", warnings=[])
    assert [(step.instance, step.action) for step in up.steps if step.action != "update"] == [("web/app/1", "new")]


def test_what_has_no_place_and_is_not_wanted_any_more_is_not_told_of() -> None:
    realm = Realm("n1")
    realm.apply(web(2, component="reserve: {memory: 5GiB}"))
    realm.settle()
    stays = plan(sight(realm), spec(web(2, component="reserve: {memory: 5GiB}\nenv: {A: b}")), by="alice", warnings=[])
    assert [one.instance for one in stays.unplaced] == ["web/app/1"]
    assert plan(sight(realm), spec(web(1, component="reserve: {memory: 5GiB}")), by="alice", warnings=[]).unplaced == []


def test_what_is_on_a_dead_node_is_not_counted_as_ready_and_its_move_that_is_far_off_is_not_played() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3, component="lost_after: 1h"))
    realm.settle()
    dead(realm, 0)
    found = plan(sight(realm), spec(web(4, component="lost_after: 1h")), by="alice", warnings=[])
    assert [(step.instance, step.action) for step in found.steps if step.action != "update"] == [("web/app/3", "new")]
    assert found.min_ready == 2
    assert found.estimate_s < 60


def test_of_a_node_set_that_there_is_not_it_is_told_once_what_to_correct_and_no_command_leads_nowhere() -> None:
    realm = Realm("n1")
    declared = web(3, component="nodes: zone-c")
    advice = "there is no node or node set zone-c: correct `nodes`; dsmt nodeset list; dsmt nodes"
    for differs in (True, False):
        found = plan(sight(realm), spec(declared), by="alice", warnings=[])
        assert [one.reason and one.reason.next for one in found.unplaced] == [advice] * 3
        told = screens([found], ["web.yaml"])
        assert told.count(" will not run: node set zone-c selects no node now\n    you: " + advice) == 1
        assert ("nothing differs" in told) != differs
        realm.apply(declared)
        realm.settle()


def test_what_has_no_place_is_told_with_its_reason() -> None:
    realm = Realm("n1")
    found = plan(sight(realm), spec(web(1, component="reserve: {memory: 900GiB}")), by="alice", warnings=[])
    assert found.steps == []
    assert [(one.instance, one.reason.code if one.reason else None) for one in found.unplaced] == [
        ("web/app/0", "place.no_room")
    ]


def test_a_spec_that_stands_already_needs_nothing() -> None:
    realm = running()
    found = plan(sight(realm), spec(web(3)), by="alice", warnings=[])
    assert (found.steps, found.changes, found.revision) == ([], [], 1)


def test_the_id_binds_base_and_content() -> None:
    realm = running()
    new = spec(web(4))
    own = plan(sight(realm), new, by="alice", warnings=[]).id
    assert own == plan_id(realm.view, new)
    check_plan(realm.view, new, own)
    with pytest.raises(RefusedError):
        check_plan(realm.view, spec(web(5)), own)
    realm.apply(web(2))
    with pytest.raises(RefusedError) as caught:
        check_plan(realm.view, new, own)
    assert caught.value.exit == 4


@pytest.mark.parametrize("about", [{"epoch": 2}, {}], ids=["removed and made anew", "overruled when a partition healed"])
def test_a_plan_is_not_of_another_revision_that_has_the_same_number(about: dict[str, int]) -> None:
    realm, new = running(), spec(web(4))
    planned = plan(sight(realm), new, by="alice", warnings=[])
    other = SpecFact(spec=to_plain(spec(web(2))), by="bob", reason="")
    realm.say("operator/bob", "service/web/spec", other, version=1, time_ms=realm.now_ms - 60_000, **about)
    stands = realm.view.services["web"].spec
    assert stands is not None
    assert (stands.version, stands.record.by) == (planned.base_revision, "bob")
    with pytest.raises(RefusedError, match="does not match this file and the current revision, r1 of web"):
        check_plan(realm.view, new, planned.id)


def test_what_looks_like_a_secret_is_not_shown() -> None:
    realm = running()
    found = difference(sight(realm), spec(web(3, component="env: {DB_PASSWORD: hunter2}")))
    assert [(change.key, change.new) for change in found.changes] == [("env.DB_PASSWORD", HIDDEN)]


def test_what_looks_like_a_secret_is_not_shown_of_a_new_service_either() -> None:
    text = web(1, component="env: {DB_PASSWORD: hunter2, LOG: info}")
    told = msgspec.json.encode(plan(sight(Realm("n1")), spec(text), by="alice", warnings=[])).decode()
    assert "hunter2" not in told
    assert "info" in told


def test_a_step_says_in_the_future_tense_why_it_is_made_and_why_there() -> None:
    realm = running(2)
    found = plan(sight(realm), spec(web(3, component="env: {LOG: debug}")), by="alice", warnings=[])
    said = {step.instance: step.because for step in found.steps}
    assert said["web/app/0"] == "env.LOG changes; the new one will start first"
    assert said["web/app/2"] == "1 of 3 that fit; it has no app yet"
    back = "app: if one is not ready within 300 s: "
    assert f"{back}it stays so, unless a revision before was good by then" in found.promises
    found = plan(sight(realm.after(20)), spec(web(3, component="env: {LOG: debug}")), by="alice", warnings=[])
    assert f"{back}back to r1" in found.promises
    alone = spec(web(3, component="update: {order: stop_first}"))
    ends = "app: if one is not ready within 300 s, once the one before has had its time to end: back to r1"
    assert ends in plan(sight(realm), alone, by="alice", warnings=[]).promises


def many(count: int) -> list[ServiceSpec]:
    return parse("".join(f"---\n{web(1, service=f's{i}')}" for i in range(count)), file="services.yaml")


def planned(realm: Realm, specs: list[ServiceSpec], monkeypatch: pytest.MonkeyPatch) -> list[ApplyPlan]:
    async def look(_bus: object) -> Sight:
        return sight(realm)

    monkeypatch.setattr(applying, "look", look)
    declared = [declaring.Declared(one, Path(), ()) for one in specs]
    return asyncio.run(applying.plan_all(cast("Bus", History(realm)), declared, by="alice"))


class History:
    """A bus that has what was said in a realm."""

    def __init__(self, realm: Realm) -> None:
        self._said = {signed.id: signed for _, signed in realm.rows}

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        return [self._said[one] for one in ids if one in self._said]


def test_what_runs_goes_on_by_a_plan_though_revisions_were_applied_since_that_nobody_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What those say that slots implement is in the history alone: while no controller lives they are some behind."""
    realm = running(2)
    realm.apply(web(2, head="description: a shop\n"))
    (same,) = planned(realm, [spec(web(2, head="description: another\n"))], monkeypatch)
    assert {step.action for step in same.steps} == {"update"}
    (other,) = planned(realm, [spec(web(2, component="env: {A: b}"))], monkeypatch)
    assert {step.action for step in other.steps} == {"replace"}


def test_a_plan_of_many_services_folds_what_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[object] = []
    apply = View.apply

    def counted(self: View, event: SignedEvent) -> bool:
        folded.append(event)
        return apply(self, event)

    found = []
    for others in (5, 45):
        realm = Realm("n1", "n2", "n3")
        for i in range(others):
            realm.apply(web(1, service=f"old{i}"))
        with monkeypatch.context() as patch:
            patch.setattr(View, "apply", counted)
            folded.clear()
            planned(realm, many(10), patch)
            found.append(len(folded))
    assert found[1] - found[0] == 45 - 5


def test_services_of_one_file_are_planned_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm("n1")
    specs = [spec(web(1, service=name, component="reserve: {memory: 5GiB}")) for name in ("first", "second")]
    first, second = planned(realm, specs, monkeypatch)
    assert [step.node for step in first.steps] == ["n1"]
    assert [one.instance for one in second.unplaced] == ["second/app/0"]
    assert "second" not in realm.view.services


def test_a_plan_of_far_too_many_says_how_many_more_wait() -> None:
    found = plan(sight(Realm("n1")), spec(web(100_000, component="reserve: {memory: 3GiB}")), by="alice", warnings=[])
    assert len(found.steps) == 2
    assert found.warnings == [
        f"app: {100_000 - 2 - AHEAD} more instances wait for those that have no place; add nodes, or ask for fewer"
    ]


def test_a_plan_of_what_was_refused_says_so_and_what_would_be_tried_again() -> None:
    realm = rolled_back()
    found = plan(sight(realm), spec(BAD), by="alice", warnings=[])
    assert (found.changes, found.base_revision, found.revision) == ([], 2, 3)
    assert {step.instance: step.action for step in found.steps} == {f"web/app/{n}": "replace" for n in range(3)}
    (warning,) = found.warnings
    assert warning.startswith("nothing differs, but r2 was refused, and would be tried again: r2 failed")
    assert found.steps[0].because == "it runs what was good before; the new one will start first"
    said = difference_screen(difference(sight(realm), spec(BAD)))
    assert said.startswith("web  r2  nothing differs\n  r2 was refused: r2 failed")


def test_a_limit_of_memory_is_told_as_what_it_is_before_a_program_dies_of_it() -> None:
    limited = web(1, component="limits: {memory: 1GiB, enforce: best_effort}")
    (warning,) = plan(sight(Realm("n1")), spec(limited), by="alice", warnings=[]).warnings
    assert warning.startswith("app: limits.memory bounds the address space of each process, not what it uses: ")


def test_of_what_was_refused_another_number_of_instances_tries_nothing_and_it_is_told_how_it_is_tried() -> None:
    realm = rolled_back()
    two = BAD.replace("instances: 3", "instances: 2")
    (warning,) = plan(sight(realm), spec(two), by="alice", warnings=[]).warnings
    assert warning == (
        "only the number of instances differs, and r2 was refused: it is tried again when this is applied once more"
    )
    realm.apply(two)
    (warning,) = plan(sight(realm), spec(two), by="alice", warnings=[]).warnings
    assert warning.startswith("nothing differs, but r2 was refused, and would be tried again: r2 failed")
    assert plan(sight(realm), spec(two.replace("A: b", "A: c")), by="alice", warnings=[]).warnings == []


def test_a_service_that_was_removed_is_planned_with_a_word_on_where_its_data_is() -> None:
    realm = Realm("n1", "n2")
    keeps = web(1, component="data: true\n")
    assert left_data(sight(realm), spec(keeps)) == []
    realm.apply(keeps)
    realm.settle(seconds=1)
    (node,) = realm.nodes_of()
    assert left_data(sight(realm), spec(keeps)) == []
    realm.apply(keeps, removed=True)
    for _ in range(2):  # while it ends, and when nothing of it is left
        (told,) = left_data(sight(realm), spec(keeps))
        assert told == f"web/app/0 keeps the data that it had before web was removed, on {node}"
        assert told in plan(sight(realm), spec(keeps), by="alice", warnings=[]).warnings
        assert left_data(sight(realm), spec(web(0, component="data: true\n"))) == []
        (unused,) = left_data(sight(realm), spec(web(1)))
        assert unused == f"web/app/0 keeps no data now: what it had before web was removed stays on {node}, unused"
        realm.settle(seconds=120)
        realm.after(120).settle(seconds=5)
    (step,) = plan(sight(realm), spec(keeps), by="alice", warnings=[]).steps
    assert (step.node, step.because) == (node, "its data is there")
    realm.close(node or "")
    realm.settle(seconds=5)
    (told,) = left_data(sight(realm), spec(keeps))
    assert told.endswith("which is dead: until it is alive, or dsmt move web/app/0 --accept-data-loss, it waits")


def test_data_that_was_left_out_by_mistake_when_a_service_was_applied_again_is_named_with_the_way_back_to_it() -> None:
    realm, keeps = Realm("n1", "n2"), web(1, component="data: true\n")
    realm.apply(keeps)
    realm.settle(seconds=1)
    (home,) = realm.nodes_of()
    realm.apply(keeps, removed=True)
    realm.settle(seconds=120)
    realm.control_node(home or "", "excluded")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.control_node(home or "", "active")
    (node,) = realm.nodes_of()
    assert node not in (None, home)
    assert left_data(sight(realm), spec(web(1))) == []
    (told,) = plan(sight(realm), spec(keeps), by="alice", warnings=[]).warnings
    back = f"dsmt move web/app/0 --to {home} --accept-data-loss goes back to it"
    assert told == f"web/app/0 begins on {node} with no data: what it had is on {home}; {back}"
    realm.apply(keeps)
    realm.settle(seconds=60)
    assert left_data(sight(realm), spec(keeps)) == [], "where it is has become its home"


def test_who_removes_a_service_hears_on_which_nodes_its_data_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)

    async def seen(_bus: object, _service: str) -> Sight:
        return sight(realm)

    async def said(*_about: object) -> None:
        return None

    monkeypatch.setattr(removing, "look_at", seen)
    monkeypatch.setattr(removing, "say_spec", said)
    bus: Any = None
    done = asyncio.run(removing.remove(bus, "web", by="alice", reason=""))
    assert (done.instances, done.data) == (["web/app/0"], {"web/app/0": realm.nodes_of()[0]})
