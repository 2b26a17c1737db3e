"""Waiting: what is told while it lasts, and what a wait that ends too soon says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from dsmt.cli import screens
from dsmt.errors import FailedError, TimedOutError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.waits import heeding, leaving, settling, waiting
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell
from dsmt.simulator.engine.run import run as simulate
from tests.controllers.build import Realm, key, web

from .sights import sight
from .waits import EXITED, WEB, applied, asked, realm, wait

__all__ = ["realm"]


def test_a_wait_that_ends_too_soon_says_what_is_not_so_how_far_it_is_and_that_it_goes_on(realm: Realm) -> None:
    del realm
    with pytest.raises(TimedOutError) as told:
        wait(settling.settled, applied(1))
    why = "web/app/1 backoff: exited with code 3 3ms after start, before it was ready"
    assert told.value.message == f"web r1 is not ready after 0.1 s (1 of 2; {why}); it goes on"
    assert told.value.next == "dsmt status web shows how far it is"


def test_a_wait_of_no_time_looks_once_and_says_what_is_so(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(_bus: object) -> AsyncIterator[Sight]:
        await asyncio.sleep(0.01)  # the first look takes longer than the wait
        while True:
            yield sight(realm)
            await asyncio.sleep(60)

    monkeypatch.setattr(waiting, "watch", watch)
    monkeypatch.setattr(waiting, "FIRST_LOOK_S", 600.0)  # and no look after it has so long
    bus: Any = None
    with pytest.raises(TimedOutError, match=r"web is not running after 0 s \(1 of 2; web/app/1 backoff"):
        asyncio.run(asyncio.wait_for(waiting.wait_for(bus, WEB, "running", limit_s=0.0), 20))
    realm.status(key(1), realm.slot(1).node or "", State.RUNNING)
    assert asyncio.run(waiting.wait_for(bus, WEB, "running", limit_s=0.0)).reached


def test_who_waits_is_told_how_far_it_is_once_for_each_change(realm: Realm) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        realm.status(key(1), realm.slot(1).node or "", State.RUNNING)

    assert wait(waiting.wait_for, WEB, "running", tell=tell).reached
    (text,) = told
    assert text.startswith("web is not running: 1 of 2; web/app/1 backoff: exited")


def test_a_retry_that_fails_again_ends_the_wait_with_the_reason(realm: Realm) -> None:
    before = asked(realm)
    with pytest.raises(TimedOutError, match="web is not ready after"):
        wait(heeding.heeded, WEB, "retry", before)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, reason=EXITED, next_try_ms=realm.now_ms, attempt=2)
    with pytest.raises(FailedError, match="web/app/1 was tried again and failed: exited with code 3") as failed:
        wait(heeding.heeded, WEB, "retry", before)
    assert failed.value.next == EXITED.next
    taken = reason("start.port_in_use", port=80, holder="pid 7")
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, reason=taken, next_try_ms=realm.now_ms, attempt=2)
    with pytest.raises(FailedError) as held:
        wait(heeding.heeded, WEB, "retry", before)
    assert held.value.next == taken.next


def test_a_wait_for_a_stop_or_a_start_ends_when_another_operator_says_the_opposite(realm: Realm) -> None:
    begun, before = asked(realm), realm.view.copy()
    for index in range(2):
        realm.hold(key(index))
    held, after = asked(realm), realm.view
    realm.view = before
    with pytest.raises(TimedOutError, match="web is not stopped after"):
        wait(heeding.heeded, WEB, "stop", held)  # its own word was not seen yet
    realm.view = after
    with pytest.raises(FailedError, match="web/app/0, web/app/1 were stopped meanwhile, before they were ready"):
        wait(heeding.heeded, WEB, "start", begun)
    realm.control(key(1), hold=None)
    with pytest.raises(FailedError, match="web/app/1 was started meanwhile, before it was stopped; what was asked"):
        wait(heeding.heeded, WEB, "stop", held)


def test_a_wait_for_a_stop_ends_when_all_have_stopped_and_one_for_what_is_not_wanted_any_more_at_once(realm: Realm) -> None:
    begun = asked(realm)
    for index in range(2):
        realm.hold(key(index))
    realm.settle(seconds=1)
    for index in range(2):
        realm.status(key(index), realm.slot(index).node or "", State.STOPPED)
    assert wait(heeding.heeded, WEB, "stop", asked(realm)).reached
    realm.apply(web(0))
    realm.settle(seconds=1)
    for index in range(2):
        realm.status(key(index), realm.slot(index).node or "", State.GONE)
    with pytest.raises(FailedError, match="web/app/0, web/app/1 are wanted no more, by r2 of web, before they were ready"):
        wait(heeding.heeded, WEB, "start", begun)


def test_what_has_run_and_ended_with_0_is_not_waited_for_after_a_start_or_a_retry(realm: Realm) -> None:
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=None)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, last_exit=last, reason=EXITED)
    before = asked(realm)
    assert wait(heeding.heeded, WEB, "start", before).reached
    with pytest.raises(TimedOutError):
        wait(heeding.heeded, WEB, "retry", before)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, last_exit=last, reason=EXITED, attempt=2)
    assert wait(heeding.heeded, WEB, "retry", before).reached


def test_a_removal_of_which_nothing_is_left_says_what_it_waits_for(realm: Realm) -> None:
    realm.apply(web(2), removed=True)
    with pytest.raises(TimedOutError, match=r"web is not gone after 0.1 s \(left: web/app/0 on n"):
        wait(leaving.gone, "web")
    for index in (0, 1):
        realm.status(key(index), realm.slot(index).node or "", State.GONE)
    with pytest.raises(TimedOutError, match=r"\(all that is known of it has ended; whether a node has more"):
        wait(leaving.gone, "web")


def test_a_removal_says_where_nobody_can_tell_that_it_is_gone_for_the_node_is_dead(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(realm)
        realm.settle(seconds=20)
        yield sight(realm)

    dead = realm.slot(0).node or ""
    monkeypatch.setattr(waiting, "watch", watch)
    realm.apply(web(2), removed=True)
    realm.verdict(dead)
    realm.status(key(1), realm.slot(1).node or "", State.GONE)
    assert wait(leaving.gone, "web").because == f"{dead} is dead: whatever may run there of web ends when it is back"


def test_a_wait_for_a_removal_ends_when_the_service_is_applied_again(realm: Realm) -> None:
    epoch = sight(realm).view.services["web"].spec.signed.event.epoch  # type: ignore[union-attr]

    async def ended(bus: Any, *, limit_s: float, tell: Tell) -> Any:
        return await leaving.gone(bus, "web", epoch=epoch, limit_s=limit_s, tell=tell)

    with pytest.raises(TimedOutError):
        wait(ended)  # its own word was not seen yet
    realm.apply(web(2), removed=True)
    realm.settle(seconds=1)
    for index in range(2):
        for node in ("n1", "n2"):
            realm.status(key(index), node, State.GONE)
    realm.settle(seconds=20)
    assert wait(ended).reached
    realm.apply(web(2))
    with pytest.raises(FailedError, match="web was removed, and applied again before it was seen to be gone"):
        wait(ended)


def test_what_is_held_is_not_waited_for_when_the_others_are_restarted(realm: Realm) -> None:
    realm.hold(key(1))
    realm.settle(seconds=1)
    assert wait(heeding.heeded, WEB, "restart", asked(realm)).reached


@pytest.mark.parametrize("instances", [1, 3])
def test_who_changes_the_number_of_what_was_refused_waits_for_that_number_of_what_runs(realm: Realm, instances: int) -> None:
    policy = "restart: {escalate: [restart: 3]}\n"
    realm.after(100).status(key(1), realm.slot(1).node or "", State.RUNNING)
    realm.apply(web(2, component=f"env: {{A: b}}\n{policy}"))
    realm.step()
    at = next(index for index in range(2) if realm.slot(index).revision == 2)
    realm.status(key(at), realm.slot(at).node or "", State.FAILED, parked=True, reason=EXITED)
    realm.settle(seconds=1)
    realm.apply(web(instances, component=f"env: {{A: b}}\n{policy}"))

    async def scaled(bus: Any, *, limit_s: float, tell: Tell) -> Applied:
        return await settling.settled(bus, applied(3), limit_s=limit_s, tell=tell, counted=True)

    with pytest.raises(TimedOutError):
        wait(scaled)
    realm.settle(seconds=1)
    done = wait(scaled)
    assert (done.outcome, done.ready, done.wanted, done.failed) == ("ready", instances, instances, False)
    assert (done.refused, done.running) == (2, [1])
    assert screens.applied(done) == [f"web  r3  ready, {instances} of {instances} ready, on r1 (r2 was refused)"]


@pytest.mark.parametrize("scaled", [4, 600])
def test_who_asks_for_more_waits_for_these_and_not_for_the_word_that_nothing_of_the_others_changes(
    realm: Realm, scaled: int
) -> None:
    realm.after(100).status(key(1), realm.slot(1).node or "", State.RUNNING)
    before = realm.view.copy()
    realm.apply(web(scaled))
    with pytest.raises(TimedOutError):
        wait(settling.settled, applied(2))
    realm.step()
    with pytest.raises(TimedOutError):
        wait(settling.settled, applied(2))
    for index in range(2, 4):
        realm.status(key(index), realm.slot(index).node or "", State.RUNNING)
        realm.health(key(index), realm.slot(index).node or "", "ready")
    assert [realm.slot(index).revision for index in range(4)] == [1, 1, 2, 2], "they are told one after the other"
    if scaled == 4:
        done = wait(settling.settled, applied(2))
        assert (done.outcome, done.ready, done.wanted) == ("ready", 4, 4)
    else:
        with pytest.raises(TimedOutError):
            wait(settling.settled, applied(2))
    realm.view = before
    with pytest.raises(TimedOutError):
        wait(settling.settled, applied(2))  # who has not seen yet what was applied


@pytest.mark.parametrize("text", [web(1), web(2).replace("  app:", "  other:")])
def test_what_is_not_wanted_any_more_is_waited_for_until_its_last_program_has_ended(realm: Realm, text: str) -> None:
    realm.apply(text)
    realm.settle(seconds=20)
    node = realm.slot(1).node or ""
    realm.status(key(1), node, State.TERMINATED)
    with pytest.raises(TimedOutError, match="web/app/1 is to end on n"):
        wait(settling.settled, applied(2))
    realm.status(key(1), node, State.GONE)
    assert wait(settling.settled, applied(2)).outcome == "ready"


def test_what_has_ended_by_itself_and_was_good_is_not_waited_for(realm: Realm) -> None:
    node = realm.slot(1).node or ""
    realm.status(key(1), node, State.FAILED, reason=EXITED)
    with pytest.raises(TimedOutError):
        wait(settling.settled, applied(1))
    realm.status(key(1), node, State.FAILED, reason=EXITED, good=realm.slot(1).implements)
    done = wait(settling.settled, applied(1))
    assert (done.outcome, done.ready, done.wanted) == ("ready", 1, 1)


def test_several_services_have_the_time_of_one_and_what_became_of_those_before_is_told(realm: Realm) -> None:
    realm.status(key(1), realm.slot(1).node or "", State.RUNNING)
    realm.apply(web(2, service="late"))
    realm.settle(obey=False)

    async def both(bus: Any) -> tuple[list[Applied], FailedError | TimedOutError | None, float]:
        loop = asyncio.get_running_loop()
        loop.call_later(40, lambda: realm.status(key(1), realm.slot(1).node or "", State.RUNNING))
        each = [applied(1), msgspec.structs.replace(applied(1), service="late")]
        began = loop.time()
        return *await settling.all_settled(bus, each, limit_s=60), loop.time() - began

    realm.status(key(1), realm.slot(1).node or "", State.FAILED, reason=EXITED, next_try_ms=realm.now_ms + 5_000)
    done, late, took = simulate(both(None))
    assert [(one.service, one.outcome) for one in done] == [("web", "ready")]
    assert late is not None
    assert late.message.startswith("late r1 is not ready after 60 s")
    assert took == pytest.approx(60)


@pytest.mark.parametrize(
    ("code", "about", "done"), [(0, {}, True), (0, {"next_try_ms": 1}, False), (0, {"parked": True}, False), (3, {}, False)]
)
def test_what_has_run_and_ended_with_0_after_a_restart_is_not_waited_for(
    realm: Realm, code: int, about: dict[str, Any], done: bool
) -> None:
    last = LastExit(code=code, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=None)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, last_exit=last, reason=EXITED, **about)
    if done:
        assert wait(heeding.heeded, WEB, "restart", asked(realm)).reached
        assert wait(heeding.heeded, WEB, "move", asked(realm)).reached
    else:
        with pytest.raises(TimedOutError, match="web is not restarted and ready"):
            wait(heeding.heeded, WEB, "restart", asked(realm))


def test_what_had_ended_before_a_restart_is_waited_for(realm: Realm) -> None:
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=None)
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, last_exit=last, reason=EXITED)
    realm.control(key(1), restart=1)
    with pytest.raises(TimedOutError, match="web is not restarted and ready"):
        wait(heeding.heeded, WEB, "restart", asked(realm))


def test_a_restart_is_waited_for_until_what_was_started_for_it_is_ready(realm: Realm) -> None:
    for index in range(2):
        realm.status(key(index), realm.slot(index).node or "")
    assert wait(heeding.heeded, WEB, "restart", asked(realm)).reached
    realm.control(key(0), restart=1)
    realm.after(60).step()
    assert realm.slot(0).restart == 1
    with pytest.raises(TimedOutError, match="web is not restarted and ready"):
        wait(heeding.heeded, WEB, "restart", asked(realm))  # what runs is of before
    realm.status(key(0), realm.slot(0).node or "")
    assert wait(heeding.heeded, WEB, "restart", asked(realm)).reached


def test_what_has_ended_with_an_earlier_revision_is_waited_for(realm: Realm) -> None:
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, reason=EXITED, good=realm.slot(1).implements)
    realm.apply(web(2, component="update: {max_parallel: 2}\nenv: {A: b}\n"))
    realm.publish([intent for intent in realm.decide().intents if intent.subject == str(key(0))])
    realm.status(key(0), realm.slot(0).node or "")
    assert [realm.slot(index).revision for index in range(2)] == [2, 1]
    with pytest.raises(TimedOutError, match=r"web r2 is not ready after 0.1 s \(1 of 2"):
        wait(settling.settled, applied(2))


def test_an_instance_is_gone_with_its_last_copy_and_counts_once(realm: Realm) -> None:
    realm.status(key(0), "n2" if realm.slot(0).node == "n1" else "n1", State.GONE)
    realm.apply(web(1))
    realm.settle(seconds=1, obey=False)
    realm.status(key(1), realm.slot(1).node or "", State.GONE)
    with pytest.raises(TimedOutError, match=r"web is not gone after 0\.1 s \(1 of 2\)"):
        wait(waiting.wait_for, WEB, "gone")
    realm.status(key(0), realm.slot(0).node or "", State.GONE)
    reached = wait(waiting.wait_for, WEB, "gone")
    assert [row.instance for row in reached.instances] == ["web/app/0", "web/app/1"]


@pytest.mark.parametrize("left", [False, True])
def test_of_what_runs_on_each_node_nothing_is_ready_before_anything_was_decided(realm: Realm, left: bool) -> None:
    """A copy that a node brought back after the service was removed was ended, which is no decision on what stands now."""
    if left:
        gone = Slot(node="n2", spec="operator/alice#1-1", revision=0, desired="gone")
        realm.say("controller/c1", "service/each/slot/app/1", gone, version=1, epoch=1)
    realm.apply(web("each_node", service="each"))
    one = Applied(service="each", revision=1, plan=None, outcome="applied", ready=0, wanted=0)
    with pytest.raises(TimedOutError, match="each r1 is not ready"):
        wait(settling.settled, one)
    realm.settle(seconds=1)
    done = wait(settling.settled, one)
    assert (done.outcome, done.ready, done.wanted) == ("ready", 2, 2)


def test_a_set_that_selects_no_node_now_keeps_nobody_waiting(realm: Realm) -> None:
    realm.apply(web("each_node", service="each", component="nodes: n9"))
    realm.settle(seconds=1)
    one = Applied(service="each", revision=1, plan=None, outcome="applied", ready=0, wanted=0)
    assert wait(settling.settled, one).outcome == "ready"
    assert wait(waiting.wait_for, Target("each"), "ready").because == "nothing of it is to run"
    with pytest.raises(TimedOutError, match=r"each is not running after 0.1 s \(nothing of it is to run\)"):
        wait(waiting.wait_for, Target("each"), "running")


def test_who_waits_for_a_revision_is_told_which_instance_is_to_be_started_for_it_to_go_on(realm: Realm) -> None:
    """It was stopped by hand where what stands was tried."""
    realm.after(60).apply(web(2, component="env: {A: b}\n"))
    realm.step()
    assert (realm.slot(0).revision, realm.slot(1).revision) == (1, 2)
    realm.hold(key(1))
    realm.settle(seconds=1)
    with pytest.raises(TimedOutError, match=r"web r2 is not ready after .*0 of 1; it waits until web/app/1 is started"):
        wait(settling.settled, applied(2))
