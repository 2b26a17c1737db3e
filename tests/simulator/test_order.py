"""Sets of tasks iterate in the order of their numbers; asyncio's own tasks iterate in that of their addresses."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress

import pytest

from dsmt.simulator.engine.handles import SimTask
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.run import run


async def aborted_group(seen: list[int]) -> None:
    """Append the order in which the children of an aborted TaskGroup are cancelled."""

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(number)

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("abort")

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(child(number))
            group.create_task(fails())


async def waited(seen: list[int]) -> None:
    """Append the order of `asyncio.wait`'s set of done tasks."""
    tasks = [asyncio.create_task(asyncio.sleep(1), name=str(number)) for number in range(20)]
    done, _ = await asyncio.wait(tasks)
    seen.extend(int(task.get_name()) for task in done)


async def all_of_them(seen: list[int]) -> None:
    """Append the order of `all_tasks`."""
    tasks = [asyncio.create_task(asyncio.sleep(1), name=str(number)) for number in range(20)]
    seen.extend(int(task.get_name()) for task in asyncio.all_tasks() if task in tasks)
    await asyncio.gather(*tasks)


ORDERS: list[Callable[[list[int]], object]] = [aborted_group, waited, all_of_them]


def ranks(scenario: Callable[[list[int]], object]) -> list[int]:
    seen: list[int] = []

    async def main() -> None:
        await scenario(seen)  # type: ignore[misc]

    run(main())
    return seen


@pytest.mark.parametrize("scenario", ORDERS, ids=lambda s: s.__name__)
def test_sets_of_tasks_iterate_alike_whatever_their_addresses(scenario: Callable[[list[int]], object]) -> None:
    orders = []
    ballast = []
    for size in (1, 100, 37, 1000):
        ballast.append([object() for _ in range(size)])
        orders.append(ranks(scenario))
    assert sorted(orders[0]) == list(range(20))
    assert orders == [orders[0]] * 4


@pytest.mark.parametrize("scenario", ORDERS, ids=lambda s: s.__name__)
def test_with_hashes_like_addresses_the_order_does_change(
    scenario: Callable[[list[int]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = ranks(scenario)
    monkeypatch.setattr(SimTask, "__hash__", lambda task: (task.number * 0x9E3779B97F4A7C15 >> 7) & 0xFFFFFF)
    assert ranks(scenario) != mended


def test_a_server_task_made_in_a_delivery_does_not_carry_the_senders_variables() -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")

    async def main() -> dict[str, str]:
        seen: dict[str, str] = {}
        loop = current_loop()

        async def server(how: str) -> None:
            seen[how] = word.get()

        def deliver(how: str) -> None:
            loop.create_task(server(how))

        word.set("of the sender")
        loop.call_later(1, deliver, "call_later")
        loop.call_in_at(None, 1.0, deliver, "call_in_at")
        await asyncio.sleep(2)
        return seen

    assert run(main()) == {"call_later": "of the sender", "call_in_at": "none"}
