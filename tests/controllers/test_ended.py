"""What has ended well is moved as that, whatever else is applied meanwhile, and however long its node is dead (A20)."""

import msgspec
import pytest

from dsmt.event.status import Layer, State

from .build import Attentive, Realm, key, web

TWO = """\
service: web
components:
  app:
    run: ./migrate {migrates}
    instances: 1
    restart: never
    update: {{order: {order}}}
  front:
    run: ./front {serves}
    instances: 1
"""


class Migrated:
    """What runs once, and has, beside something that runs on."""

    def __init__(self, order: str = "start_first") -> None:
        self.realm = realm = Realm("n1", "n2", "n3")
        self.controller, self.order = Attentive(realm), order
        self.apply()
        self.controller.watch(5)
        self.first = realm.slot().node or ""
        self.last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.5, "reason": None}
        self.say()
        self.controller.watch(60, obey=False)

    def apply(self, *, migrates: str = "one", serves: str = "one") -> None:
        self.realm.apply(TWO.format(order=self.order, migrates=migrates, serves=serves))

    def say(self) -> None:
        """Its agent says that it has ended, or that it has ended elsewhere."""
        self.realm.status(
            key(), self.realm.slot().node or "", State.FAILED, last_exit=self.last, good=self.realm.slot().implements
        )

    def leave(self, why: str) -> None:
        if why == "drain":
            self.realm.control_node(self.first, "draining")
        else:
            self.realm.close(self.first)
        self.controller.watch(30, obey=False)
        assert self.realm.slot().node not in (None, self.first)


@pytest.mark.parametrize("order", ["start_first", "stop_first"])
@pytest.mark.parametrize("why", ["drain", "death"])
def test_what_has_ended_well_is_moved_in_its_own_revision_and_given_the_next_one_when_its_agent_knows(
    why: str, order: str
) -> None:
    at = Migrated(order)
    at.apply(serves="two")
    at.leave(why)
    slot = at.realm.slot()
    assert (slot.revision, slot.ended is not None) == (1, True), "its node can tell whether the next one changes anything"
    at.controller.watch(60, obey=False)
    assert at.realm.slot() == slot, "no next fact takes that one's place before it was seen"
    at.say()
    at.controller.watch(5, obey=False)
    assert (at.realm.slot().node, at.realm.slot().revision) == (slot.node, 2)


@pytest.mark.parametrize("order", ["start_first", "stop_first"])
def test_what_has_ended_well_is_not_moved_before_its_agent_has_answered_to_the_revision_that_it_was_given(
    order: str,
) -> None:
    """Only its node can tell whether that changes anything of it."""
    at = Migrated(order)
    at.apply(serves="two")
    at.controller.watch(5, obey=False)
    assert (at.realm.slot().node, at.realm.slot().revision) == (at.first, 2)
    at.realm.control_node(at.first, "draining")
    at.controller.watch(20, obey=False)
    assert (at.realm.slot().node, at.realm.slot().desired) == (at.first, "running")
    at.say()
    at.controller.watch(5, obey=False)
    assert at.realm.slot().node not in (None, at.first)
    assert at.realm.slot().ended is not None


@pytest.mark.parametrize("order", ["start_first", "stop_first"])
def test_what_is_to_run_again_in_another_revision_is_moved_when_its_agent_has_answered(order: str) -> None:
    at = Migrated(order)
    at.apply(migrates="two")
    at.controller.watch(5, obey=False)
    at.realm.control_node(at.first, "draining")
    at.realm.status(key(), at.first, State.RUNNING, pid=7, last_exit=at.last, good=at.realm.slot().former)
    at.controller.watch(60)
    assert (at.realm.slot().ended, at.realm.slot().revision) == (None, 2)
    assert at.realm.slot().node not in (None, at.first)


