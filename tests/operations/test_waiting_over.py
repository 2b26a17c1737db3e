"""Waiting: what ends a wait, though it is not as it was waited for."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from dsmt.cli import screens
from dsmt.errors import FailedError, NotFoundError, TimedOutError, TransportError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.waits import lasting, settling, waiting
from dsmt.operations.words.targets import Target
from tests.controllers.build import Realm, key, web

from .sights import sight
from .test_revisions import rolled_back
from .waits import EXITED, WEB, applied, realm, wait

__all__ = ["realm"]


def test_who_waits_while_no_controller_is_alive_is_told_so(realm: Realm) -> None:
    realm.controller("c1")
    for state, told in (("open", False), ("closed", True)):
        realm.session("controller/c1", state)
        with pytest.raises(TimedOutError) as late:
            wait(settling.settled, applied(1))
        assert ("; no controller is alive); it goes on" in late.value.message) is told


def test_what_was_refused_says_which_revision_runs_and_why(realm: Realm) -> None:
    realm.after(100).status(key(1), realm.slot(1).node or "", State.RUNNING)
    realm.apply(web(2, component="env: {A: b}\nrestart: {escalate: [restart: 3]}\n"))
    realm.step()
    at = next(index for index in range(2) if realm.slot(index).revision == 2)
    realm.status(key(at), realm.slot(at).node or "", State.FAILED, parked=True, reason=EXITED)
    realm.settle(seconds=1)
    done = wait(settling.settled, applied(2))
    assert (done.outcome, done.refused, done.running, done.ready) == ("rolled_back", 2, [1], 2)
    assert done.reason.code == "rollout.rolled_back"


@pytest.mark.parametrize("rolled_back", [True, False])
def test_what_is_parked_is_told_when_no_controller_has_rolled_it_back_meanwhile(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, rolled_back: bool
) -> None:
    realm.after(100).status(key(1), realm.slot(1).node or "", State.RUNNING)
    realm.apply(web(2, component="env: {A: b}\nrestart: {escalate: [restart: 3]}\n"))
    realm.step()
    at = next(index for index in range(2) if realm.slot(index).revision == 2)
    realm.status(key(at), realm.slot(at).node or "", State.FAILED, parked=True, reason=EXITED)

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(realm)
        if rolled_back:
            realm.settle(seconds=1)
        for _ in range(2):
            yield sight(realm.after(lasting.PARKED_MS / 2000))

    monkeypatch.setattr(waiting, "watch", watch)
    done = wait(settling.settled, applied(2))
    assert done.failed
    assert (done.outcome, done.refused) == (("rolled_back", 2) if rolled_back else ("parked", None))


@pytest.mark.parametrize(("parked", "word"), [(True, "parked"), (False, "failed")])
def test_nobody_waits_for_what_dsmt_does_nothing_more_about(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, parked: bool, word: str
) -> None:
    realm.status(key(1), realm.slot(1).node or "", State.FAILED, parked=parked, reason=EXITED)

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for _ in range(2):
            yield sight(realm.after(lasting.PARKED_MS / 1000))

    monkeypatch.setattr(waiting, "watch", watch)
    done = wait(settling.settled, applied(1))
    assert (done.outcome, done.failed, done.ready, done.reason.code) == (word, True, 1, EXITED.code)
    with pytest.raises(FailedError) as told:
        wait(waiting.wait_for, WEB, "ready")
    why = "exited with code 3 3ms after start, before it was ready"
    assert (told.value.message, told.value.exit) == (f"web/app/1 is {word}: {why}; dsmt does nothing more", 1)


@pytest.mark.parametrize(
    ("rest", "said"),
    [("held", "web/app/0 is held by alice, and so not run"), ("done", "web/app/0 is done, and not run again")],
)
def test_what_rests_is_not_waited_for_and_where_all_does_the_wait_ends(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, rest: str, said: str
) -> None:
    def ends(index: int) -> None:
        if rest == "held":
            realm.hold(key(index))
            realm.status(key(index), realm.slot(index).node or "", State.STOPPED)
            return
        last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=None)
        realm.status(key(index), realm.slot(index).node or "", State.FAILED, last_exit=last)

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for _ in range(2):
            yield sight(realm.after(lasting.PARKED_MS / 1000))

    monkeypatch.setattr(waiting, "watch", watch)
    realm.apply(web(2, component="kind: job\nrestart: {when: on_failure}\n") if rest == "done" else web(2))
    realm.settle(seconds=1)
    realm.status(key(0), realm.slot(0).node or "", State.RUNNING)
    ends(1)
    assert wait(waiting.wait_for, WEB, "ready").reached
    ends(0)
    with pytest.raises(FailedError, match=said) as told:
        wait(waiting.wait_for, WEB, "ready")
    assert "web/app/0" in told.value.next


def test_what_another_revision_has_replaced_before_it_was_ready_has_failed_and_says_so(realm: Realm) -> None:
    realm.apply(web(3))
    told = wait(settling.settled, applied(1))
    assert (told.outcome, told.failed) == ("superseded", True)
    (line,) = screens.applied(told)
    assert line == "web  r1 was replaced before it was ready: dsmt history web names what stands"


def test_what_was_removed_and_is_gone_before_it_was_ready_was_replaced_and_what_nobody_knows_here_yet_is_waited_for(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits goes on at another broker while theirs is away: that may not have the service yet, or not any more."""
    blank, gone, told = Realm("n1"), Realm("n1"), list[str]()
    gone.say("operator/alice", "tombstone/service/web", Tombstone(by="alice", reason="not needed"))
    seen = list[Realm]()

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        while seen:
            yield sight(seen.pop(0))

    monkeypatch.setattr(waiting, "watch", watch)
    seen += [blank, realm, blank, gone]
    assert wait(settling.settled, applied(1), tell=told.append).outcome == "superseded"
    assert [text.rpartition(": ")[2] for text in told][::2] == ["broker b1 has not heard of it yet"] * 2
    seen += [gone, blank, gone]  # one of that name was removed before, and this broker has not heard of the next one
    with pytest.raises(TransportError, match="the connection ended, and web r1 is not ready"):
        wait(settling.settled, applied(1))


