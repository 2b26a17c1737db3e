"""Brokers that live and do not reach each other: a third passes on what they say, and an operator is told (F1)."""

from dsmt.operations.read.screens.alerting import Found, alerts
from tests.controllers.build import Realm

from .sights import sight


def test_of_two_brokers_that_live_and_do_not_reach_each_other_both_are_told_as_long_as_it_is_so() -> None:
    realm = Realm("n1", brokers=("b1", "b2", "b3"))

    def link(to: str, state: str, by: str) -> None:
        realm.session(f"broker/{to}", state, how=None if state == "open" else "timeout", broker=by)

    def told() -> list[tuple[str, str]]:
        return [
            (one.target, one.message.split(";")[0]) for one in alerts(sight(realm), Found()) if one.code == "broker.apart"
        ]

    names = ("b1", "b2", "b3")
    for to, by in ((to, by) for to in names for by in names if to != by):
        link(to, "open", by)
    for to, by in (("b1", "b2"), ("b2", "b1")):
        link(to, "closed", by)
    assert told() == []
    realm.after(10)
    assert told() == [("broker/b1", "it does not reach b2"), ("broker/b2", "it does not reach b1")]
    assert set(sight(realm).fleet.lost_brokers) == set()
    for to in names:
        link("b2", "closed", to) if to != "b2" else None
    assert told() == [], "one that is lost is told so"
    for to, by in (("b1", "b2"), ("b2", "b1"), ("b2", "b3")):
        link(to, "open", by)
    assert told() == []
