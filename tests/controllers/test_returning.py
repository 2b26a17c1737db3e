"""The brake while those come back that were lost together (F5)."""

import pytest

from .build import Realm, web
from .test_brake import lose, moved, order, realm_of, realm_with_a_large_one, stand


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


@pytest.mark.parametrize("released", [0, 1, 2])
@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("count", [4, 5])
def test_the_brake_stands_as_it_is_until_the_time_that_it_names_and_lets_go_of_all_in_the_end(
    count: int, back: int, released: int
) -> None:
    """Nobody looks before: what changed by itself would wait for a look at everything. The first has no other place."""
    realm = realm_with_a_large_one()
    lost = [lose(realm.after(3), 1, first=first)[0] for first in range(count)]
    order(realm, released_ms=realm.now_ms - 3_000 * (count - released))
    realm.settle(obey=False)
    if back:
        realm.after(4).attach(lost[-1])
    while (wake := stand(realm).wake_ms) is not None:
        before = stand(realm)
        assert wake > realm.now_ms
        for at in ((realm.now_ms + wake) // 2, wake - 1):
            realm.now_ms = at
            assert stand(realm).lets_go_as(before)
        realm.now_ms = wake
        realm.settle(obey=False)
    assert not set(realm.nodes_of()) & set(lost[: count - back])
