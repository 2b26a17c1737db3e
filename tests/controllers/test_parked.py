"""What is parked moves, waits or stays, as its escalation says."""

import pytest

from dsmt.controllers.loop.agenda import Agenda
from dsmt.event.status import State

from .build import Attentive, Realm, key, web
from .repairs import running


def park(realm: Realm) -> None:
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True)


def test_a_parked_instance_whose_escalation_ends_in_a_move_moves_to_where_it_is_not_parked() -> None:
    realm = running(1, "n1", "n2", "n3", component="restart: {escalate: [restart: 5, move: 2]}")
    seen = [realm.slot(0).node]
    for _ in range(2):
        park(realm)
        told = realm.view.slot(key(0)).status.id  # type: ignore[union-attr]
        (moving,) = realm.after(3).step()
        assert moving.cause[0] == told
        seen.append(realm.slot(0).node)
    assert len(set(seen)) == 3
    assert realm.slot(0).moves == 2
    park(realm)
    assert realm.after(1000).step() == []


@pytest.mark.parametrize(("retry", "waits"), [("7m", (420, 420)), ("1s", (2, 4))], ids=["when tried again", "backs off"])
def test_it_is_moved_as_often_as_its_escalation_says_and_then_when_it_would_be_tried_again(
    retry: str, waits: tuple[int, int]
) -> None:
    """It was moved ten times in two minutes between two nodes, and said that it would be tried again in ten minutes."""
    realm = running(1, "n1", "n2", "n3", component=f"restart: {{park: {{retry: {retry}}}}}")
    park(realm)
    realm.step()
    assert realm.slot(0).moves == 1
    for moves, wait in zip((2, 3), waits, strict=True):
        realm.obey()
        park(realm)
        assert realm.after(wait - 1).step() == []
        realm.after(1).step()
        assert realm.slot(0).moves == moves


def waiting_to_be_moved(component: str = "") -> Realm:
    """What is parked and waits for ten minutes until it is moved again."""
    realm = running(1, "n1", "n2", "n3", component=component)
    park(realm)
    realm.settle(seconds=1)
    park(realm)
    assert realm.after(3).step() == []
    return realm


@pytest.mark.parametrize("component", ["", "update: {order: stop_first}"])
def test_a_fix_to_what_is_parked_and_waits_to_be_moved_is_tried_at_once_where_it_is(component: str) -> None:
    """It waited for the move, for ten minutes."""
    realm = waiting_to_be_moved(component)
    node = realm.slot(0).node
    realm.apply(web(1, component=f"{component}\nenv: {{A: b}}"))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).revision, realm.slot(0).moves) == (node, 2, 0)
    assert realm.step() == []


def test_a_restart_of_what_is_parked_and_waits_to_be_moved_is_done_at_once() -> None:
    realm = waiting_to_be_moved()
    node, generation = realm.slot(0).node, realm.view.slot(key(0)).fact.version  # type: ignore[union-attr]
    realm.control(key(0), restart=realm.now_ms)
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).restart) == (node, realm.now_ms)
    assert realm.view.slot(key(0)).fact.version == generation + 1  # type: ignore[union-attr]
    park(realm)
    realm.after(600).step()
    assert realm.slot(0).node not in (node, None), "it is moved when it is due, all the same"


def test_another_revision_leaves_a_node_that_is_none_of_its_nodes_at_once() -> None:
    realm = waiting_to_be_moved()
    node = realm.slot(0).node
    realm.apply(web(1, component=f"nodes: minus(all_nodes, {node})"))
    realm.step()
    assert (realm.slot(0).revision, realm.slot(0).node == node, realm.slot(0).moves) == (2, False, 1)


def test_another_revision_waits_not_for_the_next_move_where_its_node_is_none_of_its_nodes() -> None:
    realm = running(1, "n1", "n2", "n3")
    park(realm)
    realm.step()
    node = realm.slot(0).node
    assert realm.slot(0).moved_at_ms == realm.now_ms
    realm.apply(web(1, component=f"nodes: minus(all_nodes, {node})"))
    realm.step()
    assert (realm.slot(0).revision, realm.slot(0).node == node, realm.slot(0).moves) == (2, False, 1)


def test_what_is_parked_where_it_was_moved_for_a_node_that_died_is_moved_at_once() -> None:
    realm = running(1, "n1", "n2", "n3")
    realm.close(realm.slot(0).node or "")
    realm.after(1).settle(seconds=1)
    assert realm.slot(0).moves == 1
    now = realm.slot(0).node
    park(realm)
    realm.after(3).step()
    assert realm.slot(0).node not in (now, None)
    assert realm.slot(0).moves == 2