def test_an_operator_moves_what_has_not_answered() -> None:
    at = Migrated()
    at.apply(serves="two")
    at.controller.watch(5, obey=False)
    other = min({"n1", "n2", "n3"} - {at.first})
    at.realm.control(key(), move=other)
    at.controller.watch(30, obey=False)
    assert at.realm.slot().node == other


def test_what_has_ended_well_is_not_stopped_for_another_copy_that_has_ended() -> None:
    """That is on the node that it has left, whose agent says nothing of its end yet."""
    at = Migrated("stop_first")
    at.leave("drain")
    at.say()
    at.apply(serves="two")
    said = at.controller.watch(20, obey=False)
    assert [one.record.desired for one in said if one.topic == key().topic] == ["running"]
    assert at.realm.slot().revision == 2


def test_what_has_ended_well_is_given_no_revision_on_a_node_that_cannot_say_what_became_of_it() -> None:
    at = Migrated()
    at.realm.silence(at.first)
    at.apply(serves="two")
    at.controller.watch(3, obey=False)
    assert (at.realm.slot().node, at.realm.slot().revision) == (at.first, 1)


def test_it_is_placed_by_what_stands() -> None:
    at = Migrated()
    others = sorted({"n1", "n2", "n3"} - {at.first})
    elsewhere = f"restart: never\n    nodes: {others[1]}"
    at.realm.apply(TWO.format(order=at.order, migrates="one", serves="one").replace("restart: never", elsewhere))
    at.controller.watch(30, obey=False)
    assert (at.realm.slot().node, at.realm.slot().revision, at.realm.slot().ended is not None) == (others[1], 1, True)
    at.say()
    said = at.controller.watch(30, obey=False)
    assert (at.realm.slot().node, at.realm.slot().revision) == (others[1], 2)
    assert len(said) == 1


def test_what_an_operator_moves_is_run_again_where_it_goes() -> None:
    at = Migrated()
    other = min({"n1", "n2", "n3"} - {at.first})
    at.realm.control(key(), move=other)
    at.controller.watch(30, obey=False)
    assert (at.realm.slot().node, at.realm.slot().ended) == (other, None)


@pytest.mark.parametrize("restarted", [False, True])
def test_that_it_has_ended_well_is_kept_while_its_node_is_dead_for_longer_than_any_word_lives(restarted: bool) -> None:
    at = Migrated()
    if restarted:
        at.realm.control(key(), restart=1)
        at.controller.watch(5, obey=False)
        at.say()
        at.controller.watch(60, obey=False)
    others = sorted({"n1", "n2", "n3"} - {at.first})
    for node in others:
        at.realm.control_node(node, "excluded")
    at.realm.close(at.first)
    at.controller.watch(5, obey=False)
    for _ in range(30):
        at.controller.look()
        at.realm.after(3600)
    assert at.realm.view.slot(key()).application(at.first) is None
    for node in others:
        at.realm.attach(node)
        at.realm.attributes(node)
        at.realm.control_node(node, "active")
    at.controller.watch(30, obey=False)
    assert (at.realm.slot().node in others, at.realm.slot().ended is not None) == (True, True)


