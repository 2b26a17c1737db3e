"""The brake while those come back that were lost together (F5)."""

import pytest

from .build import Realm, web
from .test_brake import lose, moved, realm_of, stand


@pytest.mark.parametrize("others", ["return", "stay away"])
def test_what_was_held_back_is_not_replaced_when_the_first_of_an_outage_are_back(others: str) -> None:
    """The others run, too, and attach a moment later: what would be begun elsewhere has two copies, and one is ended."""
    realm = realm_of(5)
    lost = lose(realm, 3)
    realm.after(60)
    assert moved(realm) == set()
    realm.attach(lost[0])
    realm.after(0.1)
    assert moved(realm) == set()
    assert stand(realm).returned == (lost[0],)
    if others == "return":
        for name in lost[1:]:
            realm.attach(name)
        assert not stand(realm).on
        assert moved(realm) == set()
        return
    wake = stand(realm).wake_ms or 0
    realm.after((wake - realm.now_ms) / 1000 - 0.01)
    assert moved(realm) == set()
    realm.after(0.02)
    assert moved(realm) == set(lost[1:])


def test_who_was_lost_in_an_earlier_outage_and_attaches_elsewhere_now_holds_up_no_repair() -> None:
    """A broker dies with two nodes; all others attach elsewhere, and some of them were dead once."""
    realm = realm_of(12)
    once = lose(realm, 2)
    realm.after(1)
    for name in once:
        realm.attach(name)
    realm.after(600)
    for name in once:
        realm.close(name)
        realm.attach(name)
    lose(realm, 2, first=5)
    assert moved(realm) == {"n05", "n06"}


@pytest.mark.parametrize("before_s", [20, 120, 280])
def test_who_was_lost_alone_shortly_before_and_has_come_back_holds_up_no_repair(before_s: int) -> None:
    realm = realm_of(12)
    once = lose(realm, 2)
    realm.after(before_s)
    for name in once:
        realm.attach(name)
    realm.after(1)
    lose(realm, 2, first=5)
    assert moved(realm) == {"n05", "n06"}


def test_who_has_nothing_to_replace_holds_up_no_repair_by_coming_back() -> None:
    """Links of four nodes with nothing on them come and go."""
    realm = Realm(*(f"n{i:02}" for i in range(8)))
    realm.apply(web(3, component="nodes: union(n05, n06, n07)"))
    realm.settle(seconds=1)
    idle = lose(realm, 4)
    lose(realm, 1, first=5)
    assert moved(realm) == {"n05"}
    realm.after(1)
    for name in idle:
        realm.attach(name)
    assert not stand(realm).on
    assert moved(realm) == {"n05"}
