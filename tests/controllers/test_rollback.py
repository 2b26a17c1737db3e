"""What never becomes ready goes back, also where it is the only instance or the last one; and at its deadline, not later."""

import pytest

from dsmt.event.kinds.instance import Step
from dsmt.event.kinds.slot import Good
from dsmt.event.reason import reason
from dsmt.event.status import Layer, State

from .build import Attentive, Realm, key, web
from .rollouts import refused, revisions

CHECKED = "ports: {http: auto}\nhealth: {tcp: {port: http}}\n"
SHORT = CHECKED + "update: {deadline: 30s}\n"
BAD = "env: {A: b}\n"


def ready(realm: Realm, *indexes: int) -> None:
    for index in indexes:
        realm.health(key(index), realm.slot(index).node or "", "ready")


def running(instances: int, component: str = SHORT) -> tuple[Realm, Attentive]:
    """A service that has been ready for a while."""
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(instances, component=component))
    controller.watch(5)
    ready(realm, *range(instances))
    controller.watch(60)
    return realm, controller


@pytest.mark.parametrize("deadline", [30, 300])
def test_the_only_instance_goes_back_at_the_deadline_when_it_was_never_ready(deadline: int) -> None:
    realm, controller = running(1, CHECKED + f"update: {{deadline: {deadline}s}}\n")
    node, first = realm.slot().node, realm.slot().spec
    realm.apply(web(1, component=CHECKED + f"update: {{deadline: {deadline}s}}\n" + BAD))
    controller.watch(deadline - 1)
    assert revisions(realm) == [2]
    controller.watch(2)
    assert (realm.slot().node, realm.slot().spec, refused(realm.slot())) == (node, first, 2)
    assert f"not ready within {deadline} s" in realm.slot().reason.message
    assert controller.watch(3600, step=5) == [], "it is not tried again"


def test_the_last_instance_brings_all_of_them_back_when_it_is_never_ready() -> None:
    realm, controller = running(2)
    realm.apply(web(2, component=SHORT + BAD))
    controller.watch(2)
    ready(realm, 0)
    controller.watch(15)
    assert revisions(realm) == [2, 2]
    controller.watch(31)
    ready(realm, 1)
    controller.watch(60)
    assert revisions(realm) == [1, 1]


def test_one_more_that_is_never_ready_brings_nothing_back_where_all_others_were_good() -> None:
    realm, controller = running(2)
    realm.apply(web(2, component=SHORT + BAD))
    for index in range(2):
        controller.watch(2)
        ready(realm, index)
        controller.watch(20)
    assert revisions(realm) == [2, 2]
    realm.apply(web(3, component=SHORT + BAD))
    controller.watch(3600, step=5)
    assert [revision in (2, 3) for revision in revisions(realm)] == [True] * 3


def test_the_only_instance_goes_back_when_it_parks_after_its_deadline() -> None:
    """Its node was away when that passed."""
    realm, controller = running(1)
    node = realm.slot().node or ""
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(2)
    realm.silence(node)
    controller.watch(40)
    assert revisions(realm) == [2]
    realm.attach(node)
    realm.status(key(), node, State.FAILED, parked=True)
    controller.look()
    assert (realm.slot().node, revisions(realm)) == (node, [1])


@pytest.mark.parametrize("of_it", ["its check", "its program", "its command", "its fetch", "nothing"])
def test_a_revision_that_was_not_ready_in_time_is_refused_with_what_is_known_of_why(of_it: str) -> None:
    realm, controller = running(1)
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(2)
    realm.after(40)
    node = realm.slot().node or ""
    if of_it == "its check":
        realm.health(key(), node, "unready", evidence="GET /: 404 Not Found" + "x" * 1000)
    elif of_it == "its program":
        why = reason("start.exited", code="code 3", exit_code=3, time="3ms", target="web/app/0")
        realm.status(key(), node, State.FAILED, reason=why)
    elif of_it != "nothing":
        name = "install" if of_it == "its command" else "fetch"
        step = Step(name=name, since_ms=realm.now_ms - 39_000, limit_s=600.0)
        realm.status(key(), node, State.INITIATED, step=step)
    controller.look()
    assert revisions(realm) == [1]
    told = realm.slot().reason.message
    assert "web/app/0 was not ready within 30 s" in told
    assert (": GET /: 404" in told) == (of_it == "its check")
    assert ("code 3" in told) == (of_it == "its program")
    command = ": its `install` command had taken 39 s, and had not ended; see dsmt logs web --step install)"
    assert (command in told) == (of_it == "its command")
    assert (": its fetch had taken 39 s, and had not ended)" in told) == (of_it == "its fetch")
    assert len(told) < 400


