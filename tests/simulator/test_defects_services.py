"""Planted defects of agents, of commands, and of what is signed of programs: each is caught by its scenario."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.agents import commanding
from dsmt.agents.deployment_agent import DeploymentAgent
from dsmt.simulator.scenarios import play
from tests.simulator.planting import broken, caught

pytestmark = pytest.mark.timeout(300)


def test_a_command_that_is_executed_long_after_it_was_said_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commanding, "is_late", lambda _signed, _now_ms: False)
    assert caught("commands", (1, 2, 3), "A7: a command was executed")


def test_a_command_that_is_lost_while_its_agent_is_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent hears only what is said while it listens."""
    command = DeploymentAgent._command

    def heard(self: Any, signed: Any) -> None:
        since = self.__dict__.setdefault("since_ms", self._around.bus.now_ms())
        if signed.event.time_ms >= since:
            command(self, signed)

    attached = DeploymentAgent._attached

    def listens(self: Any) -> None:
        if self._around.bus.attached:
            self.__dict__.setdefault("since_ms", self._around.bus.now_ms())
        attached(self)

    monkeypatch.setattr(DeploymentAgent, "_command", heard)
    monkeypatch.setattr(DeploymentAgent, "_attached", listens)
    assert caught("commands", range(1, 13), "A7: a command that was said")


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_commands_are_executed_once_and_in_time(seed: int) -> None:
    assert not broken(play(seed, scenario="commands"), "A7")
