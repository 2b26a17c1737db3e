"""A realm of dsmt for the length of a block: real programs in a home of its own, ended whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import to_data
from dsmt.operations.connection import Connection, connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.ports.bus import Arrived, Complete, Draft, Interest
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain

ATTACH_S = 30.0
SPEC = """\
service: {service}
components:
  stamp:
    run: {run}
    instances: {instances}
    update: {{healthy_after: 200ms}}
    restart: {{reset: 500ms}}
    reserve: {{cpu: 0.001, memory: 1MiB}}
"""
"""A run counts as healthy after 0.2 s and forgets earlier failures 0.5 s later: every kill meets the default road, a
restart at once after a healthy run, never a backoff. Next to nothing is reserved: a small machine takes fifty."""


@contextmanager
def realm(directory: Path, *, nodes: int, controllers: int) -> Iterator[Home]:
    """A realm with one broker, started as `dsmt up` does."""
    home = Home(directory)
    try:
        asyncio.run(up(home, Wanted(nodes=nodes, controllers=controllers, name="bench")))
        yield home
    finally:
        asyncio.run(down(home))


@asynccontextmanager
async def operator(home: Home) -> AsyncIterator[Connection]:
    """A connection of its own, as the command line has it."""
    async with connect(home.operator(), home.realm(), patience_s=ATTACH_S) as connection:
        yield connection


async def apply(connection: Connection, service: str, run: str, *, instances: int) -> None:
    """Publish a new service that keeps `run` alive; placement and start go on after the return."""
    for spec in parse(SPEC.format(service=service, run=run, instances=instances), file="bench.yaml"):
        fact = SpecFact(spec=to_plain(spec), by=connection.by, reason="benchmark")
        await connection.bus.publish(Draft(f"service/{service}/spec", to_data(fact)))


def applied(home: Home, service: str, run: str, *, instances: int) -> None:
    """The same with a connection only for this."""

    async def once() -> None:
        async with operator(home) as connection:
            await apply(connection, service, run, instances=instances)

    asyncio.run(once())


@dataclass(frozen=True, slots=True)
class Heard:
    """A verified event: when it was handed to this reader (CLOCK_BOOTTIME ns), its topic and its data."""

    at_ns: int
    topic: str
    data: dict[str, Any]


class Ear:
    """A subscription that notes when each event came."""

    def __init__(self) -> None:
        self._heard: deque[Heard] = deque(maxlen=10_000)
        self._came = asyncio.Event()
        self._complete = asyncio.Event()

    async def follow(self, connection: Connection, patterns: tuple[str, ...]) -> None:
        async with connection.bus.subscribe(Interest(patterns)) as deliveries:
            async for batch in deliveries:
                at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                for one in batch:
                    if isinstance(one, Arrived):
                        self._heard.append(Heard(at, one.signed.event.topic, dict(one.signed.event.data)))
                    elif isinstance(one, Complete):
                        self._complete.set()
                self._came.set()

    async def complete(self) -> None:
        async with asyncio.timeout(ATTACH_S):
            await self._complete.wait()

    async def until(self, what: str, matching: Callable[[Heard], bool], timeout_s: float) -> Heard:
        """The first matching event, of those not yet taken; it and all before it are taken. Raises `TimeoutError`."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._came.clear()
                    while self._heard:
                        if matching(heard := self._heard.popleft()):
                            return heard
                    await self._came.wait()
        except TimeoutError as error:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}") from error

    def forget(self) -> None:
        """Take all that came."""
        self._heard.clear()


@asynccontextmanager
async def listening(connection: Connection, *patterns: str) -> AsyncIterator[Ear]:
    """Hear topics for the length of a block."""
    ear = Ear()
    task = asyncio.create_task(ear.follow(connection, patterns))
    try:
        await ear.complete()
        yield ear
    finally:
        task.cancel()
        await asyncio.wait({task})