def test_what_was_not_prepared_in_time_is_not_blamed_on_a_step_of_the_generation_before() -> None:
    realm, controller = running(1)
    node, before = realm.slot().node or "", realm.generation()
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(2)
    step = Step(name="install", since_ms=realm.now_ms - 39_000, limit_s=600.0)
    realm.status(key(), node, State.INITIATED, generation=before, step=step)
    realm.status(key(), node, State.INITIATED, layer=Layer.CONTAINER)
    realm.after(40)
    controller.look()
    assert revisions(realm) == [1]
    assert "(web/app/0 was not ready within 30 s)" in realm.slot().reason.message


def test_what_was_ready_for_moments_only_is_told_as_that() -> None:
    realm, controller = running(1)
    node = realm.slot().node or ""
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(2)
    why = reason("run.exited", code="code 9", exit_code=9, time="4.1s", target="web/app/0")
    realm.status(key(), node, State.FAILED, reason=why)
    realm.after(40)
    controller.look()
    held = realm.view.services["web"].component("app").update.healthy_after_s  # type: ignore[union-attr]
    assert f"web/app/0 was not ready for {held:g} s on end within 30 s: " in realm.slot().reason.message


def test_who_goes_back_says_why_that_was_refused_and_not_what_the_slot_that_refused_it_was_told_since() -> None:
    """The node of the slot in which it failed is drained before the turn of those in which it was ready comes."""
    realm, controller = running(3)
    realm.apply(web(3, component=SHORT + BAD))
    controller.watch(2)
    ready(realm, 0)
    controller.watch(15)
    ready(realm, 1)
    controller.watch(15)
    assert revisions(realm) == [2, 2, 2]
    while revisions(realm) == [2, 2, 2]:
        controller.watch(1)
    assert revisions(realm) == [2, 2, 1]
    assert "web/app/2 was not ready within 30 s" in realm.slot(2).reason.message
    realm.control_node(realm.slot(2).node or "", "draining")
    controller.watch(1)
    assert (revisions(realm), realm.slot(2).reason.code) == ([2, 2, 1], "node.drained")
    ready(realm, 2)
    controller.watch(60)
    assert revisions(realm) == [1, 1, 1]
    assert [slot.reason.code for slot in map(realm.slot, range(2)) if slot.reason is not None] == []


def test_the_deadline_counts_where_nothing_else_happens() -> None:
    """The other instance is on a dead node, and has its data there: nothing waits its turn."""
    realm, controller = running(2, SHORT + "data: true\n")
    realm.close(realm.slot(1).node or "")
    controller.watch(30)
    realm.apply(web(2, component=SHORT + "data: true\n" + BAD))
    controller.watch(40)
    assert (revisions(realm), refused(realm.slot(0))) == ([1, 1], 2)
    assert controller.overlooked() == []


def test_what_is_to_be_gone_back_to_may_become_good_after_the_deadline_of_what_comes_after_it() -> None:
    slow = CHECKED + "update: {healthy_after: 60s, deadline: 30s}\n"
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(2, component=slow))
    controller.watch(5)
    ready(realm, 0, 1)
    controller.watch(5)
    realm.apply(web(2, component=slow + BAD))
    controller.watch(40)
    assert revisions(realm) == [2, 1], "nothing was good yet"
    controller.watch(20)
    assert (revisions(realm), controller.overlooked()) == ([1, 1], [])


@pytest.mark.parametrize("word", [None, State.FAILED, State.INITIATED])
def test_a_single_instance_that_was_good_is_not_taken_back_for_a_later_failure(word: State | None) -> None:
    realm, controller = running(1)
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(5)
    ready(realm, 0)
    controller.watch(3600, step=10)
    good = Good(spec=realm.slot().spec, revision=2)
    if word is not None:
        realm.status(key(), realm.slot().node or "", word, parked=word is State.FAILED, good=good)
    else:
        realm.status(key(), realm.slot().node or "", good=good)
        realm.health(key(), realm.slot().node or "", "unready")
    controller.watch(600, step=10, obey=False)
    assert revisions(realm) == [2]


