"""Planted defects of agents, of commands and of moves: each is caught by its scenario."""

from __future__ import annotations

from typing import Any

import pytest

import dsmt.controllers.wants as wants_module
from dsmt.agents.instance.deployment_agent import DeploymentAgent
from dsmt.agents.rules import commands
from dsmt.controllers.acting import _Action
from dsmt.simulator.play import Play
from dsmt.simulator.scenarios import SCENARIOS, Scenario, play
from dsmt.view import SlotEntry
from tests.simulator.planting import broken, caught

pytestmark = pytest.mark.timeout(300)


def test_a_command_that_is_executed_long_after_it_was_said_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "is_late", lambda _signed, _now_ms: False)
    assert caught("commands", (1, 2, 3), "A7: a command was executed")


def test_a_command_that_is_lost_while_its_agent_is_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent hears only what is said while it listens."""
    command = DeploymentAgent._command

    def heard(self: Any, signed: Any) -> None:
        since = self.__dict__.setdefault("since_ms", self._deps.bus.now_ms())
        if signed.event.time_ms >= since:
            command(self, signed)

    attached = DeploymentAgent._attached

    def listens(self: Any) -> None:
        if self._deps.bus.attached:
            self.__dict__.setdefault("since_ms", self._deps.bus.now_ms())
        attached(self)

    monkeypatch.setattr(DeploymentAgent, "_command", heard)
    monkeypatch.setattr(DeploymentAgent, "_attached", listens)
    assert caught("commands", (7, *range(1, 7), *range(8, 13)), "A7: a command that was said")


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_commands_are_executed_once_and_in_time(seed: int) -> None:
    assert not broken(play(seed, scenario="commands"), "A7")


# --- moves ---------------------------------------------------------------------------------------------------------


def test_a_move_that_is_not_done_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wants_module, "_asked_to_move", lambda *_: None)
    assert any("was to be moved to" in one for one in caught("words", range(1, 5), "12.2"))


def test_a_move_that_nobody_heard_of_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotEntry, "move_asked", None)
    assert any("never was" in one for one in caught("words", range(1, 5), "12.2"))


async def moving(play: Play) -> None:
    """Each slot is moved once."""
    for slot in play.fleet.wanted():
        play.fleet.operator.move(slot, None)
    await play.settled(5.0, "after the moves")


@pytest.mark.parametrize("defect", [False, True])
def test_a_move_that_is_done_again_is_noticed(monkeypatch: pytest.MonkeyPatch, defect: bool) -> None:
    number = _Action._move_number

    def forgetful(action: Any, *about: Any) -> int:
        return 0 if action._entry.generation < 3 else number(action, *about)

    monkeypatch.setitem(SCENARIOS, "moving", Scenario(moving, "", 10.0, 4, 1))  # type: ignore[index]
    if defect:
        monkeypatch.setattr(_Action, "_move_number", forgetful)
        monkeypatch.setattr(SlotEntry, "leaves", property(lambda slot: None if slot.fact is None else slot.fact.record.node))
    assert any("times for one word" in one for one in caught("moving", (1,), "12.2")) == defect
