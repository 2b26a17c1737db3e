"""What has ended well stays so where what was tried after it is refused, whatever else was tried meanwhile (A20)."""

import pytest

from dsmt.event.status import State

from .build import Attentive, Realm, key, web
from .test_ended import TWO, Migrated, OneOfEach


@pytest.mark.parametrize("asked", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("leaves", ["stays", "drain", "death"])
@pytest.mark.parametrize("order", ["start_first", "stop_first"])
@pytest.mark.parametrize("fix", ["none", "another", "labelled"])
def test_it_stays_ended_where_what_was_tried_after_it_is_refused_wherever_that_was(
    fix: str, order: str, leaves: str, asked: bool
) -> None:
    at = Migrated(order)
    realm, good = at.realm, at.realm.slot().implements
    at.apply(migrates="two")
    at.controller.watch(1, obey=False)
    realm.status(key(), at.first, State.RUNNING, revision=2, good=good)
    if fix == "another":
        at.apply(migrates="three")
    elif fix == "labelled":
        realm.apply("labels: {a: b}\n" + TWO.format(order=order, migrates="two", serves="one"))
    at.controller.watch(1, obey=False)
    now = realm.slot().revision
    assert now == (2 if fix == "none" else 3)
    if leaves == "drain":
        realm.control_node(at.first, "draining")
        at.controller.watch(1, obey=False)
        if order == "stop_first":
            realm.status(key(), at.first, State.STOPPED, revision=now, good=good)
    elif leaves == "death":
        realm.close(at.first)
    at.controller.watch(5, obey=False)
    if asked:
        realm.control(key(), restart=realm.now_ms)
        at.controller.watch(1, obey=False)
    slot = realm.slot()
    assert (slot.revision, slot.node == at.first) == (now, leaves == "stays")
    realm.status(key(), slot.node or "", State.FAILED, parked=True, revision=now)
    at.controller.watch(5, obey=False)
    back = realm.slot()
    assert (back.revision, back.node) == (1, slot.node)
    assert (back.ended is not None) is not asked
    assert back.ended is None or back.ended.at_ms == at.last["at_ms"]


@pytest.mark.parametrize(("ahead_ms", "numbered"), [(0, True), (1_500, True), (0, False)])
def test_which_restart_a_run_was_begun_after_is_told_by_its_number_and_by_a_clock_only_where_none_is_said(
    ahead_ms: int, numbered: bool
) -> None:
    """The operator's clock is ahead of the node's: the run that was asked for had begun before that, by its own words."""
    at = OneOfEach()
    realm = at.realm
    asked = realm.now_ms + ahead_ms
    realm.control(key(0), restart=asked)
    realm.after(1).settle(obey=False)
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 0.9, "reason": None}
    last |= {"restart": asked} if numbered else {}
    realm.status(key(0), "n1", State.FAILED, last_exit=last, good=realm.slot(0).implements)
    realm.after(60).settle(obey=False)
    realm.apply(web("each_node", component="restart: never\n", head="labels: {a: b}\n"))
    realm.after(1).settle(obey=False)
    assert realm.slot(0).revision == 2
    at.drained()
    at.back()
    assert (realm.slot(0).desired, realm.slot(0).ended is not None) == ("running", True)


def test_what_was_stopped_to_leave_and_is_refused_by_another_one_meanwhile_is_moved_as_ended() -> None:
    realm, job = Realm("n1", "n2", "n3"), "restart: never\nupdate: {order: stop_first, deadline: 30s}\n"
    controller = Attentive(realm)
    realm.apply(web(1, component=job))
    controller.watch(2)
    node, good = realm.slot().node or "", realm.slot().implements
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.5, "reason": None, "restart": 0}
    realm.status(key(), node, State.FAILED, last_exit=last, good=good)
    controller.watch(10, obey=False)
    for count in (1, 2):
        realm.apply(web(count, component=job + "env: {A: b}\n"))
        controller.watch(1, obey=False)
        realm.status(key(), node, State.INSTANTIATED, good=good, revision=realm.slot().revision, last_exit=last)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, parked=True, revision=3)
    realm.control_node(node, "draining")
    controller.watch(90, obey=False)
    assert (realm.slot().desired, realm.slot().revision, realm.slot().ended is not None) == ("stopped", 1, True)
    realm.status(key(), node, State.STOPPED, good=good, revision=1)
    controller.watch(1, obey=False)
    back = realm.slot()
    assert (back.node == node, back.desired, back.revision, back.ended is not None) == (False, "running", 1, True)


def test_what_is_stopped_to_leave_while_it_runs_once_more_has_not_ended() -> None:
    """It was tried again by hand, in the generation whose fact says that it has ended."""
    at = Migrated("stop_first")
    realm = at.realm
    at.leave("death")
    node, good = realm.slot().node or "", realm.slot().implements
    assert realm.slot().ended is not None
    realm.status(key(), node, State.RUNNING, good=good)
    realm.control_node(node, "draining")
    at.controller.watch(2, obey=False)
    assert (realm.slot().desired, realm.slot().ended) == ("stopped", None)
    realm.status(key(), node, State.STOPPED, good=good)
    at.controller.watch(2, obey=False)
    assert (realm.slot().node == node, realm.slot().desired, realm.slot().ended) == (False, "running", None)
