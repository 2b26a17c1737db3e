"""What was stopped on its node alone (A24): how it is shown, what controllers do about it, and by which words it ends."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.rules.held_here import why_held
from dsmt.cli import screens
from dsmt.controllers.pending import waits_for
from dsmt.errors import FailedError, RefusedError, TimedOutError
from dsmt.event.kinds.instance import HeldHere, LastExit
from dsmt.event.status import Shown, State
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.summaries import service
from dsmt.operations.read.waits import heeding, settling, waiting
from dsmt.operations.read.waits.heeding import asked_of
from dsmt.operations.words.targets import Target
from dsmt.operations.write import controlling
from dsmt.operations.write.controlling import following
from tests.controllers.build import Realm, key, web

from .sights import sight, watched
from .test_controlling import move, without_controls
from .test_explaining import explain
from .test_waiting_opposed import seen
from .waits import applied, wait

STOP = HeldHere(id="aa", by="root", at_ms=1_700_000_000_000, reason="disk smokes")
WEB = Target("web")


def held(realm: Realm, index: int = 0, held_here: HeldHere | None = STOP) -> None:
    """The agent of an instance says that it is stopped by hand."""
    node = realm.slot(index).node or ""
    why = None if held_here is None else why_held(held_here, target=str(key(index)), node=node)
    realm.status(key(index), node, State.STOPPED, held_here=held_here, reason=why)


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Realm:
    """Two of web on three nodes, both good, and the first stopped on its node."""
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.after(100)
    held(realm)
    monkeypatch.setattr(waiting, "watch", watched(realm))
    return realm


def start(realm: Realm, monkeypatch: pytest.MonkeyPatch, act: Any = controlling.start) -> controlling.Done:
    async def look(_bus: object, *_: object) -> object:
        return sight(realm)

    async def say_word(_bus: object, _sight: object, drafts: list[Any]) -> None:
        for draft in drafts:
            replaces = None if draft.replaces is None else draft.replaces.id
            realm.say("operator/alice", draft.topic, draft.data, version=draft.version, replaces=replaces)

    for name in ("look", "look_at"):
        monkeypatch.setattr(controlling, name, look)
    monkeypatch.setattr(controlling, "say_word", say_word)
    done: controlling.Done = asyncio.run(act(SimpleNamespace(now_ms=lambda: realm.now_ms), WEB, by="alice", reason=""))
    return done


def test_it_is_shown_as_held_with_who_where_when_and_why(realm: Realm) -> None:
    row, other = instances(sight(realm), WEB)
    node = realm.slot().node
    assert (row.state, other.held) == (Shown.STOPPED, None)
    assert row.held is not None
    assert (row.held.by, row.held.at, row.held.reason) == (
        f"root on {node} with --local",
        "2023-11-14T22:13:20.000Z",
        "disk smokes",
    )
    assert row.reason is not None
    assert (row.reason.code, row.reason.next) == ("hold.local", "dsmt start web/app/0")
    found = service(sight(realm), "web")
    assert found is not None
    assert (found.state, found.ready, found.wanted, found.held) == ("ok", 1, 1, 1)


def test_controllers_leave_it_where_it_is_and_brake_for_nothing(realm: Realm) -> None:
    assert realm.settle(seconds=60, obey=False) == []
    realm.after(24 * 3600 - 60)
    held(realm)
    assert realm.settle(seconds=60, obey=False) == []
    assert not realm.decide().brake.on


def test_a_new_revision_is_not_refused_for_it_and_goes_no_further_and_that_is_told(realm: Realm) -> None:
    realm.apply(web(2).replace("./app", "./next"))
    for _ in range(40):
        realm.step()
        for index in (0, 1):
            slot = realm.view.slot(key(index))
            said = None if slot is None else slot.current_status
            if said is None and index == 0:
                held(realm)
            elif said is None:
                realm.status(key(1), realm.slot(1).node or "")
        realm.after(30)
    assert [realm.slot(index).revision for index in (0, 1)] == [2, 1]
    assert realm.view.services["web"].refusal() is None
    waits = waits_for(sight(realm).governing, key(1))
    assert waits is not None
    assert (waits.code, waits.next) == ("rollout.failed", "dsmt why web/app/0")
    realm.status(key(), realm.slot().node or "")
    realm.settle(seconds=10)
    assert realm.slot(1).revision == 2


def told(realm: Realm, revision: int) -> str:
    """What who waits for a revision is told in the end."""
    with pytest.raises(FailedError) as found:
        wait(settling.settled, applied(revision))
    assert found.value.code == "wait.opposed"
    return f"{found.value.message} {found.value.next}"


def test_who_waits_for_a_revision_is_told_that_it_is_to_be_tried_where_it_is_stopped(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`apply --wait` waited without end, and said `0 of 1`."""
    realm.apply(web(2).replace("./app", "./next"))
    realm.step()
    held(realm)
    assert [realm.slot(index).revision for index in (0, 1)] == [2, 1]
    row, _ = instances(sight(realm), WEB)
    assert row.held is not None
    assert screens.held(row.held, realm.now_ms).endswith("; r2 goes no further until this is started")
    seen(realm, monkeypatch)
    by = f'by root on {realm.slot().node} with --local: "disk smokes"'
    assert told(realm, 2) == (
        f"web r2 is not ready, and goes no further: web/app/0, in which it was tried, was stopped {by}"
        " dsmt start web/app/0 lets it go on; dsmt rollback web gives it up"
    )


