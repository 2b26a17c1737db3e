"""The good copy stays, on the node that is left, as long as what is to follow it may yet fail and be gone back from (A8)."""

import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.status import State
from dsmt.view import Fleet

from .build import Attentive, Realm, key, web
from .repairs import kill
from .rollouts import refused

CHECKED = "ports: {http: auto}\nhealth: {tcp: {port: http}}\n"
SHORT = CHECKED + "update: {deadline: 30s, healthy_after: 5s}\n"
BAD = SHORT + "env: {A: b}\n"


class Leaving:
    """One instance that was good on `first`; a revision that is never ready is tried when the slot is to leave it."""

    def __init__(self, why: str, *, tried: str | None = BAD) -> None:
        self.realm = realm = Realm("n1", "n2", "n3", "n4")
        self.controller = Attentive(realm)
        realm.apply(web(1, component=SHORT))
        self.controller.watch(5)
        self.first = realm.slot().node or ""
        realm.health(key(), self.first, "ready")
        self.controller.watch(60)
        if tried is not None:
            realm.apply(web(1, component=tried))
        self.watch(10)
        if why == "drain":
            realm.control_node(self.first, "draining")
        else:
            realm.control(key(), move="", leave=self.first)
        self.watch(1)

    def watch(self, seconds: int) -> None:
        """Its node starts what it is told to, and it is not ready; the one that it left goes on with what it has."""
        realm = self.realm
        for _ in range(seconds):
            self.controller.look()
            node = realm.slot().node or ""
            said = realm.view.slot(key()).application(node)
            if not realm.dead(node) and (said is None or said.record.generation < realm.generation()):
                realm.health(key(), node, "unready")
                realm.status(key(), node)
            realm.after(1)

    @property
    def kept(self) -> bool:
        """Whether the good copy is not told to end."""
        previous = self.realm.slot().previous
        return previous is not None and previous.node == self.first and previous.deadline_ms > self.realm.now_ms


@pytest.mark.parametrize("why", ["drain", "move"])
def test_the_good_copy_outlives_the_refusal_of_what_followed_it_until_that_goes_back_and_is_ready(why: str) -> None:
    at = Leaving(why)
    second = at.realm.slot().node
    assert (at.realm.slot().revision, at.kept, second != at.first) == (2, True, True)
    for _ in range(28):
        at.watch(1)
        assert at.kept
    for _ in range(10):
        at.watch(1)
        assert at.kept
    assert (at.realm.slot().revision, refused(at.realm.slot()), at.realm.slot().node) == (1, 2, second)
    at.realm.health(key(), second or "", "ready")
    assert at.controller.watch(60, obey=False) == []


def test_a_drain_ends_though_what_is_gone_back_to_is_never_ready_elsewhere() -> None:
    at = Leaving("drain")
    at.watch(31)
    left_ms = at.realm.slot().previous.deadline_ms - at.realm.now_ms
    assert 30_000 < left_ms <= 40_000, "what was tried has 10 s to end"
    at.watch(40)
    assert (at.realm.slot().revision, at.kept) == (1, False)


def test_what_is_gone_back_to_elsewhere_has_the_time_that_its_own_file_gives_it() -> None:
    at = Leaving("drain", tried=BAD.replace("deadline: 30s", "deadline: 60s"))
    at.watch(61)
    assert (at.realm.slot().revision, at.kept) == (1, True)
    left_ms = at.realm.slot().previous.deadline_ms - at.realm.now_ms
    assert 30_000 < left_ms <= 40_000, "what was tried has 10 s to end"


def test_a_fix_that_comes_shortly_before_the_deadline_has_its_own() -> None:
    at = Leaving("drain")
    at.watch(25)
    at.realm.apply(web(1, component=SHORT + "env: {A: c}\n"))
    for _ in range(29):
        at.watch(1)
        assert (at.realm.slot().revision, at.kept) == (3, True)
    at.realm.health(key(), at.realm.slot().node or "", "ready")
    assert at.controller.watch(60, obey=False) == []