@pytest.mark.parametrize("revision", ["", "before the drain", "meanwhile"])
def test_one_of_each_node_that_has_ended_well_stays_so_when_its_node_was_drained_and_is_back(revision: str) -> None:
    """Also where a revision comes that changes nothing of it: meanwhile, or before, and its agent has not answered yet."""
    again = web("each_node", component="restart: never\n", head="labels: {team: a}\n")
    realm = Realm("n1")
    realm.apply(web("each_node", component="restart: never\n"))
    realm.settle(seconds=1)
    index = 0
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.5, "reason": None}
    realm.status(key(index), "n1", State.FAILED, last_exit=last, good=realm.slot(index).implements)
    realm.after(60).settle(obey=False)
    if revision == "before the drain":
        realm.apply(again)
        realm.settle(obey=False)
    realm.control_node("n1", "draining")
    realm.settle(obey=False)
    assert realm.slot(index).desired == "gone"
    realm.status(key(index), "n1", State.GONE, layer=Layer.CONTAINER)
    realm.after(60)
    if revision == "meanwhile":
        realm.apply(again)
        realm.settle(obey=False)
    realm.control_node("n1", "active")
    realm.settle(obey=False)
    told = realm.slot(index)
    assert (told.node, told.desired, told.ended is not None, told.revision) == ("n1", "running", True, 1)
    if revision:  # its agent knows what it has, and is given what stands
        generation = realm.generation(index)
        realm.status(key(index), "n1", State.FAILED, last_exit=last, good=told.implements, generation=generation, revision=1)
        realm.after(1).settle(obey=False)
        assert realm.slot(index).revision == 2
    realm.control(key(index), restart=1)
    realm.settle(obey=False)
    assert realm.slot(index).ended is None


class OneOfEach:
    """A job on each of two nodes that has ended well; its slot on n1 has index 0."""

    def __init__(self) -> None:
        self.realm = realm = Realm("n1", "n2")
        realm.attributes("n1", key="the first machine")
        realm.apply(web("each_node", component="restart: never\n"))
        realm.settle(seconds=1)
        self.last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.5, "reason": None}
        for index in (0, 1):
            good = realm.slot(index).implements
            realm.status(key(index), realm.slot(index).node or "", State.FAILED, last_exit=self.last, good=good)
        realm.after(60).settle(obey=False)
        assert realm.slot(0).node == "n1"

    def drained(self) -> None:
        self.realm.control_node("n1", "draining")
        self.realm.after(1).settle(obey=False)
        assert self.realm.slot(0).desired == "gone"
        self.realm.status(key(0), "n1", State.GONE, layer=Layer.CONTAINER)

    def back(self) -> None:
        self.realm.control_node("n1", "active")
        self.realm.after(1).settle(obey=False)


def test_what_was_asked_to_run_again_just_before_its_node_was_drained_runs_when_that_is_back() -> None:
    at = OneOfEach()
    at.realm.control(key(0), restart=at.realm.now_ms)
    at.realm.after(1).settle(obey=False)
    at.drained()
    at.back()
    assert (at.realm.slot(0).desired, at.realm.slot(0).ended) == ("running", None)


def test_what_is_gone_and_had_ended_well_stays_so_where_its_spec_is_signed_anew() -> None:
    at = OneOfEach()
    at.drained()
    spec = at.realm.view.services["web"].spec
    assert spec is not None
    record = msgspec.structs.replace(spec.record, same=(str(spec.id),))
    at.realm.say("operator/bob", "service/web/spec", record, cause=(spec.id,))
    at.realm.after(1).settle(obey=False)
    assert at.realm.slot(0).ended is not None
    at.back()
    assert (at.realm.slot(0).desired, at.realm.slot(0).ended is not None) == ("running", True)


def test_no_other_node_has_the_index_of_what_has_ended_well_on_one_that_may_come_back() -> None:
    at = OneOfEach()
    at.drained()
    at.realm.node("n3")
    at.realm.after(1).settle(obey=False)
    at.back()
    assert [(at.realm.slot(i).node, at.realm.slot(i).ended is not None) for i in (0, 2)] == [("n1", True), ("n3", False)]


def test_the_index_of_what_has_ended_well_on_a_node_that_has_left_is_given_to_the_next_one() -> None:
    at = OneOfEach()
    at.drained()
    at.realm.close("n1")
    at.realm.verdict("n1", state="left")
    at.realm.node("n3")
    at.realm.after(1).settle(obey=False)
    assert (at.realm.slot(0).node, at.realm.slot(0).ended) == ("n3", None)


