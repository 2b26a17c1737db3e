"""The brake: too many silent at once, and how it is let go."""

import msgspec
import pytest

from dsmt.controllers.brake import LIFT_MS, PACE_MS, Brake, brake
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.status import State
from dsmt.view import Fleet
from dsmt.view.liveness import REATTACH_GRACE_MS

from .build import Realm, key, web


def realm_of(count: int, *, instances: int | str | None = None) -> Realm:
    realm = Realm(*(f"n{i:02}" for i in range(count)))
    realm.apply(web(instances or count))
    realm.settle(seconds=1)
    return realm


def lose(realm: Realm, count: int, *, road: str = "silent", first: int = 0) -> list[str]:
    names = [f"n{i:02}" for i in range(first, first + count)]
    for name in names:
        realm.close(name, how="timeout")
        realm.verdict(name, road=road)
    return names


def stand(realm: Realm) -> Brake:
    return brake(Fleet(realm.view, realm.now_ms, realm.broker))


def moved(realm: Realm) -> set[str]:
    """The dead nodes whose slots a decision would move."""
    before = {slot: realm.slot(slot).node for slot in range(len(realm.view.services["web"].slots))}
    intents = [i for i in realm.decide().intents if "/slot/" in i.topic]
    return {before[int(i.topic.rsplit("/", 1)[1])] or "" for i in intents}


def order(realm: Realm, *, held: bool = False, released_ms: int = 0) -> None:
    realm.say("operator/alice", "config/brake", BrakeWord(held=held, released_ms=released_ms, by="alice", reason="x"))


def test_two_silent_nodes_are_replaced_however_small_the_realm() -> None:
    realm = realm_of(4)
    assert moved_after_losing(realm, 2) == {"n00", "n01"}


def moved_after_losing(realm: Realm, count: int) -> set[str]:
    lose(realm, count)
    return moved(realm)


def test_three_of_four_silent_at_once_are_not_replaced() -> None:
    assert moved_after_losing(realm_of(4), 3) == set()


def test_exactly_twenty_percent_silent_are_replaced_and_one_more_is_not() -> None:
    realm = realm_of(20)
    assert len(moved_after_losing(realm, 4)) == 4
    lose(realm, 1, first=4)
    assert moved(realm) == set()
    assert stand(realm).on
    assert stand(realm).reason.code == "wait.brake"


def test_closed_losses_do_not_count() -> None:
    realm = realm_of(10)
    lose(realm, 5, road="closed")
    assert len(moved(realm)) == 5


def test_nodes_that_were_closed_in_a_mass_count_before_they_are_judged_and_after() -> None:
    realm = realm_of(10)
    names = [f"n{i:02}" for i in range(5)]
    realm.after(60).close(*names)
    lose(realm, 2, first=5)
    assert stand(realm).on, "two are dead by silence, five may be"
    realm.after(9)
    for name in names:
        realm.probe(name, "n09", "failed")
    realm.after(1).step()
    assert set(stand(realm).silent) >= set(names)
    assert moved(realm) == set()


def test_closed_losses_are_replaced_while_the_brake_holds_the_silent_ones() -> None:
    realm = realm_of(10)
    lose(realm, 4)
    closed = lose(realm, 1, road="closed", first=6)
    assert moved(realm) == set(closed)


def test_silent_nodes_with_nothing_to_replace_do_not_count() -> None:
    realm = realm_of(10, instances=2)
    empty = [n for n in (f"n{i:02}" for i in range(10)) if n not in realm.nodes_of()]
    for name in empty:
        realm.close(name, how="timeout")
        realm.verdict(name, road="silent")
    assert not stand(realm).on


@pytest.mark.parametrize("instances", [2, "each_node"])
def test_silent_nodes_with_what_is_wanted_no_more_or_on_each_node_do_not_count(instances: int | str) -> None:
    realm = realm_of(10, instances=10 if instances == 2 else instances)
    realm.apply(web(instances))
    for index in (7, 8, 9):
        realm.close(realm.slot(index).node, how="timeout")
        realm.verdict(realm.slot(index).node, road="silent")
    assert not stand(realm).on


