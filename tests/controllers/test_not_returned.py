"""A node of which nothing is known but what is to run there: it has died with the store, or is about to come back (R4)."""

import pytest
from msgspec.structs import replace

from dsmt.view.liveness import RETURN_MS

from .build import Realm, key, web
from .roads import verdicts


def begun_anew(*back: str, component: str = "") -> Realm:
    """The store of a realm of n1 to n3 has begun anew, and only these have come back to it; what is to run is known."""
    before = Realm("n1", "n2", "n3")
    before.apply(web(3, component=component))
    before.settle(seconds=1)
    realm = Realm().after(1)
    for node in back:
        realm.node(node)
    realm.apply(web(3, component=component))
    for at in range(3):
        realm.say("controller/c1", key(at).topic, before.slot(at), time_ms=before.now_ms)
        if before.slot(at).node in back:
            realm.status(key(at), before.slot(at).node or "")
    assert sorted(map(str, realm.nodes_of())) == ["n1", "n2", "n3"]
    return realm


def test_who_does_not_come_back_in_time_is_dead_and_replaced() -> None:
    realm = begun_anew("n1", "n2")
    since_ms = realm.now_ms
    assert realm.decide().wakes[""] == since_ms + RETURN_MS
    assert verdicts(realm.after((RETURN_MS - 1) / 1000)) == {}
    said = verdicts(realm.after(0.001))["n3"]
    assert (said.state, said.road, said.since_ms, said.attachments) == ("dead", "silent", since_ms, {})
    assert said.message == "nothing is known of n3 but what is to run there; it has not come back in 120 s"
    lost = next(at for at in range(3) if realm.slot(at).node == "n3")
    fact = realm.view.slot(key(lost)).fact  # type: ignore[union-attr]
    assert fact is not None
    assert said.evidence == (str(fact.id),)
    realm.settle(seconds=1)
    assert "n3" not in realm.nodes_of()


def test_who_comes_back_after_that_is_alive_again() -> None:
    realm = begun_anew("n1", "n2").after(RETURN_MS / 1000)
    realm.step()
    assert realm.dead("n3")
    realm.node("n3")
    assert not realm.dead("n3")
    assert verdicts(realm) == {}


def test_it_counts_from_when_the_first_of_what_is_to_run_there_was_decided() -> None:
    """Of a new node that may have come here before what it says of itself."""
    realm = begun_anew("n1", "n2", "n3").after(RETURN_MS / 1000)
    realm.say("controller/c1", key(0).topic, replace(realm.slot(0), node="n4"))
    assert verdicts(realm.after(RETURN_MS / 1000 - 1)) == {}
    assert set(verdicts(realm.after(1))) == {"n4"}


def test_nobody_is_dead_for_a_store_that_tells_of_no_session() -> None:
    realm = begun_anew().after(10 * RETURN_MS / 1000)
    assert verdicts(realm) == {}


def test_who_has_not_watched_for_long_does_not_say_it() -> None:
    realm = begun_anew("n1", "n2").after(RETURN_MS / 1000)
    assert verdicts(realm, may_accuse=False) == {}


def test_data_waits_for_it_all_the_same() -> None:
    realm = begun_anew("n1", "n2", component="data: true").after(RETURN_MS / 1000)
    realm.settle(seconds=1)
    assert realm.dead("n3")
    assert "n3" in realm.nodes_of()


@pytest.mark.parametrize("back", [("n1", "n2"), ("n1", "n2", "n3")])
def test_the_ledger_knows_who_has_not_said_what_it_has(back: tuple[str, ...]) -> None:
    realm = begun_anew(*back)
    assert realm.view.allocations.unequipped == {"n1", "n2", "n3"} - set(back)
    realm.attributes("n3")
    assert realm.view.allocations.unequipped == set()
