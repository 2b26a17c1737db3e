"""SIGKILL ends a simulated process at once: it says nothing, sends nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dsmt.simulator.engine.errors import LeftoverError, ProcessKilled
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.process import ExitStatus, SimProcess, current_process
from dsmt.simulator.engine.run import run


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def ticking(seen: list[float]) -> None:
    while True:
        seen.append(current_loop().time())
        await asyncio.sleep(1)


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
        for _ in range(100_000):  # but at last: Python 3.13 throws again and again as it finalizes it
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
