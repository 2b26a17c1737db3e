"""`why` of a broker: those that are linked with it tell how it is, and not one that is gone."""

from __future__ import annotations

from dsmt.event.kinds.source import Started
from tests.controllers.build import Realm

from .test_explaining import explain


def mesh() -> Realm:
    """Three brokers that are linked, of which the third is gone later; it has said of the second last."""
    realm = Realm("n1", brokers=("b1", "b2", "b3"))
    realm.say("broker/b2", "source/broker/b2", Started(previous_incarnation=None, previous_sequence=None, version="0.1"))
    for by in ("b1", "b2", "b3"):
        for to in {"b1", "b2", "b3"} - {by}:
            realm.session(f"broker/{to}", "open", broker=by, attachment=9 if by == "b3" else 1)
    realm.after(60)
    for by in ("b1", "b2"):
        realm.session("broker/b3", "closed", how="peer", broker=by, attachment=1)
    return realm.after(60)


def test_what_a_broker_that_is_gone_has_said_of_another_one_last_is_nothing() -> None:
    realm = mesh()
    assert explain(realm, "broker/b2").says.startswith("broker/b2 has been up since ")


def test_a_broker_that_no_other_one_reaches_has_not_been_alive_since_then() -> None:
    realm = mesh()
    told = explain(realm, "broker/b3").says
    assert told.startswith("broker/b3 has not been alive since ")
    assert told.endswith(" (1 m), as b1 sees it; dsmt brokers asks it why")
    realm.session("broker/b2", "silent", broker="b1", attachment=1)
    realm.after(5)
    assert explain(realm, "broker/b2").says.startswith("broker/b2 has not been alive since ")