def test_who_goes_on_at_a_broker_that_has_only_the_revision_before_is_told_nothing_of_what_became_of_that(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one was refused there: it is not the one that is waited for."""
    behind, told, seen = rolled_back(), list[str](), list[Realm]()

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for one in seen:
            yield sight(one)

    monkeypatch.setattr(waiting, "watch", watch)
    seen += [behind]
    with pytest.raises(TransportError, match="the connection ended, and web r3 is not ready"):
        wait(settling.settled, applied(3), tell=told.append)
    assert told[0].endswith("web r3 is not ready: broker b1 has not heard of it yet")
    anew = Realm("n1")
    anew.say("operator/alice", "tombstone/service/web", Tombstone(by="alice", reason="not needed"))
    anew.apply(web(1))
    realm.apply(web(3))
    seen[:] = [realm, anew]  # it was removed, and applied anew, while the broker of who waits was away
    assert wait(settling.settled, applied(2)).outcome == "superseded"


def test_who_has_applied_what_was_being_removed_and_goes_on_at_a_broker_that_knows_only_that_waits(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, seen = list[str](), list[Realm]()

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for one in seen:
            yield sight(one)

    monkeypatch.setattr(waiting, "watch", watch)
    realm.apply(web(3))
    realm.apply(web(3), removed=True)
    anew = replace(applied(1), epoch=2)
    seen[:] = [realm]
    with pytest.raises(TransportError, match="the connection ended, and web r1 is not ready"):
        wait(settling.settled, anew, tell=told.append)
    assert told[0].endswith("web r1 is not ready: broker b1 has not heard of it yet")
    realm.say("operator/alice", "tombstone/service/web", Tombstone(by="alice", reason="not needed"))
    with pytest.raises(TransportError):
        wait(settling.settled, anew)
    later = replace(applied(1), epoch=1)
    assert wait(settling.settled, later).outcome == "superseded", "it is the one that was removed"


def test_who_waits_for_the_end_of_what_is_not_there_is_told_whether_it_ever_was(realm: Realm) -> None:
    with pytest.raises(NotFoundError, match="there is no service wbe") as never:
        wait(waiting.wait_for, Target("wbe"), "gone")
    assert (never.value.code, never.value.exit) == ("service.unknown", 5)
    realm.say("operator/alice", "tombstone/service/old", Tombstone(by="alice", reason="not needed"))
    removed = wait(waiting.wait_for, Target("old"), "gone")
    assert (removed.reached, removed.because) == (True, "there is no service old any more: it was removed")


def test_ready_is_one_word_for_who_waits_and_for_who_applies_also_where_nothing_is_to_run(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for _ in range(2):
            yield sight(realm.after(lasting.PARKED_MS / 1000))

    monkeypatch.setattr(waiting, "watch", watch)

    def ended(code: int) -> None:
        last = LastExit(code=code, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=EXITED)
        for index in range(2):
            good = realm.slot(index).implements
            node = realm.slot(index).node or ""
            realm.status(key(index), node, State.FAILED, last_exit=last, reason=EXITED, good=good)

    ended(0)
    assert wait(waiting.wait_for, WEB, "ready").reached
    assert wait(settling.settled, applied(1)).outcome == "ready"
    ended(3)
    with pytest.raises(FailedError, match="web/app/0 is failed"):
        wait(waiting.wait_for, WEB, "ready")
    assert wait(settling.settled, applied(1)).failed
    for index in range(2):
        realm.hold(key(index))
    with pytest.raises(FailedError, match="web/app/0 is held"):
        wait(waiting.wait_for, WEB, "ready")
    held = wait(settling.settled, applied(1))
    assert (held.outcome, held.failed) == ("held", False)
    assert screens.applied(held) == ["web  r1  held: all of it is stopped by hand; dsmt start web runs it"]
    realm.apply(web(0))
    realm.settle(seconds=1)
    for index in range(2):
        realm.status(key(index), realm.slot(index).node or "", State.GONE)
    assert wait(waiting.wait_for, WEB, "ready").because == "nothing of it is to run"
    assert wait(waiting.wait_for, Target("web", "app"), "ready").reached
    assert wait(settling.settled, applied(2)).outcome == "ready"
    realm.apply(web(2))
    for act, of in ((settling.settled, (applied(3),)), (waiting.wait_for, (WEB, "ready"))):
        with pytest.raises(TransportError, match="the connection ended"):  # nothing was decided yet
            wait(act, *of)


def test_of_what_is_to_run_nowhere_who_waits_waits_for_the_end_of_what_ran(realm: Realm) -> None:
    realm.apply(web(0))
    realm.settle(seconds=1, obey=False)
    with pytest.raises(TimedOutError, match="web is not ready"):
        wait(waiting.wait_for, WEB, "ready")
    realm.apply(web(0), removed=True)
    for index in range(2):
        realm.status(key(index), "n1", State.GONE)
        realm.status(key(index), "n2", State.GONE)
    with pytest.raises(TimedOutError, match="web is not ready"):
        wait(waiting.wait_for, WEB, "ready")
