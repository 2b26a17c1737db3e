"""A bus that delivers what a test has written down, and answers from a recording."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.bus import Arrived, Complete, Cursor, Delivery, Draft, Interest

Step = Sequence[Delivery] | Callable[[], Sequence[Delivery] | None]


class ScriptedSubscription:
    """One subscription: the batches of a script; what is callable makes one when its turn has come, or takes a while."""

    def __init__(self, steps: Sequence[Step], interest: Interest) -> None:
        self._steps = deque(steps)
        self._interest = interest

    def __aiter__(self) -> "ScriptedSubscription":
        return self

    async def __anext__(self) -> Sequence[Delivery]:
        while self._steps:
            step = self._steps.popleft()
            if not callable(step):
                return step
            made = step()
            if made is not None:
                return made
            await asyncio.sleep(1)  # cancelled by a reader that looks elsewhere meanwhile
        if self._interest.follow:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    def mark(self, token: int) -> None:
        """No marks here."""


class ScriptedBus:
    """What `tail`, `why` and `logs` need of a bus. `scripts` are given out one by one, the last again and again."""

    source = "operator/test"
    broker = "broker/b1"

    def __init__(self, *scripts: Sequence[Step], now_ms: int, events: Sequence[SignedEvent] = ()) -> None:
        self.attached = True
        self.asked: list[Interest] = []
        self.emitted: list[Draft] = []
        self._now_ms = now_ms
        self._scripts = deque(scripts)
        self._events = {one.id: one for one in events}

    def now_ms(self) -> int:
        return self._now_ms

    def later(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[ScriptedSubscription]:
        self.asked.append(interest)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        yield ScriptedSubscription(script, interest)

    def emit(self, draft: Draft) -> None:
        self.emitted.append(draft)

    async def fetch(self, ids: Sequence[EventId]) -> list[SignedEvent]:
        return [self._events[one] for one in ids if one in self._events]


def came(*events: SignedEvent, live: bool = False) -> list[Any]:
    return [Arrived(one, row, live) for row, one in enumerate(events, 1)]


def complete(now_ms: int = 0) -> Complete:
    return Complete(Cursor("s", 1, now_ms), whole=True)
