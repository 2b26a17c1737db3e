"""An operator moves a slot: once, to where it fits, whatever else moves it meanwhile."""

import msgspec
import pytest

from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.records import from_data

from .build import Realm, key, web
from .repairs import kill, running


def test_an_operator_moves_a_slot_once() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    target = next(n for n in ("n1", "n2", "n3") if n != node)
    realm.control(key(0), move=target)
    realm.step()
    assert realm.slot(0).node == target
    assert realm.slot(0).previous.node == node
    realm.settle(seconds=1)
    realm.after(100)
    kill(realm, target)
    realm.settle(seconds=1)
    realm.attach(target)
    assert realm.after(100).settle(seconds=1) == []


def test_a_done_move_is_not_done_again_when_the_slot_is_wanted_again() -> None:
    realm = running(3, "n1", "n2", "n3")
    realm.control(key(2), move="")
    realm.settle(seconds=5)
    assert realm.slot(2).move_number == 1
    for instances in (2, 3):
        realm.after(1000).apply(web(instances))
        said = realm.settle(seconds=5)
    assert not any("asked for a move" in intent.because for intent in said)


@pytest.mark.parametrize("component", ["", "data: true\n"])
@pytest.mark.parametrize("room", ["nowhere else", "elsewhere", "nowhere for a while"])
def test_a_move_to_any_other_node_is_not_done_where_the_slot_comes_up_again(component: str, room: str) -> None:
    """It waits for room elsewhere, and the service is scaled to 0 and to 1 meanwhile."""
    realm = running(1, "n1", component=component)
    realm.control(key(0), move="", leave="n1", accept_data_loss=bool(component))
    assert realm.settle(seconds=1) == []
    realm.after(100).apply(web(0, component=component))
    realm.settle(seconds=1)
    if room == "elsewhere":
        realm.node("n2")
        realm.apply(web(3, service="db", component="nodes: minus(all_nodes, n1)"))  # n1 is the emptier one
        realm.settle(seconds=1)
    if room == "nowhere for a while":
        realm.control_node("n1", "excluded")
    realm.after(100).apply(web(1, component=component))
    said = realm.settle(seconds=1)
    if room == "elsewhere":
        assert [intent.record.node for intent in said] == ["n2"], "it does not begin on n1 to leave it again"
    if room == "nowhere for a while":
        assert realm.slot().node is None
        realm.control_node("n1", "active")
        realm.settle(seconds=1)
    told = realm.slot()
    assert (told.node, told.move_number) == (("n2", 1) if room == "elsewhere" else ("n1", 0))
    assert told.home is None or told.home.node == told.node
    realm.node("n2")
    realm.after(100).settle(seconds=1)
    assert (realm.slot().node, realm.slot().move_number) == ("n2", 1)
    assert realm.after(100).settle(seconds=1) == []


def test_what_has_data_comes_up_with_it_until_the_node_that_it_was_moved_to_without_can_take_it() -> None:
    realm = running(1, "n1", "n2", "n3", component="data: true")
    node = realm.slot(0).node
    target = next(name for name in ("n1", "n2", "n3") if name != node)
    realm.apply(web(0, component="data: true"))
    realm.settle(seconds=1)
    realm.apply(web(1, service="db", component=f"nodes: {node}"))  # another one is emptier
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target, accept_data_loss=True)
    realm.after(100).apply(web(1, component="data: true"))
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).home.node) == (node, node)
    realm.control_node(target, "active")
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).home.node) == (target, target)


