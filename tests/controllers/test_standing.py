"""A revision that stands where it failed goes no further: whatever else is asked, other slots keep what they have."""

import msgspec
import pytest

from dsmt.event.kinds.slot import Good
from dsmt.event.status import State

from .build import Attentive, Realm, key, web
from .test_good import signed_anew

STANDS = "update: {deadline: 60s, healthy_after: 5s, rollback: false}\n"
STAYS = STANDS + "restart: {escalate: [restart: 3]}\n"
BAD = "env: {A: b}\n"


class Standing:
    """Three instances of which one has a revision that parks wherever it begins, after `lives` seconds."""

    def __init__(self, policy: str, *, tried: str = BAD, lives: int = 0) -> None:
        self.realm, self.lives = Realm("n1", "n2", "n3", "n4", "n5", "n6"), lives
        self.controller = Attentive(self.realm)
        self.works = {1}
        self.realm.apply(web(3, component=policy))
        self.watch(60)
        self.policy = policy + tried
        self.realm.apply(web(3, component=self.policy))
        self.watch(100)
        self.good = [index for index in range(3) if self.realm.slot(index).revision == 1]
        assert len(self.good) == 2

    def watch(self, seconds: int) -> None:
        for _ in range(seconds):
            self.controller.look()
            for _, index in sorted(self.realm.view.services["web"].slots):
                self._obey(index)
            self.realm.after(1)
        assert self.controller.look() == []
        assert self.controller.overlooked() == []

    def _obey(self, index: int) -> None:
        realm, fact = self.realm, self.realm.slot(index)
        slot, node = realm.view.slot(key(index)), fact.node or ""
        assert slot is not None
        for other in slot.holders:
            if other not in fact.nodes and not realm.dead(other):
                realm.status(key(index), other, State.GONE)
        said = slot.application(node)
        if realm.dead(node):
            return
        fails = fact.revision not in self.works
        if said is None or said.record.generation < realm.generation(index):
            begun = State.RUNNING if not fails else State.INITIATED
            realm.status(key(index), node, begun if fact.desired == "running" else State.STOPPED)
        elif fails and said.record.state is State.INITIATED and realm.now_ms >= said.record.since_ms + self.lives * 1000:
            realm.status(key(index), node, State.FAILED, parked=True)

    def env(self, index: int) -> object:
        """The environment of what a slot implements."""
        named = (signed for _, signed in self.realm.rows if str(signed.id) == self.realm.slot(index).spec)
        return next(named).event.data["spec"]["components"]["app"].get("env")

    def say(self, word: str, index: int) -> None:
        """An operator's word on a slot, or the death of its node."""
        realm = self.realm
        node = realm.slot(index).node or ""
        match word:
            case "restart":
                realm.control(key(index), restart=1)
            case "drain":
                realm.control_node(node, "draining")
            case "move":
                realm.control(key(index), move="", leave=node)
            case "death":
                realm.close(node)
            case _:
                realm.hold(key(index))
                self.watch(40)
                realm.control(key(index))

    def revisions(self) -> list[int]:
        return [self.realm.slot(index).revision for index in range(3)]


@pytest.mark.parametrize("word", ["restart", "drain", "move", "death", "stop and start"])
@pytest.mark.parametrize(("policy", "lives"), [(STAYS, 0), (STANDS, 0), (STANDS, 30)], ids=["stays", "moves", "moves late"])
def test_whatever_else_is_asked_of_a_slot_it_keeps_what_it_has(word: str, policy: str, lives: int) -> None:
    at = Standing(policy, lives=lives)
    before = at.revisions()
    for index in at.good:
        node, generation = at.realm.slot(index).node, at.realm.generation(index)
        at.say(word, index)
        at.watch(120)
        assert at.realm.generation(index) > generation, "it is done"
        assert (at.realm.slot(index).node != node) == (word in ("drain", "move", "death"))
        assert at.revisions() == before
        assert at.realm.view.slot(key(index)).application(at.realm.slot(index).node).record.state is State.RUNNING


def test_a_restart_of_all_of_them_restarts_each_with_what_it_has() -> None:
    at = Standing(STAYS)
    before = at.revisions()
    for index in range(3):
        at.realm.control(key(index), restart=1)
    at.watch(300)
    assert (at.revisions(), [at.realm.slot(index).restart for index in range(3)]) == (before, [1, 1, 1])


