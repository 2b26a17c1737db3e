"""Handing on: what specs name in a broker's depot is with another one before that broker is none any more (rule E6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from dsmt.errors import NotFoundError, RefusedError, TransportError
from dsmt.operations.connection import reading
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.realm.sight import look
from dsmt.operations.words.telling import Tell
from dsmt.operations.write import brokers
from dsmt.ports.bus import Bus, BusReader
from dsmt.ports.realm import BrokerAddress

REACHED_S: Final = 2.0
"""How long one is asked that may be gone for good."""
HANDED_S: Final = 60.0
AGAIN_S: Final = 0.5
"""Who is asked for what it has not fetches it at once."""


async def handed_on(home: Home, bus: Bus, name: str, waits: Tell) -> None:
    """Wait until what live specs name, and a broker that answers has, is with another one that is no leaf.

    Raises `RefusedError` where no other one takes it.
    """
    known = await brokers.announced(bus)
    named = {} if home.realm().nats is not None else await _named(bus)
    others = [one for other, one in known.items() if other != name and not one.leaf]
    if name not in known or not others or not named:
        return
    with suppress(TransportError, TimeoutError):
        async with _asking(home, others) as there:
            if missing := [digest for digest in named if not await _has(there, digest)]:
                async with _asking(home, [known[name]]) as here:
                    alone = {digest: named[digest] for digest in missing if await _has(here, digest)}
                if alone:
                    waits(f"{name} alone holds {', '.join(sorted(alone.values()))}, which another broker is fetching")
                    await _fetched(there, name, alone)


async def _fetched(bus: BusReader, name: str, alone: dict[bytes, str]) -> None:
    until = asyncio.get_running_loop().time() + HANDED_S
    for digest, url in alone.items():
        while not await _has(bus, digest):
            if asyncio.get_running_loop().time() > until:
                said = f"{name} alone holds {url}, and no other broker takes it"
                raise RefusedError("broker.alone", said, next="dsmt brokers shows what is wrong with them")
            await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def _asking(home: Home, there: Sequence[BrokerAddress]) -> AsyncIterator[BusReader]:
    async with reading(home.operator(), home.realm(), brokers=list(there), patience_s=REACHED_S) as connection:
        yield connection.bus


async def _has(bus: BusReader, digest: bytes) -> bool:
    """Whether a broker has a blob, when it has asked the others for it. Raises `TimeoutError`, `TransportError`."""
    try:
        async with asyncio.timeout(HANDED_S):
            await anext(aiter(bus.get_blob(digest)), b"")
    except NotFoundError:
        return False
    return True


async def _named(bus: BusReader) -> dict[bytes, str]:
    """By sha256, the names of the blobs that live specs name."""
    found = {}
    for entry in (await look(bus)).view.services.values():
        components = {} if entry.parsed is None else entry.parsed.components
        for component in components.values():
            for one in component.artifacts:
                if one.origin == "depot" and one.sha256 is not None:
                    found[bytes.fromhex(one.sha256)] = one.url
    return found