ONE = CHECKED + "update: {deadline: 30s, order: stop_first}\n"


def ending(now: str, *, before: str = "stop: {grace: 60s}\n") -> tuple[Realm, Attentive, str]:
    """An update that stops first: the program before has 60 s to end, and takes them all."""
    realm, controller = running(1, ONE + before)
    realm.apply(web(1, component=ONE + BAD + now))
    controller.watch(1, obey=False)
    node = realm.slot().node or ""
    realm.status(key(), node, State.TERMINATED)
    realm.health(key(), node, "unready")
    controller.watch(60, obey=False)
    assert revisions(realm) == [2]
    realm.status(key(), node)
    return realm, controller, node


@pytest.mark.parametrize("now", ["stop: {grace: 60s}\n", "", "stop: {grace: 1s}\n"])
def test_the_time_that_the_program_before_takes_to_end_is_not_that_of_the_one_that_follows(now: str) -> None:
    realm, controller, node = ending(now)
    controller.watch(25, obey=False)
    realm.health(key(), node, "ready")
    controller.watch(60, obey=False)
    assert (revisions(realm), refused(realm.slot())) == ([2], 0)


def test_a_stop_command_of_the_program_before_has_its_grace_too() -> None:
    realm, controller, _ = ending("", before="stop: {grace: 60s, command: ./stop}\n")
    controller.watch(60, obey=False)
    assert revisions(realm) == [2], "its command took a minute, and it took another one to end"
    controller.watch(31, obey=False)
    assert (revisions(realm), refused(realm.slot())) == ([1], 2)
    assert "not ready within 150 s" in realm.slot().reason.message


def test_one_that_is_not_ready_in_its_own_time_after_that_goes_back() -> None:
    realm, controller, _ = ending("")
    controller.watch(31, obey=False)
    assert (revisions(realm), refused(realm.slot())) == ([1], 2)
    assert "not ready within 90 s" in realm.slot().reason.message


# --- where nothing goes back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", [True, False])
def test_a_parked_copy_does_not_leave_the_node_that_still_serves_the_one_before(served: bool) -> None:
    policy = CHECKED + "update: {rollback: false, deadline: 30s}\n"
    realm, controller = running(1, policy)
    node = realm.slot().node or ""
    realm.apply(web(1, component=policy + BAD))
    controller.watch(2)
    realm.endpoint(key(), node, generation=1, ready=served)
    realm.status(key(), node, State.FAILED, parked=True)
    for _ in range(10):
        controller.watch(60, step=10, obey=False)
        realm.endpoint(key(), node, generation=1, ready=served)
    assert (realm.slot().node == node) == served
    realm.endpoint(key(), node, generation=1, ready=False)
    controller.look()
    assert realm.slot().node != node, "nothing is served there any more"


def test_a_drain_moves_it_all_the_same() -> None:
    policy = CHECKED + "update: {rollback: false, deadline: 30s}\n"
    realm, controller = running(1, policy)
    node = realm.slot().node or ""
    realm.apply(web(1, component=policy + BAD))
    controller.watch(2)
    realm.endpoint(key(), node, generation=1)
    realm.status(key(), node, State.FAILED, parked=True)
    realm.control_node(node, "draining")
    controller.look()
    assert (realm.slot().node != node, realm.slot().previous.node) == (True, node)


def test_what_was_good_only_in_a_slot_that_is_gone_is_not_gone_back_to() -> None:
    realm, controller = running(2)
    first = realm.slot().spec
    realm.hold(key(0))
    controller.watch(2)
    realm.apply(web(2, component=SHORT + "env: {A: fine}\n"))
    controller.watch(2)
    ready(realm, 1)
    controller.watch(60)
    realm.apply(web(1, component=SHORT + "env: {A: fine}\n"))
    controller.watch(5)
    assert (realm.slot(0).good.revision, realm.slot(1).desired, realm.slot(1).good.revision) == (1, "gone", 3)
    realm.apply(web(1, component=SHORT + BAD))
    realm.control(key(0))
    controller.watch(60)
    assert (realm.slot().spec, refused(realm.slot())) == (first, 4)