def test_an_instance_more_has_what_works() -> None:
    at = Standing(STAYS)
    at.realm.apply(web(4, component=at.policy))
    at.watch(120)
    assert sorted(at.realm.slot(index).revision for index in range(4)) == [1, 1, 1, 3]
    failed = next(index for index in range(3) if index not in at.good)
    at.works.add(3)
    at.realm.status(key(failed), at.realm.slot(failed).node or "")
    at.watch(120)
    assert [at.realm.slot(index).revision for index in range(4)] == [3, 3, 3, 3]


def test_an_instance_that_had_no_place_while_what_stands_was_tried_begins_with_what_works() -> None:
    at = Standing(STAYS)
    failed = next(index for index in range(3) if index not in at.good)
    waits = msgspec.structs.replace(at.realm.slot(failed), node=None, home=None, previous=None)
    at.realm.say("controller/c2", key(3).topic, waits)
    at.realm.apply(web(4, component=at.policy))
    at.watch(120)
    assert (at.realm.slot(3).node is not None, at.realm.slot(3).revision) == (True, 1)


def test_what_stands_moves_nothing_to_the_nodes_that_it_asks_for() -> None:
    at = Standing(STAYS, tried=BAD + "nodes: union(n1, n4)\n")
    nodes = [at.realm.slot(index).node for index in at.good]
    at.watch(600)
    assert [at.realm.slot(index).node for index in at.good] == nodes
    assert at.revisions().count(1) == 2


@pytest.mark.parametrize("held", [False, True])
def test_it_goes_on_where_it_works_after_all(held: bool) -> None:
    at = Standing(STAYS)
    if held:
        at.realm.hold(key(at.good[0]))
        at.watch(60)
    failed = ({0, 1, 2} - set(at.good)).pop()
    at.works.add(2)
    at.realm.status(key(failed), at.realm.slot(failed).node or "")
    at.watch(60)
    assert at.revisions() == [2, 2, 2]


def test_another_revision_is_tried() -> None:
    at = Standing(STAYS)
    at.works.add(3)
    at.realm.apply(web(3, component=STAYS + "env: {A: c}\n"))
    at.watch(60)
    assert at.revisions() == [3, 3, 3]


def test_where_it_was_good_before_it_has_not_failed() -> None:
    """A later crash of one that was good for days leaves the others free to follow what stands."""
    at = Standing(STAYS)
    failed = ({0, 1, 2} - set(at.good)).pop()
    lagging = at.good[0]
    at.realm.close(at.realm.slot(lagging).node or "")
    for index in range(1, 7):
        at.realm.control_node(f"n{index}", "excluded")
    at.works.add(2)
    at.realm.status(key(failed), at.realm.slot(failed).node or "")
    at.watch(100)
    good = Good(spec=at.realm.slot(failed).spec, revision=2)
    at.realm.status(key(failed), at.realm.slot(failed).node or "", State.FAILED, parked=True, good=good)
    for index in range(1, 7):
        at.realm.control_node(f"n{index}", "active")
    at.watch(60)
    assert at.realm.slot(lagging).revision == 2


class Trial(Standing):
    """Three instances of which one has a revision that says nothing of itself yet, when an operator stops it."""

    def __init__(self, policy: str) -> None:
        self.realm, self.lives, self.works = Realm("n1", "n2", "n3", "n4"), 10_000, {1}
        self.controller = Attentive(self.realm)
        self.realm.apply(web(3, component=policy))
        self.watch(60)

    def tries(self, policy: str) -> int:
        """A bad revision comes, and is stopped where it is tried; where that is."""
        self.realm.apply(web(3, component=policy + BAD))
        self.watch(3)
        assert sorted(self.revisions()) == [1, 1, 2]
        tried = self.revisions().index(2)
        self.realm.hold(key(tried))
        return tried


@pytest.mark.parametrize("policy", [STAYS, STAYS.replace(", rollback: false", "")], ids=["stands", "goes back"])
def test_what_is_stopped_by_hand_where_it_is_tried_is_tried_nowhere_else_until_it_is_started(policy: str) -> None:
    at = Trial(policy)
    tried = at.tries(policy)
    at.watch(600)
    assert sorted(at.revisions()) == [1, 1, 2]
    for index in {0, 1, 2} - {tried}:
        at.realm.control(key(index), restart=1)
    at.watch(60)
    assert sorted(at.revisions()) == [1, 1, 2]
    at.realm.apply(web(4, component=policy + BAD))
    at.controller.look()
    assert (at.realm.slot(3).desired, at.realm.slot(3).revision) == ("running", 1), "one more begins with what works"
    at.realm.apply(web(3, component=policy + BAD))
    at.watch(60)
    assert [at.realm.slot(index).revision for index in {0, 1, 2} - {tried}] == [1, 1]
    at.works.add(4)
    at.realm.control(key(tried))
    at.watch(60)
    assert at.revisions() == [4, 4, 4]


