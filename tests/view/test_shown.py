"""The one word that operators see, folded from the layers' words (docs/reference/topics.md)."""

from typing import Any

import pytest

from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import reason
from dsmt.event.status import Layer, Shown, State
from dsmt.view import SlotKey
from dsmt.view.entries import SlotEntry
from dsmt.view.shown import decisive, shown, silent_for
from tests.controllers.build import Realm, web

KEY = SlotKey("web", "app", 0)
A, G, C = Layer.APPLICATION, Layer.AGENT, Layer.CONTAINER


def placed() -> Realm:
    """A realm in which web/app/0 was given to n1, and n1 has said nothing of it."""
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.step()
    return realm


def entry(realm: Realm) -> Any:
    found = realm.view.slot(KEY)
    assert found is not None
    return found


def node(realm: Realm) -> str:
    return entry(realm).fact.record.node


@pytest.mark.parametrize(
    ("layers", "about", "word"),
    [
        ([(C, State.SELECTED)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLING)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED), (G, State.INITIATED)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED), (G, State.RUNNING)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED), (G, State.RUNNING), (A, State.REQUESTED)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED), (G, State.RUNNING), (A, State.INITIATED)], {}, Shown.INSTALLING),
        ([(C, State.INSTALLED), (G, State.RUNNING), (A, State.INSTANTIATED)], {}, Shown.STARTING),
        ([(C, State.INSTALLED), (G, State.RUNNING), (A, State.RUNNING)], {}, Shown.RUNNING),
        ([(G, State.FAILED), (A, State.RUNNING)], {}, Shown.RUNNING),
        ([(A, State.FAILED)], {"next_try_ms": 1}, Shown.BACKOFF),
        ([(A, State.FAILED)], {"next_try_ms": 1, "parked": True}, Shown.PARKED),
        ([(A, State.FAILED)], {}, Shown.FAILED),
        ([(C, State.FAILED)], {"next_try_ms": 1}, Shown.BACKOFF),
        ([(G, State.FAILED)], {"next_try_ms": 1}, Shown.BACKOFF),
        ([(A, State.TERMINATED)], {}, Shown.STOPPING),
        ([(A, State.STOPPED)], {}, Shown.STOPPED),
        ([(A, State.GONE)], {}, Shown.GONE),
        ([(C, State.GONE), (A, State.GONE)], {}, Shown.GONE),
    ],
)
def test_the_layers_words_are_folded_into_one(layers: list[tuple[Layer, State]], about: dict[str, Any], word: Shown) -> None:
    realm = placed()
    for layer, state in layers:
        realm.status(KEY, node(realm), state, layer=layer, alone=True, **about)
    assert shown(entry(realm), node(realm)).state is word


def test_a_slot_whose_node_has_not_answered_waits() -> None:
    realm = placed()
    assert shown(entry(realm), node(realm)).state is Shown.WAITING
    assert shown(entry(realm), None).state is Shown.WAITING


def test_the_end_of_an_older_generation_is_not_the_present_ones() -> None:
    realm = placed()
    realm.status(KEY, node(realm), State.GONE, generation=0, alone=True)
    assert shown(entry(realm), node(realm)).state is Shown.WAITING


def test_what_still_runs_of_an_older_generation_is_shown_as_running() -> None:
    realm = placed()
    realm.status(KEY, node(realm), State.RUNNING, generation=0, alone=True)
    assert shown(entry(realm), node(realm)).state is Shown.RUNNING


def test_on_a_dead_node_what_ran_is_lost_and_what_was_stopped_is_not() -> None:
    realm = placed()
    realm.status(KEY, node(realm), State.RUNNING)
    seen = shown(entry(realm), node(realm), lost_since_ms=17)
    assert (seen.state, seen.since_ms) == (Shown.LOST, 17)
    realm.status(KEY, node(realm), State.STOPPED)
    assert shown(entry(realm), node(realm), lost_since_ms=17).state is Shown.STOPPED


def test_a_silent_source_makes_a_running_instance_lost() -> None:
    realm = placed()
    realm.status(KEY, node(realm), State.RUNNING)
    assert shown(entry(realm), node(realm), silent_since_ms=5).state is Shown.LOST


def test_a_job_that_ended_well_is_done() -> None:
    realm = placed()
    last = LastExit(code=0, signal=None, at_ms=1, ran_s=1.0, reason=None)
    realm.status(KEY, node(realm), State.STOPPED, last_exit=last)
    assert shown(entry(realm), node(realm), job=True).state is Shown.DONE
    assert shown(entry(realm), node(realm)).state is Shown.STOPPED


@pytest.mark.parametrize(
    ("code", "about", "word"),
    [
        (0, {}, Shown.DONE),
        (1, {}, Shown.FAILED),
        (None, {}, Shown.FAILED),
        (0, {"next_try_ms": 5}, Shown.BACKOFF),
        (0, {"parked": True}, Shown.PARKED),
    ],
)
def test_what_has_ended_well_and_is_not_run_again_is_done(code: int | None, about: dict[str, Any], word: Shown) -> None:
    realm = placed()
    last = LastExit(code=code, signal=None, at_ms=1, ran_s=1.0, reason=None)
    realm.status(KEY, node(realm), State.FAILED, last_exit=last, **about)
    assert shown(entry(realm), node(realm)).state is word


@pytest.mark.parametrize(
    ("state", "silent_ms", "stale"),
    [
        ("open", 10**9, False),
        (None, 10**9, False),
        ("closed", 89_999, False),
        ("closed", 90_000, True),
        ("silent", 90_000, True),
    ],
)
def test_a_source_is_not_believed_after_three_of_its_rates(state: str | None, silent_ms: int, stale: bool) -> None:
    realm = placed()
    realm.status(KEY, node(realm), State.RUNNING)
    status = shown(entry(realm), node(realm)).status
    assert status is not None
    assert silent_for(status.record, state, 1_000, 1_000 + silent_ms) is stale


