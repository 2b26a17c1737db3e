"""Whole fleets: every invariant holds over seeds, a run is the same in every process, and each planted defect is caught."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dsmt.agents.facts as facts_module
import dsmt.controllers.brake as brake_module
import dsmt.controllers.runner as runner_module
from dsmt.agents.container_manager import ContainerManager
from dsmt.bus.client import BusClient
from dsmt.controllers import placement
from dsmt.controllers.completeness import Completeness
from dsmt.event import order
from dsmt.event.envelope import Event, SignedEvent
from dsmt.ports.bus import Complete, Notice
from dsmt.simulator import scenarios
from dsmt.simulator.clocks import EPOCH_MS
from dsmt.simulator.fleet import Scale
from dsmt.simulator.loop import current_loop
from dsmt.simulator.members import SimController
from dsmt.simulator.process import current_process
from dsmt.simulator.scenarios import Play, Report, play
from dsmt.view import View

pytestmark = pytest.mark.timeout(300)
SMALL = Scale(nodes=16, services=5)
HERE = Path(__file__)


def held(report: Report) -> bool:
    print("\n".join([*report.log, *report.wrong]))  # noqa: T201 - what a failing test shows
    return not report.wrong


def broken(report: Report, rule: str) -> list[str]:
    return [sentence for sentence in report.wrong if sentence.startswith(rule)]


@pytest.mark.parametrize("scenario", list(scenarios.SCENARIOS))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_invariant_holds_in_a_small_fleet(scenario: str, seed: int) -> None:
    assert held(play(seed, scenario=scenario, scale=SMALL))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_invariant_holds_over_fifty_seeds_of_a_hundred_nodes() -> None:
    command = [sys.executable, "-m", "dsmt.simulator", "--seeds", "50", "--seconds", "120", "--nodes", "100", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_seeds_play_every_scenario() -> None:
    assert {scenarios.scenario_of(seed) for seed in range(1, 9)} == set(scenarios.SCENARIOS)


# --- one seed, one history ---------------------------------------------------------------------------------------------


def histories(defect: str) -> list[str]:
    """The history of one seed, from three processes with different hash seeds."""
    script = str(HERE.with_name("history.py"))
    running = [
        subprocess.Popen(
            [sys.executable, script, "5", defect],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "1", "4711")
    ]
    try:
        printed = [process.communicate(timeout=55)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return printed


@pytest.mark.real
def test_one_seed_gives_byte_identical_histories_under_three_hash_seeds() -> None:
    first, second, third = histories("none")
    assert first == second == third
    rows, digest = first.split()
    assert int(rows) > 500
    assert len(digest) == 32


@pytest.mark.real
def test_the_order_of_a_set_somewhere_changes_the_history() -> None:
    assert len(set(histories("set"))) > 1


# --- planted defects: each is caught by the invariant that it breaks ----------------------------------------------------


def no_own_slot_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes follow their inboxes only, not the topics of their slots (A1)."""
    made = facts_module.Facts.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.patterns = tuple(pattern for pattern in self.patterns if "/slot/" not in pattern)

    monkeypatch.setattr(facts_module.Facts, "__init__", init)


def contentious_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No defect: each controller prefers other nodes, as with different views."""
    choose = placement.Chooser.choose

    def chosen(self: Any, key: Any, avoid: frozenset[str] = frozenset()) -> str | None:
        process = current_process()
        own = "c1" if process is None else process.name.split(":", 1)[0]
        dislikes = frozenset(node for node in self.fleet.members if int(node[1:]) % 3 != int(own[1:]) % 3)
        return choose(self, key, avoid | dislikes) or choose(self, key, avoid)

    monkeypatch.setattr(placement.Chooser, "choose", chosen)


async def race(play: Play) -> None:
    """Nodes die one after the other, and controllers contend for where their slots go."""
    await play.settled(scenarios.FIRST_S, "at first")
    for node in play.some(0.3):
        play.faults.kill_node(node)
        await asyncio.sleep(5)
    await play.settled(20, "after the race")


@pytest.mark.parametrize("defect", [False, True])
def test_a_node_that_follows_its_inbox_only_keeps_a_copy_for_ever(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "race", race)
    monkeypatch.setattr(runner_module, "RANK_S", 0.0)
    contentious_controllers(monkeypatch)
    if defect:
        no_own_slot_subscription(monkeypatch)
    reports = [play(seed, scenario="race", scale=SMALL, seconds=70) for seed in (1, 2)]
    assert any(broken(report, "12.2") for report in reports) == defect


class ReadersClock(View):
    """A reader that refuses what is more than 10 s ahead of its own clock, which is 9 s slow (A2)."""

    def apply(self, signed: SignedEvent) -> bool:
        if signed.event.time_ms > EPOCH_MS + current_loop().time() * 1000 - 9_000 + 10_000:
            return False
        return super().apply(signed)


def test_a_reader_that_judges_by_its_own_clock_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "View", ReadersClock)
    assert broken(play(3, scenario="storm", scale=SMALL), "12.3")


def nobody_re_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes keep to themselves which facts they act on (R5)."""
    monkeypatch.setattr(ContainerManager, "_offer", lambda _self: None)
    monkeypatch.setattr(facts_module.Facts, "offer", lambda _self: None)


