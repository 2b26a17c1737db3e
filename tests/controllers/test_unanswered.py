"""What may not run twice is on a node that has not answered to its fact yet (A8)."""

import pytest

from dsmt.controllers.decide import waits_for
from dsmt.event.status import Layer, State
from dsmt.view import Fleet

from .build import Realm, key, web


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
    why = waits_for(Fleet(realm.view, realm.now_ms, realm.broker), key())
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
