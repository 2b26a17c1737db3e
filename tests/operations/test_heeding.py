"""Heeding: a wait for what a command asked ends as that ended, whatever another operator says meanwhile."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest

from dsmt.errors import FailedError, TimedOutError, TransportError
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.reason import reason
from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.waits import heeding, lasting, leaving, waiting
from dsmt.operations.read.waits.heeding import Asked, asked_of
from dsmt.operations.words.telling import Tell
from tests.controllers.build import Realm, key, web

from .sights import sight
from .waits import EXITED, WEB, asked, realm, wait

__all__ = ["realm"]

ONE = "web/app/1"


@pytest.fixture
def ready(realm: Realm) -> Realm:
    """Two of web, both ready, and a third node to which they can go."""
    realm.node("n3")
    realm.status(key(1), realm.slot(1).node or "")
    return realm


def said(realm: Realm, **will: Any) -> dict[str, Asked]:
    """What stands of both once a command was given; `will` is what it says of the second."""
    realm.control(key(1), **will)
    return asked(realm)


def heeded(action: str, words: Mapping[str, Asked]) -> Any:
    return wait(heeding.heeded, WEB, action, words)


def stop(realm: Realm) -> None:
    realm.hold(key(1))


def scale(realm: Realm) -> None:
    realm.apply(web(1))


def remove(realm: Realm) -> None:
    realm.apply(web(2), removed=True)


HELD = r"web/app/1 was stopped meanwhile, before it was {goal}: held by alice: \"a test\"; what was asked of the others"
OTHER = "web/app/1 was told meanwhile to move to n1, before it was moved and ready; what was asked of the others"
AWAY = r"web/app/1 is wanted no more, by r2 of web, before it was {goal}; what was asked of the others"
GONE = r"web was removed meanwhile, before web/app/0, web/app/1 were {goal}"
BEGUN = {"start": "ready", "restart": "restarted and ready", "retry": "ready", "move": "moved and ready"}


@pytest.mark.parametrize("action", BEGUN)
@pytest.mark.parametrize(
    "row",
    [
        (stop, HELD, "wait.opposed", "dsmt start web/app/1"),
        (scale, AWAY, "wait.unwanted", "dsmt history web"),
        (remove, GONE, "wait.unwanted", "dsmt history web"),
    ],
    ids=["stop", "scale", "remove"],
)
@pytest.mark.parametrize("later_s", [0, 30])
def test_a_wait_ends_when_another_operator_has_stopped_scaled_away_or_removed_what_it_waits_for(
    ready: Realm, action: str, row: tuple[Callable[[Realm], None], str, str, str], later_s: int
) -> None:
    second, told, code, then = row
    moves = {"move": "n3"} if action == "move" else {"restart": ready.now_ms}
    words = said(ready, **moves)
    second(ready)
    if later_s:  # also where nothing is left of it
        ready.settle(seconds=later_s)
    with pytest.raises(FailedError, match=told.format(goal=BEGUN[action])) as failed:
        heeded(action, words)
    assert (failed.value.code, failed.value.next) == (code, then)


@pytest.mark.parametrize("second", [scale, remove])
def test_a_wait_for_a_stop_ends_when_what_it_waits_for_is_to_end(ready: Realm, second: Callable[[Realm], None]) -> None:
    words = asked(stopped(ready))
    second(ready)
    with pytest.raises(FailedError, match=r"(web/app/1 is wanted no more, by r2|web was removed).* before .* stopped"):
        heeded("stop", words)


def stopped(realm: Realm) -> Realm:
    for index in range(2):
        realm.hold(key(index))
    return realm


def test_a_stop_of_all_by_another_operator_is_said_of_all(ready: Realm) -> None:
    words = said(ready, restart=ready.now_ms)
    stopped(ready)
    with pytest.raises(
        FailedError, match="web/app/0, web/app/1 were stopped meanwhile, before they were restarted and ready: held"
    ) as failed:
        heeded("restart", words)
    assert failed.value.next == "dsmt start web"


@pytest.mark.parametrize("later_s", [0, 30])
def test_a_move_is_done_with_its_own_word_and_not_with_a_later_one(ready: Realm, later_s: int) -> None:
    words = said(ready, move="n3")
    with pytest.raises(TimedOutError, match="web is not moved and ready after"):
        heeded("move", words)
    ready.settle(seconds=1)
    assert ready.slot(1).node == "n3"
    assert heeded("move", words).reached
    ready.control(key(1), move="n1")
    if later_s:
        ready.settle(seconds=later_s)
        assert ready.slot(1).node == "n1"
    with pytest.raises(FailedError, match=OTHER) as failed:
        heeded("move", words)
    assert (failed.value.code, failed.value.next) == ("wait.opposed", "dsmt why web/app/1")


def test_a_later_word_that_moves_nothing_does_not_end_the_wait_for_a_move(ready: Realm) -> None:
    words = said(ready, move="n3")
    number = words[ONE].move_number
    ready.control(key(1), move="n3", move_number=number, restart=ready.now_ms)
    ready.settle(seconds=1)
    assert heeded("move", words).reached


def test_a_word_with_an_older_number_than_its_slot_has_moved_by_does_not_end_the_wait_for_a_move(ready: Realm) -> None:
    """The word by which it was moved is lost, as on a broker's disk: the word before it is no later one."""
    ready.control(key(1), move="n3")
    ready.settle(seconds=1)
    moved = ready.slot(1)
    ready.say("controller/c1", "service/web/slot/app/1", msgspec.structs.replace(moved, move_number=moved.move_number + 5))
    ready.status(key(1), "n3")
    assert heeded("move", asked(ready)).reached