def test_five_minutes_after_the_newest_loss_they_are_replaced_one_by_one_in_order_of_loss() -> None:
    realm = realm_of(10)
    for i in range(4):
        lose(realm, 1, first=i)
        realm.after(10)
    assert moved(realm) == set()
    wake = realm.decide().wake_ms
    assert wake == stand(realm).wake_ms == realm.now_ms - 10_000 + LIFT_MS
    realm.now_ms = wake - 1
    assert moved(realm) == set()
    realm.now_ms = wake
    assert moved(realm) == {"n00"}
    assert stand(realm).reason.message == "replacing is on hold: 4 of 10 nodes went silent at once"
    realm.step()
    assert moved(realm) == set()
    realm.after(9.9)
    assert moved(realm) == set()
    assert realm.decide().wake_ms == realm.now_ms + 100
    realm.after(0.1)
    assert moved(realm) == {"n01"}


def test_the_pace_grows_with_the_realm() -> None:
    realm = realm_of(100)
    lose(realm, 30)
    realm.after(300)
    assert moved(realm) == {"n00", "n01"}


def test_the_window_does_not_lift_by_itself_before() -> None:
    realm = realm_of(10)
    lose(realm, 4)
    assert moved(realm.after(299)) == set()


def dead_in_turn(realm: Realm, count: int) -> None:
    """Nodes are lost one after the other, and the five minutes have passed since."""
    for i in range(count):
        lose(realm, 1, first=i)
        realm.after(1)
    realm.after(300)


def realm_with_a_large_one() -> Realm:
    """Ten nodes with an instance each; that of the first fits on no other one."""
    realm = Realm(*(f"n{i:02}" for i in range(10)))
    realm.attributes("n00", memory_bytes=64 * 2**30)
    realm.apply(web(1, service="big", component="reserve: {memory: 32GiB}"))
    realm.settle(seconds=1)
    realm.apply(web(9))
    realm.settle(seconds=1)
    assert realm.nodes_of("big") == ["n00"]
    assert "n00" not in realm.nodes_of()
    return realm


def test_a_slot_that_has_no_place_keeps_no_other_node_waiting() -> None:
    realm = realm_with_a_large_one()
    dead_in_turn(realm, 5)
    for expected in ("n01", "n02"):
        assert moved(realm) == {expected}
        realm.step()
        assert moved(realm) == set()
        realm.after(10)
    assert moved(realm) == {"n03"}
    realm.node("n10", memory_bytes=64 * 2**30)
    assert [i.topic for i in realm.step()] == ["service/big/slot/app/0"]


NO_ROLLBACK = "update: {rollback: false}\nreserve: {memory: %s}"


@pytest.mark.parametrize(("first", "fits"), [("32GiB", False), ("1GiB", True)])
def test_a_slot_that_keeps_an_earlier_revision_is_let_go_when_that_has_a_place_and_keeps_nobody_waiting(first, fits) -> None:
    """What stands has failed in another slot: it takes no less than the first, or no more, and nothing is rolled back."""
    realm = Realm(*(f"n{i:02}" for i in range(10)))
    for node in ("n00", "n01"):
        realm.attributes(node, memory_bytes=33 * 2**30)
    realm.apply(web(2, service="big", component=NO_ROLLBACK % first + "\nnodes: union(n00, n01)"))
    realm.settle(seconds=1)
    realm.apply(web(8))
    realm.settle(seconds=11)
    realm.apply(web(2, service="big", component=NO_ROLLBACK % ("2GiB" if fits is False else "32GiB")))
    realm.step()
    facts = [realm.view.slot(key(index, service="big")).fact.record for index in range(2)]
    (tried,) = [index for index, fact in enumerate(facts) if fact.revision == 2]
    lags = facts[1 - tried]
    realm.status(key(tried, service="big"), facts[tried].node, State.FAILED, parked=True)
    others = sorted(set(realm.nodes_of()))[:4]
    for node in (lags.node, *others):
        realm.close(node, how="timeout")
        realm.verdict(node, road="silent")
        realm.after(1)
    realm.after(300)
    assert stand(realm).released == {lags.node if fits else others[0]}
    topics = [intent.topic for intent in realm.step()]
    assert topics
    assert (f"service/big/slot/app/{1 - tried}" in topics) is fits


