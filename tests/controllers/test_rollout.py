"""A new revision goes through the slots at the pace of its spec."""

import pytest

from dsmt.event.status import State

from .build import Realm, key, web
from .rollouts import revisions, running


def test_a_new_revision_touches_one_instance_and_waits_for_it_to_be_ready() -> None:
    realm = running()
    applied = realm.apply(web(4, component="env: {A: b}"))
    (intent,) = realm.step()
    assert revisions(realm) == [2, 1, 1, 1]
    assert intent.cause == (applied.id,)
    assert realm.slot(0).spec == str(applied.id)
    assert realm.after(60).step() == []
    realm.obey()
    assert realm.step() == []
    ready = realm.now_ms
    assert realm.decide().wake_ms == ready + 10_000
    realm.now_ms = ready + 9_999
    assert realm.step() == []
    realm.now_ms = ready + 10_000
    realm.step()
    assert revisions(realm) == [2, 2, 1, 1]
    realm.settle(seconds=5)
    assert revisions(realm) == [2, 2, 2, 2]


def test_a_new_revision_stays_on_its_nodes() -> None:
    realm = running()
    before = realm.nodes_of()
    realm.apply(web(4, component="env: {A: b}"))
    realm.settle(seconds=5)
    assert realm.nodes_of() == before


def test_max_parallel_is_kept_at_every_moment() -> None:
    realm = running(8, component="update: {max_parallel: 25%}")
    realm.apply(web(8, component="update: {max_parallel: 25%}\nenv: {A: b}"))
    seen = []
    for _ in range(40):
        realm.step()
        unready = [i for i in range(8) if realm.view.slot(key(i)).instances[realm.slot(i).node].generation
                   < realm.generation(i)]  # fmt: skip
        seen.append(len(unready))
        realm.after(4).obey()
    assert max(seen) == 2
    assert revisions(realm) == [2] * 8


def test_instances_that_do_not_work_go_first() -> None:
    realm = running()
    realm.status(key(2), realm.slot(2).node, State.FAILED)
    realm.apply(web(4, component="env: {A: b}"))
    realm.step()
    assert revisions(realm) == [1, 1, 2, 1]


@pytest.mark.parametrize("instances", [4, 3], ids=["as it was", "one less"])
def test_a_revision_that_was_good_nowhere_goes_no_further_when_the_node_of_the_first_instance_dies(instances: int) -> None:
    """Its data keeps it there; else it would be tried on another node, and waited for there."""
    policy = "data: true\nupdate: {deadline: 60s}\nstop: {grace: 5s}\n"
    realm = running(component=policy)
    realm.apply(web(4, component=policy + "env: {A: b}\n"))
    realm.step()
    assert revisions(realm) == [2, 1, 1, 1]
    over = realm.now_ms + 65_000
    node = realm.slot(0).node
    realm.after(1).close(node)
    realm.verdict(node)
    if instances != 4:
        realm.apply(web(instances, component=policy + "env: {A: b}\n"))
    realm.step()
    assert revisions(realm)[:4] == [2, 1, 1, 1]
    assert realm.decide().wake_ms == over
    realm.obey()
    realm.now_ms = over - 1
    realm.step()
    assert revisions(realm)[:4] == [2, 1, 1, 1]
    realm.now_ms = over
    realm.step()
    assert revisions(realm)[1] > 1
    assert revisions(realm)[2] == 1


def test_a_revision_that_was_good_somewhere_goes_on_when_a_node_dies() -> None:
    realm = running(component="data: true\n")
    realm.apply(web(4, component="data: true\nenv: {A: b}\n"))
    realm.step()
    realm.obey()
    realm.after(10).step()
    assert revisions(realm) == [2, 2, 1, 1]
    node = realm.slot(1).node
    realm.after(1).close(node)
    realm.verdict(node)
    realm.step()
    assert revisions(realm) == [2, 2, 2, 1]


def test_a_node_that_was_dead_before_a_revision_holds_none_up() -> None:
    realm = running(component="data: true\n")
    node = realm.slot(0).node
    realm.close(node)
    realm.verdict(node)
    realm.after(4).apply(web(4, component="data: true\nenv: {A: b}\n"))
    realm.settle(seconds=5)
    assert revisions(realm)[1:] == [2, 2, 2]


@pytest.mark.parametrize(("seconds", "others"), [(2, 1), (4, 2)])
def test_a_node_that_was_silent_for_longer_than_a_living_one_when_a_revision_came_holds_none_up(
    seconds: int, others: int
) -> None:
    realm = running(component="data: true\n")
    silent_ms, node = realm.now_ms, realm.slot(0).node
    realm.after(seconds).apply(web(4, component="data: true\nenv: {A: b}\n"))
    realm.step()
    assert revisions(realm) == [2, 1, 1, 1]
    realm.after(5).close(node)
    realm.verdict(node, since_ms=silent_ms)
    realm.step()
    assert revisions(realm) == [2, others, 1, 1]


