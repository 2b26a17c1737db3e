"""The depot on NATS: blobs in pieces, in a stream of their own.

Rule 1: a blob is called by its sha256, and its pieces stand under the name of who has put it: nobody can spoil another's.
    The piece that says how many there are comes last.
Rule 2: it is checked as it is read. Where several have put it, the first whole one is looked for before anything is
    handed out.
Rule 3: nobody sweeps: what no service needs any more the administrator removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import ANSWER_S, ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import last_of_each
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, NotFoundError, TransportError

PIECE: Final = 128 * 1024
AT_ONCE: Final = 8
_AGAIN_S: Final = 0.02


async def put(link: NatsLink, subjects: Subjects, sayer: str, chunks: AsyncIterator[bytes], digest: bytes) -> None:
    """Put a blob there, unless it is. Raises `FailedError`, `TransportError`, `RefusedError`."""
    if await _held(link, subjects, digest):
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
                await _publish(link, pieces)
    if waiting:
        pieces.append(Publication(subjects.piece(sayer, digest, str(count)), bytes(waiting), {}))
        count += 1
    await _publish(link, pieces)
    if seen.digest() != digest:
        raise FailedError("depot.mismatch", f"blob {digest.hex()}: it has another sha256", next="put it again")
    await _publish(link, [Publication(subjects.piece(sayer, digest, "count"), str(count).encode(), {})])


async def _publish(link: NatsLink, pieces: list[Publication]) -> None:
    try:
        await asyncio.gather(*(link.publish(one) for one in pieces))
    except ApiError as error:
        raise FailedError("depot.full", f"the depot takes nothing: {error}", next="make room, and put it again") from error
    pieces.clear()


async def get(link: NatsLink, subjects: Subjects, digest: bytes) -> AsyncIterator[bytes]:
    """The blob's bytes, checked at the end. Raises `NotFoundError`, `FailedError`, `TransportError`."""
    held = await _held(link, subjects, digest)
    if not held:
        raise NotFoundError("depot.unknown", f"blob {digest.hex()} is not in the depot", next="apply again")
    sayer, count = held[0]
    for other, other_count in held if len(held) > 1 else ():
        if await _is_whole(link, subjects, other, other_count, digest):
            sayer, count = other, other_count
            break
    seen = sha256()
    async for piece in _pieces(link, subjects, sayer, count, digest):
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


async def _held(link: NatsLink, subjects: Subjects, digest: bytes) -> list[tuple[str, int]]:
    """Who has put it, and in how many pieces."""
    found = await last_of_each(link, subjects.blobs, [subjects.counts(digest)])
    return [(subjects.putter(one.subject), int(one.raw)) for one in found if one.raw.isdigit()]


async def _is_whole(link: NatsLink, subjects: Subjects, sayer: str, count: int, digest: bytes) -> bool:
    seen = sha256()
    try:
        async for piece in _pieces(link, subjects, sayer, count, digest):
            seen.update(piece)
    except TransportError:
        return False
    return seen.digest() == digest


async def _pieces(link: NatsLink, subjects: Subjects, sayer: str, count: int, digest: bytes) -> AsyncIterator[bytes]:
    for first in range(0, count, AT_ONCE):
        names = [str(n) for n in range(first, min(first + AT_ONCE, count))]
        for piece in await asyncio.gather(*(_piece(link, subjects, subjects.piece(sayer, digest, name)) for name in names)):
            yield piece


async def _piece(link: NatsLink, subjects: Subjects, subject: str) -> bytes:
    """One piece, by any server that has the stream; one that is behind has it in a moment."""
    deadline = asyncio.get_running_loop().time() + ANSWER_S
    while not (found := await last_of_each(link, subjects.blobs, [subject])):
        if asyncio.get_running_loop().time() > deadline:
            raise TransportError("nats.stream", f"stream {subjects.blobs} has no {subject}")
        await asyncio.sleep(_AGAIN_S)
    return found[0].raw
