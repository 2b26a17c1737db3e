"""What-if: nodes die and are drained on a copy of the view, and controllers decide what follows."""

from __future__ import annotations

import random

import pytest

from dsmt.cli.whatif import screen
from dsmt.controllers.brake import LIFT_MS
from dsmt.errors import InputError, NotFoundError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.status import Layer, State
from dsmt.operations.read.ahead.planning import plan
from dsmt.operations.read.ahead.whatif import WhatIf, what_if
from dsmt.operations.write.nodesets import nodes_of
from dsmt.spec.nodeset import NodeSetError
from dsmt.spec.parsing import parse
from tests.controllers.build import Realm, key, web

from .sights import sight


def asked(realm: Realm, *, kill: tuple[str, ...] = (), drain: tuple[str, ...] = (), spec: str = "") -> WhatIf:
    """What would be, of which nothing is left in the realm itself."""
    seen, before = sight(realm), realm.view.digest
    trial = seen.view.copy()
    plans = [plan(seen, one, by="alice", warnings=[], trial=trial) for one in parse(spec, file="f")] if spec else []
    found = what_if(seen, plans, trial, kill=nodes_of(seen, kill), drain=nodes_of(seen, drain), by="alice")
    assert realm.view.digest == before
    return found


def running(*services: str, nodes: int = 3) -> Realm:
    realm = Realm(*(f"n{number}" for number in range(1, nodes + 1)))
    for text in services:
        realm.apply(text)
    realm.settle(seconds=30)
    return realm


def placed(realm: Realm) -> dict[str, str | None]:
    """Where each instance is."""
    found = {}
    for name, entry in realm.view.services.items():
        for (component, index), slot in entry.slots.items():
            if slot.fact is not None and slot.fact.record.desired == "running":
                found[f"{name}/{component}/{index}"] = slot.fact.record.node
    return found


@pytest.mark.parametrize("seed", range(20))
def test_what_would_be_is_what_comes_when_it_is(seed: int) -> None:
    chance = random.Random(seed)
    services = [web(chance.randint(1, 6), service=f"s{number}") for number in range(3)]
    realm = running(*services, nodes=6)
    killed = chance.sample(sorted(realm.view.nodes), chance.randint(1, 2))
    drained = [node for node in realm.view.nodes if node not in killed][: chance.randint(0, 1)]
    found = asked(realm, kill=tuple(killed), drain=tuple(drained))
    foreseen = placed(realm)
    for step in found.steps:
        assert step.leaves == foreseen[step.instance]
        foreseen[step.instance] = step.node
    realm.silence(*killed)
    realm.after(10)
    for node in killed:
        realm.verdict(node, road="silent", since_ms=realm.now_ms - 10_000)
    for node in drained:
        realm.control_node(node, "draining")
    realm.settle(seconds=1)
    assert placed(realm) == foreseen
    assert not {*killed, *drained} & set(foreseen.values())


def test_of_a_node_that_dies_it_says_when_where_to_and_why() -> None:
    realm = running(web(3))
    lost = placed(realm)["web/app/1"]
    assert lost is not None
    found = asked(realm, kill=(lost,))
    (step,) = found.steps
    assert (step.instance, step.action, step.leaves, step.at_s) == ("web/app/1", "move", lost, 5.0)
    assert step.because.startswith(f"{lost} is dead: nobody hears it; 1 of 2 that fit")
    (web_,) = found.services
    assert (web_.wanted, web_.before, web_.least, web_.after) == (3, 3, 2, 3)
    assert (found.unready, found.brake, found.took_s) == ([], None, 5.0)


def test_a_service_that_is_not_touched_is_not_told_of() -> None:
    realm = running(web(1), web(1, service="other"))
    node = placed(realm)["web/app/0"]
    assert node != placed(realm)["other/app/0"]
    assert [one.service for one in asked(realm, kill=(str(node),)).services] == ["web"]


def test_the_brake_is_told_and_what_waits_for_it_is_done_when_it_lets_go() -> None:
    realm = running(web(12), nodes=12)
    found = asked(realm, kill=("n1", "n2", "n3"))
    assert found.brake is not None
    assert found.brake.code == "wait.brake"
    assert "The brake would come on: replacing is on hold: " in screen(found)
    assert found.steps[0].at_s >= LIFT_MS / 1000
    assert (found.services[0].least, found.services[0].after, found.unready) == (9, 12, [])


def test_a_brake_that_is_held_keeps_what_died_where_it_was() -> None:
    realm = running(web(3))
    realm.say("operator/alice", "config/brake", BrakeWord(held=True, by="alice", reason="maintenance", released_ms=0))
    lost = placed(realm)["web/app/0"]
    found = asked(realm, kill=(str(lost),))
    assert found.steps == []
    assert "The brake is on already: replacing is on hold: " in screen(found), "it does not come on by that"
    assert [(one.instance, one.reason and one.reason.code) for one in found.unready] == [("web/app/0", "wait.brake")]


