"""The run loop's own rules, with a bus in the test's hand."""

import asyncio
from typing import Any

import pytest

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.endings import ORPHAN_MS
from dsmt.controllers.loop.ranking import rank
from dsmt.controllers.loop.runner import RANK_S, RENEW_MS, TICK_S
from dsmt.event.envelope import EventId
from dsmt.event.kinds.controller import ControllerState, Decision
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import from_data
from dsmt.event.status import Layer, State
from dsmt.ports.bus import Bookmark, Cursor, Reattached

from .build import Realm, key, web
from .hand import SLOTS, Hand, applied
from .signing import START_MS, signed


def test_what_was_published_is_not_said_again_until_it_should_have_come_back() -> None:
    hand = applied()
    assert hand.slots() == SLOTS
    assert hand.slots(0.25) == []
    assert hand.slots(4.5) == []
    assert hand.slots(0.5) == SLOTS


def test_an_intent_that_no_event_can_hold_is_complained_of_and_harms_no_other() -> None:
    hand = applied()
    hand.bus.too_big = {SLOTS[0]}
    assert hand.slots() == SLOTS[1:]
    assert [SLOTS[0] in sentence for sentence in hand.heard] == [True]
    assert len(from_data(Decision, dict(hand.bus.said[-1].data)).produced) == 1
    assert hand.slots(4.75) == []
    assert len(hand.heard) == 1
    hand.bus.too_big = set()
    assert SLOTS[0] in hand.slots(0.5)


def test_a_batch_of_which_nothing_can_be_said_is_no_decision() -> None:
    hand = applied()
    hand.bus.too_big = set(SLOTS)
    assert hand.slots() == []
    assert not [draft for draft in hand.bus.said if draft.topic.endswith("/decision")]


def test_an_intent_that_the_outbox_drops_is_complained_of_and_said_again() -> None:
    hand = applied()
    hand.bus.dropped = {SLOTS[0]}
    assert hand.slots() == SLOTS
    assert ["dropped" in sentence for sentence in hand.heard] == [True]
    assert hand.slots(5.25) == SLOTS


def test_another_event_of_its_service_does_not_make_it_said_twice() -> None:
    hand, realm = applied(), Realm("n1", "n2")
    assert hand.slots() == SLOTS
    hand.give(realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=0))
    assert hand.slots(0.25) == []


def test_what_is_made_anew_does_not_wait_for_what_was_said_of_the_one_before_to_come_back() -> None:
    hand, realm = Hand(), Realm("n1", "n2")
    realm.apply(web(2))
    hand.give(*(event for _, event in realm.rows))
    assert hand.slots() == SLOTS
    given = len(realm.rows)
    realm.say("operator/alice", "tombstone/service/web", Tombstone(by="alice", reason="anew"))
    realm.apply(web(2))
    hand.give(*(event for _, event in realm.rows[given:]))
    assert hand.slots(0.25) == SLOTS


def test_nothing_follows_what_the_broker_has_not_answered_for_it_may_be_refused_and_then_is_to_be_declared() -> None:
    hand, realm = Hand(), Realm("n1", "n2")
    first = realm.apply(web(1))
    hand.give(*(event for _, event in realm.rows))
    answer, slot = asyncio.Event(), SLOTS[:1]

    async def turn() -> list[str]:
        before = len(hand.bus.said)
        hand.runner._turn()
        hand.bookmark()
        hand.runner._turn()
        await asyncio.sleep(0)
        return [draft.topic for draft in hand.bus.said[before:] if "/slot/" in draft.topic]

    async def scenario() -> None:
        async with asyncio.TaskGroup() as hand.runner._group:
            hand.bus.answer = answer
            assert await turn() == slot
            given = len(realm.rows)
            realm.say("controller/c2", SLOTS[0], Slot(node="n1", spec=str(first.id), revision=1, desired="running"))
            realm.apply(web(1).replace("./app", "./next"))
            hand.give(*(event for _, event in realm.rows[given:]))
            assert await turn() == []
            answer.set()
            await asyncio.sleep(0)
            assert await turn() == slot

    asyncio.run(scenario())


def test_what_ends_an_orphan_dies_of_age_so_that_there_is_room_to_end_the_next_ones() -> None:
    hand, realm = Hand(), Realm("n1")
    realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=7, orphan=True)
    hand.give(*(event for _, event in realm.rows))
    assert hand.slots() == SLOTS[:1]
    assert [draft.ttl_ms for draft in hand.bus.said if draft.topic == SLOTS[0]] == [ORPHAN_MS]