def test_a_slot_that_must_wait_keeps_no_other_node_waiting_and_is_looked_at_when_it_need_not() -> None:
    realm = realm_of(10)
    waiting = realm.nodes_of().index("n00")
    held = realm.slot(waiting)
    until = realm.now_ms + 400_000
    back = msgspec.structs.replace(held, moves=20, moved_at_ms=until - 300_000)
    realm.say("controller/c1", f"service/web/slot/app/{waiting}", back)
    dead_in_turn(realm, 4)
    assert moved(realm) == {"n01"}
    for _ in range(3):
        realm.step()
        realm.after(10)
    assert moved(realm) == set()
    assert realm.decide().wake_ms == until
    realm.now_ms = until
    assert moved(realm) == {"n00"}


def test_a_node_is_let_go_for_any_of_its_slots_though_the_first_must_wait() -> None:
    realm = realm_of(10, instances=11)
    (node,) = [one for one in set(realm.nodes_of()) if realm.nodes_of().count(one) == 2]
    waiting, other = [index for index in range(11) if realm.slot(index).node == node]
    back = msgspec.structs.replace(realm.slot(waiting), moves=20, moved_at_ms=realm.now_ms + 400_000)
    realm.say("controller/c1", f"service/web/slot/app/{waiting}", back)
    for one in (node, *[f"n{i:02}" for i in range(10) if f"n{i:02}" != node][:3]):
        realm.close(one, how="timeout")
        realm.verdict(one, road="silent")
        realm.after(1)
    assert [intent.topic for intent in realm.after(300).step()] == [f"service/web/slot/app/{other}"]


def test_a_slot_that_an_operator_holds_keeps_no_other_node_waiting() -> None:
    realm = realm_of(10)
    dead_in_turn(realm, 4)
    realm.hold(key(realm.nodes_of().index("n00")))
    assert moved(realm) == {"n01"}


def test_an_operator_releases_those_silent_up_to_a_time() -> None:
    realm = realm_of(10)
    lose(realm, 3)
    released = realm.now_ms
    lose(realm.after(5), 2, first=3)
    order(realm, released_ms=released)
    assert moved(realm) == {"n00"}


def test_what_was_replaced_before_the_brake_was_on_counts_in_the_pace() -> None:
    realm = realm_of(10)
    lose(realm, 2)
    realm.step()
    realm.after(1)
    lose(realm, 3, first=2)
    order(realm, released_ms=realm.now_ms)
    assert moved(realm) == set(), "two were replaced a second ago, one each ten seconds is the pace"
    realm.after(PACE_MS / 1000)
    assert moved(realm) == {"n02"}


@pytest.mark.parametrize("since", ["hold", "restart", "apply"])
def test_what_was_replaced_counts_in_the_pace_though_something_else_was_said_of_it_since(since: str) -> None:
    realm = realm_of(10)
    lose(realm, 2)
    realm.step()
    for index in [index for index in range(10) if realm.slot(index).moved_for]:
        if since == "hold":
            realm.hold(key(index))
        elif since == "restart":
            realm.control(key(index), restart=1)
    if since == "apply":
        realm.apply(web(10, component="env: {A: b}\nupdate: {max_parallel: 10}\n"))
    realm.obey()
    realm.after(1).step()
    assert all(realm.slot(index).moved_for for index in range(10) if realm.slot(index).moves)
    lose(realm, 3, first=2)
    order(realm, released_ms=realm.now_ms)
    assert moved(realm) == set()


def test_a_move_that_no_death_has_caused_does_not_count_in_the_pace() -> None:
    realm = realm_of(10)
    at = next(index for index in range(10) if realm.slot(index).node == "n09")
    realm.status(key(at), "n09", State.FAILED, parked=True)
    realm.settle(seconds=5)
    assert realm.slot(at).node != "n09"
    realm.after(1)
    lose(realm, 3)
    order(realm, released_ms=realm.now_ms)
    assert realm.now_ms - (realm.slot(at).moved_at_ms or 0) < PACE_MS
    assert moved(realm) == {"n00"}


