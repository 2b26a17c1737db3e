"""Why: what is wanted no more has ended for that, however often its node was started anew since."""

from dsmt.event.status import Layer, State
from tests.controllers.build import Realm, key, web
from tests.operations.test_explaining import explain


def test_what_was_scaled_away_is_gone_for_that_also_when_its_node_was_started_anew_and_said_so_again() -> None:
    realm = Realm("n1")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.apply(web(1))
    realm.settle(seconds=1)
    ending = ', because web is r2, applied by alice: "a test"'
    assert explain(realm, "web/app/1").says.endswith(ending)
    realm.after(5).session("node/n1", "open", incarnation=realm.now_ms)
    realm.after(1).status(key(1), "n1", State.GONE, layer=Layer.CONTAINER)
    told = explain(realm, "web/app/1").says
    assert told.startswith("web/app/1 has been gone on n1 since ")
    assert told.endswith(ending)