@pytest.mark.parametrize("cause", ["drained", "dead", "moved", "not of its set"])
def test_what_begins_anew_elsewhere_has_its_own_time(cause: str) -> None:
    at, seen = Leaving("drain"), set()
    for _ in range(2):
        for _ in range(25):
            at.watch(1)
            assert at.kept
        node = at.realm.slot().node or ""
        seen.add(node)
        if cause == "not of its set":
            at.realm.attributes(node, drivers={})
        elif cause == "dead":
            at.realm.close(node)
        elif cause == "drained":
            at.realm.control_node(node, "draining")
        else:
            at.realm.control(key(), move=next(name for name in ("n1", "n2", "n3", "n4") if name not in {at.first, *seen}))
    for _ in range(45):
        at.watch(1)
        assert at.kept
    assert at.realm.slot().node not in {at.first, *seen}


def test_moves_that_follow_from_failures_do_not_keep_it_for_ever() -> None:
    policy = SHORT.replace("deadline: 30s", "deadline: 30s, rollback: false")
    at = Leaving("drain", tried=policy + "env: {A: b}\nrestart: {escalate: [restart: 5, move: 40]}\n")
    for _ in range(30):
        at.realm.status(key(), at.realm.slot().node or "", State.FAILED, parked=True)
        at.watch(1)
    assert (at.realm.slot().moves > 1, at.kept) == (True, False)


def test_a_copy_that_was_not_followed_in_time_has_no_time_anew_when_something_else_is_asked_for() -> None:
    at = Leaving("drain", tried=None)
    assert at.kept
    at.watch(40)
    assert not at.kept
    at.realm.control(key(), restart=1)
    at.watch(1)
    assert (at.realm.slot().restart, at.realm.slot().previous) == (1, None)


def test_what_may_not_be_gone_back_from_has_its_deadline_once() -> None:
    at = Leaving("drain", tried=None)
    assert at.realm.slot().previous.deadline_ms == at.realm.slot().moved_at_ms + 30_000


def test_a_copy_whose_node_has_died_keeps_no_later_one_from_staying_until_the_next_is_ready() -> None:
    at = Leaving("drain", tried=None)
    second = at.realm.slot().node or ""
    at.realm.close(at.first)
    at.watch(2)
    at.realm.control_node(second, "draining")
    at.watch(2)
    slot = at.realm.slot()
    assert slot.previous is not None
    assert (slot.node in {at.first, second}, slot.previous.node) == (False, second), "the only copy would end first"


def test_what_begins_elsewhere_after_a_death_waits_for_nothing_to_end_there() -> None:
    at = Leaving("drain", tried=None)
    second = at.realm.slot().node or ""
    at.realm.close(second)
    at.watch(10)
    slot = at.realm.slot()
    assert (at.kept, slot.node in {at.first, second}) == (True, False)
    assert slot.previous.deadline_ms == slot.moved_at_ms + 30_000


@pytest.mark.parametrize("alone", [CHECKED + "update: {order: stop_first}\n", SHORT + "data: true\n"])
def test_a_revision_that_runs_alone_begins_when_the_copy_on_the_node_that_was_left_has_ended(alone: str) -> None:
    at = Leaving("drain", tried=None)
    realm, second = at.realm, at.realm.slot().node or ""
    assert at.kept
    realm.apply(web(1, component=alone))
    at.watch(3)
    slot = realm.slot()
    assert (slot.revision, slot.node, slot.desired, slot.previous) == (2, second, "stopped", None), "two copies would run"
    realm.status(key(), at.first, State.STOPPED)
    at.watch(1)
    assert (realm.slot().revision, realm.slot().node, realm.slot().desired) == (2, second, "running")


@pytest.mark.parametrize("why", ["drain", "death"])
def test_a_revision_that_runs_alone_waits_for_a_copy_elsewhere_also_where_it_must_move_on(why: str) -> None:
    at = Leaving("drain", tried=None)
    realm, second = at.realm, at.realm.slot().node or ""
    realm.apply(web(1, component=CHECKED + "update: {order: stop_first}\n"))
    at.watch(1)
    if why == "drain":
        realm.status(key(), second, State.STOPPED)
        realm.control_node(second, "draining")
    else:
        realm.close(second)
    at.controller.watch(20, obey=False)
    assert (realm.slot().node, realm.slot().desired) == (second, "stopped"), "two copies would run"
    realm.status(key(), at.first, State.GONE)
    at.controller.watch(3, obey=False)
    assert (realm.slot().node not in (at.first, second), realm.slot().desired) == (True, "running")


