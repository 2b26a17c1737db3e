"""Runs that begin alike are one run up to there: what each comes to is what it comes to alone, and no fork is left."""

from __future__ import annotations

import asyncio
import os
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace

import psutil
import pytest

from dsmt.event.codec import decode_part, read
from dsmt.simulator import world
from dsmt.simulator.engine.errors import ForkError
from dsmt.simulator.engine.forks import each_way
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.scenarios import SCENARIOS, play, play_each

pytestmark = pytest.mark.timeout(300)
ALIKE = ("killed", "middlebox", "words")
SMALL = Scale(nodes=4, services=2)


def told_by(main: Callable[[Callable[[], str]], object], *ways: str) -> list[object]:
    """What each way came to; afterwards no fork is left."""
    before = children()
    try:
        return each_way(ways, main)
    finally:
        assert children() <= before


def children() -> set[int]:
    """The processes that this one has begun and not waited for; tests before may have left some."""
    return {child.pid for child in psutil.Process().children()}


def in_virtual_time(which: Callable[[], str]) -> tuple[str, float, int]:
    async def main() -> tuple[str, float, int]:
        stream = Stream(1)
        stream.word()
        await asyncio.sleep(1.5)
        way = which()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(len(way)))
        return way, asyncio.get_running_loop().time(), stream.word()

    return run(main())


def test_each_way_goes_on_from_the_same_moment() -> None:
    stream = Stream(1)
    stream.word()
    second = stream.word()
    assert told_by(in_virtual_time, "a", "bcd") == [("a", 2.5, second), ("bcd", 4.5, second)]


def test_of_what_runs_before_had_in_common_nothing_is_kept() -> None:
    class Begun:
        """Something that refers to itself, as a fleet does."""

        def __init__(self) -> None:
            self.own = self
            begun.append(weakref.ref(self))

    def main(which: Callable[[], str]) -> str:
        async def play() -> str:
            held = Begun()
            await asyncio.sleep(1)
            return which() if held.own is held else ""

        return run(play())

    begun: list[weakref.ref[Begun]] = []
    for _ in range(3):
        assert told_by(main, "a", "b") == ["a", "b"]
    assert [one() for one in begun[:-1]] == [None, None]


def test_what_a_fork_raises_is_told_with_where_it_was_raised() -> None:
    async def main(which: Callable[[], str]) -> None:
        await asyncio.sleep(1)
        which()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ForkError, match=r"(?s)went on with a raised:.*DeadlockError"):
        told_by(lambda which: run(main(which)), "a", "b")


def test_a_fork_that_dies_is_told() -> None:
    def dies(which: Callable[[], str]) -> None:
        if which() == "b":
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ForkError, match="went on with b died with wait status 9"):
        told_by(dies, "a", "b")


def test_a_run_that_never_asks_is_refused() -> None:
    with pytest.raises(ForkError, match="before it asked"):
        told_by(lambda _which: None, "a")


def test_a_wait_that_is_broken_off_leaves_no_fork() -> None:
    class BrokenOffError(Exception):
        pass

    def broken_off(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise BrokenOffError

    def interrupts(which: Callable[[], str]) -> None:
        which()
        parent = psutil.Process(os.getppid())
        while True:  # one that comes just before the parent waits breaks off nothing, or what it has not begun to wait for
            signal.sigtimedwait([signal.SIGUSR2], 0.05)
            if parent.status() == psutil.STATUS_SLEEPING:
                parent.send_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, broken_off)
    try:
        with pytest.raises(BrokenOffError):
            told_by(interrupts, "a")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_runs_that_begin_alike_have_the_traces_that_they_have_alone() -> None:
    together = play_each(3, ALIKE, scale=SMALL, traced=True)
    alone = [play(3, scenario=scenario, scale=SMALL, traced=True) for scenario in ALIKE]
    assert [(one.scenario, one.trace, one.digest, one.log) for one in together] == [
        (one.scenario, one.trace, one.digest, one.log) for one in alone
    ]
    assert len({one.trace for one in together}) == len(ALIKE)


def test_runs_that_begin_otherwise_are_not_taken_for_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    contends = ALIKE[0]
    monkeypatch.setitem(SCENARIOS, contends, replace(SCENARIOS[contends], contention=1.0))  # type: ignore[index]
    together = {report.scenario: report.digest for report in play_each(4, ALIKE, scale=SMALL)}
    assert together == {scenario: play(4, scenario=scenario, scale=SMALL).digest for scenario in ALIKE}
    monkeypatch.setitem(SCENARIOS, contends, replace(SCENARIOS[contends], contention=0.0))  # type: ignore[index]
    assert play(4, scenario=contends, scale=SMALL).digest != together[contends]


class ReadsAnew:
    """Remembers nothing: each reader decodes each event by itself, as in life."""

    decode = staticmethod(decode_part)
    read = staticmethod(read)


def test_what_readers_share_changes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = play(5, scenario="words", scale=SMALL, traced=True)
    monkeypatch.setattr(world, "EventReader", ReadsAnew)
    alone = play(5, scenario="words", scale=SMALL, traced=True)
    assert (alone.trace, alone.digest) == (shared.trace, shared.digest)
