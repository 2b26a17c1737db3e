"""What waits for the brake: no screen says of it that dsmt acts, or that all is well."""

import asyncio
from typing import Any

import pytest

from dsmt.cli import screens
from dsmt.cli.service_screen import next_act
from dsmt.errors import NotFoundError
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.kinds.slot import Slot
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.alert import Alert
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.read.why.explaining import roots
from dsmt.operations.words.targets import Target
from dsmt.operations.write import controlling
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, key, web

from .sights import sight

HELD = 'replacing is on hold: alice holds the brake: "audit"'


def hold(realm: Realm, *, held: bool = True) -> None:
    word = BrakeWord(held=held, released_ms=0, by="operator/alice.1f", reason="audit")
    realm.say("operator/alice", "config/brake", word)


def alerts(realm: Realm) -> list[Alert]:
    return status(sight(realm), TrustStore(RealmName(name="prod", roots=(bytes(32),))), []).alerts


def lost(component: str = "") -> Realm:
    """A realm of three, of which the node that web/app/0 is on has died."""
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component=component))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    realm.close(node)
    realm.verdict(node)
    return realm


def test_what_is_lost_while_the_brake_is_held_waits_for_it_and_nobody_is_told_that_dsmt_acts() -> None:
    realm = lost()
    node = realm.slot().node
    assert {one.who for one in alerts(realm) if one.code == "node.lost"} == {"dsmt"}
    hold(realm)
    (row,) = instances(sight(realm))
    assert row.reason is not None
    assert (row.state, row.reason.code, row.reason.next) == (Shown.LOST, "wait.brake", "dsmt brake release")
    assert row.reason.message == f"{node} is dead; {HELD}"
    assert next_act(row, realm.now_ms) == "waits until the brake is off"
    told = {one.target: one for one in alerts(realm)}
    assert {told[about].who for about in (f"node/{node}", "web/app/0")} == {"you"}
    assert told[f"node/{node}"].message.endswith(HELD)
    hold(realm, held=False)
    assert {one.who for one in alerts(realm) if one.code == "node.lost"} == {"dsmt"}


def test_of_a_dead_node_with_nothing_on_it_nobody_is_told_that_it_waits_for_the_brake() -> None:
    realm = lost()
    empty = next(node for node in ("n1", "n2", "n3") if node != realm.slot().node)
    realm.close(empty)
    realm.verdict(empty)
    hold(realm)
    told = {one.target: one.code for one in alerts(realm)}
    assert (told[f"node/{realm.slot().node}"], told[f"node/{empty}"]) == ("wait.brake", "node.lost")


def test_of_a_dead_node_that_the_brake_lets_go_nobody_is_told_that_it_waits_for_that() -> None:
    realm = Realm(*(nodes := [f"n{number}" for number in range(1, 7)]))
    realm.apply(web(6))
    realm.settle(seconds=1)
    closed, *silent = nodes[:4]
    for node in (closed, *silent):
        realm.close(node, how="peer" if node == closed else "timeout")
        realm.verdict(node, road="closed" if node == closed else "silent")
    told = {one.target: one.code for one in alerts(realm)}
    assert [told[f"node/{node}"] for node in (closed, *silent)] == ["node.lost", *["wait.brake"] * 3]


def test_what_no_brake_keeps_from_being_replaced_does_not_wait_for_it() -> None:
    realm = lost("data: true\n")
    hold(realm)
    (row,) = instances(sight(realm))
    assert row.reason is not None
    assert row.reason.code == "wait.pinned"


def test_what_runs_on_a_node_that_lives_and_what_is_left_on_one_that_died_before_do_not_wait_for_it() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.settle(seconds=1)
    before = realm.slot().node or ""
    realm.close(before)
    realm.verdict(before)
    realm.settle(seconds=30)
    hold(realm)
    rows = {row.node: row.reason for row in instances(sight(realm), everything=True)}
    assert rows.keys() == {before, realm.slot().node}
    assert [why for why in rows.values() if why is not None and why.code == "wait.brake"] == []


