"""A spawner that has no memory left for a moment: it does not end, and what is due is done later (C9)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.rules.keeping import Effect, Keeping, State
from dsmt.programs import again
from dsmt.programs.again import Again
from dsmt.programs.kept_programs import KeptProgram, KeptPrograms
from dsmt.programs.spawner import Spawner


def none_left(*_: object) -> None:
    raise MemoryError


def test_what_finds_no_memory_is_told_once_and_the_rest_of_the_turn_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    said, done = list[str](), list[int]()
    monkeypatch.setattr(again, "PAUSE_S", 0.0)
    at = Again(said.append)
    for turn in range(2):
        at.all((none_left, lambda turn=turn: done.append(turn)))  # type: ignore[misc]
    assert (done, len(said)) == ([0, 1], 1)


def test_a_kept_program_for_which_there_was_no_memory_is_started_later(capsys: pytest.CaptureFixture[str]) -> None:
    at: Any = SimpleNamespace(
        _clock=SimpleNamespace(boottime=lambda: 1.0),
        _recorded=SimpleNamespace(find=lambda *_: None),
        _children=SimpleNamespace(fork=none_left),
    )
    kept = KeptProgram("node_monitor", "/n1", Keeping(now=1.0))
    assert kept.keeping.tick(1.0) == [Effect.START]
    KeptPrograms._start(at, kept)
    assert (kept.keeping.state, kept.keeping.due) == (State.WAITING, 1.1)
    assert "node_monitor cannot be started: no memory is left" in capsys.readouterr().err


def test_who_asks_a_spawner_that_has_no_memory_is_answered() -> None:
    told = Spawner._answer(SimpleNamespace(_do_request=none_left), b'{"op": "list"}')  # type: ignore[arg-type]
    assert b"start.driver" in told
