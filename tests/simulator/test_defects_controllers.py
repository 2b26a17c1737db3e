"""Planted defects of controllers and of what facts are compared by: each is caught by the invariant that it breaks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

import dsmt.agents.instance.facts as facts_module
import dsmt.bus.rules.validator as door_module
import dsmt.controllers.brake as brake_module
import dsmt.controllers.loop.runner as runner_module
import dsmt.view.following as following_module
from dsmt.bus.client.client import BusClient
from dsmt.bus.client.publisher import Publisher
from dsmt.bus.rules.outbox import Outbox
from dsmt.controllers import placement
from dsmt.controllers.loop.agenda import Agenda
from dsmt.controllers.loop.completeness import Completeness
from dsmt.event import order
from dsmt.event.envelope import Event, SignedEvent
from dsmt.ports.bus import Draft
from dsmt.simulator import scenarios
from dsmt.simulator.engine.clocks import EPOCH_MS
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.process import current_process
from dsmt.simulator.members import SimController
from dsmt.simulator.play import Play
from dsmt.simulator.scenarios import Scenario
from dsmt.simulator.scenes import controllers
from dsmt.view import View
from tests.simulator.planting import FEWEST, SMALL, SMALLER, caught, control

pytestmark = pytest.mark.timeout(300)


async def race(play: Play) -> None:
    """Nodes die one after the other, and controllers contend for where their slots go."""
    for node in play.some(0.3):
        play.faults.kill_node(node)
        await asyncio.sleep(5)
    await play.settled(20, "after the race")


def no_own_slot_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes follow their inboxes only, not the topics of their slots (A1)."""
    made = facts_module.SlotFacts.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.patterns = tuple(pattern for pattern in self.patterns if "/slot/" not in pattern)

    monkeypatch.setattr(facts_module.SlotFacts, "__init__", init)


@pytest.mark.parametrize("defect", [False, True])
def test_a_node_that_follows_its_inbox_only_keeps_a_copy_for_ever(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "race", Scenario(race, "", 70.0, contention=1.0))  # type: ignore[attr-defined]
    monkeypatch.setattr(runner_module, "RANK_S", 0.0)
    nothing_is_stale(monkeypatch)
    if defect:
        no_own_slot_subscription(monkeypatch)
    assert bool(caught("race", control((1, 2), defect=defect), "12.2", scale=SMALLER)) == defect


@pytest.mark.parametrize("defect", [False, True])
def test_a_refused_fact_that_nothing_declares_leaves_a_history_that_does_not_verify(
    monkeypatch: pytest.MonkeyPatch, defect: bool
) -> None:
    monkeypatch.setattr(runner_module, "RANK_S", 0.0)
    if defect:
        monkeypatch.setattr(Outbox, "refused", Outbox.settled)
    assert bool(caught("storm", (2,), "12.13")) == defect


class ReadersClock(View):
    """A reader that refuses what is more than 10 s ahead of its own clock, which is 11 s slow (A2)."""

    def apply(self, signed: SignedEvent) -> bool:
        if signed.event.time_ms > EPOCH_MS + current_loop().time() * 1000 - 11_000 + 10_000:
            return False
        return super().apply(signed)


def test_a_reader_that_judges_by_its_own_clock_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "View", ReadersClock)
    assert caught("storm", (9,), "12.3")


class Keeping(View):
    """A reader for whom no time to live passes."""

    def expire(self, now_ms: int) -> bool:
        del now_ms
        return False