def test_a_revision_that_runs_alone_waits_for_no_copy_on_a_node_that_has_died() -> None:
    at = Leaving("drain", tried=None)
    at.realm.apply(web(1, component=CHECKED + "update: {order: stop_first}\n"))
    at.watch(1)
    assert at.realm.slot().desired == "stopped"
    at.realm.close(at.first)
    at.watch(20)
    assert (at.realm.slot().revision, at.realm.slot().desired) == (2, "running")


@pytest.mark.parametrize(("parked", "code"), [(False, 0), (True, 3)])
def test_what_has_ended_or_is_parked_on_the_node_that_is_left_holds_no_drain_up(parked: bool, code: int) -> None:
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.apply(web(1, component="restart: on_failure\n"))
    controller.watch(5)
    first = realm.slot().node or ""
    ended = {"code": code, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.0, "reason": None}
    realm.status(key(), first, State.FAILED, parked=parked, last_exit=ended)
    realm.control_node(first, "draining")
    controller.watch(30)
    assert (realm.slot().node != first, realm.slot().previous) == (True, None)


class Ended:
    """One instance of several nodes that has ended by itself, and is not run again."""

    def __init__(self, code: int = 0, *, order: str = "start_first") -> None:
        self.realm = realm = Realm("n1", "n2", "n3")
        self.controller = Attentive(realm)
        realm.apply(web(1, component=f"restart: never\nupdate: {{order: {order}}}\n"))
        self.controller.watch(5)
        self.first = realm.slot().node or ""
        self.last = {"code": code, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.5, "reason": None}
        self.say(self.first)

    def say(self, node: str) -> None:
        self.realm.status(key(), node, State.FAILED, last_exit=self.last, good=self.realm.slot().implements)

    def leaves(self, why: str) -> None:
        node = self.realm.slot().node or ""
        if why == "drain":
            self.realm.control_node(node, "draining")
        elif why == "death":
            self.realm.close(node)
        else:
            self.realm.control(key(), move="", leave=node)
        self.controller.watch(30, obey=False)

    @property
    def elsewhere(self) -> bool:
        return self.realm.slot().node not in (None, self.first)


@pytest.mark.parametrize("order", ["start_first", "stop_first"])
@pytest.mark.parametrize(
    ("why", "code", "ended"), [("drain", 0, True), ("death", 0, True), ("drain", 3, False), ("move", 0, False)]
)
def test_what_has_ended_well_is_moved_as_that_but_where_an_operator_moves_it(
    why: str, code: int, ended: bool, order: str
) -> None:
    at = Ended(code, order=order)
    at.leaves(why)
    if order == "stop_first" and at.realm.slot().desired == "stopped":
        at.realm.status(key(), at.first, State.STOPPED)
        at.controller.watch(5, obey=False)
    slot = at.realm.slot()
    assert (at.elsewhere, slot.desired, slot.ended is not None) == (True, "running", ended)


@pytest.mark.parametrize("taken_over", [True, False])
def test_what_has_ended_well_is_moved_as_that_once_more(taken_over: bool) -> None:
    at = Ended()
    at.leaves("drain")
    second = at.realm.slot().node or ""
    if taken_over:
        at.say(second)
    at.leaves("drain")
    assert (at.realm.slot().node not in (at.first, second), at.realm.slot().ended is not None) == (True, True)


def test_what_has_ended_well_and_was_retried_since_is_run_on_the_next_node() -> None:
    at = Ended()
    at.leaves("drain")
    at.realm.status(key(), at.realm.slot().node or "", State.RUNNING)
    at.leaves("drain")
    assert (at.elsewhere, at.realm.slot().ended) == (True, None)


def test_what_has_ended_well_is_run_again_when_it_is_restarted_where_it_is_now() -> None:
    at = Ended()
    at.leaves("drain")
    second = at.realm.slot().node
    at.realm.control(key(), restart=1)
    at.controller.watch(5, obey=False)
    assert (at.realm.slot().node, at.realm.slot().restart, at.realm.slot().ended) == (second, 1, None)


