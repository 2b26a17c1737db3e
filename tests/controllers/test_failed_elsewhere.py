"""What failed goes no further, also when the slot in which it failed is moved, ends, or is ready for a moment (A21)."""

from collections.abc import Callable

import pytest

from dsmt.controllers import placement
from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.status import State
from dsmt.view import Fleet

from .build import Attentive, Realm, key, web
from .repairs import kill

ALONE = "update: {rollback: false, deadline: 30s, healthy_after: 10s}\nhealth: {exec: ./check}\nnodes: good"


class Failing:
    """Three instances of a service on good nodes; the second revision is tried in one of them."""

    def __init__(self, instances: int | str = 3) -> None:
        self.realm = Realm("n1", "n2", "n3", *(("n4",) if instances == 3 else ()))
        self.instances = instances
        self.set("all_nodes")
        self.apply()
        self.realm.settle(obey=False)
        self.realm.obey()
        self.ready(0, 1, 2)
        self.realm.after(60).settle(obey=False)
        self.apply("env: {A: b}")
        self.realm.settle(obey=False)
        (self.tried,) = self.given()

    def set(self, expression: str) -> None:
        self.realm.say("operator/alice", "nodeset/good", NodesetFact(expression=expression, by="alice"))

    def apply(self, more: str = "", instances: int | None = None) -> None:
        self.realm.apply(web(instances or self.instances, component=f"{ALONE}\n{more}"))

    def ready(self, *indexes: int) -> None:
        for index in indexes:
            self.realm.health(key(index), self.realm.slot(index).node or "", "ready")

    def park(self) -> None:
        self.realm.status(key(self.tried), self.node, State.FAILED, parked=True)
        self.realm.after(60).settle(obey=False)

    @property
    def node(self) -> str:
        return self.realm.slot(self.tried).node or ""

    def given(self) -> list[int]:
        """The slots that are to run the second revision, or one that says it again."""
        slots = {index: slot.fact.record for (_, index), slot in self.realm.view.services["web"].slots.items() if slot.fact}
        return [index for index, slot in sorted(slots.items()) if slot.revision > 1 and slot.desired == "running"]


def drained(at: Failing) -> None:
    at.realm.control_node(at.node, "draining")


def out_of_the_set(at: Failing) -> None:
    at.set(f"minus(all_nodes, {at.node})")


@pytest.mark.parametrize("ends", [drained, out_of_the_set])
@pytest.mark.parametrize("held", [False, True])
def test_it_stays_where_it_failed_when_that_one_of_each_node_ends(ends: Callable[[Failing], None], held: bool) -> None:
    at = Failing("each_node")
    node = at.node
    if held:
        at.realm.hold(key(at.tried))
        at.realm.after(60).settle(obey=False)
    else:
        at.park()
    ends(at)
    at.realm.settle(obey=False)
    assert at.realm.slot(at.tried).desired == "gone"
    at.realm.status(key(at.tried), node, State.GONE)
    at.realm.after(600).settle(obey=False)
    assert at.given() == []
    why = waits_for(Governing(Fleet(at.realm.view, at.realm.now_ms, at.realm.broker)), key((at.tried + 1) % 3))
    assert why is not None
    assert (why.code, why.message.startswith(f"r2 was tried in web/app/{at.tried},")) == ("rollout.failed", True)


def test_an_operator_who_removes_the_node_where_it_failed_has_it_go_on() -> None:
    """It may have been for that machine, and nobody can ever be good there."""
    at = Failing("each_node")
    node = at.node
    at.park()
    at.realm.close(node)
    at.realm.after(1).verdict(node, state="left")
    at.realm.after(5).settle(obey=False)
    assert len(at.given()) == 1
    assert at.realm.slot(at.tried).desired == "gone"


def test_what_was_ready_in_time_has_not_failed_where_its_node_is_drained_before_it_is_good() -> None:
    at = Failing("each_node")
    node = at.node
    at.realm.status(key(at.tried), node)
    at.realm.after(25).settle(obey=False)
    at.ready(at.tried)
    at.realm.after(7).settle(obey=False)
    assert at.given() == [at.tried]
    drained(at)
    at.realm.settle(obey=False)
    assert (at.realm.slot(at.tried).desired, at.realm.slot(at.tried).tried) == ("gone", False)
    at.realm.status(key(at.tried), node, State.GONE)
    at.realm.after(1).settle(obey=False)
    assert len(at.given()) == 1


def test_an_instance_more_is_placed_when_what_was_tried_is_good_though_nothing_else_happens() -> None:
    """What it is to begin with until then has no place."""
    component = "update: {rollback: false, deadline: 30s, healthy_after: 60s}\nhealth: {exec: ./check}\n"
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.attributes("n2", memory_bytes=2**30, memory_free_bytes=2**30)
    realm.apply(web(1, component=component + "reserve: {memory: 2GiB}"))
    controller.look()
    realm.status(key(), "n1")
    realm.health(key(), "n1", "ready")
    controller.watch(90, obey=False)
    realm.apply(web(1, component=component))
    controller.watch(5, obey=False)
    assert realm.slot().revision == 2
    realm.status(key(), "n1")
    realm.health(key(), "n1", "ready")
    realm.attributes("n1", memory_bytes=2**30, memory_free_bytes=2**30)
    controller.watch(30, obey=False)
    realm.apply(web(2, component=component))
    controller.watch(5, obey=False)
    controller.watch(60, obey=False)
    assert controller.overlooked() == []
    assert realm.slot(1).node == "n2"