def test_a_move_of_what_is_held_is_left_out_unless_nothing_else_is_moved(ready: Realm) -> None:
    ready.hold(key(1))
    ready.settle(seconds=1)
    ready.control(key(1), move="n3", hold=ready.view.slot(key(1)).hold)  # type: ignore[union-attr]
    words = asked(ready)
    assert [row.instance for row in heeded("move", words).instances] == ["web/app/0"]
    alone = {ONE: words[ONE]}
    with pytest.raises(TimedOutError, match="web is not moved and stopped after"):
        heeded("move", alone)
    ready.settle(seconds=1)
    assert ready.slot(1).node == "n3"
    assert [row.instance for row in heeded("move", alone).instances] == [ONE]


def test_a_restart_is_done_with_its_own_number_and_a_later_one_is_not_waited_for(ready: Realm) -> None:
    words = said(ready, restart=ready.now_ms)
    with pytest.raises(TimedOutError, match="web is not restarted and ready after"):
        heeded("restart", words)
    ready.settle(seconds=60)
    ready.control(key(1), restart=ready.now_ms)
    assert heeded("restart", words).reached


def test_what_is_scaled_up_meanwhile_is_not_waited_for(ready: Realm) -> None:
    words = said(ready, restart=ready.now_ms)
    ready.settle(seconds=60)
    ready.apply(web(3))
    assert [row.instance for row in heeded("restart", words).instances] == ["web/app/0", "web/app/1"]


def test_a_wait_of_nothing_is_never_done(ready: Realm) -> None:
    for action in (*BEGUN, "stop"):
        with pytest.raises(TimedOutError):
            wait(heeding.heeded, WEB, action, {})
    ready.status(key(1), ready.slot(1).node or "", State.GONE)
    with pytest.raises(TimedOutError):
        heeded("restart", asked(ready))


def test_what_runs_on_each_node_is_wanted_no_more_where_its_own_is_drained(realm: Realm) -> None:
    realm.apply(web("each_node"))
    realm.settle(seconds=1)
    node = realm.slot(1).node or ""
    words = said(realm, restart=realm.now_ms)
    realm.control_node(node, "draining")
    realm.settle(seconds=1)
    with pytest.raises(FailedError, match="web/app/1 is wanted no more, before it was restarted and ready; what"):
        heeded("restart", words)