@pytest.mark.parametrize("component", ["", "data: true"])
def test_a_move_to_where_the_slot_is_already_is_done_at_once_and_never_later(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    node, home = realm.slot(0).node, realm.slot(0).home
    realm.control(key(0), move=node)
    (intent,) = realm.settle(seconds=1)
    assert intent.because == f"alice asked for it to be on {node}, where it is"
    assert (realm.slot(0).node, realm.slot(0).move_number, realm.slot(0).moved_at_ms) == (node, 1, None)
    assert ((home is not None), realm.slot(0).home) == (bool(component), home)
    realm.control_node(node, "draining")
    realm.settle(seconds=1)
    realm.control_node(node, "active")
    assert realm.after(100).settle(seconds=1) == [], "it does not move back"


def test_a_move_of_the_former_form_that_has_no_number_is_not_done() -> None:
    realm = running(1, "n1", "n2")
    realm.control(key(0), move="n2" if realm.slot(0).node == "n1" else "n1", move_number=0)
    assert realm.step() == []


def test_a_move_outlives_what_moves_the_slot_elsewhere_meanwhile() -> None:
    realm = running(1, "n1", "n2", "n3", "n4", "n5")
    node = realm.slot(0).node
    target = next(n for n in ("n5", "n4") if n != node)
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target)
    kill(realm, node)
    realm.settle(seconds=1)
    assert realm.slot(0).node not in (node, target)
    assert realm.slot(0).move_number == 0
    realm.control_node(target, "active")
    realm.settle(seconds=1)
    assert (realm.slot(0).node, realm.slot(0).move_number) == (target, 1)


@pytest.mark.parametrize("component", ["", "data: true\n"])
def test_a_held_slot_is_moved_off_a_dead_node_by_an_operator_and_by_nothing_else(component: str) -> None:
    realm = running(1, "n1", "n2", "n3", component=component)
    node = realm.slot(0).node
    hold = from_data(SlotControl, realm.hold(key(0)).event.data).hold
    realm.settle(seconds=1)
    kill(realm, node)
    realm.settle(seconds=1)
    assert realm.slot(0).node == node
    realm.control(key(0), hold=hold, move="", accept_data_loss=bool(component))
    realm.settle(seconds=1)
    assert realm.slot(0).node != node
    assert (realm.slot(0).desired, realm.slot(0).move_number) == ("stopped", 1)


def test_a_move_to_any_other_node_is_done_by_what_moves_the_slot_meanwhile() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    realm.close(node)
    realm.control(key(0), move="")
    said = realm.settle(seconds=1)
    assert realm.slot(0).node != node
    assert (len(said), realm.slot(0).move_number) == (2, 1), "the verdict, and one move"


def test_a_move_to_a_node_that_does_not_fit_waits_until_it_does() -> None:
    realm = running(1, "n1", "n2", "n3")
    node = realm.slot(0).node
    target = next(n for n in ("n1", "n2", "n3") if n != node)
    realm.control_node(target, "excluded")
    realm.control(key(0), move=target)
    assert realm.step() == []
    realm.control_node(target, "active")
    realm.step()
    assert realm.slot(0).node == target


@pytest.mark.parametrize("after", [1, 2], ids=["of one version", "after another word"])
def test_of_two_moves_in_a_partition_the_one_that_stands_is_done_though_the_other_was(after: int) -> None:
    """The other side has done the move that was asked for there, which has a greater number, before the sides meet."""
    realm = running(1, "n1", "n2", "n3")
    early_ms, node = realm.now_ms, realm.slot().node
    stands, lost = sorted({"n1", "n2", "n3"} - {node})
    realm.after(1).control(key(), move=lost, move_number=realm.now_ms)
    realm.settle(seconds=5)
    assert realm.slot().node == lost
    record = SlotControl(by="bob", reason="", move=stands, move_number=early_ms)
    realm.say("operator/bob", "service/web/control/app/0", record, version=after, time_ms=early_ms)
    realm.settle(seconds=5)
    assert (realm.slot().node, realm.slot().move_number) == (stands, early_ms)
    assert realm.after(100).settle(seconds=5) == [], "once"


