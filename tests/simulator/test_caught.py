"""What goes wrong in a simulation is caught, and said in words that find it."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

import pytest

from dsmt.simulator.engine.errors import DeadlockError, LeftoverError, LivelockError, NotSimulatedError
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.process import SimProcess
from dsmt.simulator.engine.refusals import REFUSED, refusing
from dsmt.simulator.engine.run import run


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def waits_in_the_middle() -> None:
    await forever()


def test_a_deadlock_names_each_waiting_task_and_its_whole_stack() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_in_the_middle(), name="stuck")

    with pytest.raises(DeadlockError) as caught:
        run(main())
    lines = str(caught.value).splitlines()
    at = lines.index("task stuck")
    assert lines[at + 1].endswith("in waits_in_the_middle")
    assert lines[at + 2].endswith("in forever")
    assert any(line.endswith("in main") for line in lines)


def test_a_deadlock_names_the_paused_process() -> None:
    async def main() -> None:
        process = SimProcess("sleeper")
        process.start(asyncio.sleep(1))
        process.pause()
        await process.wait()

    with pytest.raises(DeadlockError, match="process sleeper is paused and holds 1 callbacks"):
        run(main())


@pytest.mark.parametrize("how", ["call_soon", "call_at", "sleep"])
def test_a_livelock_is_caught(how: str) -> None:
    async def main() -> None:
        loop = current_loop()

        def again() -> None:
            loop.call_soon(again) if how == "call_soon" else loop.call_at(0.0, again)

        if how == "sleep":
            while True:  # noqa: ASYNC110 - the mistake that is to be found
                await asyncio.sleep(0)
        again()
        await asyncio.sleep(1)

    with pytest.raises(LivelockError, match=r"at 0\.000 s"):
        run(main(), max_spin=1000)


def test_many_callbacks_spread_over_time_are_no_livelock() -> None:
    async def main() -> None:
        for _ in range(5000):
            await asyncio.sleep(0.001)

    run(main(), max_spin=100)


REACHES: dict[str, Callable[[], Awaitable[object]]] = {
    "run_in_executor": lambda: asyncio.to_thread(print),
    "create_connection": lambda: asyncio.open_connection("localhost", 1),
    "create_unix_server": lambda: asyncio.start_unix_server(lambda r, w: None, "nowhere"),
    "create_server": lambda: asyncio.start_server(lambda r, w: None, "localhost", 1),
    "subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "getaddrinfo": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
}


@pytest.mark.parametrize("name", REACHES)
def test_reaching_outside_is_refused_by_name(name: str) -> None:
    async def main() -> None:
        await REACHES[name]()

    with pytest.raises(NotSimulatedError, match=rf"loop\.{name} is not simulated: .* port"):
        run(main())


def test_each_operation_that_is_refused_says_which_it_is_and_what_to_use_in_its_place() -> None:
    told: dict[str, str] = {}

    @refusing
    class Loop:
        def refuse(self, name: str, why: str) -> NoReturn:
            told[name] = why
            raise NotSimulatedError(name)

    for name in REFUSED:
        operation = getattr(Loop(), name)
        with pytest.raises(NotSimulatedError, match=name):
            operation(1, more=2)
        assert (operation.__name__, operation.__doc__) == (name, f"Refused: {told[name]}.")
    assert told == REFUSED


def test_a_signal_handler_of_no_simulated_process_is_refused() -> None:
    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    with pytest.raises(NotSimulatedError, match="add_signal_handler"):
        run(main())


def test_a_refusal_is_found_even_when_its_error_is_swallowed() -> None:
    async def main() -> str:
        try:
            await asyncio.to_thread(print)
        except Exception:  # noqa: BLE001 - what a careless caller does
            return "swallowed"
        return "not refused"

    with pytest.raises(LeftoverError, match="run_in_executor"):
        run(main())


def test_a_foreign_thread_is_refused() -> None:
    async def main() -> list[BaseException]:
        loop, errors = current_loop(), list[BaseException]()

        def foreign() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotSimulatedError as error:
                errors.append(error)

        thread = threading.Thread(target=foreign)
        thread.start()
        thread.join()
        assert len(errors) == 1
        return errors

    with pytest.raises(LeftoverError, match="a thread called into the simulation"):
        run(main())


def test_a_task_left_running_is_found_and_ended() -> None:
    ended: list[str] = []

    async def stubborn(name: str) -> None:
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                continue
            finally:
                ended.append(name)

    async def main() -> None:
        for name in ("first", "second"):
            asyncio.create_task(stubborn(name), name=name)  # noqa: RUF006 - nobody keeps it, on purpose
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match="task first") as caught:
        run(main())
    assert [str(finding).splitlines()[0] for finding in caught.value.findings] == [
        "[1.000 s] task first",
        "[1.000 s] task second",
    ]
    assert ended == ["first", "second"]


def test_a_process_left_running_is_found() -> None:
    async def main() -> None:
        SimProcess("node-1").start(forever())
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match=r"\[1.000 s in node-1\] the process still runs"):
        run(main())


def test_a_coroutine_never_awaited_is_found() -> None:
    async def main() -> None:
        forever()  # type: ignore[unused-coroutine]

    with pytest.raises(LeftoverError, match="coroutine 'forever' was never awaited"):
        run(main())


def test_an_exception_never_retrieved_is_found() -> None:
    async def fails() -> None:
        raise ValueError("nobody looks")

    async def main() -> None:
        asyncio.create_task(fails())  # noqa: RUF006 - nobody keeps it, on purpose
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match="nobody looks"):
        run(main())


def test_an_exception_in_a_callback_is_found_with_its_traceback() -> None:
    def fails() -> None:
        raise ValueError("in a callback")

    async def main() -> None:
        current_loop().call_soon(fails)
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match=r"(?s)in fails.*in a callback"):
        run(main())


async def numbers() -> AsyncIterator[int]:
    for number in range(10):
        yield number
        await asyncio.sleep(1)


def test_an_async_generator_dropped_half_way_is_found() -> None:
    async def main() -> None:
        async for number in numbers():
            if number == 2:
                break
        await asyncio.sleep(1)

    with pytest.raises(LeftoverError, match="async generator numbers was dropped half-way"):
        run(main())


def test_an_async_generator_held_half_way_at_the_end_is_found() -> None:
    held = []

    async def main() -> None:
        agen = numbers()
        held.append(agen)
        await anext(agen)

    with pytest.raises(LeftoverError, match="async generator numbers was left half-way"):
        run(main())


def test_an_async_generator_that_is_closed_or_exhausted_is_no_finding() -> None:
    async def main() -> int:
        total = 0
        async with aclosing(numbers()) as some:  # type: ignore[type-var]
            async for number in some:
                if number == 2:
                    break
        async for number in numbers():
            total += number
        return total

    assert run(main()) == 45


def test_a_finalizer_that_fails_is_found_also_in_cyclic_garbage() -> None:
    class Bad:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    async def main() -> None:
        Bad()

    with pytest.raises(LeftoverError, match="ValueError: in a finalizer"):
        run(main())


def test_what_main_raises_carries_the_findings_as_notes() -> None:
    async def fails() -> None:
        raise ValueError("the cause")

    async def main() -> None:
        asyncio.create_task(fails())  # noqa: RUF006 - nobody keeps it, on purpose
        await asyncio.sleep(1)
        raise KeyError("the symptom")

    with pytest.raises(KeyError) as caught:
        run(main())
    assert any("the cause" in note for note in caught.value.__notes__)


def test_the_hooks_are_restored_after_a_failed_run() -> None:
    hook = sys.unraisablehook

    async def main() -> None:
        await forever()

    with pytest.raises(DeadlockError):
        run(main())
    assert sys.unraisablehook is hook
    assert asyncio._get_running_loop() is None