@pytest.mark.parametrize("action", ["start", "restart", "move"])
def test_what_parks_as_it_was_begun_ends_the_wait_for_it(ready: Realm, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    def parked() -> None:
        ready.status(key(1), ready.slot(1).node or "", State.FAILED, reason=EXITED, parked=True)

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for _ in range(3):
            yield sight(ready.after(lasting.PARKED_MS / 2000))
            parked()

    monkeypatch.setattr(waiting, "watch", watch)
    words = said(ready, **({"move": "n3"} if action == "move" else {"restart": ready.now_ms}))
    parked()
    with pytest.raises(TransportError, match="web is not"):  # it was parked before, and nothing was begun since
        heeded(action, words)
    ready.settle(seconds=1)
    parked()
    with pytest.raises(FailedError, match=r"web/app/1 is parked: exited with code 3 .*; dsmt does nothing more") as failed:
        heeded(action, words)
    assert failed.value.code == "wait.failed"


def test_what_was_parked_before_its_agent_heard_of_a_restart_does_not_end_the_wait_for_it(
    ready: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller has decided it; what its agent says is of the generation before."""
    generation = ready.view.slot(key(1)).fact.version  # type: ignore[union-attr]

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        for _ in range(3):
            yield sight(ready.after(lasting.PARKED_MS / 2000))
            parked()

    def parked() -> None:
        node = ready.slot(1).node or ""
        ready.status(key(1), node, State.FAILED, reason=EXITED, parked=True, generation=generation)

    monkeypatch.setattr(waiting, "watch", watch)
    words = said(ready, restart=ready.now_ms)
    ready.settle(seconds=1, obey=False)
    assert ready.slot(1).restart == words[ONE].restart
    parked()
    with pytest.raises(TransportError, match="web is not restarted and ready"):
        heeded("restart", words)


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("n3", "web/app/1 goes to n3 once it can: n3 is excluded"),
        ("", "web/app/1 goes once there is another place: no node fits: 0 of 3 pass every clause"),
    ],
)
def test_a_move_that_cannot_be_made_yet_says_why_in_the_wait_for_it(ready: Realm, to: str, why: str) -> None:
    node = ready.slot(1).node or ""
    for other in {"n1", "n2", "n3"} - {node}:
        ready.control_node(other, "excluded")
    words = said(ready, move=to, leave="" if to else node)
    with pytest.raises(TimedOutError, match=why):
        heeded("move", words)
    ready.control_node("n3", "active")
    with pytest.raises(TimedOutError) as late:
        heeded("move", words)
    assert "web/app/1 goes" not in str(late.value)


def test_what_a_broker_has_not_heard_of_yet_is_neither_removed_nor_gone(
    ready: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits goes on at another broker while theirs is away."""
    words, told = asked(ready), list[str]()

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(Realm("n1"))

    monkeypatch.setattr(waiting, "watch", watch)
    unmet = "the connection ended, and web is not"
    with pytest.raises(TransportError, match=f"{unmet} restarted and ready"):
        wait(heeding.heeded, WEB, "restart", words, tell=told.append)

    async def ended(bus: Any, *, limit_s: float, tell: Tell) -> Any:
        return await leaving.gone(bus, "web", epoch=1, limit_s=limit_s, tell=tell)

    with pytest.raises(TransportError, match=f"{unmet} gone"):
        wait(ended, tell=told.append)
    assert [text.rpartition(": ")[2] for text in told] == ["broker b1 has not heard of it yet"] * 2


def test_nothing_is_wanted_no_more_where_a_broker_knows_an_earlier_revision_alone(
    ready: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.apply(web(3))
    ready.settle(seconds=1)
    third, told = SlotKey("web", "app", 2), list[str]()
    words = {str(third): asked_of(sight(ready), third, SlotControl(restart=1), 1)}
    behind = Realm("n1", "n2", "n3")
    behind.apply(web(2))

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(behind)

    monkeypatch.setattr(waiting, "watch", watch)
    with pytest.raises(TransportError, match="the connection ended, and web is not restarted and ready"):
        wait(heeding.heeded, WEB, "restart", words, tell=told.append)
    assert [text.rpartition(": ")[2] for text in told] == ["broker b1 has not heard of it yet"]


def test_who_waits_for_the_end_of_a_service_hears_what_it_leaves_behind(
    ready: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = reason("stop.leftover", error="its command ended with code 3", path="/srv/x")
    node = ready.slot(1).node or ""
    ready.status(key(1), node, State.GONE, reason=why)

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(ready)
        yield sight(Realm("n1"))

    async def ended(bus: Any, *, limit_s: float, tell: Tell) -> Any:
        return await leaving.gone(bus, "web", limit_s=limit_s, tell=tell)

    monkeypatch.setattr(waiting, "watch", watch)
    assert wait(ended).because == f"web/app/1 on {node}: {why.message}"