def absence_is_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container manager ends what the broker does not know (A5), and nobody tells the broker."""
    nobody_re_offers(monkeypatch)
    take = ContainerManager._take

    def taken(self: Any, delivery: Any) -> None:
        known = self.__dict__.setdefault("known", set())
        match delivery:
            case Notice(type="dsmt.notice.reconnected"):
                known.clear()
            case Complete():
                for keeper in self._keepers.values():
                    if keeper.slot.topic not in known:
                        keeper.close()
            case _ if hasattr(delivery, "signed"):
                known.add(delivery.signed.event.topic)
        take(self, delivery)

    monkeypatch.setattr(ContainerManager, "_take", taken)


def test_taking_absence_as_an_order_empties_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    absence_is_an_order(monkeypatch)
    assert broken(play(1, scenario="empty", scale=SMALL), "12.4: an empty broker came")


def test_a_broker_that_came_up_empty_stays_so_unless_nodes_re_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_re_offers(monkeypatch)
    assert broken(play(1, scenario="empty", scale=SMALL), "12.4, after")


def stale_writers_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later of two siblings wins (A3), and a controller publishes before it has looked (A4)."""
    rank = order.rank

    def later_first(event: Event) -> order.Key:
        if event.version is None or event.buries:
            return rank(event)
        return (-event.version, -event.time, 0, event.source, event.incarnation, event.sequence)

    users = [module for name, module in sys.modules.items() if name.startswith("dsmt.")]
    for module in users:
        if getattr(module, "rank", None) is rank:
            monkeypatch.setattr(module, "rank", later_first)
    monkeypatch.setattr(Completeness, "beat", lambda *_: 0.0)
    monkeypatch.setattr(Completeness, "attached", lambda *_: None)
    monkeypatch.setattr(Completeness, "folded", lambda *_: None)
    monkeypatch.setattr(Completeness, "place", lambda self, _now: self._bookmark and self._bookmark[0])


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
    monkeypatch.setattr(scenarios, "_stop_at_an_await", stop_while_it_waits)
    contentious_controllers(monkeypatch)
    if defect:
        stale_writers_win(monkeypatch)
    reports = [play(seed, scenario="stopped", scale=SMALL, seconds=90) for seed in range(1, 5)]
    assert any(broken(report, "12.6") for report in reports) == defect


def stop_as_it_speaks(play: Play, controller: SimController) -> None:
    """SIGSTOP to a controller in the very turn in which it moves slots."""
    bus, process = controller.bus, controller.kept.process

    def said(topic: str) -> None:
        if "/slot/" in topic:
            bus.tap = None
            process.sim.pause()

    bus.tap = said


@pytest.mark.parametrize("defect", [False, True])
def test_what_a_controller_stamps_and_does_not_send_at_once_moves_slots_back(
    monkeypatch: pytest.MonkeyPatch, defect: bool
) -> None:
    monkeypatch.setattr(scenarios, "_stop_at_an_await", stop_as_it_speaks)
    contentious_controllers(monkeypatch)
    if defect:
        monkeypatch.setattr(BusClient, "flush", lambda _self: None)
    reports = [play(seed, scenario="stopped", scale=SMALL, seconds=90) for seed in (2, 4)]
    assert any(broken(report, "12.6") for report in reports) == defect


def never_brake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake_module, "PERCENT", 1000)


def count_only_the_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake_module, "_falling", lambda _fleet: [])


@pytest.mark.parametrize("defect", [never_brake, count_only_the_judged])
def test_without_the_brake_the_silent_are_replaced(
    monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None]
) -> None:
    defect(monkeypatch)
    assert broken(play(1, scenario="silent", scale=SMALL), "12.8")


def test_a_brake_that_counts_the_killed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(fleet: Any) -> list[Any]:
        verdicts = [fleet.verdict(node) for node in sorted(fleet.view.judged)]
        return [(one.record.since_ms, one.signed.event.subject, one.id) for one in verdicts if one is not None]

    monkeypatch.setattr(brake_module, "_lost", lost)
    assert broken(play(1, scenario="killed", scale=SMALL), "12.2, 12.8")


def test_a_decision_with_a_hidden_input_does_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = runner_module.decide

    def hidden(view: View, now_ms: int, **about: Any) -> Any:
        return decide(view, now_ms + 7, **about)

    monkeypatch.setattr(runner_module, "decide", hidden)
    assert broken(play(1, scenario="killed", scale=SMALL), "12.10")
