"""A realm that keeps two redis alive, and what must hold of it after whatever was done to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.real.fleet import Fleet, eventually, fleet, processes_of, redis_spec


def run(directory: Path, scenario, *, nodes: int = 3) -> None:
    async def main() -> None:
        async with fleet(directory, nodes=nodes) as made:
            await made.apply(redis_spec(2))
            await made.ready("store", 2)
            await made.say()
            await scenario(made)
            await made.say()
            assert await made.missing() == []
            no_duplicates(made)

    asyncio.run(main())


def no_duplicates(made: Fleet) -> None:
    """Exactly one redis runs for each slot."""
    assert sorted(redis_processes(made)) == running(made)


def running(made: Fleet) -> list[int]:
    """The pids that are told of all services, sorted."""
    return sorted(pid for service in made.watch.view.services for pid in made.pids(service).values())


def redis_processes(made: Fleet) -> list[int]:
    return [pid for pid, text in processes_of(made.home.root).items() if text.startswith("redis-server")]


async def settled(made: Fleet, count: int = 2) -> None:
    """Wait until as many instances run as slots want, and no other process of the service is left."""
    await made.ready("store", count)
    await eventually("one process for each slot", lambda: sorted(redis_processes(made)) == running(made))
