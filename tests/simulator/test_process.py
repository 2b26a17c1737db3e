"""Simulated processes exit, stop, go on and take signals as real ones do."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dsmt.simulator.engine.errors import LeftoverError, SimulationError
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.process import ExitStatus, SimProcess, current_process
from dsmt.simulator.engine.run import run


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def ticking(seen: list[float]) -> None:
    while True:
        seen.append(current_loop().time())
        await asyncio.sleep(1)


def in_a_process(main: Callable[[], Coroutine[Any, Any, int | None]]) -> ExitStatus:
    """Run a coroutine as the main one of a process and return how that ended."""

    async def world() -> ExitStatus:
        process = SimProcess("p")
        process.start(main())
        return await process.wait()

    return run(world())


# --- exit ---


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (7, 7), (256 + 3, 3)])
def test_what_main_returns_is_the_exit_code(value: int | None, code: int) -> None:
    async def main() -> int | None:
        await asyncio.sleep(1)
        return value

    assert in_a_process(main) == ExitStatus(code=code)


def test_an_exception_of_main_is_exit_code_1_and_is_handed_to_who_waits() -> None:
    async def main() -> None:
        raise ValueError("crashed")

    status = in_a_process(main)
    assert (status.code, status.returncode, repr(status.failure)) == (1, 1, "ValueError('crashed')")


def test_a_failure_that_nobody_waits_for_is_found() -> None:
    async def fails() -> None:
        raise ValueError("crashed")

    async def main() -> None:
        SimProcess("p").start(fails())
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match=r"(?s)in p\] failed, and nobody waited for it.*crashed"):
        run(main())


def test_a_failure_waited_for_later_is_no_finding() -> None:
    async def fails() -> None:
        raise ValueError("crashed")

    async def main() -> ExitStatus:
        process = SimProcess("p")
        process.start(fails())
        await asyncio.sleep(1)
        return await process.wait()

    assert run(main()).code == 1


@pytest.mark.parametrize("where", ["main", "task", "callback"])
def test_system_exit_anywhere_in_a_process_ends_only_that_process(where: str) -> None:
    async def leaves() -> None:
        await asyncio.sleep(1)
        sys.exit(5)

    async def main() -> None:
        if where == "main":
            await leaves()
        if where == "callback":
            current_loop().call_later(1, sys.exit, 5)
        async with asyncio.TaskGroup() as group:
            group.create_task(forever())
            if where == "task":
                group.create_task(leaves())

    assert in_a_process(main) == ExitStatus(code=5)


def test_the_other_tasks_are_cancelled_and_awaited_before_the_process_ends() -> None:
    goodbyes: list[tuple[str, float]] = []

    async def polite(name: str) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            goodbyes.append((name, current_loop().time()))

    async def main() -> int:
        tasks = [asyncio.create_task(polite(name)) for name in "ab"]
        await asyncio.sleep(1)
        return len(tasks)

    assert in_a_process(main) == ExitStatus(code=2)
    assert goodbyes == [("a", 3.0), ("b", 3.0)]


def test_a_process_is_not_started_twice() -> None:
    async def main() -> None:
        process = SimProcess("p")
        process.start(asyncio.sleep(1))
        with pytest.raises(SimulationError, match="started before"):
            process.start(asyncio.sleep(1))
        await process.wait()

    run(main())


def test_a_process_begins_with_an_empty_context_and_every_task_in_it_belongs_to_it() -> None:
    secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="none")
    seen: list[tuple[str, str]] = []

    async def note() -> None:
        process = current_process()
        assert process is not None
        seen.append((process.name, secret.get()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(note())
        await asyncio.create_task(note())

    async def world() -> None:
        secret.set("of the world")
        assert current_process() is None
        process = SimProcess("p")
        process.start(main())
        await process.wait()

    run(world())
    assert seen == [("p", "none"), ("p", "none")]


def test_a_delivery_runs_in_the_receivers_context_and_its_tasks_are_the_receivers() -> None:
    sender_word: contextvars.ContextVar[str] = contextvars.ContextVar("sender_word", default="none")
    seen: list[tuple[str, str]] = []

    async def serve() -> None:
        process = current_process()
        assert process is not None
        seen.append((process.name, sender_word.get()))

    def deliver() -> None:
        asyncio.get_running_loop().create_task(serve())

    async def sends(to: SimProcess) -> None:
        sender_word.set("leaked")
        current_loop().call_in(to, deliver)
        current_loop().call_in_at(to, 0.5, deliver)

    async def world() -> None:
        a, b = SimProcess("a"), SimProcess("b")
        b.start(asyncio.sleep(1))
        a.start(sends(b))
        await b.wait()

    run(world())
    assert seen == [("b", "none"), ("b", "none")]


# --- pause ---


def test_a_paused_process_holds_its_timers_and_deliveries_and_runs_them_in_order_on_resume() -> None:
    seen: list[tuple[str, float]] = []

    def note(what: str) -> None:
        seen.append((what, current_loop().time()))

    async def sleeper() -> None:
        note("begin")
        current_loop().call_later(2, note, "timer at 2")
        current_loop().call_later(20, note, "timer at 20")
        await asyncio.sleep(4)
        note("slept until 4")
        await asyncio.sleep(30)

    async def world() -> None:
        process = SimProcess("p")
        process.start(sleeper())
        await asyncio.sleep(1)
        process.pause()
        assert process.state == "paused"
        loop = current_loop()
        loop.call_in_at(process, 3.0, note, "packet at 3")
        loop.call_in_at(process, 5.0, note, "packet at 5")
        cancelled = loop.call_in_at(process, 5.0, note, "cancelled while held")
        await asyncio.sleep(9)
        cancelled.cancel()
        assert seen == [("begin", 0.0)]
        process.resume()
        assert process.state == "running"
        await process.wait()

    run(world())
    assert seen == [
        ("begin", 0.0),
        ("timer at 2", 10.0),
        ("packet at 3", 10.0),
        ("packet at 5", 10.0),
        ("slept until 4", 10.0),
        ("timer at 20", 20.0),
    ]


def test_what_comes_due_as_a_process_resumes_does_not_overtake_what_it_held() -> None:
    seen: list[str] = []

    async def sleeper() -> None:
        await asyncio.sleep(20)

    async def world() -> None:
        process, loop = SimProcess("p"), current_loop()
        process.start(sleeper())
        await asyncio.sleep(1)
        process.pause()
        loop.call_later(4, process.resume)
        loop.call_in_at(process, 3.0, seen.append, "sent first")
        loop.call_in_at(process, 5.0, seen.append, "sent second")
        await process.wait()

    run(world())
    assert seen == ["sent first", "sent second"]


def test_other_processes_run_while_one_is_paused() -> None:
    paused: list[float] = []
    running: list[float] = []

    async def world() -> None:
        a, b = SimProcess("a"), SimProcess("b")
        a.start(ticking(paused))
        b.start(ticking(running))
        await asyncio.sleep(0.5)
        a.pause()
        await asyncio.sleep(3)
        a.kill()
        b.kill()

    run(world())
    assert (paused, running) == ([0.0], [0.0, 1.0, 2.0, 3.0])


def test_a_timeout_that_passed_during_a_pause_fires_on_resume() -> None:
    async def impatient() -> int:
        try:
            async with asyncio.timeout(2):
                await forever()
        except TimeoutError:
            return int(current_loop().time())
        return 0

    async def world() -> ExitStatus:
        process = SimProcess("p")
        process.start(impatient())
        await asyncio.sleep(1)
        process.pause()
        await asyncio.sleep(6)
        process.resume()
        return await process.wait()

    assert run(world()) == ExitStatus(code=7)


def test_a_paused_process_can_be_killed_and_runs_nothing_of_what_it_held() -> None:
    seen: list[float] = []

    async def world() -> ExitStatus:
        process = SimProcess("p")
        process.start(ticking(seen))
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(5)
        process.kill()
        process.resume()
        await asyncio.sleep(5)
        return await process.wait()

    assert run(world()) == ExitStatus(signal=9)
    assert seen == [0.0]


# --- other signals ---


def test_a_signal_without_a_handler_ends_the_process() -> None:
    async def world() -> ExitStatus:
        process = SimProcess("p")
        process.start(forever())
        await asyncio.sleep(1)
        process.send_signal(signal.SIGCHLD)
        await asyncio.sleep(1)
        assert process.alive
        process.send_signal(signal.SIGTERM)
        return await process.wait()

    assert run(world()) == ExitStatus(signal=signal.SIGTERM)


def test_what_a_process_asks_its_loop_to_do_on_a_signal_is_done_in_that_process_alone() -> None:
    heard: list[tuple[str, str]] = []

    async def waiting() -> None:
        def note(word: str) -> None:
            process = current_process()
            heard.append(("" if process is None else process.name, word))

        asyncio.get_running_loop().add_signal_handler(signal.SIGURG, note, "poked")
        await asyncio.sleep(10)

    async def world() -> None:
        processes = [SimProcess(name) for name in ("p", "q")]
        for process in processes:
            process.start(waiting())
        await asyncio.sleep(1)
        processes[1].send_signal(signal.SIGURG)
        await asyncio.sleep(1)
        for process in processes:
            process.kill()

    run(world())
    assert heard == [("q", "poked")]


def test_a_handled_signal_runs_its_handler_in_the_process_and_after_a_pause() -> None:
    async def main() -> int:
        stop = asyncio.Event()
        process = current_process()
        assert process is not None
        process.on_signal(signal.SIGTERM, stop.set)
        await stop.wait()
        return int(current_loop().time())

    async def world() -> ExitStatus:
        process = SimProcess("p")
        process.start(main())
        await asyncio.sleep(1)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(3)
        assert process.state == "paused"
        process.send_signal(signal.SIGCONT)
        return await process.wait()

    assert run(world()) == ExitStatus(code=4)


def test_sigkill_cannot_be_handled() -> None:
    async def world() -> None:
        with pytest.raises(SimulationError, match="SIGKILL cannot be handled"):
            SimProcess("p").on_signal(signal.SIGKILL, print)

    run(world())