def test_who_knows_only_the_move_that_was_overruled_does_not_undo_the_one_that_was_done() -> None:
    realm = running(1, "n1", "n2", "n3")
    early_ms, node = realm.now_ms, realm.slot().node
    stands, lost = sorted({"n1", "n2", "n3"} - {node})
    realm.after(1).control(key(), move=lost, move_number=realm.now_ms)
    done = realm.slot()
    words = {"move_number": early_ms, "control_version": 1, "control_ms": early_ms}
    realm.say("controller/c2", key().topic, msgspec.structs.replace(done, node=stands, **words))
    for _ in range(3):
        assert realm.settle(seconds=1) == []
        realm.after(100)
    assert realm.slot().node == stands


@pytest.mark.parametrize("component", ["", "data: true\n"])
def test_a_move_that_is_done_is_not_done_again_where_a_later_word_was_lost(component: str) -> None:
    """An older copy of the store has the control of the first move only; nodes bring the fact that follows the second."""
    realm = running(1, "n1", "n2", "n3", component=component)
    first, second = sorted({"n1", "n2", "n3"} - {realm.slot().node or ""})
    realm.control(key(), move=first, move_number=100, accept_data_loss=True)
    realm.settle(seconds=1)
    known = [signed for _, signed in realm.rows]
    realm.control(key(), move=second, move_number=200, accept_data_loss=True)
    realm.settle(seconds=1)
    back = behind(realm, known)
    back.apply(web(1, component=component + "env: {A: b}\n"))
    back.settle(seconds=1)
    assert back.after(200).settle(seconds=20) == []
    assert (back.slot().revision, back.slot().node, back.slot().move_number) == (2, second, 200)
    assert back.slot().control_version == 2


@pytest.mark.parametrize("held", [True, False])
def test_a_hold_stays_as_the_fact_says_where_a_later_word_was_lost(held: bool) -> None:
    realm = running(1, "n1", "n2", "n3")
    hold = from_data(SlotControl, realm.hold(key()).event.data).hold
    realm.settle(seconds=1)
    if held:
        realm.control(key(), restart=1)
        realm.settle(seconds=1)
    known = [signed for _, signed in realm.rows]
    realm.control(key(), **({"hold": hold, "restart": 1} if held else {"restart": 1}))
    realm.settle(seconds=1)
    desired = realm.slot().desired
    assert desired == ("stopped" if held else "running")
    back = behind(realm, known)
    for _ in range(3):
        back.after(100).settle(seconds=1)
        assert (back.slot().desired, back.view.slot(key()).hold is not None) == (desired, held)


def behind(realm: Realm, known: list[SignedEvent]) -> Realm:
    """An older copy of the store, to which nodes have brought what they act on: the slot's fact."""
    other = Realm()
    other.now_ms = realm.now_ms
    for signed in [*known, *(signed for _, signed in realm.rows if "/control/" not in signed.event.topic)]:
        other.rows.append((len(other.rows) + 1, signed))
        other.view.apply(signed)
    other._sequences, other._attachments = dict(realm._sequences), dict(realm._attachments)
    return other


def test_a_waiting_move_that_is_ended_gives_no_revision_before_its_turn() -> None:
    component = "nodes: minus(all_nodes, n4)\nupdate: {order: stop_first}\nhealth: {exec: ./check}"
    realm = Realm("n1", "n2", "n3", "n4")
    realm.apply(web(3, component=component))
    realm.settle(obey=False)
    realm.obey()
    for index in range(3):
        realm.health(key(index), realm.slot(index).node or "", "ready")
    realm.after(100).settle(obey=False)
    realm.control_node("n4", "excluded")
    node = realm.slot(2).node or ""
    realm.control(key(2), move="n4", move_number=1)
    realm.settle(obey=False)
    realm.apply(web(3, component=f"{component}\nenv: {{A: b}}"))
    realm.settle(obey=False)
    tried = [index for index in range(3) if realm.slot(index).revision == 2]
    assert len(tried) == 1
    realm.control(key(2), move=node, move_number=2)
    realm.settle(obey=False)
    assert [index for index in range(3) if realm.slot(index).revision == 2] == tried
    assert realm.slot(2).move_number == 2