def test_a_batch_names_its_inputs_and_products() -> None:
    hand = applied()
    hand.slots()
    assert hand.bus.said[-1].subject == "c1"
    decision = from_data(Decision, dict(hand.bus.said[-1].data))
    ids = [str(EventId("controller/c1", 1, n + 1)) for n, d in enumerate(hand.bus.said) if "/slot/" in d.topic]
    assert list(decision.produced) == ids
    assert (decision.store, decision.row, decision.broker) == ("s1", hand._row, "b1")
    assert decision.view_digest == hand.runner.view.digest


def test_nothing_is_decided_between_an_event_and_its_bookmark() -> None:
    hand = applied()
    hand.turn()
    hand.bookmark()
    hand.give(signed("operator/alice", "nodeset/a", {"expression": "all_nodes", "by": "alice"}, version=1))
    assert hand.turn() == []
    assert hand.slots() == SLOTS


def test_a_controller_waits_its_rank() -> None:
    hand = applied()
    peers = [name for name in (f"c{i}" for i in range(2, 60)) if rank("service/web", "c1", [name])][:6]
    realm = Realm()
    for name in peers:
        state = ControllerState(version="0.1", ruleset=RULESET, pid=None, decisions=0)
        realm.say(f"controller/{name}", f"controller/{name}/state", state)
        realm.attach("", sources=[f"controller/{name}"])
    hand.give(*(event for _, event in realm.rows))
    place = rank("service/web", "c1", peers)
    assert place == 6
    assert hand.slots() == []
    waited = 0.0
    while not (said := hand.slots(0.25)):
        waited += 0.25
        assert waited < 2
    assert said == SLOTS
    assert waited + 0.25 >= RANK_S * place


def test_who_has_watched_for_long_enough_accuses_by_silence_though_nothing_else_happens() -> None:
    hand, realm = Hand(), Realm("n1", "n2")
    realm.silence("n1")
    realm.after(99).probe("n1", "n2", "failed", every_s=60.0)
    hand.give(*(event for _, event in realm.rows))
    hand.slots(1.0)
    assert "node/n1/verdict" not in [draft.topic for draft in hand.bus.said], "it has just begun to watch"
    for _ in range(24):
        hand.slots(0.25)
    assert "node/n1/verdict" in [draft.topic for draft in hand.bus.said]


def test_who_stood_still_watches_anew_before_it_accuses() -> None:
    hand, realm = Hand(), Realm("n1", "n2")
    hand.give(*(event for _, event in realm.rows))
    for _ in range(40):
        hand.slots(0.25)
    before = len(realm.rows)
    realm.after(100).silence("n1")
    realm.after(20).probe("n1", "n2", "failed", every_s=60.0)
    hand.clock.now += 25.0
    hand.give(*(event for _, event in realm.rows[before:]))
    hand.turn()
    hand.bookmark()
    assert "node/n1/verdict" not in hand.turn(), "it has heard for itself of no silence"
    for _ in range(24):
        hand.slots(0.25)
    assert "node/n1/verdict" in [draft.topic for draft in hand.bus.said]


def reconnected(broker: str, store: str = "s1") -> Reattached:
    return Reattached(broker, store)


def test_after_it_attached_to_another_broker_it_folds_anew() -> None:
    hand = applied()
    hand.slots()
    hand.runner._fold([reconnected("b1")])
    assert len(hand.runner.view) > 0
    hand.runner._fold([reconnected("b2", "s2")])
    assert len(hand.runner.view) == 0
    assert hand.slots() == []


def test_after_its_broker_got_another_store_it_folds_anew() -> None:
    hand = applied()
    hand.slots()
    hand.runner._fold([reconnected("b1")])
    assert len(hand.runner.view) > 0
    hand.runner._fold([reconnected("b1", "s2")])
    assert len(hand.runner.view) == 0


def test_who_it_is_it_says_at_once_and_again_when_it_attaches_anew() -> None:
    hand = applied()
    hand.slots(1)
    hand.slots(1)
    hand.runner._fold([reconnected("b1")])
    hand.slots(1)
    assert [draft.topic for draft in hand.bus.said].count("controller/c1/state") == 2