@pytest.mark.parametrize(
    ("own", "code", "later_ms", "word"),
    [
        (State.RUNNING, "fetch.no_space", 1, Shown.BACKOFF),
        (State.FAILED, "fetch.no_space", 1, Shown.BACKOFF),
        (State.RUNNING, "fetch.no_space", 0, Shown.RUNNING),
        (State.RUNNING, "run.signal", 1, Shown.RUNNING),
        (State.STOPPED, "fetch.no_space", 1, Shown.STOPPED),
    ],
)
def test_a_later_word_that_no_agent_can_be_begun_decides(own: State, code: str, later_ms: int, word: Shown) -> None:
    realm = placed()
    about = {"parked": True} if own is State.FAILED else {}
    realm.status(KEY, node(realm), own, pid=9879, **about)
    realm.now_ms += later_ms
    realm.status(KEY, node(realm), State.FAILED, layer=G, next_try_ms=realm.now_ms + 5000, reason=reason(code))
    assert shown(entry(realm), node(realm)).state is word
    realm.now_ms += 1
    realm.status(KEY, node(realm), State.RUNNING)
    assert shown(entry(realm), node(realm)).state is Shown.RUNNING, "its agent speaks again"


DECIDED = [
    # the layers' states and generations, the slot's generation, and whose word decides
    ({C: (State.SELECTED, 2), A: (State.RUNNING, 1)}, 2, C),
    ({C: (State.INSTALLING, 1), A: (State.RUNNING, 1)}, 1, A),
    ({C: (State.FAILED, 1), A: (State.RUNNING, 2)}, 2, A),
    ({C: (State.FAILED, 1), A: (State.GONE, 1)}, 1, C),
    ({C: (State.SELECTED, 1), G: (State.RUNNING, 1)}, 1, C),
    ({C: (State.INSTALLED, 1), G: (State.RUNNING, 1)}, 1, G),
    ({C: (State.INSTALLED, 1), G: (State.RUNNING, 1), A: (State.STOPPED, 1)}, 1, A),
    ({C: (State.INSTALLED, 2), G: (State.RUNNING, 2), A: (State.STOPPED, 1)}, 2, G),
    ({C: (State.INSTALLED, 2), G: (State.STOPPED, 1), A: (State.GONE, 1)}, 2, C),
    ({C: (State.GONE, 1), G: (State.RUNNING, 1), A: (State.RUNNING, 1)}, 1, C),
    ({G: (State.STOPPED, 1), A: (State.GONE, 1)}, 2, A),
    ({G: (State.STOPPED, 1)}, 2, G),
    ({C: (State.DESELECTED, 1)}, 1, C),
    ({}, 1, None),
]


@pytest.mark.parametrize(("layers", "generation", "whose"), DECIDED, ids=str)
def test_the_word_nearest_to_the_application_that_is_of_this_generation_decides(
    layers: dict[Layer, tuple[State, int]], generation: int, whose: Layer | None
) -> None:
    realm = Realm("n1")
    for layer, (state, of) in layers.items():
        realm.status(KEY, "n1", state, layer=layer, generation=of, alone=True)
    found = decisive(realm.view.slot(KEY).instances.get("n1"), generation)
    assert (None if found is None else found.record.layer) == whose


def test_a_slot_that_is_gone_is_gone_and_one_of_which_nothing_is_known_waits() -> None:
    assert shown(SlotEntry(), None) == (Shown.WAITING, None, None)
    assert shown(SlotEntry(), "n1", lost_since_ms=5) == (Shown.LOST, 5, None)
    realm = placed()
    at_ms = entry(realm).fact.time_ms
    assert shown(entry(realm), node(realm)) == (Shown.WAITING, at_ms, None)
    assert shown(entry(realm), node(realm), silent_since_ms=5) == (Shown.WAITING, at_ms, None)
    assert shown(entry(realm), node(realm), lost_since_ms=5).state is Shown.LOST
    assert shown(entry(realm), None, lost_since_ms=5).state is Shown.WAITING
    gone = Slot(node=node(realm), spec="operator/alice#1-1", revision=1, desired="gone")
    realm.say("controller/c1", "service/web/slot/app/0", gone)
    assert shown(entry(realm), node(realm)).state is Shown.GONE
    assert shown(entry(realm), node(realm), lost_since_ms=5).state is Shown.GONE
    realm.status(KEY, node(realm), State.STOPPED, generation=1, since_ms=7, alone=True)
    assert shown(entry(realm), node(realm))[:2] == (Shown.STOPPED, 7), "it is not gone yet"


def test_what_is_left_of_an_earlier_generation_on_another_node_is_shown_as_it_is() -> None:
    realm = placed()
    other = next(one for one in ("n1", "n2") if one != node(realm))
    realm.status(KEY, other, State.STOPPED, generation=0, since_ms=7, alone=True)
    assert shown(entry(realm), other)[:2] == (Shown.STOPPED, 7)


def test_a_job_that_ended_badly_is_stopped_and_one_that_runs_is_running() -> None:
    realm = placed()
    for code, state, word in ((1, State.STOPPED, Shown.STOPPED), (0, State.RUNNING, Shown.RUNNING)):
        last = LastExit(code=code, signal=None, at_ms=1, ran_s=1.0, reason=None)
        realm.status(KEY, node(realm), state, last_exit=last)
        assert shown(entry(realm), node(realm), job=True).state is word
