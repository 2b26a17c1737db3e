"""Handing on: what a broker alone has stored is with another one before it is none any more (rule R8).

So is what specs name in its depot (rule E6).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from dsmt.errors import NotFoundError, RefusedError, TransportError
from dsmt.event.envelope import EventId
from dsmt.operations.connection import PATIENCE_S, reading
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
SOON_S: Final = 1.0
"""Who has so soon what another one has stored has the rest when that is removed."""
LOOK_S: Final = 0.2


async def read_up(home: Home, bus: Bus, name: str, waits: Tell) -> bool:
    """Wait until all that a broker has stored is with another one that is no leaf.

    Whether it was asked; one that lets nobody in is not waited for. Raises `RefusedError` where no other one comes so far
    in time.
    """
    known = await brokers.announced(bus)
    others = [one for other, one in known.items() if other != name and not one.leaf]
    if name not in known or not others:
        return True
    most = asyncio.timeout(HANDED_S)
    try:
        async with _asking(home, [known[name]], PATIENCE_S) as here, most:
            while await _comes_late(here, partial(_holds, home, others), waits, name):
                pass
    except (RefusedError, TransportError, TimeoutError) as error:
        if most.expired():
            said = f"{name} has stored what no other broker has read yet: it would be lost"
            mend = f"type it again when they have; if it never gives that: dsmt cert revoke broker/{name}"
            raise RefusedError("broker.alone", said, next=mend) from None
        return isinstance(error, RefusedError)
    return True


async def _comes_late(here: BusReader, holds: Callable[[EventId], Awaitable[bool]], waits: Tell, name: str) -> bool:
    """Wait until another one has all that one has now; whether that took so long that there is more by now.

    A broker is read in the order in which it has stored: who has its newest head has what is before that.
    """
    began, head, late = asyncio.get_running_loop().time(), (await here.head()).id, False
    while not await holds(head):
        if not late and asyncio.get_running_loop().time() > began + SOON_S:
            waits(f"{name} has stored what no other broker has read yet")
            late = True
        await asyncio.sleep(LOOK_S)
    return late


async def _holds(home: Home, others: Sequence[BrokerAddress], one: EventId) -> bool:
    """Whether one of these brokers answers, and has an event."""
    with suppress(RefusedError, TransportError, TimeoutError):
        async with _asking(home, others, PATIENCE_S) as there:
            return bool(await there.fetch([one]))
    return False


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
async def _asking(home: Home, there: Sequence[BrokerAddress], patience_s: float = REACHED_S) -> AsyncIterator[BusReader]:
    async with reading(home.operator(), home.realm(), brokers=list(there), patience_s=patience_s) as connection:
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
