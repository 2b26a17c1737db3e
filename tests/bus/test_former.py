"""Brokers that were removed are asked for the words on brokers, one after the other (rule R8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from dsmt.bus.broker.others import former
from dsmt.bus.broker.others.former import Former
from dsmt.ports.realm import BrokerAddress
from tests.waiting import until

SILENT, ANSWERS = BrokerAddress("silent:1", b"s" * 32), BrokerAddress("answers:1", b"a" * 32)


class Reached:
    """A client of one former broker, which answers or never does."""

    def __init__(self, there: BrokerAddress) -> None:
        self.broker, self._answers = there.address, there is ANSWERS
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.runs -= 1

    async def wait_attached(self) -> None:
        if not self._answers:
            await asyncio.Event().wait()

    @asynccontextmanager
    async def subscribe(self, _interest: Any) -> AsyncIterator[AsyncIterator[list[Any]]]:
        async def batches() -> AsyncIterator[list[Any]]:
            yield []

        yield batches()


def test_one_that_never_answers_keeps_nobody_from_being_asked_and_no_client_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "ASK_S", 0.0)
    monkeypatch.setattr(former, "ANSWER_S", 0.02)
    asked: list[Reached] = []
    taken: list[str] = []

    @contextmanager
    def reach(there: Sequence[BrokerAddress]) -> Iterator[Any]:
        assert not any(one.runs for one in asked), "one after the other"
        asked.append(Reached(there[0]))
        yield asked[-1]

    async def main() -> None:
        asks = Former(reach, lambda broker, _arrived, _bus: taken.append(broker))
        running = asyncio.create_task(asks.run())
        asks.know([SILENT, ANSWERS])
        await until(lambda: len(taken) >= 2)
        running.cancel()
        await asyncio.wait({running})
        assert not any(one.runs for one in asked)

    asyncio.run(main())
    assert set(taken) == {"answers:1"}
    assert [one.broker for one in asked][:4] == ["silent:1", "answers:1"] * 2


def test_a_former_broker_that_answers_as_its_time_is_up_leaves_no_client_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its link was open when the network was closed, which waited for it for ever, and the broker's loop with it."""
    monkeypatch.setattr(former, "ASK_S", 0.0)
    monkeypatch.setattr(former, "ANSWER_S", 0.02)
    left: list[int] = []

    class Slow(Reached):
        """A client that takes longer to end than there is time."""

        async def wait_attached(self) -> None:
            await until(lambda: self.runs)

        async def run(self) -> None:
            self.runs += 1
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                self.runs -= 1

    @contextmanager
    def reach(there: Sequence[BrokerAddress]) -> Iterator[Any]:
        one = Slow(there[0])
        try:
            yield one
        finally:
            left.append(one.runs)

    async def main() -> None:
        asks = Former(reach, lambda *_: 0)
        running = asyncio.create_task(asks.run())
        asks.know([ANSWERS])
        await until(lambda: len(left) >= 2)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()

    asyncio.run(main())
    assert not any(left)
