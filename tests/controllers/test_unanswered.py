"""What may not run twice is on a node that has not answered to its fact yet (A8)."""

import pytest

from dsmt.event.status import Layer, State

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
    assert realm.slot().node == node
    realm.status(key(), node, State.STOPPED)
    realm.settle(obey=False)
    assert (realm.slot().node == node, realm.slot().desired) == (False, "running")