def test_what_is_removed_does_not_wait_for_it() -> None:
    realm = lost()
    realm.apply(web(1), removed=True)
    hold(realm)
    rows = instances(sight(realm), Target("web"), everything=True)
    assert [row.reason for row in rows if row.reason is not None and row.reason.code == "wait.brake"] == []


def test_of_the_dead_only_the_silent_wait_for_it_where_nobody_holds_it() -> None:
    realm = Realm(*(f"n{n}" for n in range(1, 7)))
    realm.apply(web(6))
    realm.settle(seconds=1)
    realm.silence("n1", "n2", "n3", "n4")
    realm.close("n5")
    for node in ("n1", "n2", "n3", "n4", "n5"):
        realm.verdict(node, road="closed" if node == "n5" else "silent")
    waits = {row.node for row in instances(sight(realm)) if row.reason is not None and row.reason.code == "wait.brake"}
    assert waits == {"n1", "n2", "n3", "n4"}


def orphan(service: str = "old") -> Realm:
    """A realm where n1 runs what no service asks for, while the brake is held."""
    realm = Realm("n1", "n2")
    for layer, state in ((Layer.CONTAINER, State.INSTALLED), (Layer.APPLICATION, State.RUNNING)):
        realm.status(key(2, service=service), "n1", state, layer=layer, generation=3, orphan=layer is Layer.CONTAINER)
    hold(realm)
    return realm


def test_what_runs_beside_what_its_service_asks_for_is_told_once() -> None:
    realm = orphan("web")
    realm.apply(web(1))
    assert [one.target for one in alerts(realm)].count("web/app/2") == 1


def test_what_runs_and_is_wanted_no_more_is_told_on_each_screen_while_it_waits_for_the_brake() -> None:
    realm = orphan()
    said = "n1 runs it, and nothing asks for it; once the brake is off it is ended, or kept where it is wanted"
    seen = sight(realm)
    (row,) = instances(seen, problems=True)
    assert row.instance == "old/app/2"
    assert f"wait.brake: {said}" in screens.ps([row], seen)
    (alert,) = alerts(realm)
    assert (alert.target, alert.message, alert.next, alert.who) == ("old/app/2", said, "dsmt brake release", "you")
    assert said in screens.status(status(seen, TrustStore(RealmName(name="prod", roots=(bytes(32),))), []), seen)
    hold(realm, held=False)
    assert alerts(realm) == []


def test_what_a_node_says_to_run_and_nothing_asks_for_does_not_count_as_wanted() -> None:
    """It may say so of a thousand: whether what was asked for is ready could not be seen any more."""
    realm = orphan("web")
    realm.apply(web(2))
    assert [(one.service, one.wanted) for one in services(sight(realm))] == [("web", 2)]


def test_what_is_told_to_end_and_is_told_of_on_hides_no_screen_of_the_realm() -> None:
    """Its node may have yet to hear of it, or say on that it runs whatever it hears."""
    realm = orphan()
    realm.say("controller/c1", key(2, service="old").topic, Slot(node="n1", spec="of an orphan", revision=0, desired="gone"))
    assert [one for one in alerts(realm) if one.target.startswith("old")] == []


def test_why_begins_at_what_is_said_of_what_runs_with_no_slot_fact() -> None:
    (begin,) = roots(sight(orphan()), "old/app/2")
    assert begin.event.data["state"] == "running"


@pytest.mark.parametrize("act", [controlling.stop, controlling.start, controlling.restart, controlling.retry])
def test_what_no_service_asks_for_takes_no_orders(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    realm = orphan()

    async def look(_bus: object, *_: object) -> object:
        return sight(realm)

    for name in ("look", "look_at"):
        monkeypatch.setattr(controlling, name, look)
    with pytest.raises(NotFoundError, match="there is no service old"):
        asyncio.run(act(None, Target("old"), by="alice", reason=""))
