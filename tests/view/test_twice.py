"""One name that is attached at two brokers at once: two processes, or one that has moved."""

from __future__ import annotations

import pytest

from dsmt.view.sessions import Twice
from tests.controllers.build import Realm


def twice(realm: Realm) -> Twice | None:
    sessions = realm.view.sessions
    return sessions.twice("node/n1", sessions.lost("b1"), realm.now_ms)


def moved() -> Realm:
    """A realm of two brokers in which n1 is open at both, now."""
    realm = Realm(brokers=("b1", "b2"))
    for one, other in (("b1", "b2"), ("b2", "b1")):
        realm.session(f"broker/{one}", "open", broker=other)
    realm.session("node/n1", "open", broker="b1", attachment=1)
    realm.after(60)
    realm.session("node/n1", "open", broker="b2", attachment=2)
    return realm


def test_who_is_open_at_two_brokers_for_longer_than_it_takes_to_move_is_there_twice() -> None:
    realm = moved()
    since_ms = realm.now_ms
    assert twice(realm.after(19.9)) is None
    assert twice(realm.after(0.1)) == Twice(since_ms, ["b1", "b2"])


@pytest.mark.parametrize("state", ["closed", "silent"])
def test_who_is_not_open_where_it_came_from_is_not_there_twice(state: str) -> None:
    realm = moved()
    realm.session("node/n1", state, broker="b1", attachment=1)
    assert twice(realm.after(60)) is None


def test_who_has_moved_while_a_broker_was_away_is_not_there_twice() -> None:
    """What that broker has said before stands while it is away, and for the seconds that it waits when it is back."""
    realm = moved()
    realm.session("broker/b2", "closed", broker="b1")
    assert twice(realm.after(60)) is None, "the broker is lost"
    realm.session("broker/b2", "open", broker="b1")
    assert twice(realm.after(19.9)) is None, "it is back, and has not looked"
    assert twice(realm.after(0.1)) is not None