def test_what_was_held_before_a_revision_came_or_is_held_after_it_was_good_somewhere_holds_nothing_up() -> None:
    at = Trial(STAYS)
    at.realm.hold(key(0))
    at.watch(10)
    at.works.add(2)
    at.realm.apply(web(3, component=STAYS + BAD))
    at.watch(15)
    at.realm.hold(key(at.revisions().index(2, 1)))
    at.watch(60)
    assert at.revisions() == [2, 2, 2]
    at.realm.apply(web(3, component=STAYS + "env: {A: c}\n"))
    at.works.add(3)
    at.watch(60)
    assert at.revisions() == [3, 3, 3]


@pytest.mark.parametrize("policy", [STAYS, STANDS])
def test_it_goes_no_further_when_the_node_where_it_is_parked_dies_and_there_is_no_place(policy: str) -> None:
    at = Standing(policy)
    bad = next(index for index in range(3) if index not in at.good)
    node = at.realm.slot(bad).node or ""
    for number in range(1, 7):
        at.realm.control_node(f"n{number}", "excluded")
    at.realm.close(node)
    at.watch(200)
    assert [at.realm.slot(index).revision for index in at.good] == [1, 1]


@pytest.mark.parametrize("policy", [STAYS, STANDS])
@pytest.mark.parametrize("word", ["restart", "drain", ""])
def test_a_new_signature_does_not_make_what_has_failed_untried(policy: str, word: str) -> None:
    at = Standing(policy)
    before = {index: at.env(index) for index in at.good}
    signed_anew(at.realm)
    if word == "restart":
        at.realm.control(key(at.good[0]), restart=1)
    elif word == "drain":
        at.realm.control_node(at.realm.slot(at.good[0]).node or "", "draining")
    at.works |= {at.realm.slot(index).revision for index in at.good}
    at.watch(200)
    assert {index: at.env(index) for index in at.good} == before


def of_each(first: int, policy: str) -> tuple[Realm, Attentive]:
    """So many instances that work; then one of each node is asked for, by a revision that parks wherever it begins."""
    realm = Realm("n1", "n2", "n3", "n4", "n5")
    controller = Attentive(realm)
    realm.apply(web(first, component=policy + STANDS))
    controller.watch(100)
    realm.apply(web("each_node", component=STANDS + BAD))
    fails(realm, controller, 120)
    return realm, controller


def fails(realm: Realm, controller: Attentive, seconds: int) -> list[str]:
    """Time passes, and what begins with the second revision parks; what was said of slots."""
    said = []
    for _ in range(seconds):
        said += [intent.because for intent in controller.look()]
        realm.obey()
        for _, index in sorted(realm.view.services["web"].slots):
            fact = realm.slot(index)
            if fact.revision == 2 and fact.desired == "running" and fact.node and not realm.dead(fact.node):
                realm.status(key(index), fact.node, State.FAILED, parked=True)
        realm.after(1)
    assert controller.overlooked() == []
    return said


def test_what_is_to_be_on_each_node_and_keeps_what_is_not_begins_on_no_node_that_does_not_take_that() -> None:
    """Else its index is placed on any other node, ended there as a second one, and so on for ever."""
    realm, controller = of_each(2, "nodes: minus(all_nodes, n6)\n")
    before = len(fails(realm, controller, 60))
    realm.node("n6")
    assert len(fails(realm, controller, 300)) <= before + 1
    assert realm.nodes_of().count("n6") == 0


def test_where_one_is_to_be_on_each_node_the_death_of_one_ends_no_other_that_works() -> None:
    realm, controller = of_each(3, "")
    works = [index for index in range(3) if realm.slot(index).revision == 1]
    realm.close(realm.slot(works[0]).node or "")
    fails(realm, controller, 30)
    assert [(realm.slot(index).revision, realm.slot(index).desired) for index in works[1:]] == [(1, "running")] * len(
        works[1:]
    )