def test_what_stays_with_its_data_is_told_with_its_reason() -> None:
    realm = running(web(3, component="data: true\non_partition: pinned"))
    lost = placed(realm)["web/app/0"]
    found = asked(realm, kill=(str(lost),))
    assert found.steps == []
    (left,) = found.unready
    assert left.reason is not None
    assert (left.instance, left.reason.code) == ("web/app/0", "wait.pinned")


def test_what_finds_no_room_is_told() -> None:
    realm = running(web(3, component="reserve: {memory: 5GiB}"))
    lost = placed(realm)["web/app/0"]
    found = asked(realm, kill=(str(lost),))
    assert [one.instance for one in found.unready] == ["web/app/0"]
    assert found.services[0].after == 2


def test_what_was_not_ready_before_is_no_consequence() -> None:
    realm = running(web(4, component="reserve: {memory: 5GiB}"))
    assert placed(realm)["web/app/3"] is None
    found = asked(realm, drain=(str(placed(realm)["web/app/0"]),))
    assert "web/app/3" not in [one.instance for one in found.unready]


def test_what_has_just_been_asked_for_counts_among_what_would_be_ready() -> None:
    realm = running(web(2), nodes=2)
    realm.apply(web(5))
    realm.settle(obey=False)
    started = realm.slot(2).node or ""
    realm.status(key(2), started, State.RUNNING)
    realm.health(key(2), started, "unready", evidence="started, not checked yet")
    (told,) = asked(realm, kill=("n1",)).services
    assert (told.before, told.after, told.wanted) == (2, 5, 5)
    node = next(realm.slot(index).node for index in (3, 4) if realm.slot(index).node == "n2")
    index = next(index for index in (3, 4) if realm.slot(index).node == node)
    realm.status(key(index), node or "", State.FAILED, parked=True, failures=3)
    (told,) = asked(realm, kill=("n1",)).services
    assert (told.after, told.wanted) == (4, 5), "what has failed is not taken for what would be ready"


def test_what_a_rollout_changes_anyway_is_told_apart_from_what_follows() -> None:
    realm = running(web(4), nodes=4)
    realm.apply(web(4, component="env: {A: b}\n"))
    realm.settle(obey=False)
    (first,) = (index for index in range(4) if realm.slot(index).revision == 2)
    node = realm.slot(first).node or ""
    realm.status(key(first), node, State.RUNNING)
    realm.health(key(first), node, "ready")
    realm.after(1)
    waits = {f"web/app/{index}" for index in range(4)} - {f"web/app/{first}"}
    killed = next(where for one, where in placed(realm).items() if one in waits) or ""
    lost = {one for one, where in placed(realm).items() if where == killed}
    steps = asked(realm, kill=(killed,)).steps
    assert {(one.instance, one.action) for one in steps if one.anyway} == {(one, "replace") for one in waits - lost}
    assert {(one.instance, one.action) for one in steps if not one.anyway} == {(one, "move") for one in lost}


def test_a_job_that_is_done_stays_done_where_its_node_dies_and_is_none_that_would_be_ready() -> None:
    realm = running(web(2, component="kind: job\nrestart: {when: on_failure}\n"))
    node, good = realm.slot(0).node or "", realm.slot(0).implements
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=2.0, reason=None)
    realm.status(key(0), node, State.FAILED, last_exit=last, good=good)
    found = asked(realm, kill=(node,))
    (forecast,) = found.services
    assert (forecast.wanted, forecast.after, found.unready) == (1, 1, [])
    ends = {step.instance: step.because.endswith("; done; is not run again") for step in found.steps}
    assert ends == {one: one == "web/app/0" for one in ends}
    assert "web/app/0" in ends


@pytest.mark.parametrize(("changed", "runs_again"), [("", False), ("env: {A: b}\n", True)])
def test_a_job_that_is_done_is_run_again_by_a_revision_only_if_that_changes_what_it_does(
    changed: str, runs_again: bool
) -> None:
    job = "kind: job\nrestart: {when: on_failure}\n"
    realm = running(web(1, component=job))
    node, good = realm.slot(0).node or "", realm.slot(0).implements
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=2.0, reason=None)
    realm.status(key(0), node, State.FAILED, last_exit=last, good=good)
    found = asked(realm, kill=(node,), spec=web(1, component=job + changed) + "  other:\n    run: ./other\n")
    (forecast,) = found.services
    assert forecast.after == (2 if runs_again else 1)


def test_a_drain_moves_what_is_there_and_says_who_drains() -> None:
    realm = running(web(3))
    node = str(placed(realm)["web/app/2"])
    (step,) = asked(realm, drain=(node,)).steps
    assert (step.instance, step.leaves, step.at_s) == ("web/app/2", node, 0.0), "nobody has to be found dead before"
    assert step.because.startswith(f"{node} is drained by alice; 1 of 2 that fit")


