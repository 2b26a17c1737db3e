"""Where a run's CPU goes is said by room, and nothing of it is lost."""

from __future__ import annotations

import cProfile
import pstats
from typing import Any

import pytest

from dsmt.event.codec import decode
from dsmt.simulator.profiling import main, room_of, rooms

pytestmark = pytest.mark.timeout(120)


def test_a_function_stands_in_its_folder_and_a_built_in_one_in_its_callers() -> None:
    code = decode.__code__
    function = (code.co_filename, code.co_firstlineno, code.co_name)
    sleep, built_in = ("/usr/lib/python3/asyncio/tasks.py", 1, "sleep"), ("~", 0, "<sum>")
    stats = {
        function: (1, 1, 2.0, 5.0, {}),
        sleep: (1, 1, 1.0, 1.0, {}),
        built_in: (2, 2, 3.5, 3.5, {function: (1, 1, 3.0, 3.0), sleep: (1, 1, 0.5, 0.5)}),
    }
    assert rooms(stats) == {"dsmt/event": 5.0, "asyncio": 1.5}
    assert room_of(built_in) == "generated, or built in"


def test_all_that_the_profiler_saw_is_in_some_room() -> None:
    profiler = cProfile.Profile()
    profiler.runcall(sorted, range(1000), key=lambda number: max(-number, 0))
    stats: Any = pstats.Stats(profiler)
    assert sum(rooms(stats.stats).values()) == pytest.approx(sum(own for _, _, own, _, _ in stats.stats.values()))


def test_the_command_says_rooms_and_functions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "commands", "--nodes", "4", "--services", "1", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("commands, seed 1: 116 s in ")
    assert "%  dsmt/simulator\n" in said
    assert "Ordered by: internal time" in said
