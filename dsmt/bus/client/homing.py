"""Homing: whoever belongs to a site, and is attached elsewhere while its leaf does not answer, goes back to it (rule E5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from dsmt.bus.client.brokers import KnownBrokers
from dsmt.errors import TransportError
from dsmt.ports.entropy import Entropy
from dsmt.ports.network import Link
from dsmt.ports.realm import BrokerAddress

HOME_S: Final = 30.0
JITTER_S: Final = 15.0
"""So that the processes of a node do not all leave at once, which would look like its death (F2)."""


async def go_home(brokers: KnownBrokers, connect: Callable[[BrokerAddress], Awaitable[Link]], entropy: Entropy) -> None:
    """Raise `TransportError` when a leaf of one's own answers and one is attached elsewhere: the next attempt is for it."""
    while True:
        await asyncio.sleep(HOME_S)
        if brokers.home is None:
            continue
        await asyncio.sleep(entropy.uniform(0.0, JITTER_S))
        home, link = brokers.home, None
        with suppress(TransportError):
            link = None if home is None else await connect(home)
        if home is not None and link is not None:
            await link.close()
            raise TransportError("link.home", f"the site's own broker at {home.address} answers again", next="it goes there")