def test_what_is_parked_is_not_taken_for_ready_wherever_it_goes_unless_it_is_applied_anew() -> None:
    realm = running(web(2))
    node = str(placed(realm)["web/app/1"])
    realm.status(key(1), node, State.FAILED, parked=True, failures=3)
    (told,) = asked(realm, drain=(node,)).services
    assert (told.before, told.after, told.wanted) == (1, 1, 2)
    (told,) = asked(realm, drain=(node,), spec=web(2, component="env: {A: b}")).services
    assert told.after == 2


def test_what_goes_where_it_was_before_would_be_ready_there() -> None:
    realm = running(web(1), nodes=2)
    now = str(placed(realm)["web/app/0"])
    (other,) = {"n1", "n2"} - {now}
    realm.status(key(0), other, State.GONE, layer=Layer.CONTAINER)
    agent = f"agent/{other}/web/app/0"
    realm.session(agent, "open")
    realm.session(agent, "closed", how="peer")
    realm.after(600)
    found = asked(realm, drain=(now,))
    assert [step.node for step in found.steps] == [other]
    assert (found.unready, found.services[0].after) == ([], 1)


def test_of_a_drain_it_is_told_what_stays_with_its_data_or_has_no_other_place() -> None:
    pinned = web(3, service="db", component="data: true\non_partition: pinned")
    realm = running(web(3), pinned, web(3, service="big", component="reserve: {memory: 5GiB}"))
    node = str(placed(realm)["web/app/2"])
    found = asked(realm, drain=(node,))
    told = {one.instance.partition("/")[0]: (one.stays, one.because.partition(":")[0]) for one in found.left}
    assert told == {
        "big": (False, "there is no other place"),
        "db": (True, told["db"][1]),
    }
    assert told["db"][1].startswith("its data is there; dsmt move db/app/")
    assert asked(realm, kill=(node,)).left == []


def test_a_service_is_applied_before_and_dies_with_the_node() -> None:
    realm = running(web(2))
    found = asked(realm, kill=("n1",), spec=web(6))
    (planned,) = found.plans
    assert [step.action for step in planned.steps if step.action == "new"] == ["new"] * 4
    assert len([step for step in found.steps if step.leaves == "n1"]) == 2
    (web_,) = found.services
    assert (web_.before, web_.least, web_.wanted, web_.after) == (2, 2, 6, 6), "what is not there yet is not lost"
    (new,) = asked(realm, spec=web(1, service="more")).plans
    assert new.base_revision == 0


def test_what_a_service_that_is_made_smaller_gives_back_is_there_for_what_died() -> None:
    small = "reserve: {memory: 5GiB}"
    realm = running(web(2, component=small), web(1, service="other", component=small))
    room = placed(realm)["other/app/0"]
    lost = placed(realm)["web/app/0"]
    (left,) = asked(realm, kill=(str(lost),)).unready
    assert left.instance == "web/app/0"
    found = asked(realm, kill=(str(lost),), spec=web(0, service="other", component=small))
    assert [(step.instance, step.action, step.node) for step in found.steps] == [("web/app/0", "move", room)]
    assert found.unready == []


def test_what_waits_for_longer_than_is_looked_ahead_is_told_as_not_ready() -> None:
    realm = running(web(3, component="lost_after: 1h"))
    lost = placed(realm)["web/app/0"]
    found = asked(realm, kill=(str(lost),))
    assert [one.instance for one in found.unready] == ["web/app/0"]
    assert found.steps == []


def test_nothing_follows_where_nothing_runs() -> None:
    found = asked(Realm("n1", "n2"), kill=("n1",))
    assert (found.steps, found.services, found.unready, found.took_s) == ([], [], [], 0.0)


def test_nodes_are_named_by_themselves_by_sets_and_by_expressions() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/left", NodesetFact(expression="union(n1, n2)", by="alice"))
    seen = sight(realm)
    assert nodes_of(seen, ("left", "n2")) == ["n1", "n2"]
    assert nodes_of(seen, ("minus(all_nodes, left)",)) == ["n3"]
    with pytest.raises(NotFoundError) as unknown:
        nodes_of(seen, ("n1", "n9"))
    assert unknown.value.message == "there is no node or node set n9"
    with pytest.raises(NodeSetError):
        nodes_of(seen, ("minus(all_nodes",))


def test_that_all_nodes_die_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        asked(running(web(1), nodes=2), kill=("all_nodes",))
    assert caught.value.code == "whatif.all"


def test_what_an_operator_has_just_stopped_by_hand_is_not_told_as_something_that_would_not_be_ready() -> None:
    realm = running(web(2))
    own = realm.slot(0).node
    realm.hold(key(0))
    found = asked(realm, kill=tuple(node for node in ("n1", "n2", "n3") if node != own)[:1])
    assert found.unready == []
