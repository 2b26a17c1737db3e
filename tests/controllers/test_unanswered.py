"""What may not run twice is on a node that has not answered to its fact yet (A8)."""

import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.status import Layer, State
from dsmt.view import Fleet

from .build import Attentive, Realm, key, web


@pytest.mark.parametrize("heard", ["nothing", "its manager", "of the fact before"])
@pytest.mark.parametrize("component", ["update: {order: stop_first}", "data: true"])
def test_what_may_not_run_twice_is_stopped_first_also_where_its_node_has_not_answered_yet(
    component: str, heard: str
) -> None:
    """It may have begun it, and what it says be held up, or its broker be cut off."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, component=component))
    if heard == "of the fact before":
        realm.settle(seconds=1)
        realm.hold(key())
        realm.settle(seconds=1)
        realm.control(key())
        realm.step()
    else:
        realm.settle(obey=False)
        if heard == "its manager":
            realm.status(key(), realm.slot().node or "", State.INSTALLED, layer=Layer.CONTAINER)
    node = realm.slot().node or ""
    realm.control(key(), move="", move_number=1, accept_data_loss=True)
    realm.settle(obey=False)
    assert (realm.slot().node, realm.slot().desired) == (node, "stopped")
    realm.after(30).settle(obey=False)
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
    assert (realm.slot().node, None if why is None else why.code) == (node, "wait.copy")
    realm.status(key(), node, State.STOPPED)
    realm.settle(obey=False)
    assert (realm.slot().node == node, realm.slot().desired) == (False, "running")


@pytest.mark.parametrize("order", ["stop_first", "start_first"])
@pytest.mark.parametrize("layer", [Layer.CONTAINER, Layer.AGENT])
def test_who_could_not_make_its_container_or_start_its_agent_runs_nothing_and_is_waited_for_by_nobody(
    layer: Layer, order: str
) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component=f"update: {{order: {order}}}"))
    realm.step()
    node = realm.slot().node or ""
    if layer is Layer.AGENT:
        realm.status(key(), node, State.INSTALLED, layer=Layer.CONTAINER)
    realm.status(key(), node, State.FAILED, layer=layer)
    realm.control_node(node, "draining")
    realm.after(1).settle(obey=False)
    other = realm.slot().node or ""
    assert (other == node, realm.slot().desired) == (False, "running")
    realm.status(key(), other)
    realm.after(60).settle(obey=False)
    realm.apply(web(1, component="update: {order: stop_first}\nenv: {A: b}"))
    realm.after(1).settle(obey=False)
    assert (realm.slot().node, realm.slot().desired, realm.slot().revision) == (other, "running", 2)


@pytest.mark.parametrize("ends", ["scaled to 0", "removed"])
@pytest.mark.parametrize("says", ["gone", "nothing"])
def test_what_was_told_to_end_before_its_node_has_answered_is_placed_elsewhere_when_that_has_or_after_a_minute(
    says: str, ends: str
) -> None:
    realm, alone = Realm("n1", "n2"), "update: {order: stop_first}"
    realm.apply(web(1, component=alone))
    realm.settle(obey=False)
    node, attentive = realm.slot().node or "", Attentive(realm)
    attentive.look()
    realm.apply(web(int(ends == "removed"), component=alone), removed=ends == "removed")
    attentive.look()
    assert realm.slot().desired == "gone"
    attentive.watch(8, obey=False)
    realm.control_node(node, "draining")
    realm.apply(web(1, component=alone))
    assert attentive.watch(45, obey=False) == []
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
    assert (why.code, node in why.message) == ("wait.copy", True) if why is not None else False
    if says == "gone":
        realm.status(key(), node, State.GONE)
        attentive.look()
    else:
        attentive.watch(15, obey=False)
    assert (realm.slot().node == node, realm.slot().desired) == (False, "running")


@pytest.mark.parametrize(
    ("instances", "component"), [("each_node", "update: {order: stop_first}"), (1, "data: true")], ids=["each node", "data"]
)
def test_what_goes_nowhere_else_is_placed_again_at_once_though_its_node_has_not_answered(
    instances: int | str, component: str
) -> None:
    realm = Realm("n1")
    realm.apply(web(instances, component=component))
    realm.settle(obey=False)
    realm.apply(web(instances, component=component), removed=True)
    realm.settle(obey=False)
    assert realm.slot().desired == "gone"
    realm.after(8).apply(web(instances, component=component))
    realm.settle(obey=False)
    assert (realm.slot().node, realm.slot().desired) == ("n1", "running")


@pytest.mark.parametrize("ended", [False, True], ids=["none was begun", "one was begun, and has ended"])
def test_an_agent_that_was_begun_may_have_begun_its_program_whatever_became_of_it(ended: bool) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="update: {order: stop_first}"))
    realm.settle(seconds=1)
    realm.hold(key())
    realm.settle(seconds=1)
    realm.after(20).control(key(), restart=realm.now_ms)
    realm.step()
    node = realm.slot().node or ""
    last = {"code": None, "signal": "SIGKILL", "at_ms": realm.now_ms, "ran_s": 9.0, "reason": None}
    realm.status(key(), node, State.FAILED, layer=Layer.AGENT, last_exit=last if ended else None)
    realm.control_node(node, "draining")
    realm.settle(obey=False)
    assert (realm.slot().node == node, realm.slot().desired) == (ended, "stopped" if ended else "running")


def stopped_to_leave() -> tuple[Realm, str]:
    """A slot that was stopped on a node that is drained, to go to one that has no room for it by now."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="update: {order: stop_first}"))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    realm.control_node(node, "draining")
    realm.settle(obey=False)
    assert realm.slot().desired == "stopped"
    realm.control_node(min({"n1", "n2"} - {node}), "excluded")
    return realm, node


def test_what_stopped_to_leave_and_has_no_place_any_more_goes_on_and_says_why() -> None:
    realm, node = stopped_to_leave()
    (intent,) = realm.step()
    assert intent.because == f"it stays on {node}: there is no other place for it"
    assert (realm.slot().node, realm.slot().desired) == (node, "running")


def test_why_not_of_what_was_stopped_to_leave_a_node_that_has_left_meanwhile_says_that_there_is_no_place() -> None:
    realm, node = stopped_to_leave()
    realm.close(node)
    realm.verdict(node, state="left")
    realm.after(60).settle(obey=False)
    why = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
    assert (realm.slot().node, None if why is None else why.code) == (node, "place.no_match")
