"""What tests of moves stand on: a realm that runs, somebody who says something meanwhile, and what must be so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

from dsmt.errors import DsmtError
from dsmt.event.envelope import EventId
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.moving import migrating
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.ports.bus import Arrived, Bus, Draft, Interest, Notice, Start
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.records import process_of
from tests.real.fleet import PATIENCE_S, attached, end, eventually, web_spec
from tests.real.seat import dsmt

WEB = web_spec(3)
PACE_S = 0.02
BLOB = os.urandom(700_000)


async def pieces() -> AsyncIterator[bytes]:
    for start in range(0, len(BLOB), 100_000):
        yield BLOB[start : start + 100_000]


class Publisher:
    """Says something again and again, over whatever carries the realm, and keeps what was acknowledged.

    At a pace: who says all that it can takes both cores from the move that is looked at.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.acknowledged: list[EventId] = []
        self.ends = False

    async def run(self) -> None:
        while not self.ends:
            with suppress(DsmtError, TimeoutError):
                async with connect(self._home.operator(), self._home.realm()) as connection:
                    while not self.ends:
                        await self._say(connection.bus)
                        await asyncio.sleep(PACE_S)

    async def _say(self, bus: Bus) -> None:
        emission = bus.emit(Draft("user/test/said", {"n": len(self.acknowledged)}))
        async with asyncio.timeout(1.0):
            await emission.acknowledged()
        assert emission.id is not None
        self.acknowledged.append(emission.id)


@asynccontextmanager
async def publishing(home: Home) -> AsyncIterator[Publisher]:
    publisher = Publisher(home)
    running = asyncio.create_task(publisher.run())
    try:
        yield publisher
        before = len(publisher.acknowledged)
        await eventually("more that is acknowledged", lambda: len(publisher.acknowledged) > before + 5)
    finally:
        publisher.ends = True
        await running


async def begun(home: Home, engine: str, brokers: int = 1) -> dict[tuple[str, int, str], int]:
    """A realm of two nodes with a service; the pids of its instances."""
    await up(home, Wanted(nodes=2, controllers=1, brokers=brokers, name="test", engine=engine))
    async with attached(home, nodes=2) as made:
        await made.apply(WEB)
        await made.ready("web", 3)
        return made.pids("web")


def running(directory: Path, program: str) -> ProcessIdentity | None:
    return process_of(directory, program)


async def moved(home: Home) -> None:
    started = await migrating.cut(home, tell=lambda _: None)
    async with attached(home, nodes=len(started.nodes)):
        await migrating.finish(home)


def within(home: Home, work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        try:
            await work()
        finally:
            await end(home)

    asyncio.run(run())


async def commanded(home: Home, *words: str) -> str:
    """What a command line says that ends well."""
    said = await dsmt(home.root, *words)
    return said.out + said.err


async def stands(home: Home, publisher: Publisher, before: dict[tuple[str, int, str], int]) -> None:
    """All is as it was: instances, events, and nobody was judged dead."""
    async with attached(home, nodes=2) as made:
        await made.ready("web", 3)
        assert made.pids("web") == before
        made.acknowledged = list(publisher.acknowledged)  # it may go on
        assert await made.missing() == []
        async with made.connection.bus.subscribe(Interest(("/",), start=Start.HISTORY, follow=False)) as batches:
            found = [one async for batch in batches for one in batch]
        said = [one.signed for one in found if isinstance(one, Arrived)]
        assert not [one for one in said if one.event.topic.endswith("/verdict")]
        assert {one.id for one in said}.issuperset(made.acknowledged)
        assert [one for one in found if isinstance(one, Notice)] == []


async def put_blob(home: Home) -> None:
    """Have the depot keep something that no service names."""
    async with connect(home.operator(), home.realm()) as connection:
        await connection.bus.put_blob(pieces(), sha256(BLOB).digest())


async def has_blob(home: Home) -> None:
    """The depot has it."""
    async with connect(home.operator(), home.realm()) as connection:
        assert b"".join([one async for one in connection.bus.get_blob(sha256(BLOB).digest())]) == BLOB


async def killed(directory: Path, program: str) -> None:
    """A program is killed, and another one is there."""
    before = running(directory, program)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    await eventually(f"another {program}", lambda: running(directory, program) not in (None, before))


async def works(home: Home) -> None:
    """Commands see what was said before, and what is killed is repaired."""
    assert "web" in await commanded(home, "status")
    assert "running" in await commanded(home, "ps")
    assert "web/app/0" in await commanded(home, "why", "web/app/0")
    assert "1" in await commanded(home, "history", "web")
    await commanded(home, "restart", "web/app/0", "--wait")
    async with attached(home, nodes=2) as made:
        found = await made.ready("web", 3)
        key, instance = next(iter(found.items()))
        assert instance.application is not None
        pid = instance.application.record.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await made.watch.until("the next one", lambda: made.pids("web").get(key, pid) != pid, PATIENCE_S)
