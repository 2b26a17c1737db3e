"""A realm that tests share, in which a bystander runs: after each test its processes are the same, never restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from dsmt.errors import NotFoundError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.write.removing import remove
from tests.real.fleet import Fleet, attached, redis_spec
from tests.real.https import Server

NODES = 2
BYSTANDER = "bystander"


@dataclass(frozen=True)
class Shared:
    """The realm, and an https server that its nodes trust."""

    home: Home
    server: Server


async def begin(home: Home) -> None:
    """Start the realm and its bystander."""
    await up(home, Wanted(nodes=NODES, name="test"))
    async with attached(home, nodes=NODES) as made:
        await made.apply(redis_spec(2, BYSTANDER))
        await made.ready(BYSTANDER, 2)


def beside(shared: Shared, scenario: Callable[[Fleet], Awaitable[None]]) -> None:
    """Play a scenario; what it has declared is removed, and the bystander has not noticed."""

    async def main() -> None:
        async with attached(shared.home, nodes=NODES) as made:
            await made.ready(BYSTANDER, 2)
            before = made.pids(BYSTANDER)
            try:
                await scenario(made)
                await made.say()
                assert await made.missing() == []
                assert made.pids(BYSTANDER) == before
                told = [instance.application for instance in made.instances(BYSTANDER).values()]
                assert [one.record.restarts for one in told if one is not None] == [0, 0]
            finally:
                for service in sorted(made.watch.view.services.keys() - {BYSTANDER}):
                    with suppress(NotFoundError):
                        await remove(made.connection.bus, service, by="test", reason="")

    asyncio.run(main())