def test_one_of_each_node_that_is_back_has_what_failed_in_it_and_the_others_do_not_until_it_works() -> None:
    at = Failing("each_node")
    node = at.node
    at.park()
    drained(at)
    at.realm.settle(obey=False)
    at.realm.status(key(at.tried), node, State.GONE)
    at.realm.control_node(node, "active")
    at.realm.after(1).settle(obey=False)
    assert (at.given(), at.node) == ([at.tried], node)
    at.realm.after(5).settle(obey=False)
    assert at.given() == [at.tried]
    at.realm.status(key(at.tried), node)
    at.ready(at.tried)
    at.realm.after(15).settle(obey=False)
    assert len(at.given()) == 2


def test_it_stays_where_it_failed_when_that_instance_is_one_too_many() -> None:
    at = Failing()
    at.realm.status(key(2), at.realm.slot(2).node or "", State.FAILED, parked=True)  # those that fail have it first
    at.apply("env: {A: c}")
    at.realm.settle(obey=False)
    at.tried = 2
    assert 2 in [index for index in range(3) if at.realm.slot(index).revision == 3]
    before = [at.realm.slot(index).revision for index in (0, 1)]
    at.park()
    at.apply("env: {A: c}", instances=2)
    at.realm.settle(obey=False)
    at.realm.after(600).settle(obey=False)
    assert [at.realm.slot(index).revision for index in (0, 1)] == before


def test_what_failed_and_is_moved_off_its_node_has_failed_until_it_is_ready() -> None:
    at = Failing()
    at.park()
    drained(at)
    at.realm.after(5).settle(obey=False)
    other = (at.tried + 1) % 3
    kill(at.realm, at.realm.slot(other).node or "")
    at.realm.settle(obey=False)
    assert (at.given(), at.realm.slot(other).revision) == ([at.tried], 1)


@pytest.mark.parametrize("asked", ["death", "move", "hold"])
def test_what_is_ready_for_a_moment_and_was_not_good_in_time_has_failed(asked: str) -> None:
    at, other = Failing(), 0
    other = (at.tried + 1) % 3
    at.realm.status(key(at.tried), at.node)
    for _ in range(8):
        at.realm.health(key(at.tried), at.node, "ready")
        at.realm.after(7).settle(obey=False)
        at.realm.health(key(at.tried), at.node, "unready")
        at.realm.after(1).settle(obey=False)
    at.realm.health(key(at.tried), at.node, "ready")
    if asked == "death":
        kill(at.realm, at.realm.slot(other).node or "")
    elif asked == "move":
        at.realm.control(key(other), move="n4")
    else:
        at.realm.hold(key(other))
        at.realm.settle(obey=False)
        at.realm.control(key(other), restart=1)
    at.realm.settle(obey=False)
    assert at.given() == [at.tried]
    at.ready(at.tried)
    at.realm.after(15).settle(obey=False)
    assert len(at.given()) > 1, "when it is good there others have it"


