"""Simulated processes die, stop, go on and exit as real ones do."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from dsmt.simulator.errors import LeftoverError, ProcessKilled, SimulationError
from dsmt.simulator.loop import current_loop
from dsmt.simulator.process import ExitStatus, SimProcess, current_process
from dsmt.simulator.run import run


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


# --- kill ---


def test_nothing_of_a_killed_process_runs_afterwards() -> None:
    seen: list[float] = []

    async def victim() -> None:
        current_loop().call_later(3.5, seen.append, -1.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(ticking(seen))

    async def world() -> ExitStatus:
        process = SimProcess("victim")
        process.start(victim())
        await asyncio.sleep(2.5)
        process.kill()
        assert (process.state, process.tasks, process.alive) == ("killed", {}, False)
        process.kill()
        process.pause()
        process.resume()
        process.call_soon(seen.append, -2.0)
        status = await process.wait()
        await asyncio.sleep(10)
        return status

    status = run(world())
    assert (status, status.returncode) == (ExitStatus(signal=9), -9)
    assert seen == [0.0, 1.0, 2.0]


def test_a_finally_block_of_a_killed_process_runs_at_once_but_cannot_send_wait_or_spawn() -> None:
    effects: list[str] = []

    async def spawned() -> None:
        effects.append("spawned")

    async def attempt(what: str) -> None:
        loop = current_loop()
        if what == "send":
            loop.call_in(None, effects.append, "sent")
        elif what == "send later":
            loop.call_in_at(None, loop.time() + 1, effects.append, "sent")
        elif what == "sleep":
            await asyncio.sleep(0.5)
        elif what == "yield":
            await asyncio.sleep(0)
        elif what == "wait":
            await loop.create_future()
        elif what == "spawn":
            asyncio.create_task(spawned())  # noqa: RUF006 - nobody keeps it, on purpose
        elif what == "gather":
            await asyncio.gather(spawned(), spawned())
        elif what == "start":
            SimProcess("child").start(spawned())
        effects.append(f"{what} succeeded")

    async def victim(what: str) -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            effects.append("was told")
        finally:
            try:
                effects.append(f"begin {what}")
                await attempt(what)
            finally:
                effects.append(f"end {what}")

    attempts = ["send", "send later", "sleep", "yield", "wait", "spawn", "gather", "start"]

    async def world() -> None:
        process = SimProcess("victim")

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for what in attempts:
                    group.create_task(victim(what))

        process.start(main())
        await asyncio.sleep(1)
        process.kill()
        assert effects == [f"{word} {what}" for what in attempts for word in ("begin", "end")]
        effects.clear()
        await asyncio.sleep(10)

    run(world())
    assert effects == []


def test_a_task_group_in_a_killed_process_ends_with_all_its_children() -> None:
    order: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            order.append(name)

    async def victim() -> None:
        try:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(child("a"))
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(child("b"))
        finally:
            order.append("main")

    async def world() -> None:
        process = SimProcess("victim")
        process.start(victim())
        await asyncio.sleep(1)
        process.kill()
        assert sorted(order) == ["a", "b", "main"]
        assert list(current_loop().live) == [1]
        await asyncio.sleep(200)
        assert len(order) == 3

    run(world())


def test_kill_ends_what_no_cancellation_would_end() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def world() -> ExitStatus:
        process = SimProcess("victim")
        process.start(stubborn())
        await asyncio.sleep(5)
        process.kill()
        return await process.wait()

    assert run(world()) == ExitStatus(signal=9)


def test_a_coroutine_that_swallows_every_exception_is_found() -> None:
    async def swallows() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except BaseException:  # noqa: BLE001 - the mistake that is to be found
                continue

    async def world() -> None:
        process = SimProcess("victim")
        process.start(swallows())
        await asyncio.sleep(5)
        process.kill()
        await asyncio.sleep(5)

    with pytest.raises(LeftoverError, match=r"(?s)in victim\].*swallows every exception"):
        run(world())


def test_locks_shared_with_a_killed_process_are_free_afterwards() -> None:
    async def holds(lock: asyncio.Lock) -> None:
        async with lock:
            await forever()

    async def world() -> None:
        lock = asyncio.Lock()
        process = SimProcess("victim")
        process.start(holds(lock))
        await asyncio.sleep(1)
        assert lock.locked()
        process.kill()
        assert not lock.locked()

    run(world())


def test_the_complaints_of_a_dying_process_are_no_findings() -> None:
    async def fails_at_once() -> None:
        raise ValueError("unseen")

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(1)

    async def victim(shared: asyncio.Future[None]) -> None:
        asyncio.create_task(fails_at_once()), asyncio.create_task(asyncio.wait_for(shared, 50))
        async for _ in numbers():
            try:
                await forever()
            finally:
                raise KeyError("in a finally block")

    async def world() -> None:
        shared: asyncio.Future[None] = current_loop().create_future()
        process = SimProcess("victim")
        process.start(victim(shared))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        shared_error = ConnectionError("lost while it died")
        if not shared.done():
            shared.set_exception(shared_error)
        process.kill()
        await asyncio.sleep(100)

    run(world())


def test_a_process_killed_before_its_first_step_runs_nothing() -> None:
    seen: list[float] = []

    async def world() -> None:
        process = SimProcess("victim")
        process.start(ticking(seen))
        process.kill()
        await asyncio.sleep(5)

    run(world())
    assert seen == []


@pytest.mark.parametrize("where", ["task", "callback"])
def test_a_process_that_kills_itself_goes_no_further(where: str) -> None:
    seen: list[str] = []

    def kill_self() -> None:
        process = current_process()
        assert process is not None
        process.kill()
        seen.append("survived")

    async def victim() -> None:
        if where == "callback":
            current_loop().call_soon(kill_self)
            await asyncio.sleep(1)
            seen.append("survived")
        try:
            kill_self()
        except ProcessKilled:
            await asyncio.sleep(0)
            seen.append("waited")

    async def world() -> ExitStatus:
        process = SimProcess("victim")
        process.start(victim())
        status = await process.wait()
        await asyncio.sleep(5)
        assert list(current_loop().live) == [1]
        return status

    assert run(world()) == ExitStatus(signal=9)
    assert seen == []


def test_one_process_can_kill_another_and_lives_on() -> None:
    seen: list[str] = []

    async def victim() -> None:
        try:
            await forever()
        finally:
            assert asyncio.current_task() is not None
            seen.append("victim unwound")

    async def killer(target: SimProcess) -> int:
        me = asyncio.current_task()
        await asyncio.sleep(1)
        target.kill()
        seen.append("killer goes on")
        assert asyncio.current_task() is me
        await asyncio.sleep(1)
        return 3

    async def world() -> tuple[ExitStatus, ExitStatus]:
        a, b = SimProcess("a"), SimProcess("b")
        a.start(victim())
        b.start(killer(a))
        return await a.wait(), await b.wait()

    assert run(world()) == (ExitStatus(signal=9), ExitStatus(code=3))
    assert seen == ["victim unwound", "killer goes on"]


def test_a_message_that_left_before_its_sender_died_arrives() -> None:
    seen: list[float] = []

    async def sender() -> None:
        current_loop().call_in_at(None, 2.0, lambda: seen.append(current_loop().time()))
        await forever()

    async def world() -> None:
        process = SimProcess("sender")
        process.start(sender())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(5)

    run(world())
    assert seen == [2.0]


def test_a_process_of_the_same_name_starts_clean_after_a_kill() -> None:
    async def world() -> list[float]:
        old: list[float] = []
        new: list[float] = []
        process = SimProcess("node")
        process.start(ticking(old))
        await asyncio.sleep(1.5)
        process.kill()
        process = SimProcess("node")
        process.start(ticking(new))
        await asyncio.sleep(2)
        process.kill()
        assert old == [0.0, 1.0]
        return new

    assert run(world()) == [1.5, 2.5]


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
