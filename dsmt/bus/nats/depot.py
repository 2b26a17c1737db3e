"""The depot on NATS: blobs in pieces, in a stream of their own.

Rule 1: a blob is called by its sha256, and its pieces stand under the name of who has put it: nobody can spoil another's.
    The piece that says how many there are comes last.
Rule 2: it is checked as it is read. Where several have put it, the first whole one is looked for before anything is
    handed out.
Rule 3: what a lost link or a silent server still owes is asked again (`Asks`), as at a broker: no piece is read or put for
    nothing.
Rule 4: nobody sweeps: what no service needs any more the administrator removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import held_on
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, NotFoundError

PIECE: Final = 128 * 1024
AT_ONCE: Final = 8
Answer = TypeVar("Answer")


class Asks(Protocol):
    """Asks a server, over the link of the moment; again, where who asks outlives its link."""

    async def __call__(self, question: Callable[[NatsLink], Awaitable[Answer]]) -> Answer:
        """What is answered. Raises `TransportError`."""
        ...


def over(link: NatsLink) -> Asks:
    """Asks over one link, once."""

    async def ask(question: Callable[[NatsLink], Awaitable[Answer]]) -> Answer:
        return await question(link)

    return ask


async def put(ask: Asks, subjects: Subjects, sayer: str, chunks: AsyncIterator[bytes], digest: bytes) -> None:
    """Put a blob there, unless it is. Raises `FailedError`, `TransportError`, `RefusedError`."""
    if await _held(ask, subjects, digest):
        return
    count, waiting, seen = 0, bytearray(), sha256()
    pieces: list[Publication] = []
    async for chunk in chunks:
        seen.update(chunk)
        waiting += chunk
        while len(waiting) >= PIECE:
            pieces.append(Publication(subjects.piece(sayer, digest, str(count)), bytes(waiting[:PIECE]), {}))
            del waiting[:PIECE]
            count += 1
            if len(pieces) == AT_ONCE:
                await _publish(ask, pieces)
    if waiting:
        pieces.append(Publication(subjects.piece(sayer, digest, str(count)), bytes(waiting), {}))
        count += 1
    await _publish(ask, pieces)
    if seen.digest() != digest:
        raise FailedError("depot.mismatch", f"blob {digest.hex()}: it has another sha256", next="put it again")
    await _publish(ask, [Publication(subjects.piece(sayer, digest, "count"), str(count).encode(), {})])


async def _publish(ask: Asks, pieces: list[Publication]) -> None:
    async def publish(one: Publication) -> dict[str, Any]:
        return await ask(lambda link: link.publish(one))

    try:
        await asyncio.gather(*(publish(one) for one in pieces))
    except ApiError as error:
        raise FailedError("depot.full", f"the depot takes nothing: {error}", next="make room, and put it again") from error
    pieces.clear()


async def get(ask: Asks, subjects: Subjects, digest: bytes) -> AsyncIterator[bytes]:
    """The blob's bytes, checked at the end. Raises `NotFoundError`, `FailedError`, `TransportError`."""
    held = await _held(ask, subjects, digest)
    if not held:
        raise NotFoundError("depot.unknown", f"blob {digest.hex()} is not in the depot", next="apply again")
    sayer, count = held[0]
    for other, other_count in held if len(held) > 1 else ():
        if await _is_whole(ask, subjects, other, other_count, digest):
            sayer, count = other, other_count
            break
    seen = sha256()
    async for piece in _pieces(ask, subjects, sayer, count, digest):
        seen.update(piece)
        yield piece
    if seen.digest() != digest:
        raise FailedError("depot.mismatch", f"blob {digest.hex()} of {sayer} has another sha256", next="apply again")


async def digests(link: NatsLink, subjects: Subjects) -> list[bytes]:
    """The digests of all that was put, by anybody. Raises `TransportError`."""
    found = dict[bytes, None]()
    async for one in all_of(link, subjects.blobs, [subjects.all_counts]):
        with suppress(ValueError):
            found[subjects.counted(one.subject)] = None
    return list(found)


async def _held(ask: Asks, subjects: Subjects, digest: bytes) -> list[tuple[str, int]]:
    """Who has put it, and in how many pieces."""
    found = await ask(lambda link: held_on(link, subjects.blobs, [subjects.counts(digest)]))
    return [(subjects.putter(one.subject), int(one.raw)) for one in found if one.raw.isdigit()]


async def _is_whole(ask: Asks, subjects: Subjects, sayer: str, count: int, digest: bytes) -> bool:
    seen = sha256()
    try:
        async for piece in _pieces(ask, subjects, sayer, count, digest):
            seen.update(piece)
    except FailedError:
        return False
    return seen.digest() == digest


async def _pieces(ask: Asks, subjects: Subjects, sayer: str, count: int, digest: bytes) -> AsyncIterator[bytes]:
    async def piece(number: int) -> bytes:
        subject = subjects.piece(sayer, digest, str(number))
        found = await ask(lambda link: held_on(link, subjects.blobs, [subject]))
        if not found:
            said = f"blob {digest.hex()} of {sayer} has no piece {number}"
            raise FailedError("depot.mismatch", said, next="apply again")
        return found[0].raw

    for first in range(0, count, AT_ONCE):
        for one in await asyncio.gather(*(piece(n) for n in range(first, min(first + AT_ONCE, count)))):
            yield one
