"""The loop keeps asyncio's promises in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import time

import pytest

from dsmt.simulator.engine.handles import SimTask
from dsmt.simulator.engine.loop import SimLoop, current_loop
from dsmt.simulator.engine.refusals import REFUSED
from dsmt.simulator.engine.run import run
from dsmt.simulator.engine.trace import Trace


def test_an_hour_of_sleep_takes_no_real_time_and_exactly_an_hour_of_virtual_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return current_loop().time()

    begun = time.monotonic()
    assert run(main()) == 3600.0
    assert time.monotonic() - begun < 30


def test_a_timer_never_fires_before_its_time_and_at_most_a_tick_after() -> None:
    async def main() -> None:
        loop = current_loop()
        for delay in (0.0001, 0.001, 0.0015, 0.1, 1 / 3, 2.5):
            due = loop.time() + delay
            await asyncio.sleep(delay)
            assert due - 1e-6 <= loop.time() <= due + 0.001 + 1e-6

    run(main())


def test_timers_of_one_instant_fire_first_come_first_served() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(100):
            current_loop().call_at(1.0, order.append, number)
        await asyncio.sleep(2)
        return order

    assert run(main()) == list(range(100))


def test_a_past_timer_runs_in_this_instant_and_an_infinite_one_never() -> None:
    async def main() -> list[str]:
        loop, seen = current_loop(), list[str]()
        await asyncio.sleep(5)
        loop.call_at(1.0, seen.append, "past")
        loop.call_later(math.inf, seen.append, "never")
        await asyncio.sleep(0)
        assert loop.time() == 5.0
        await asyncio.sleep(1e6)
        return seen

    assert run(main()) == ["past"]


def test_a_cancelled_timer_does_not_fire() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        timers = [current_loop().call_later(1, seen.append, number) for number in range(4)]
        timers[1].cancel()
        timers[2].cancel()
        assert timers[1].cancelled()
        await asyncio.sleep(2)
        timers[0].cancel()  # too late, and harmless
        return seen

    assert run(main()) == [0, 3]


def test_timeouts_that_never_fire_do_not_pile_up() -> None:
    async def main() -> tuple[int, int]:
        loop = current_loop()
        seen: list[int] = []
        loop.call_later(50, seen.append, 1)
        most = 0
        for _ in range(100_000):
            async with asyncio.timeout(1e6):  # noqa: ASYNC100 - only its timer matters
                pass
            most = max(most, loop._timer_count)
        await asyncio.sleep(100)
        assert seen == [1]
        return most, sum(map(len, loop._buckets.values()))

    most, left = run(main())
    assert most <= 20_002
    assert left <= 20_002


def test_a_hundred_thousand_timers_fire_in_order() -> None:
    async def main() -> list[float]:
        loop, fired = current_loop(), list[float]()
        for number in range(100_000):
            when = (number * 7919 % 100_000) / 1000
            loop.call_at(when, fired.append, when)
        await asyncio.sleep(101)
        return fired

    fired = run(main())
    assert len(fired) == 100_000
    assert fired == sorted(fired)


def test_the_primitives_of_asyncio_work_unmodified() -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        event, lock, barrier = asyncio.Event(), asyncio.Lock(), asyncio.Barrier(2)
        got: list[int] = []

        async def producer() -> None:
            for number in range(3):
                await queue.put(number)
            await barrier.wait()
            event.set()

        async def consumer() -> None:
            for _ in range(3):
                async with lock:
                    got.append(await queue.get())
            await barrier.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            group.create_task(consumer())
            await event.wait()
        assert got == [0, 1, 2]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(10)
        assert list(await asyncio.gather(asyncio.sleep(1, "a"), asyncio.sleep(2, "b"))) == ["a", "b"]
        assert current_loop().time() == 4.0

    run(main())


def test_a_runner_of_asyncio_works_on_the_loop() -> None:
    async def main() -> float:
        await asyncio.sleep(2)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(main()) == 2.0


def test_a_task_is_named_and_numbered_within_its_loop() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        await asyncio.gather(*tasks)
        assert [isinstance(task, SimTask) for task in tasks] == [True] * 3
        return [task.get_name() for task in tasks]

    assert run(main()) == ["sim-2", "sim-3", "sim-4"]
    assert run(main()) == ["sim-2", "sim-3", "sim-4"]


def test_a_finished_task_leaves_the_table_of_live_tasks() -> None:
    async def main() -> list[int]:
        task = asyncio.create_task(asyncio.sleep(1))
        assert list(current_loop().live) == [1, 2]
        await task
        await asyncio.sleep(0)
        return list(current_loop().live)

    assert run(main()) == [1]


def test_an_empty_context_is_used_and_not_replaced_by_the_callers() -> None:
    secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="none")

    async def main() -> list[str]:
        secret.set("of main")
        seen: list[str] = []
        for call in (current_loop().call_soon, lambda *a, **k: current_loop().call_later(1, *a, **k)):
            call(lambda: seen.append(secret.get()), context=contextvars.Context())
            call(lambda: seen.append(secret.get()))
        await asyncio.sleep(2)
        return seen

    assert run(main()) == ["none", "of main", "none", "of main"]


def test_a_delivery_to_the_world_carries_nothing_of_the_senders_context() -> None:
    secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="none")

    async def main() -> list[str]:
        secret.set("of the sender")
        seen: list[str] = []
        current_loop().call_in(None, lambda: seen.append(secret.get()))
        current_loop().call_in_at(None, 1.0, lambda: seen.append(secret.get()))
        await asyncio.sleep(2)
        return seen

    assert run(main()) == ["none", "none"]


def test_the_cyclic_collector_runs_at_fixed_virtual_times_only() -> None:
    collected: list[float] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            collected.append(asyncio.get_running_loop().time())

    async def main() -> None:
        Cycle()
        assert not gc.isenabled()
        for _ in range(40):
            await asyncio.sleep(1)

    assert gc.isenabled()
    run(main(), collect_every=30.0)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert collected == [30.0]


def test_no_collection_of_a_run_looks_at_what_was_there_before_it() -> None:
    """One that did took a fifth of a second beside thirteen thousand tests, and each run of a test began with it."""
    frozen: list[int] = []

    def collects(phase: str, _: object) -> None:
        if phase == "start":
            frozen.append(gc.get_freeze_count())

    async def main() -> None:
        for _ in range(100):
            await asyncio.sleep(1)

    gc.disable()
    gc.callbacks.append(collects)
    try:
        run(main(), collect_every=30.0)
    finally:
        gc.callbacks.remove(collects)
        gc.enable()
    assert len(frozen) > 3
    assert all(frozen)


def test_every_operation_of_asyncios_loop_is_either_simulated_or_refused_by_name() -> None:
    simulated = {
        "add_signal_handler", "call_at", "call_exception_handler", "call_later", "call_soon", "call_soon_threadsafe",
        "close", "create_future", "create_task", "default_exception_handler", "get_debug", "get_exception_handler",
        "get_task_factory", "is_closed", "is_running", "run_forever", "run_until_complete",
        "set_debug", "set_exception_handler", "shutdown_asyncgens", "shutdown_default_executor", "stop", "time",
    }  # fmt: skip
    offered = {name for name in dir(asyncio.BaseEventLoop) if not name.startswith("_") and name != "slow_callback_duration"}
    assert offered - simulated == set(REFUSED)


def test_a_simulation_inside_a_running_loop_is_refused() -> None:
    async def inner() -> None: ...

    async def outer() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            run(inner())

    asyncio.run(outer())


def test_a_trace_refuses_what_may_hold_an_address() -> None:
    with pytest.raises(TypeError, match="object"):
        Trace().note("delivered", object())  # type: ignore[arg-type]


def test_a_wait_shorter_than_the_floats_resolution_still_lets_time_pass() -> None:
    async def main() -> float:
        await asyncio.sleep(64)
        until = 64.0 + 1e-9
        loop, rounds = asyncio.get_running_loop(), 0
        while loop.time() < until:
            rounds += 1
            assert rounds < 10
            await asyncio.sleep(1e-17)
        return loop.time()

    assert run(main()) == 64.001