def test_what_was_asked_to_run_again_while_it_ran_and_did_not_hear_of_it_runs_when_its_node_is_back() -> None:
    realm = Realm("n1")
    realm.apply(web("each_node", component="restart: never\n"))
    realm.settle(seconds=1)
    realm.after(100).settle(obey=False)
    good, generation = realm.slot().implements, realm.generation()
    realm.control(key(), restart=realm.now_ms)
    realm.settle(obey=False)
    realm.after(20)
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 120.0, "reason": None}
    realm.status(key(), "n1", State.FAILED, last_exit=last, good=good, generation=generation)
    realm.control_node("n1", "draining")
    realm.after(1).settle(obey=False)
    realm.status(key(), "n1", State.GONE, layer=Layer.CONTAINER)
    realm.control_node("n1", "active")
    realm.after(1).settle(obey=False)
    assert (realm.slot().desired, realm.slot().ended) == ("running", None)


@pytest.mark.parametrize("ends", ["drained and back", "gone"])
@pytest.mark.parametrize("how", ["removed", "left out"])
def test_what_is_of_no_spec_for_a_while_runs_again_on_each_node(how: str, ends: str) -> None:
    at, job = OneOfEach(), web("each_node", component="restart: never\n")
    at.drained()
    if ends == "drained and back":
        at.back()
    at.realm.apply(
        job if how == "removed" else "service: web\ncomponents:\n  front: {run: ./front}\n", removed=how == "removed"
    )
    at.realm.settle(obey=False)
    for index in (0, 1):
        at.realm.status(key(index), at.realm.slot(index).node or "", State.GONE, last_exit=at.last)
    at.realm.control_node("n1", "active")
    at.realm.after(2).apply(job)
    at.realm.settle(obey=False)
    assert [(at.realm.slot(i).desired, at.realm.slot(i).revision, at.realm.slot(i).ended) for i in (0, 1)] == [
        ("running", 3, None)
    ] * 2


def test_who_has_yet_to_be_brought_the_revision_in_which_it_has_ended_is_given_no_other_one_for_a_minute() -> None:
    at = OneOfEach()
    at.drained()
    at.realm.apply(web("each_node", component="restart: never\n", head="labels: {team: a}\n"))
    at.back()
    at.realm.status(key(1), "n2", State.FAILED, last_exit=at.last, good=at.realm.slot(1).implements)
    at.realm.status(key(0), "n1", State.REQUESTED, revision=0)
    controller = Attentive(at.realm)
    assert controller.watch(55, obey=False) == []
    assert (at.realm.slot(0).revision, at.realm.slot(0).ended is not None) == (1, True)
    controller.watch(10, obey=False)
    assert at.realm.slot(0).revision == 2, "that of a revision that is nowhere is waited for for ever"


@pytest.mark.parametrize("leaves", ["drain", "death"])
def test_it_is_moved_as_ended_also_before_its_agent_has_that_revision(leaves: str) -> None:
    at = Migrated()
    at.leave("drain")
    second = at.realm.slot().node or ""
    at.realm.status(key(), second, State.REQUESTED, revision=0)
    if leaves == "drain":
        at.realm.control_node(second, "draining")
    else:
        at.realm.close(second)
    at.controller.watch(30, obey=False)
    assert (at.realm.slot().node == second, at.realm.slot().ended is not None) == (False, True)


@pytest.mark.parametrize("leaves", ["is removed", "is drained"])
def test_another_machine_that_comes_up_under_its_nodes_name_has_not_ended_anything(leaves: str) -> None:
    at = OneOfEach()
    if leaves == "is removed":
        at.realm.close("n1")
        at.realm.after(1).verdict("n1", road="operator", state="left")
        at.realm.after(1).settle(obey=False)
    else:
        at.drained()
    at.realm.attach("n1")
    at.realm.attributes("n1", key="another machine")
    at.back()
    told = [at.realm.slot(i) for i in (0, 1) if at.realm.slot(i).node == "n1"]
    assert [(one.desired, one.ended) for one in told] == [("running", None)]
