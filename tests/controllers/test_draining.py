"""A node that is drained or excluded is left one instance at a time, as each of them may be moved."""

from dsmt.event.kinds.node import NodeControl
from dsmt.event.status import State

from .build import key, web
from .repairs import running
from .test_previous import BAD, SHORT, Leaving


def test_a_drained_node_is_left_start_first() -> None:
    realm = running(2, "n1", "n2", "n3")
    node, generation = realm.slot(0).node, realm.generation(0)
    realm.control_node(node, "draining")
    (intent,) = realm.step()
    slot = realm.slot(0)
    assert slot.node not in (node, None)
    assert (slot.previous.node, slot.previous.generation) == (node, generation)
    assert slot.previous.deadline_ms == realm.now_ms + 300_000
    assert (slot.reason.code, slot.reason.message) == ("node.drained", f"moved off {node}: drain by alice: kernel 6.8")
    assert slot.moves == 0
    assert f"node/{node}" in intent.to


def test_a_drain_for_which_no_reason_was_given_says_so() -> None:
    realm = running(1, "n1", "n2")
    node = realm.slot(0).node
    realm.say("operator/alice", f"node/{node}/control", NodeControl(mode="draining", by="alice", reason=""))
    realm.step()
    assert realm.slot(0).reason.message == f"moved off {node}: drain by alice: no reason given"


def test_draining_goes_one_at_a_time_each_waiting_to_be_ready() -> None:
    realm = running(4, "n1", "n2")
    realm.control_node("n1", "draining")
    there = [i for i in range(4) if realm.slot(i).node == "n1"]
    assert len(there) == 2
    assert len(realm.step()) == 1
    assert realm.after(5).step() == []
    realm.obey()
    wake = realm.decide().wake_ms
    assert wake == realm.now_ms + 10_000
    realm.now_ms = wake
    assert len(realm.step()) == 1
    realm.settle(seconds=1)
    assert set(realm.nodes_of()) == {"n2"}


def test_a_drain_with_no_other_place_moves_nothing_and_blocks_nothing_else() -> None:
    realm = running(1, "n1")
    realm.control_node("n1", "draining")
    assert realm.step() == []
    realm.hold(key(0))
    realm.step()
    assert realm.slot(0).desired == "stopped"


def test_an_excluded_node_keeps_what_it_has_and_gets_nothing_new() -> None:
    realm = running(4, "n1", "n2")
    realm.control_node("n1", "excluded")
    assert realm.step() == []
    realm.apply(web(8))
    realm.settle(seconds=1)
    assert realm.nodes_of().count("n1") == 2


def test_where_two_copies_must_not_run_it_stops_first() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    realm.control_node(node, "draining")
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).desired, realm.slot(0).previous) == (node, "stopped", None)
    assert realm.step() == []
    realm.obey()
    realm.step()
    assert realm.slot(0).node not in (node, None)
    assert (realm.slot(0).desired, realm.slot(0).previous) == ("running", None)


def test_a_stop_first_move_whose_cause_goes_away_starts_again_where_it_was() -> None:
    realm = running(1, "n1", "n2", component="update: {order: stop_first}")
    node = realm.slot(0).node
    realm.control_node(node, "draining")
    realm.step()
    realm.control_node(node, "active")
    realm.step()
    assert (realm.slot(0).node, realm.slot(0).desired) == (node, "running")


def test_what_is_gone_back_to_has_the_time_that_what_was_tried_may_take_to_end() -> None:
    at = Leaving("drain", tried=BAD + "stop: {grace: 25s}\n")
    at.watch(31)
    left_ms = at.realm.slot().previous.deadline_ms - at.realm.now_ms
    assert 45_000 < left_ms <= 55_000, "and not the one that is gone back to"


def test_a_copy_beside_which_a_try_was_given_up_is_kept_as_long_as_it_is_served() -> None:
    at = Leaving("drain")
    at.realm.status(key(), at.first, State.FAILED, parked=True, generation=1)
    for served in (True, False):
        at.realm.endpoint(key(), at.first, generation=1, ready=served)
        at.watch(1)
        at.realm.apply(web(1, component=SHORT + f"env: {{A: 'was {served}'}}\n"))
        at.watch(1)
        assert at.kept is served
