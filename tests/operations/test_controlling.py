"""What an operator says of a slot, after what was said before."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.status import Layer, State
from dsmt.operations.words.targets import Target
from dsmt.operations.write import applying, controlling
from tests.controllers.build import Realm, key, web

from .sights import sight

DATA = "data: true\n"
Act = Callable[..., Coroutine[Any, Any, object]]
Words = Callable[..., SlotControl]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """Says something of the one slot of a realm by a real operation; what was said."""
    here: list[Realm] = []

    async def look(_bus: object, *_: object) -> object:
        return sight(here[-1])

    async def say_word(_bus: object, _sight: object, drafts: list[Any]) -> None:
        for draft in drafts:
            replaces = None if draft.replaces is None else draft.replaces.id
            here[-1].say("operator/alice", draft.topic, draft.data, version=draft.version, replaces=replaces)

    def said(realm: Realm, act: Act, **about: object) -> SlotControl:
        here.append(realm)
        asyncio.run(act(SimpleNamespace(now_ms=lambda: realm.now_ms), Target("web"), by="alice", reason="", **about))
        entry = realm.view.slot(key())
        assert entry is not None
        assert entry.control is not None
        return entry.control.record

    for name in ("look", "look_at"):
        monkeypatch.setattr(controlling, name, look)
    monkeypatch.setattr(controlling, "say_word", say_word)
    return said


move = partial(controlling.move, to=None, accept_data_loss=False)


def running(component: str = "") -> Realm:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component=component))
    realm.settle(seconds=1)
    return realm.after(100)


@pytest.mark.parametrize("act", [controlling.restart, controlling.stop, controlling.start])
def test_a_move_that_is_not_done_stands_whatever_else_is_said(words: Words, act: Act) -> None:
    realm = running()
    node = realm.slot().node
    words(realm, move)
    words(realm, act)
    realm.settle(seconds=1)
    assert realm.slot().node != node
    assert realm.slot().desired == ("stopped" if act is controlling.stop else "running")
    assert bool(realm.slot().restart) == (act is controlling.restart)


def test_what_is_held_stays_held_by_the_first_word_whoever_stops_it_again(words: Words) -> None:
    realm = running()
    first = words(realm, controlling.stop)
    assert words(realm.after(5), controlling.stop) == first


def test_a_move_that_is_done_is_not_said_again(words: Words) -> None:
    realm = running()
    number = words(realm, move).move_number
    realm.settle(seconds=1)
    said = SlotControl(restart=realm.now_ms, restart_of=f"alice {realm.now_ms}", move_number=number, by="alice")
    assert words(realm, controlling.restart) == said
    assert words(realm, move).move_number == realm.now_ms
    assert words(realm, move).move_number == realm.now_ms + 1, "two of one moment are two moves"


def test_a_move_to_any_other_node_names_the_one_that_is_to_be_left_also_while_there_is_no_place(words: Words) -> None:
    realm = running()
    node = realm.slot().node
    assert words(realm, move).leave == node
    realm.say("controller/c1", "service/web/slot/app/0", msgspec.structs.replace(realm.slot(), node=None))
    assert words(realm, move).leave == node
    assert words(realm, move, to="n2").leave == ""


def test_a_move_of_what_was_made_anew_at_once_leaves_the_node_where_it_runs_still(words: Words) -> None:
    """No fact says where it is yet: it is taken over where it runs, which is not what was asked for."""
    realm = Realm("n1", "n2")
    realm.status(key(0), "n2", State.INSTALLED, layer=Layer.CONTAINER, generation=7, orphan=True)
    realm.apply(web(1))
    assert words(realm, move).leave == "n2"
    realm.settle(seconds=5)
    assert realm.slot().node == "n1"


@pytest.mark.parametrize("act", [controlling.restart, move])
def test_what_has_no_node_is_said_to_wait_for_one(words: Words, act: Act) -> None:
    """It was promised to be restarted, or moved, and nothing else was said."""
    told = list[Any]()

    async def heard(*args: Any, **about: Any) -> object:
        told.append(await act(*args, **about))
        return told[-1]

    words(running(), heard)
    assert told[-1].warnings == []
    nowhere = Realm()
    nowhere.apply(web(2))
    nowhere.settle(seconds=1)
    nowhere.hold(key(1))
    words(nowhere, heard)
    which = "web/app/0 has" if act is controlling.restart else "web/app/0, web/app/1 have"
    assert told[-1].warnings == [f"{which} no node yet: that comes first; dsmt why-not web/app/0"]


def test_a_move_that_cannot_be_made_yet_says_so_at_once(words: Words) -> None:
    realm, told = running(), list[Any]()

    async def moved(*words_: Any, **about: Any) -> None:
        told.append(await controlling.move(*words_, accept_data_loss=False, **about))

    node = realm.slot().node or ""
    target = "n2" if node != "n2" else "n3"
    realm.control_node(target, "excluded")
    words(realm, moved, to=target)
    words(realm, moved, to=None)
    assert [one.warnings for one in told] == [[f"web/app/0 goes to {target} once it can: {target} is excluded"], []]


def test_a_move_that_waits_ends_with_one_to_where_the_slot_is_which_leaves_no_data_behind(words: Words) -> None:
    realm = running(DATA)
    node = realm.slot().node
    target = "n2" if node != "n2" else "n3"
    realm.control_node(target, "excluded")
    with pytest.raises(InputError, match="nothing was done") as refused:
        words(realm, move, to=target)
    assert refused.value.next == f"dsmt move web --to {target} --accept-data-loss, if the data may be lost"
    words(realm, move, to=target, accept_data_loss=True)
    number = words(realm, move, to=node).move_number
    realm.settle(seconds=1)
    realm.control_node(target, "active")
    realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().move_number) == (node, number)


def test_data_that_may_be_gone_back_to_is_left_behind_only_by_a_word_of_an_operator(words: Words) -> None:
    realm = running(DATA)
    node = realm.slot().node
    realm.apply(web(1, component="env: {A: b}\n"))
    realm.step()
    assert realm.slot().revision == 2
    with pytest.raises(InputError, match=f"has its data on {node}, and would begin elsewhere without it"):
        words(realm, move)
    words(realm, move, accept_data_loss=True)
    realm.settle(seconds=1)
    assert realm.slot().node != node
    realm.after(100)
    number = realm.slot().move_number
    assert words(realm, move).move_number > number, "what is good keeps no data"


def test_of_a_service_that_is_being_removed_it_is_said_so(words: Words) -> None:
    realm = running()
    realm.apply(web(1), removed=True)
    for _ in range(2):  # while its instances end, and when they are to be none
        with pytest.raises(NotFoundError) as told:
            applying.current(sight(realm), "web")
        assert (told.value.message, told.value.code) == ("web is being removed", "service.removed")
        assert "dsmt apply begins it anew" in told.value.next
        realm.step()
    with pytest.raises(NotFoundError, match="web is being removed"):
        words(realm, controlling.start)


@pytest.mark.parametrize("component", ["", DATA], ids=["without data", "with data"])
def test_a_move_to_where_it_is_says_so_and_does_nothing(words: Words, component: str) -> None:
    told: list[controlling.Done] = []

    async def act(*args: Any, **about: Any) -> None:
        told.append(await move(*args, **about))

    realm = running(component)
    node = realm.slot().node or ""
    before = words(realm, controlling.restart)
    assert words(realm, act, to=node) == before
    assert (told[0].instances, told[0].unchanged) == ([], ["web/app/0"])
    assert told[0].because == {"web/app/0": f"it is on {node} already"}


def test_whose_data_stays_behind_is_told(words: Words) -> None:
    told: list[dict[str, str]] = []

    async def act(*args: Any, **about: Any) -> None:
        told.append((await move(*args, **about)).data)

    realm = running(DATA)
    node = realm.slot().node or ""
    words(realm, controlling.restart)
    words(realm, act, to=node)
    words(realm, act, accept_data_loss=True)
    words(running(), act)
    assert told == [{}, {"web/app/0": node}, {}]


def without_controls(realm: Realm) -> Realm:
    """What a broker knows that has lost what operators said of slots."""
    later = Realm()
    later.now_ms = realm.now_ms
    for _, event in realm.rows:
        if "/control/" not in event.event.topic:
            later.view.apply(event)
    return later


def test_numbers_go_on_from_what_is_done_where_the_former_will_was_lost(words: Words) -> None:
    realm = running()
    number = words(realm, move).move_number
    realm.settle(seconds=1)
    last = [words(realm, controlling.restart).restart for _ in range(4)][-1]
    realm.settle(seconds=20)
    later = without_controls(realm)
    later.now_ms = last - 2
    said = SlotControl(restart=last + 1, restart_of=f"alice {later.now_ms}", move_number=number, by="alice")
    assert words(later, controlling.restart) == said


@pytest.mark.parametrize("later", [True, False])
def test_a_restart_that_was_asked_for_later_on_the_other_side_of_a_partition_is_done_where_it_stands(
    words: Words, later: bool
) -> None:
    """The side with the program has done its own. Where that was asked for later, it is what the other side asked for."""
    here, there = running(), running()
    first, second = (here, there) if later else (there, here)
    words(first, controlling.restart)
    second.now_ms += 1_000
    words(second, controlling.restart)
    here.settle(seconds=5)
    entry, done = there.view.slot(key()), here.slot().restart
    assert entry is not None
    assert entry.control is not None
    here.say("operator/bob", key().control_topic, entry.control.record, version=2, time_ms=entry.control.time_ms)
    here.settle(seconds=5)
    assert (here.slot().restart != done) is later


def test_a_word_after_one_that_was_lost_goes_on_from_that_and_is_done(words: Words) -> None:
    realm = running()
    for act in (controlling.restart, controlling.stop, controlling.start):
        words(realm, act)
        realm.settle(seconds=1)
    later = without_controls(realm)
    node = later.slot().node
    words(later, move)
    assert later.view.slot(key()).control.version == 4
    later.settle(seconds=1)
    assert later.slot().node != node


def test_one_of_each_node_is_moved_only_to_what_is_another_machine_under_the_name_of_its_node(words: Words) -> None:
    realm = Realm()
    realm.node("n1", key="key of n1")
    realm.apply(web("each_node", component=DATA))
    realm.settle(seconds=1)
    with pytest.raises(RefusedError, match="runs on every node"):
        words(realm, move, accept_data_loss=True)
    realm.node("n2", key="key of n2")
    realm.attributes("n1", key="a new one")
    with pytest.raises(InputError, match="has its data on n1, and would begin on another machine of that name without it"):
        words(realm, move)
    with pytest.raises(RefusedError, match="runs on every node"):
        words(realm, move, to="n2", accept_data_loss=True)
    said = words(realm, move, accept_data_loss=True)
    assert (said.move, said.leave) == ("n1", "")
    realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().home.key) == ("n1", "a new one")
    assert realm.slot().move_number == said.move_number


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Realm, Act], tuple[Any, list[Any]]]:
    """What an operation answers, and what it says."""

    def ask(realm: Realm, act: Act) -> tuple[Any, list[Any]]:
        said: list[Any] = []

        async def look(_bus: object, *_: object) -> object:
            return sight(realm)

        async def say(*drafts: Any) -> None:
            said.extend(drafts[-1])

        for name in ("look", "look_at"):
            monkeypatch.setattr(controlling, name, look)
        for saying in ("say", "say_word"):
            monkeypatch.setattr(controlling, saying, say)
        bus = SimpleNamespace(source="operator/alice", now_ms=lambda: realm.now_ms)
        return asyncio.run(act(bus, Target("web"), by="alice", reason="new disk")), said

    return ask


def test_a_retry_of_what_waits_keeps_its_reason_and_of_what_does_not_says_so(asked: Any) -> None:
    realm = running()
    done, said = asked(realm, controlling.retry)
    assert (done.instances, said) == ([], [])
    assert done.because == {"web/app/0": "it does not wait for another try: it is running"}
    realm.status(key(), realm.slot().node or "", failures=2)  # before it was begun with success
    assert asked(realm, controlling.retry) == (done, [])
    realm.status(key(), realm.slot().node or "", State.FAILED, next_try_ms=realm.now_ms + 9_000, failures=3)
    done, (draft,) = asked(realm, controlling.retry)
    assert (done.instances, done.because) == (["web/app/0"], {})
    assert draft.data["verb"] == "RETRY"
    assert draft.data["arguments"] == {"by": "alice", "reason": "new disk"}
    realm.status(key(), realm.slot().node or "", State.INITIATED, failures=3)
    done, _ = asked(realm, controlling.retry)
    assert done.instances == ["web/app/0"], "it is tried again, and has not come far yet"


def test_a_retry_does_not_run_again_what_has_ended_well(asked: Any) -> None:
    realm = running("restart: never\n")
    last = {"code": 0, "signal": None, "at_ms": realm.now_ms, "ran_s": 1.0, "reason": None}
    realm.status(key(), realm.slot().node or "", State.FAILED, last_exit=last, failures=3, good=realm.slot().implements)
    done, said = asked(realm, controlling.retry)
    assert (done.instances, said) == ([], [])
    assert done.because == {"web/app/0": "it has ended well; dsmt restart web/app/0 runs it again"}


def test_a_restart_of_what_is_held_is_refused_with_what_to_do(asked: Any) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.hold(key(0))
    realm.settle(seconds=1)
    done, said = asked(realm, controlling.restart)
    assert [draft.subject for draft in said] == ["web/app/1"]
    assert done.because["web/app/0"].endswith("dsmt start web/app/0")
    realm.hold(key(1))
    realm.settle(seconds=1)
    with pytest.raises(RefusedError, match="web is stopped: held by") as refused:
        asked(realm, controlling.restart)
    assert refused.value.next == "dsmt start web"


def test_a_start_asks_for_a_restart_too_for_an_agent_that_was_away_has_seen_no_stop(asked: Any) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.hold(key(0))
    realm.settle(seconds=1)
    _, (draft,) = asked(realm, controlling.start)
    assert (draft.subject, draft.data.get("hold"), draft.data["restart"]) == ("web/app/0", None, realm.now_ms)


def test_a_command_says_by_which_of_its_words_a_wait_for_it_is_done(words: Words) -> None:
    realm, told = running(), list[controlling.Done]()

    def kept(act: Act, **more: Any) -> Act:
        async def acted(*given: Any, **about: Any) -> object:
            told.append(await act(*given, **about, **more))  # type: ignore[arg-type]
            return told[-1]

        return acted

    number = words(realm, kept(move)).move_number
    (asked,) = told[-1].asked.values()
    assert (asked.version, asked.held, asked.move_number, asked.restart) == (1, False, number, 0)
    realm.settle(seconds=1)
    realm.after(10)
    restarted = words(realm, kept(controlling.restart)).restart
    (asked,) = told[-1].asked.values()
    assert (asked.version, asked.move_number, asked.restart) == (2, number, restarted)
    words(realm, kept(move, to=realm.slot().node))
    assert (told[-1].instances, told[-1].unchanged) == ([], ["web/app/0"])
    assert [one.version for one in told[-1].asked.values()] == [2], "the word before stands"
    words(realm, kept(controlling.stop))
    assert [(one.version, one.held) for one in told[-1].asked.values()] == [(3, True)]
    realm.settle(seconds=1)
    words(realm, kept(controlling.retry))
    assert [(one.version, one.held) for one in told[-1].asked.values()] == [(3, True)]