def test_an_operator_holds_all_replacing() -> None:
    realm = realm_of(10)
    lose(realm, 1, road="closed")
    order(realm, held=True)
    assert moved(realm) == set()
    order(realm)
    assert moved(realm) == {"n00"}


def test_excluded_nodes_are_not_counted() -> None:
    realm = realm_of(15)
    for i in range(8, 15):
        realm.control_node(f"n{i:02}", "excluded")
    assert stand(realm).total == 0
    lose(realm, 3)
    assert (stand(realm).on, stand(realm).total) == (True, 8)


def test_two_controllers_choose_the_same_ones() -> None:
    realm = realm_of(60)
    lose(realm, 20)
    realm.after(301)
    other = realm.view.copy()
    mine = stand(realm).released
    assert brake(Fleet(other, realm.now_ms, "b1")).released == mine
    assert len(mine) == 1


def test_those_that_fell_silent_at_once_count_before_each_is_judged() -> None:
    realm = realm_of(20)
    realm.silence(*(f"n{i:02}" for i in range(5)))
    for name in ("n00", "n01", "n02"):
        realm.verdict(name, road="silent")
    assert moved(realm) == set()
    realm.attach("n04")
    assert moved(realm) == {"n00", "n01", "n02"}


def test_a_node_whose_manager_is_away_while_its_monitor_is_heard_counts_for_no_brake() -> None:
    realm = realm_of(10)
    for name in ("n05", "n06"):
        realm.session(f"node/{name}", "silent")
    lose(realm, 2)
    assert moved(realm) == {"n00", "n01"}


@pytest.mark.parametrize("which", ["closed", "back before"])
def test_who_returned_was_not_lost_with_the_others_where_it_was_closed_or_was_back_before_they_fell_silent(which) -> None:
    realm = realm_of(10)
    lose(realm, 1, road="closed" if which == "closed" else "silent", first=5)
    realm.after(5).attach("n05")
    lost_ms = realm.now_ms - (5_000 if which == "closed" else 0)
    realm.after(3)
    for name in ("n00", "n01"):
        realm.close(name, how="timeout")
        realm.verdict(name, road="silent", since_ms=lost_ms + 1_000)
    assert moved(realm) == {"n00", "n01"}


def test_on_a_death_by_silence_of_which_a_living_broker_knows_better_nobody_acts() -> None:
    """The site has judged all of the mesh, and its words come back over the uplink; each node undoes them a little later."""
    realm = realm_of(6)
    accused = [f"n{i:02}" for i in range(3)]
    realm.after(30)
    for name in accused:
        realm.verdict(name, road="silent", since_ms=realm.now_ms - 30_000)
    assert moved(realm) == set()
    for name in accused:
        realm.after(0.5)
        assert moved(realm) == set(), "though the brake is on no more"
        realm.attach(name)
    assert moved(realm) == set()


def test_who_is_heard_no_more_after_it_was_judged_from_afar_is_replaced_when_it_could_have_come_back() -> None:
    realm = realm_of(6)
    realm.after(30).verdict("n00", road="silent", since_ms=realm.now_ms - 30_000)
    realm.after(0.2).close("n00")
    assert moved(realm) == set()
    realm.after(REATTACH_GRACE_MS / 1000 - 0.1)
    assert moved(realm) == set()
    realm.after(0.2)
    assert moved(realm) == {"n00"}


def test_what_a_lost_broker_said_of_a_node_contests_no_death() -> None:
    realm = realm_of(6)
    realm.after(30).verdict("n00", road="silent", since_ms=realm.now_ms - 30_000)
    fleet = Fleet(realm.view, realm.now_ms, realm.broker)
    assert fleet.contested_until_ms("n00") == realm.now_ms + REATTACH_GRACE_MS
    fleet.lost_brokers[realm.broker] = realm.now_ms
    assert fleet.contested_until_ms("n00") == 0
    realm.verdict("n01", road="closed")
    assert fleet.contested_until_ms("n01") == 0
    assert moved(realm) == {"n01"}
