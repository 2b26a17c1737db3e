"""Homing: who is attached where it should not stay looks now and then whether there is a better broker (rules E5, R8).

Rule 1: who belongs to a site, and is attached elsewhere while its leaf does not answer, goes back to it.
Rule 2: who is attached to a broker that is linked with no other one goes to one that is: what is said here, nobody hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from dsmt.bus.client.brokers import KnownBrokers
from dsmt.bus.wire.frames import Welcome
from dsmt.errors import RefusedError, TransportError
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Link
from dsmt.ports.realm import BrokerAddress

HOME_S: Final = 30.0
JITTER_S: Final = 15.0
"""So that the processes of a node do not all leave at once, which would look like its death (F2)."""


async def go_home(
    brokers: KnownBrokers,
    connect: Callable[[BrokerAddress], Awaitable[Link]],
    greet: Callable[[Link], Awaitable[Welcome]],
    entropy: Entropy,
) -> None:
    """Raise `TransportError` when a better broker lets one in: the next attempt is for it."""

    async def is_better(there: BrokerAddress) -> bool:
        link = await connect(there)
        try:
            async with brokers.patience():
                return not (await greet(link)).isolated
        finally:
            await link.close()

    while True:
        await asyncio.sleep(HOME_S)
        if brokers.better is None:
            continue
        await asyncio.sleep(entropy.uniform(0.0, JITTER_S))
        there, found = brokers.better, False
        with suppress(TransportError, RefusedError):
            found = there is not None and await is_better(there)
        if there is not None and found:
            brokers.prefer(there)
            raise TransportError("link.home", f"the broker at {there.address} answers, and is the better one")
