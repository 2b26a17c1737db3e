"""A node of which nothing is known but what is to run there: it has died with the store, or is about to come back (R4)."""

import pytest
from msgspec.structs import replace

from dsmt.view import Fleet
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
    realm.say("controller/c1", key(3).topic, replace(realm.slot(0), node="n4"), time_ms=since_ms + 9)
    assert realm.decide().wakes[""] == since_ms + RETURN_MS, "when the first of them is due"
    realm.say("controller/c1", key(3).topic, replace(realm.slot(0), node="n1"))
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
    realm.say("controller/c1", key(1).topic, replace(realm.slot(1), node="n4"))
    assert set(verdicts(realm.after(1))) == {"n4"}


def test_it_is_waited_for_who_was_not_heard_of_and_has_something_to_run_and_for_nobody_else() -> None:
    realm = begun_anew("n1", "n2")
    realm.attributes("n4")

    def known() -> list[tuple[bool, bool]]:
        fleet = Fleet(realm.view, realm.now_ms)
        return [(fleet.knows(node), fleet.return_until_ms(node) is not None) for node in ("n1", "n3", "n4", "n9")]

    assert known() == [(True, False), (False, True), (True, False), (False, False)]
    realm.session("node/n3", "open")
    assert known()[1] == (True, False), "it has come, and has not said yet what it has"
    assert verdicts(realm.after(RETURN_MS / 1000)) == {}


def test_nobody_is_dead_where_no_other_node_is_alive() -> None:
    realm = begun_anew("n1").after(RETURN_MS / 1000)
    assert set(verdicts(realm)) == {"n2", "n3"}
    realm.verdict("n1")
    assert verdicts(realm) == {}


def test_verdicts_and_their_evidence_are_in_the_order_of_names() -> None:
    realm = begun_anew("n1", "n2", "n3")
    nodes = [f"n{number}" for number in (9, 4, 8, 5, 7, 6)]
    for number, node in enumerate(nodes * 2):
        realm.say("controller/c1", key(20 - number).topic, replace(realm.slot(0), node=node))
    said = verdicts(realm.after(RETURN_MS / 1000))
    assert list(said) == sorted(nodes)
    facts = [realm.view.slot(key(number)).fact for number in (14, 20)]  # type: ignore[union-attr]
    assert said["n9"].evidence == tuple(str(fact.id) for fact in facts if fact is not None)


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