@pytest.mark.parametrize("defect", [False, True])
def test_a_reader_that_keeps_what_has_expired_differs(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    if defect:
        monkeypatch.setattr(following_module, "View", Keeping)
    assert bool(caught("storm", (1,), "12.3", scale=FEWEST, seconds=240.0)) == defect


def nothing_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first broker takes what it could know to be stale, and what was not acknowledged is said again (A3)."""
    monkeypatch.setattr(door_module, "_check_fresh", lambda *_args, **_about: None)
    monkeypatch.setattr(Publisher, "_give_up", lambda _self: None)


def test_a_decision_that_is_sent_again_moves_slots_back(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_stale(monkeypatch)
    assert caught("contended", (2, 3, 4), "12.6")


def any_view_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller decides from whatever view it has, however old (A4)."""
    monkeypatch.setattr(Completeness, "beat", lambda *_: 0.0)
    monkeypatch.setattr(Completeness, "attached", lambda *_: None)
    monkeypatch.setattr(Completeness, "folded", lambda *_: None)
    monkeypatch.setattr(Completeness, "cursor", lambda self, _now: self._cursor)


def a_tombstone_ends_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal ends what there is when it is said, not the epoch that its sayer has seen (A6)."""
    nothing_is_stale(monkeypatch)
    any_view_will_do(monkeypatch)
    latest: dict[str, int] = {}
    emit = BusClient.emit

    def said(self: Any, draft: Draft, **about: Any) -> Any:
        thing = "/".join(draft.topic.removeprefix("tombstone/").split("/")[:2])
        if draft.topic.startswith("tombstone/"):
            draft = replace(draft, epoch=latest.get(thing, draft.epoch), replaces=None)
        elif draft.topic.endswith("/spec"):
            latest[thing] = max(draft.epoch or 1, latest.get(thing, 1))
        return emit(self, draft, **about)

    monkeypatch.setattr(BusClient, "emit", said)


def test_a_removal_that_comes_late_ends_what_was_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    a_tombstone_ends_whatever_there_is(monkeypatch)
    assert caught("buried", (1, 2), "12.6")


def later_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later of two siblings wins (A3)."""
    rank = order.rank

    def later_first(event: Event) -> order.Key:
        if event.version is None or event.epoch is None:
            return rank(event)
        return (-event.epoch, -event.version, -event.time, event.source, event.incarnation, event.sequence)

    for name, module in list(sys.modules.items()):
        if name.startswith("dsmt.") and getattr(module, "rank", None) is rank:
            monkeypatch.setattr(module, "rank", later_first)


def speaks_before_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller publishes from whatever view it has (A4), and nobody compares it."""
    nothing_is_stale(monkeypatch)
    later_wins(monkeypatch)
    any_view_will_do(monkeypatch)


def stop_while_it_waits(play: Play, controller: SimController) -> None:
    """SIGSTOP to a controller that wants to move a slot and lets another one act first."""
    runner, process = controller.runner, controller.kept.process

    def look() -> None:
        if any("/slot/" in topic for topic in runner._wanted):
            process.sim.pause()
        elif play.now < 15:
            play.world.later(0.005, look)

    look()


@pytest.mark.parametrize("defect", [False, True])
def test_a_stale_controller_that_wins_moves_slots_back(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    monkeypatch.setattr(controllers, "stop_at_an_await", stop_while_it_waits)
    if defect:
        speaks_before_it_looks(monkeypatch)
    assert bool(caught("stopped", control((11, 14, 15), defect=defect), "12.6", scale=SMALL)) == defect


def stop_as_it_speaks(play: Play, controller: SimController) -> None:
    """SIGSTOP to a controller in the very turn in which it moves slots."""
    del play
    process = controller.kept.process
    controllers.when_it_speaks(controller, process.sim.pause)


@pytest.mark.parametrize("defect", [False, True])
def test_what_a_controller_stamps_and_does_not_send_at_once_moves_slots_back(
    monkeypatch: pytest.MonkeyPatch, defect: bool
) -> None:
    monkeypatch.setattr(controllers, "stop_at_an_await", stop_as_it_speaks)
    if defect:
        nothing_is_stale(monkeypatch)
        monkeypatch.setattr(BusClient, "flush", lambda _self: None)
    assert bool(caught("stopped", control((2, 4), defect=defect), "12.6", scale=SMALL)) == defect


def never_brake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake_module, "PERCENT", 1000)


def count_only_the_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake_module, "_falling", lambda _fleet, _replacing: [])


@pytest.mark.parametrize("defect", [never_brake, count_only_the_judged])
def test_without_the_brake_the_silent_are_replaced(
    monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None]
) -> None:
    defect(monkeypatch)
    assert caught("silent", (1, 2, 3), "12.8", scale=SMALLER)


def counts_the_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that were seen to end count for the brake (F5), as if they were silent."""

    def lost(fleet: Any, _replacing: Any) -> list[Any]:
        return sorted(
            ((one.record.since_ms, node, one) for node, one in fleet.view.standing.items()), key=lambda each: each[:2]
        )

    monkeypatch.setattr(brake_module, "_lost", lost)


@pytest.mark.parametrize("defect", [False, True])
def test_a_brake_that_counts_the_killed_is_noticed(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "race", Scenario(race, "", 70.0))  # type: ignore[attr-defined]
    if defect:
        counts_the_killed(monkeypatch)
    assert bool(caught("race", control((1, 2), defect=defect), "12.2", scale=SMALLER)) == defect


def test_a_decision_with_a_hidden_input_does_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = runner_module.decide

    def hidden(view: View, now_ms: int, **about: Any) -> Any:
        return decide(view, now_ms + 7, **about)

    monkeypatch.setattr(runner_module, "decide", hidden)
    assert caught("killed", (1,), "12.10")


def moves_for_taste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ruleset moves a slot because another node would be nicer (A8)."""
    stays = placement.Chooser.misfit_to_stay

    def nice(self: Any, node: str) -> Any:
        process = current_process()
        own = 1 if process is None else int(process.name.split(":", 1)[0][1:])
        ugly = int(node[1:]) % 3 != own % 3
        return stays(self, node) or (placement.Misfit("taste", f"{node} is not nice") if ugly else None)

    monkeypatch.setattr(placement.Chooser, "misfit_to_stay", nice)


def test_two_rulesets_that_move_slots_for_taste_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    moves_for_taste(monkeypatch)
    assert caught("rulesets", (1, 2), "12.9", scale=FEWEST)


def test_a_controller_that_forgets_when_to_look_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Agenda.note

    def forgets(self: Any, *about: Any) -> None:
        note(self, *about)
        self._wakes = {service: at for service, at in self._wakes.items() if not service}

    monkeypatch.setattr(Agenda, "note", forgets)
    assert caught("blank", (1, 2), "12.12")