@pytest.mark.parametrize("held", [True, False])
def test_a_revision_that_runs_alone_waits_for_a_copy_that_is_no_previous_one_any_more_either(held: bool) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component=SHORT))
    realm.settle(seconds=1)
    first = realm.slot().node or ""
    realm.health(key(), first, "ready")
    realm.after(60).settle(seconds=1)
    realm.control_node(first, "draining")
    realm.step()
    node = realm.slot().node or ""
    realm.status(key(), node)
    realm.health(key(), node, "unready" if held else "ready")
    realm.after(1).step()
    realm.apply(web(1, component=SHORT.replace("update: {", "update: {order: stop_first, ") + "env: {A: b}\n"))
    if held:  # it is stopped and released in one moment
        realm.hold(key())
        realm.step()
        realm.control(key())
    realm.step()
    assert (realm.slot().node, realm.slot().desired) == (node, "stopped"), f"{first} has not ended its copy"
    assert (realm.slot().reason.code, realm.slot().reason.message.startswith(f"{first} has a copy")) == ("wait.copy", True)
    realm.status(key(), first, State.GONE)
    realm.status(key(), node, State.STOPPED)
    realm.step()
    assert (realm.slot().node, realm.slot().desired, realm.slot().revision) == (node, "running", 2)
    assert realm.slot().reason is None


@pytest.mark.parametrize("was", ["scaled to 0", "removed"])
def test_what_runs_alone_and_is_placed_anew_waits_for_the_copy_that_ends_elsewhere(was: str) -> None:
    realm = Realm("n1", "n2", "n3")
    alone = "update: {order: stop_first}\n"
    realm.apply(web(1, component=alone))
    realm.settle(seconds=1)
    first = realm.slot().node or ""
    if was == "removed":
        realm.apply(web(1, component=alone), removed=True)
    else:
        realm.apply(web(0, component=alone))
    realm.step()
    assert realm.slot().desired == "gone"
    realm.control_node(first, "draining")
    realm.apply(web(1, component=alone))
    realm.step()
    second = realm.slot().node
    assert (second == first, realm.slot().desired) == (False, "stopped"), "two copies would run"
    realm.status(key(), first, State.GONE)
    realm.step()
    assert (realm.slot().node, realm.slot().desired) == (second, "running")


@pytest.mark.parametrize("order", ["stop_first", "start_first"])
def test_what_may_not_run_twice_waits_for_a_copy_that_a_node_says_to_have_and_nothing_else_does(order: str) -> None:
    """Whether it lies nobody can tell: its key is revoked, or its node dies."""
    realm = Realm("n1", "n2", "n3", "n4")
    realm.apply(web(1, component=f"update: {{order: {order}}}"))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    other = min({"n1", "n2", "n3", "n4"} - {node})
    realm.after(100).status(key(), other)
    kill(realm, node)
    realm.settle(seconds=1, obey=False)
    told = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
    if order == "start_first":
        assert (realm.slot().node == node, told) == (False, None)
        return
    assert told is not None
    assert (realm.slot().node, told.code, told.message.startswith(f"{other} has a copy")) == (node, "wait.copy", True)
    kill(realm, other)
    realm.settle(seconds=1)
    assert realm.slot().node not in (node, other)


@pytest.mark.parametrize("word", ["drain", "move", "placement"])
def test_what_may_not_run_twice_is_not_stopped_to_leave_while_another_node_says_to_have_a_copy(word: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component="update: {order: stop_first}"))
    realm.settle(seconds=1)
    node = realm.slot().node or ""
    other = min({"n1", "n2", "n3"} - {node})
    realm.after(100).status(key(), other)
    if word == "drain":
        realm.control_node(node, "draining")
    elif word == "move":
        realm.control(key(), move="")
    else:
        realm.attributes(node, drivers={})
    realm.settle(seconds=1, obey=False)
    told = waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key())
    assert told is not None
    assert (realm.slot().node, realm.slot().desired, told.code) == (node, "running", "wait.copy")
    realm.status(key(), other, State.GONE)
    realm.settle(seconds=1)
    assert (realm.slot().node == node, realm.slot().desired) == (False, "running")