def test_a_fact_that_cannot_be_read_is_complained_of_and_stops_nobody() -> None:
    hand = Hand()
    bad = signed("controller/c2", "service/web/slot/app/0", {"node": 7}, version=1)
    good = signed("operator/alice", "nodeset/a", {"expression": "all_nodes", "by": "alice"}, version=1)
    hand.give(bad, good)
    assert "service/web/slot/app/0" in hand.heard[0]
    assert set(hand.runner.view.nodesets) == {"a"}


def test_what_waited_in_the_buffer_of_a_stopped_controller_is_not_taken_for_fresh() -> None:
    """`remove`, SIGSTOP, another buries, `apply` again, SIGCONT: all that it reads first is of before."""
    hand = applied()
    before = hand.subscription.token
    hand.turn()
    hand.clock.now += 25.0
    for _ in range(4):  # bookmarks that the broker sent while it was stopped, each in a turn of its own
        hand.runner._fold([Bookmark(Cursor("s1", hand._row, 0), whole=True, token=before)])
        assert hand.turn() == []
        hand.runner._fold([Bookmark(Cursor("s1", hand._row, 0), whole=True)])
        assert hand.turn() == []
        hand.clock.now += 0.01
    assert hand.slots() == SLOTS


def test_what_was_decided_before_a_stop_and_not_sent_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = applied()

    def stopped(*told: Any, **about: Any) -> Any:
        hand.clock.now += 25.0
        return decide(*told, **about)

    monkeypatch.setattr("dsmt.controllers.loop.runner.decide", stopped)
    hand.turn()
    hand.bookmark()
    assert [topic for topic in hand.turn() if topic in SLOTS] == []
    monkeypatch.undo()
    assert hand.slots() == SLOTS


def test_of_what_was_thrown_away_nothing_is_forgotten_that_had_come_since_it_decided_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand, realm = Hand(), Realm("n1", "n2")
    realm.apply(web(2))
    hand.give(*(event for _, event in realm.rows))
    assert hand.slots() == SLOTS
    hand.give(realm.apply(web(1, service="db")))

    def stopped(*told: Any, **about: Any) -> Any:
        hand.clock.now += 2.0
        return decide(*told, **about)

    monkeypatch.setattr("dsmt.controllers.loop.runner.decide", stopped)
    hand.bookmark()
    assert hand.turn() == []
    monkeypatch.undo()
    assert hand.slots() == ["service/db/slot/app/0"]


def test_who_was_misled_decides_nothing_before_it_has_read_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = applied()
    assert hand.slots() == SLOTS
    assert hand.runner._gate.cursor(hand.clock.now) is not None
    monkeypatch.setattr(hand.runner._resaying, "is_misled", lambda *_: True)
    assert not hand.runner._fold([])
    assert len(hand.runner.view) == 0
    assert hand.runner._gate.cursor(hand.clock.now) is None


def test_who_finds_realm_time_put_back_reads_all_anew_and_decides_by_the_time_that_there_is() -> None:
    hand = applied()
    assert hand.slots() == SLOTS
    hand.bus.now_ms = lambda: START_MS - 3_600_000  # type: ignore[method-assign]
    assert not hand.runner._fold([])
    assert (len(hand.runner.view), hand.runner._now_ms(hand.clock.now)) == (0, START_MS - 3_600_000)


def test_who_it_is_is_said_again_at_once_where_realm_time_steps_over_the_half_of_its_life() -> None:
    """An operator had accepted a clock a day ahead: for twelve hours `status` said that no controller is alive."""
    hand = applied()
    hand.slots()
    base_ms = hand.bus.now_ms()
    said = lambda: sum(draft.topic == "controller/c1/state" for draft in hand.bus.said)  # noqa: E731 - of this test
    for step_ms, times in ((RENEW_MS - 60_000, 1), (RENEW_MS + 60_000, 2), (RENEW_MS + 90_000, 2), (-60_000, 3)):
        hand.bus.now_ms = lambda step_ms=step_ms: base_ms + step_ms  # type: ignore[method-assign]
        hand.runner._say_state()
        assert said() == times


@pytest.mark.parametrize(("due_ms", "pause_s"), [(200, 0.2), (900, TICK_S), (-50, 0.005)])
def test_what_is_due_before_the_next_tick_is_decided_then(
    monkeypatch: pytest.MonkeyPatch, due_ms: int, pause_s: float
) -> None:
    runner, pauses = Hand().runner, list[float]()
    runner._agenda._wakes["web"] = runner._now_ms(runner._clock.boottime()) + due_ms
    runner._agenda.rest = None

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(runner._tick())
    assert pauses == [pause_s]
