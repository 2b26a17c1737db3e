"""Draining, and what holds it; removing a node that is no more."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from dsmt.errors import FailedError, InputError, RefusedError, TimedOutError
from dsmt.event.hlc import hlc
from dsmt.event.kinds.node import NodeControl
from dsmt.event.status import Layer, State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.holding import data_on, left_on
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.waits import waiting
from dsmt.operations.write import node_control
from dsmt.operations.write.node_control import LastNode
from dsmt.view import SlotKey
from tests.controllers.build import Realm, key, web

from .sights import sight, watched


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Realm:
    """A realm of two nodes that node control looks at, and speaks to."""
    made = Realm("n1", "n2")

    async def look(_bus: object) -> Sight:
        return sight(made)

    async def say(*drafts: Any) -> None:
        for draft in drafts[-1]:
            made.say("operator/alice", draft.topic, draft.data)

    monkeypatch.setattr(node_control, "look", look)
    for saying in ("say", "say_word"):
        monkeypatch.setattr(node_control, saying, say)
    monkeypatch.setattr(waiting, "watch", watched(made))
    monkeypatch.setattr(waiting, "aclosing", aclosing)
    return made


def remove(name: str, *, sure: bool = False) -> node_control.Controlled:
    bus: Any = None
    return asyncio.run(node_control.remove(bus, name, by="operator/alice", reason="sold", sure=sure))


def drained(name: str, limit_s: float) -> node_control.Controlled:
    bus: Any = None
    return asyncio.run(node_control.drained(bus, name, since=1, limit_s=limit_s))


def test_a_drain_that_does_not_end_names_what_holds_it_and_why(realm: Realm) -> None:
    realm.apply(web(1, component="nodes: n1\n"))
    realm.settle(seconds=1)
    realm.control_node("n1", "draining")
    realm.settle(seconds=1)
    (left,) = left_on(sight(realm), "n1")
    assert left.instance == "web/app/0"
    assert left.because.startswith("there is no other place: ")
    with pytest.raises(
        TimedOutError, match=r"n1 is not drained after 0\.05 s \(1 to go; web/app/0: there is no other place"
    ):
        drained("n1", 0.05)
    assert [one.left for one in node_rows(sight(realm)) if one.node == "n1"] == [[left]]


def test_a_drain_names_the_data_that_an_instance_may_go_back_to(realm: Realm) -> None:
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    node = realm.after(100).slot().node or ""
    realm.apply(web(1, component="update: {rollback: false}\n"))
    realm.step()
    realm.status(key(), node, State.FAILED, parked=True)
    realm.control_node(node, "draining")
    realm.settle(seconds=1, obey=False)
    (left,) = left_on(sight(realm), node)
    assert (realm.slot().revision, left.stays) == (2, True)
    assert left.because == "its data is there; dsmt move web/app/0 --accept-data-loss moves it without its data"


def test_a_drain_says_of_what_stops_first_that_it_goes_elsewhere_and_of_what_is_held_that_it_stays(realm: Realm) -> None:
    realm.apply(web(1, component="update: {order: stop_first}\n"))
    realm.settle(seconds=1)
    node = realm.after(100).slot().node or ""
    realm.control_node(node, "draining")
    realm.settle(seconds=1, obey=False)
    (left,) = left_on(sight(realm), node)
    assert (realm.slot().desired, realm.slot().held) == ("stopped", False)
    assert left.because.startswith(f"it stops before it begins elsewhere: {node} has a copy of it, and two")
    realm.control_node(node, "active")
    realm.settle(seconds=1, obey=False)
    realm.hold(key())
    realm.settle(seconds=1)
    (left,) = left_on(sight(realm), node)
    assert left.because == "it is stopped here; dsmt start web/app/0, or dsmt move web/app/0"


def test_a_drain_names_the_data_of_what_does_not_run_there_now(realm: Realm) -> None:
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    home = realm.slot().node or ""
    bus: Any = None
    say = partial(node_control.set_mode, bus, home, by="operator/alice", reason="disk")
    there = asyncio.run(say("draining"))
    assert (there.pinned, there.data) == (["web/app/0"], [])
    asyncio.run(say("active"))
    realm.apply(web(0, component="data: true\n"))
    realm.settle(seconds=1)
    away = asyncio.run(say("draining"))
    assert (away.left, away.data) == ([], ["web/app/0"])


def test_a_drain_waits_for_the_copy_of_what_has_left_without_its_data(realm: Realm) -> None:
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    first = realm.slot().node or ""
    realm.control(key(), move="n2" if first == "n1" else "n1", accept_data_loss=True)
    realm.step()
    realm.status(key(), first, State.STOPPED)
    realm.step()
    assert realm.slot().node != first
    (left,) = left_on(sight(realm), first)
    assert (left.stays, left.because.partition(";")[2]) == (False, " what is left here is being ended, and is stopped")


def test_of_what_a_dead_node_has_left_it_is_said_that_it_ends_when_the_node_is_back(realm: Realm) -> None:
    realm.apply(web(1, component="restart: never\n"))
    realm.settle(seconds=1)
    first = realm.slot().node or ""
    realm.close(first)
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    assert node != first
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.0, "reason": None}
    realm.status(key(), node, State.FAILED, last_exit=last, good=realm.slot().implements)
    (left,) = left_on(sight(realm), first)
    now, ends = left.because.split("; ")
    assert now == f"it is done on {node} now"
    assert ends == f"what is left here was running when that was said last, and ends when {first} is back"


def test_a_wait_for_a_drain_ends_when_the_node_is_included_meanwhile(realm: Realm) -> None:
    realm.apply(web(1, component="nodes: n1\n"))
    realm.settle(seconds=1)
    bus: Any = None
    said = asyncio.run(node_control.set_mode(bus, "n1", "draining", by="operator/alice", reason="disk"))
    assert (said.version, said.changed) == (1, True)

    def tell(_text: str) -> None:
        if realm.view.nodes["n1"].mode == "draining":
            realm.control_node("n1", "active")

    def wait() -> None:
        asyncio.run(node_control.drained(bus, "n1", since=said.version, limit_s=2.0, tell=tell))

    opposed = "n1 is active again, by another word, before it was drained"
    with pytest.raises(FailedError, match=opposed):
        wait()
    with pytest.raises(FailedError, match=opposed):  # it was said before anybody looked
        wait()


def test_a_drain_that_is_not_seen_yet_is_waited_for(realm: Realm) -> None:
    bus: Any = None

    def tell(_text: str) -> None:
        if realm.view.nodes["n1"].mode == "active":
            realm.control_node("n1", "draining")

    told = asyncio.run(node_control.drained(bus, "n1", since=1, limit_s=2.0, tell=tell))
    assert (told.mode, told.version) == ("drained", 1)


def test_an_old_copy_that_waits_for_a_successor_which_is_never_ready_is_named_with_its_end(realm: Realm) -> None:
    realm.apply(web(1))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    realm.control_node(node, "draining")
    realm.step()
    other = realm.slot().node or ""
    assert other != node
    realm.status(key(), other, State.FAILED, next_try_ms=realm.now_ms + 1000)
    (left,) = left_on(sight(realm), node)
    assert f"stays until the one on {other} is ready, which is backoff; it ends at " in left.because
    realm.status(key(), node, State.GONE, layer=Layer.CONTAINER)
    assert drained(node, 1.0).mode == "drained"


def test_a_drain_does_not_wait_for_what_only_an_agent_s_key_tells_of(realm: Realm) -> None:
    made_up = SlotKey("web", "app", 7)
    realm.apply(web(1, component="nodes: n2\n"))
    realm.settle(seconds=1)
    realm.status(made_up, "n1", State.RUNNING, generation=1, alone=True)
    realm.control_node("n1", "draining")
    realm.settle(seconds=1)
    assert drained("n1", 1.0).mode == "drained"
    realm.status(made_up, "n1", State.RUNNING, generation=1, layer=Layer.CONTAINER)
    with pytest.raises(TimedOutError, match="1 to go; web/app/7: no controller has decided yet what becomes of it"):
        drained("n1", 0.05)


def test_a_node_that_is_alive_is_not_removed_and_what_to_do_is_said(realm: Realm) -> None:
    with pytest.raises(RefusedError, match="n1 is alive; nothing was done") as refused:
        remove("n1")
    assert refused.value.next == "dsmt node drain n1; then end its processes: dsmt node show n1"


def test_a_living_node_that_was_drained_of_all_but_its_data_is_not_to_be_drained_again(realm: Realm) -> None:
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    realm.control_node(node, "draining")
    with pytest.raises(RefusedError) as refused:
        remove(node)
    assert refused.value.next == f"end its processes: dsmt node show {node}"


def test_a_dead_node_that_is_removed_is_no_part_of_the_realm_until_it_attaches_again(realm: Realm) -> None:
    realm.close("n2")
    with pytest.raises(InputError, match="n2 is suspect"):
        remove("n2")
    realm.after(0.3).step()
    assert sight(realm).fleet.state("n2") == "dead"
    assert remove("n2").changed
    assert [one.node for one in node_rows(sight(realm))] == ["n1"]
    assert not remove("n2").changed
    realm.after(1).attach("n2")
    assert [one.node for one in node_rows(sight(realm))] == ["n1", "n2"]


@pytest.mark.parametrize(("mode", "afterwards"), [("draining", "active"), ("excluded", "excluded"), ("active", "active")])
@pytest.mark.parametrize("left", [False, True], ids=["dead", "left"])
def test_a_drain_ends_with_its_node_so_the_next_machine_of_that_name_is_used(
    realm: Realm, mode: str, afterwards: str, left: bool
) -> None:
    realm.control_node("n2", mode)
    realm.close("n2")
    if left:
        realm.verdict("n2", state="left", road="operator")
    realm.after(5).step()
    assert sight(realm).fleet.state("n2") == ("left" if left else "dead")
    assert remove("n2").changed is not left
    realm.after(1).attach("n2")
    assert {one.node: one.mode for one in node_rows(sight(realm))} == {"n1": "active", "n2": afterwards}


def test_nothing_is_moved_off_or_kept_off_a_node_that_was_removed_and_it_is_given_back_all_the_same(realm: Realm) -> None:
    realm.control_node("n2", "excluded")
    realm.close("n2")
    realm.after(5).step()
    assert remove("n2").changed
    bus: Any = None
    for mode in ("draining", "excluded"):
        with pytest.raises(RefusedError, match="n2 was removed; nothing was done") as caught:
            asyncio.run(node_control.set_mode(bus, "n2", mode, by="operator/alice", reason=""))
        assert caught.value.next == "it takes nothing until it attaches again: dsmt nodes"
    assert asyncio.run(node_control.set_mode(bus, "n2", "active", by="operator/alice", reason="")).changed


def test_a_node_that_controllers_judge_at_this_moment_is_removed_all_the_same(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, tries = node_control.say, list[int]()

    async def second(bus: Any, drafts: list[Any]) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise FailedError("conflict", "controller/c1 changed node/n1/verdict at the same moment, and was first")
        return await said(bus, drafts)

    monkeypatch.setattr(node_control, "say", second)
    realm.close("n1")
    assert remove("n1", sure=True).changed
    assert len(tries) == 3


def test_a_node_that_data_waits_for_is_removed_only_when_that_is_said(realm: Realm) -> None:
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    realm.close(node)
    realm.after(0.3).step()
    with pytest.raises(InputError, match=f"the data of web/app/0 is on {node}"):
        remove(node)
    assert remove(node, sure=True).changed


def test_the_data_of_what_has_ended_is_on_its_node(realm: Realm) -> None:
    """Of what was scaled to 0, of what ends with a drain, and of what was removed: all of it comes back there (A17)."""
    realm.apply(web(1, service="none", component="data: true\n"))
    realm.apply(web("each_node", service="each", component="data: true\n"))
    realm.apply(web(1, service="old", component="data: true\n"))
    realm.settle(seconds=1)
    at = {name: realm.slot(service=name).node or "" for name in ("none", "each", "old")}
    realm.apply(web(0, service="none", component="data: true\n"))
    realm.apply(web(1, service="old", component="data: true\n"), removed=True)
    realm.control_node(at["each"], "draining")
    realm.settle(seconds=1)
    for name, node in at.items():
        realm.status(key(service=name), node, State.GONE, layer=Layer.CONTAINER)
    realm.after(10).settle(seconds=1)
    assert "old" not in realm.view.services or realm.view.services["old"].spec is None
    for name, node in at.items():
        assert f"{name}/app/0" in data_on(sight(realm), node)
        realm.close(node)
    realm.after(0.3).settle(obey=False)
    for name, node in at.items():
        with pytest.raises(InputError, match=rf"the data of .*{name}/app/0.* is on {node}"):
            remove(node)


def test_of_the_last_node_that_takes_instances_it_is_known_what_ends_with_it_and_what_stays(realm: Realm) -> None:
    def of(node: str) -> LastNode | None:
        bus: Any = None
        return asyncio.run(node_control.last_node(bus, node))

    realm.apply(web("each_node", service="mon"))
    realm.apply(web(1))
    realm.settle(seconds=1)
    assert of("n1") is None
    realm.control_node("n2", "draining")
    realm.settle(seconds=400)
    (end,) = (str(key) for key in realm.view.allocations.node("n1").slots if key.service == "mon")
    assert of("n1") == LastNode(ends=[end], stays=["web/app/0"])
    assert of("n2") is None, "it takes none already"
    realm.control_node("n2", "active")
    assert of("n1") is None
    realm.close("n2")
    realm.verdict("n2")
    assert of("n1") == LastNode(ends=[end], stays=["web/app/0"])


def test_a_name_is_free_where_it_was_given_to_a_key_that_nobody_came_with_and_was_not_said_to_be_free_since(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"n1": hlc(realm.now_ms), "n8": hlc(realm.now_ms)}
    bus: Any = None

    async def given(_bus: object, name: str) -> int:
        return times.get(name, 0)

    def free(name: str) -> bool:
        realm.after(1)
        return asyncio.run(node_control.free(bus, name, by="operator/alice", reason="sold"))

    monkeypatch.setattr(node_control, "given", given)
    realm.say("operator/alice", "node/n8/control", NodeControl(mode="excluded", by="alice", reason=""))
    assert [free(name) for name in ("n1", "n8", "n9")] == [False, True, False]
    verdict = realm.view.nodes["n8"].verdict
    assert verdict is not None
    assert verdict.record.state == "left"
    assert not free("n8"), "that was said since"
    times["n8"] = hlc(realm.now_ms)
    assert free("n8"), "it was given to another key since"
