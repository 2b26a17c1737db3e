"""What a day of use leaves in processes: it is weighed, and what grows is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsmt.simulator import day as simulated
from dsmt.simulator.day import day
from dsmt.simulator.engine.run import run
from dsmt.simulator.world import TappedClient

pytestmark = pytest.mark.timeout(120)
HOURS = 0.5


def test_what_a_realm_holds_is_said_of_each_of_its_processes(capsys):
    wrong = run(day(HOURS, 1, looks=8))
    assert all(one.startswith("b1: disk grew") for one in wrong)  # its history fills its budget
    said = capsys.readouterr().out
    assert "0.5 h: " in said
    for name in ("b1 broker", "c1 controller", "n1 container_manager", "n1 monitor", "alice operator"):
        assert f"  {name}: bytes " in said


def test_a_store_that_may_have_little_has_no_more_after_a_while(monkeypatch):
    monkeypatch.setattr(simulated, "SCALE", replace(simulated.SCALE, store_bytes=256 * 1024))
    wrong = run(day(HOURS, 1, looks=8))
    assert not any(one.startswith("b1: disk grew") for one in wrong), wrong


def test_a_process_that_forgets_nothing_is_named(monkeypatch):
    says = TappedClient.emit

    def hoards(self, draft, *, level=None):
        self.__dict__.setdefault("hoard", []).append(bytes(20_000) + draft.topic.encode())
        return says(self, draft, level=level)

    monkeypatch.setattr(TappedClient, "emit", hoards)
    wrong = run(day(HOURS, 1, looks=8))
    assert any(one.startswith("c1 controller: bytes grew") for one in wrong)
