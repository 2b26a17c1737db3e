"""A test on a bus of NATS, and what its readers got."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.bus.contract.engines import NatsEngine, engine


def on_nats(test: Callable[[NatsEngine], Awaitable[None]]):
    def run(tmp_path) -> None:
        async def within() -> None:
            async with asyncio.timeout(45), engine("nats", tmp_path) as e:
                await test(e)

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