@pytest.mark.parametrize(
    ("takes", "needs", "frees"),
    [
        ("reserve: {memory: 7GiB}", "reserve: {memory: 4GiB}", "reserve: {memory: 1GiB}"),
        ("ports: {http: 8080}", "ports: {http: 8080}", ""),
    ],
    ids=["room", "a port"],
)
def test_who_waits_for_what_another_spec_frees_is_looked_at(takes: str, needs: str, frees: str) -> None:
    realm, agenda = Realm("n1"), Agenda()

    def look() -> None:
        for _ in range(5):
            decided = realm.decide(look=agenda.look(realm.view, realm.view.take_dirty(), realm.now_ms))
            agenda.note(decided)
            realm.publish(decided.intents)
            realm.obey()

    realm.apply(web(1, service="db", component=takes))
    look()
    realm.apply(web(1, component=needs))
    look()
    assert realm.slot().node is None
    realm.apply(web(1, service="db", component=frees))
    look()
    assert realm.slot().node == "n1"


@pytest.mark.parametrize("component", ["", "restart: {escalate: [restart: 5]}"], ids=["moves", "stays"])
@pytest.mark.parametrize("parkings", [1, 2, 3, 12])
def test_a_parked_instance_whose_node_dies_runs_elsewhere_once_its_next_forced_move_is_due(
    component: str, parkings: int
) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    agenda = Agenda()

    def look() -> None:
        decided = realm.decide(look=agenda.look(realm.view, realm.view.take_dirty(), realm.now_ms))
        agenda.note(decided)
        realm.publish(list(decided.intents))

    for _ in range(parkings):
        park(realm)
        look()
        while (wake := agenda.wake_ms) is not None:
            realm.after((wake - realm.now_ms) / 1000)
            look()
    node = realm.slot(0).node
    realm.close(node)
    look()
    for _ in range(4):
        if agenda.wake_ms is not None:
            realm.after(max(0, agenda.wake_ms - realm.now_ms) / 1000)
        look()
    assert realm.slot(0).node not in (node, None)


def test_who_is_parked_is_looked_at_when_another_one_is_parked_no_more_and_its_node_could_take_it() -> None:
    realm = running(2, "n1", "n2", component="update: {rollback: false}")
    attentive, now = Attentive(realm), [realm.slot(index).node for index in (0, 1)]
    for index in (0, 1):
        realm.status(key(index), now[index], State.FAILED, parked=True)
    assert attentive.watch(30, obey=False) == []
    realm.status(key(0), now[0], State.RUNNING)
    (moved,) = attentive.look()
    assert "it is parked" in moved.because
    assert [realm.slot(index).node for index in (0, 1)] == [now[0], now[0]]


@pytest.mark.parametrize("component", ["update: {order: stop_first}", "ports: {http: 8080}"])
def test_a_parked_instance_that_must_stop_first_stops_and_starts_elsewhere(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=f"{component}\nrestart: {{escalate: [restart: 5, move: 2]}}")
    seen = [realm.slot(0).node]
    for _ in range(2):
        park(realm)
        stopping = [intent.because for intent in realm.after(3).step()]
        assert (realm.slot(0).node, realm.slot(0).desired) == (seen[-1], "stopped"), "never two copies"
        assert "stops on" in stopping[0]
        assert realm.step() == [], "it waits for the stop, and does not start where it was"
        realm.obey()
        stopped = realm.view.slot(key(0)).fact.id  # type: ignore[union-attr]
        (moving,) = realm.step()
        assert "parked" in moving.because
        assert moving.cause[0] == stopped, "nobody says any more that it was parked"
        seen.append(realm.slot(0).node)
        assert realm.slot(0).desired == "running"
    assert (len(set(seen[:2])), len(set(seen[1:]))) == (2, 2)
    assert (realm.slot(0).moves, realm.slot(0).parked) == (2, False)


def test_an_instance_that_stops_to_leave_where_it_was_parked_stays_there_when_it_is_held() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    park(realm)
    realm.step()
    realm.hold(key(0))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired, realm.slot(0).reason.code) == (node, "stopped", "hold.operator")
    realm.control(key(0))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).desired) == (node, "running")


def test_a_parked_instance_stays_when_its_escalation_has_no_move() -> None:
    realm = running(1, "n1", "n2", component="restart: {escalate: [restart: 5]}")
    park(realm)
    assert realm.after(600).step() == []