def test_so_is_who_waits_for_one_that_was_good_in_another_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle(seconds=1)
    realm.after(100)
    realm.apply(web(3).replace("./app", "./next"))
    realm.step()
    realm.status(key(0), realm.slot(0).node or "")
    realm.after(60)
    realm.step()
    held(realm, 1)
    assert [realm.slot(index).revision for index in range(3)] == [2, 2, 1]
    seen(realm, monkeypatch)
    assert "goes no further: web/app/1" in told(realm, 2)


def test_who_waits_for_a_restart_is_told_who_keeps_the_others_waiting(realm: Realm) -> None:
    """`restart --wait` waited without end, and said `0 of 1`."""
    for index in (0, 1):
        realm.control(key(index), restart=1, restart_of="aa")
    words = asked(realm)
    realm.step()
    held(realm)
    assert realm.after(30).step() == []
    assert [realm.slot(index).restart for index in (0, 1)] == [1, 0]
    with pytest.raises(TimedOutError) as found:
        heed("restart", words)
    said = f'it waits until web/app/0 is started, which is held by root on {realm.slot().node} with --local: "disk smokes"'
    assert said in found.value.message
    realm.hold(key())  # what an operator holds for all to see keeps nobody waiting
    with pytest.raises(TimedOutError) as found:
        heed("restart", words)
    assert "it waits" not in found.value.message
    realm.step()
    assert realm.slot(1).restart == 1


def test_where_its_node_dies_it_begins_elsewhere_and_is_held_no_more(realm: Realm) -> None:
    node = realm.slot().node or ""
    realm.close(node)
    realm.settle(seconds=1)
    assert realm.slot().node not in (node, None)
    assert all(row.held is None for row in instances(sight(realm), WEB))


def test_start_names_the_stop_that_it_ends_and_restarts_nothing(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    done = start(realm, monkeypatch)
    slot = realm.view.slot(key())
    assert slot is not None
    assert slot.control is not None
    assert (slot.control.record.lifts, slot.control.record.restart, slot.control.record.by) == ("aa", 0, "alice")
    assert (done.instances, done.unchanged, done.because) == (["web/app/0"], ["web/app/1"], {"web/app/1": "it was not held"})
    assert realm.settle(obey=False) == [], "its agent hears that by itself"
    again = start(realm, monkeypatch)
    said = f"it starts when its agent on {realm.slot().node} hears that it is let go"
    assert (again.instances, again.because["web/app/0"]) == ([], said)


def test_a_stop_of_both_kinds_ends_by_one_word(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    start(realm, monkeypatch, controlling.stop)
    slot = realm.view.slot(key())
    assert slot is not None
    assert slot.hold is not None
    start(realm, monkeypatch)
    assert slot.control is not None
    assert (slot.control.record.hold, slot.control.record.lifts) == (None, "aa")


def test_a_restart_of_what_is_stopped_there_is_refused(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    held(realm, 1)
    with pytest.raises(RefusedError, match=r'web is stopped: held by root on n. with --local: "disk smokes"'):
        start(realm, monkeypatch, controlling.restart)


def asked(realm: Realm) -> Any:
    found = {}
    for index in (0, 1):
        entry = realm.view.slot(key(index))
        assert entry is not None
        found[str(key(index))] = asked_of(sight(realm), key(index), following(entry), entry.followed_control[0])
    return found


def heed(action: str, words: Any) -> Any:
    return wait(heeding.heeded, WEB, action, words)


def test_who_waits_for_others_leaves_it_out_and_who_starts_it_waits_for_it(realm: Realm) -> None:
    assert [row.instance for row in heed("restart", asked(realm)).instances] == ["web/app/1"]
    realm.control(key(), lifts="aa")
    words = asked(realm)
    with pytest.raises(TimedOutError):
        heed("start", words)
    realm.status(key(), realm.slot().node or "")
    assert len(heed("start", words).instances) == 2


def test_who_waits_is_told_that_it_was_stopped_there_meanwhile(realm: Realm) -> None:
    words = asked(realm)
    held(realm, 1)
    with pytest.raises(FailedError, match=r"web/app/1 was stopped meanwhile.*held by root on n. with --local"):
        heed("restart", words)


def test_what_is_begun_again_on_its_node_was_not_begun_by_the_start_of_its_manager() -> None:
    """Whose manager was begun anew since it was placed, as by an upgrade, was said to have been started anew itself."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    realm.after(5).session("node/n1", "open", incarnation=realm.now_ms)
    before = realm.after(5).now_ms
    held(realm)
    realm.after(5)
    last = LastExit(code=None, signal="SIGTERM", at_ms=before, ran_s=10.0, reason=None)
    realm.status(key(0), "n1", State.RUNNING, last_exit=last)
    for target in ("web", "web/app/0"):
        assert explain(realm, target).says.endswith(', because web is r1, applied by alice: "a test"')


def test_what_all_see_held_stays_so_where_that_word_was_lost_and_it_is_moved_and_ends_where_it_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The slot's fact alone tells of it: what was moved began to run, and what was started did not."""
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.settle(seconds=1)
    start(realm, monkeypatch, controlling.stop)
    realm.settle(seconds=1)
    for act, desired in ((move, "stopped"), (controlling.start, "running")):
        later = without_controls(realm)
        assert start(later, monkeypatch, act).instances == ["web/app/0"]
        later.settle(seconds=20)
        assert later.slot().desired == desired