def test_what_keeps_the_revision_before_is_decided_about_alike_and_that_is_found_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of thousands that keep it would ask anew who is in its node set, and where its component is parked."""
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="all_nodes", by="alice"))
    alone = "update: {rollback: false}\nnodes: good\n"
    realm.apply(web(12, component=alone))
    realm.settle(seconds=1)
    realm.after(100).apply(web(12, component=f"{alone}env: {{A: b}}"))
    realm.step()
    (tried,) = [index for index in range(12) if realm.slot(index).revision == 2]
    realm.status(key(tried), realm.slot(tried).node or "", State.FAILED, parked=True)
    realm.after(400).settle(obey=False)
    assert [realm.slot(index).revision for index in range(12)].count(1) == 11
    asked, evaluate = [], placement.nodeset.evaluate
    monkeypatch.setattr(placement.nodeset, "evaluate", lambda *a, **more: asked.append(a) or evaluate(*a, **more))
    realm.decide()
    assert 0 < len(asked) <= 2


def all_drained(at: Failing) -> None:
    for node in ("n1", "n2", "n3"):
        at.realm.control_node(node, "draining")


def all_back(at: Failing) -> None:
    for node in ("n1", "n2", "n3"):
        at.realm.control_node(node, "active")


def scaled_away(at: Failing) -> None:
    at.realm.apply(web(0, component=f"{ALONE}\nenv: {{A: b}}"))


def scaled_back(at: Failing) -> None:
    at.realm.apply(web(3, component=f"{ALONE}\nenv: {{A: b}}"))


@pytest.mark.parametrize(
    ("instances", "end", "back"),
    [("each_node", all_drained, all_back), (3, scaled_away, scaled_back)],
    ids=["drained", "scaled"],
)
def test_it_stays_where_it_failed_when_all_end_and_come_back(
    instances: int | str, end: Callable[[Failing], None], back: Callable[[Failing], None]
) -> None:
    at = Failing(instances)
    at.park()
    end(at)
    at.realm.settle()
    at.realm.after(60).settle()
    assert at.given() == []
    back(at)
    at.realm.settle(obey=False)
    at.realm.after(1).settle(obey=False)
    assert at.given() == [at.tried]
    others = [at.realm.slot(index) for index in range(3) if index != at.tried]
    assert [(slot.desired, slot.revision) for slot in others] == [("running", 1)] * 2


def test_it_stays_where_it_failed_when_all_come_back_and_the_node_where_that_was_has_left() -> None:
    at = Failing()
    at.park()
    node = at.node
    scaled_away(at)
    at.realm.settle()
    at.realm.after(60).close(node)
    at.realm.after(1).verdict(node, state="left")
    scaled_back(at)
    at.realm.after(1).settle(obey=False)
    assert at.given() == [at.tried], "it may be good elsewhere, and was good nowhere yet"


@pytest.mark.parametrize("held", [False, True], ids=["parked", "stopped by hand"])
def test_an_operator_who_removes_the_node_where_it_failed_beside_its_data_has_it_go_on(held: bool) -> None:
    at = Failing()
    at.instances = 3
    realm, pinned = Realm("n1", "n2"), f"{ALONE}\ndata: true"
    at.realm = realm
    at.set("all_nodes")
    realm.apply(web(2, component=pinned))
    realm.settle()
    at.ready(0, 1)
    realm.after(60).settle(obey=False)
    realm.apply(web(2, component=f"{pinned}\nenv: {{A: b}}"))
    realm.settle(obey=False)
    (at.tried,) = at.given()
    node = at.node
    if held:
        realm.hold(key(at.tried))
        realm.after(60).settle(obey=False)
    else:
        at.park()
        assert len(at.given()) == 1
    realm.close(node)
    realm.after(1).verdict(node, state="left")
    realm.after(5).settle(obey=False)
    other = 1 - at.tried
    assert realm.slot(other).revision == 2


def test_a_revision_goes_on_where_another_machine_has_the_name_of_the_one_that_had_the_data_of_an_instance() -> None:
    """That one begins nowhere, and is never good, whatever it is given: its data went with the machine."""
    at, pinned = Failing(), f"{ALONE}\ndata: true"
    realm = at.realm = Realm("n1", "n2")
    at.instances = 2
    at.set("all_nodes")
    realm.attributes("n2", key="one")
    realm.apply(web(2, component=pinned))
    realm.settle()
    at.ready(0, 1)
    gone = next(index for index in range(2) if realm.slot(index).node == "n2")
    realm.after(60).close("n2")
    realm.after(1).verdict("n2", state="left")
    realm.settle(obey=False)
    realm.after(5).node("n2", key="another")
    realm.settle(obey=False)
    for revision in (2, 3):
        realm.after(60).apply(web(2, component=f"{pinned}\nenv: {{A: b{revision}}}"))
        realm.settle(obey=False)
        realm.after(120).settle(obey=False)
        realm.after(1).settle(obey=False)
        assert realm.slot(1 - gone).revision == revision
        realm.status(key(1 - gone), "n1", good=realm.slot(1 - gone).implements, revision=revision)
        at.ready(1 - gone)


def test_why_not_of_the_others_names_the_one_that_was_stopped_by_hand() -> None:
    at = Failing()
    at.realm.hold(key(at.tried))
    at.realm.after(60).settle(obey=False)
    for index in range(3):
        why = waits_for(Governing(Fleet(at.realm.view, at.realm.now_ms, at.realm.broker)), key(index))
        found = None if why is None else (why.code, why.message.startswith(f"r2 was being tried in web/app/{at.tried},"))
        assert found == (None if index == at.tried else ("rollout.held", True))


def test_what_was_good_in_a_slot_comes_back_with_it_though_it_has_failed_in_another_one() -> None:
    at = Failing()
    first = at.tried
    at.realm.status(key(first), at.node)
    at.ready(first)
    at.realm.after(15).settle(obey=False)
    (second,) = set(at.given()) - {first}
    at.tried = second
    at.park()
    at.realm.status(key(first), at.realm.slot(first).node or "", good=at.realm.slot(first).implements, revision=2)
    assert sorted(at.given()) == sorted((first, second))
    scaled_away(at)
    at.realm.settle()
    told = at.realm.slot(first)
    assert (told.desired, told.tried, told.good) == ("gone", False, told.implements)
    scaled_back(at)
    at.realm.settle(obey=False)
    at.realm.after(1).settle(obey=False)
    assert sorted(at.given()) == sorted((first, second))