def test_with_a_health_check_running_is_not_ready() -> None:
    check = "ports: {http: auto}\nhealth: {tcp: {port: http}}\n"
    realm = running(2, component=check)
    for i in range(2):
        realm.health(key(i), realm.slot(i).node, "ready")
    realm.apply(web(2, component=check + "env: {A: b}"))
    realm.step()
    realm.obey()
    assert realm.after(60).step() == []
    realm.health(key(0), realm.slot(0).node, "unready")
    assert realm.after(60).step() == []
    realm.health(key(0), realm.slot(0).node, "ready")
    assert realm.after(9).step() == []
    assert len(realm.after(1).step()) == 1


def test_a_program_that_was_restarted_is_ready_no_longer_than_it_runs_whatever_is_known_of_the_one_before() -> None:
    checked = "ports: {http: auto}\nhealth: {http: {port: http}}\n"
    realm = running(component=checked)
    realm.apply(web(4, component=checked + "env: {A: b}"))
    realm.step()
    realm.obey()
    assert revisions(realm) == [2, 1, 1, 1]
    node = realm.slot(0).node
    realm.health(key(0), node, "ready")
    realm.after(9).status(key(0), node)  # it has begun again, and nobody has said yet that it is not ready
    realm.after(9).step()
    assert revisions(realm) == [2, 1, 1, 1]
    realm.after(1).step()
    assert revisions(realm) == [2, 2, 1, 1]


def test_scaling_up_adds_at_once_and_scaling_down_ends_the_highest() -> None:
    realm = running(2)
    realm.apply(web(5))
    said = realm.step()
    assert {i.subject for i in said} >= {"web/app/2", "web/app/3", "web/app/4"}
    realm.settle(seconds=5)
    assert len(realm.nodes_of()) == 5
    realm.apply(web(1))
    realm.settle(seconds=5)
    assert len(realm.nodes_of()) == 1
    assert [realm.slot(i).desired for i in range(5)] == ["running", "gone", "gone", "gone", "gone"]
    generation = realm.generation(3)
    realm.apply(web(4))
    realm.settle(seconds=5)
    assert realm.slot(3).desired == "running"
    assert realm.generation(3) > generation


def test_a_component_that_is_no_more_in_the_spec_ends() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2) + "  side:\n    run: ./side\n")
    realm.settle(seconds=1)
    realm.apply(web(2))
    realm.settle(seconds=1)
    assert realm.slot(0, component="side").desired == "gone"


def test_a_held_instance_does_not_stop_a_rollout_and_takes_the_revision() -> None:
    realm = running()
    realm.hold(key(1))
    realm.settle(seconds=1)
    realm.apply(web(4, component="env: {A: b}"))
    realm.settle(seconds=5)
    assert revisions(realm) == [2, 2, 2, 2]
    assert realm.slot(1).desired == "stopped"


def test_a_revision_without_rollback_stands_where_it_failed() -> None:
    policy = "update: {rollback: false, deadline: 30s}\nrestart: {escalate: [restart: 3]}\n"
    realm = running(component=policy)
    realm.apply(web(4, component=policy + "env: {A: b}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True)
    for _ in range(30):
        assert realm.after(10).step() == []
    assert revisions(realm) == [2, 1, 1, 1]


def test_a_fixed_revision_replaces_the_one_that_stands() -> None:
    policy = "update: {rollback: false}\nrestart: {escalate: [restart: 3]}\n"
    realm = running(component=policy)
    realm.apply(web(4, component=policy + "env: {A: bad}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True)
    realm.after(60).apply(web(4, component=policy + "env: {A: good}"))
    realm.settle(seconds=5)
    assert revisions(realm) == [3, 3, 3, 3]


def test_a_silent_node_does_not_bring_a_revision_down_and_has_its_turn_last() -> None:
    realm = running(component="update: {deadline: 30s}\n")
    realm.silence(realm.slot(0).node)
    realm.apply(web(4, component="update: {deadline: 30s}\nenv: {A: b}"))
    for _ in range(60):
        realm.step(may_accuse=False)
        realm.obey()
        realm.after(2)
    assert revisions(realm) == [2, 2, 2, 2]
    realm.after(60)
    assert realm.step(may_accuse=False) == []


def test_a_node_that_falls_silent_under_a_new_revision_does_not_roll_it_back() -> None:
    realm = running(component="update: {deadline: 30s}\n")
    realm.apply(web(4, component="update: {deadline: 30s}\nenv: {A: b}"))
    realm.step()
    realm.silence(realm.slot(0).node)
    assert realm.after(31).step(may_accuse=False) == []
    assert revisions(realm) == [2, 1, 1, 1]


def test_what_has_ended_by_itself_and_was_good_holds_nothing_up() -> None:
    realm = running(3)
    realm.apply(web(3, head="labels: {a: b}\n"))
    for index in range(3):
        realm.step()
        assert revisions(realm) == [2] * (index + 1) + [1] * (2 - index)
        slot = realm.slot(index)
        realm.status(key(index), slot.node or "", State.FAILED, good=slot.implements)
    assert realm.after(600).step() == []
    assert revisions(realm) == [2, 2, 2]
