"""The depot on NATS: blobs in pieces, in a stream of their own.

Rule 1: a blob is called by its sha256, and its pieces stand under the name of who has put it. Nothing takes the place of a
    piece that stands, so nobody spoils another's; and what is put again has other names, so nothing is in its way. The piece
    that says how many there are, and how they are named, comes last.
Rule 2: a gate checks what was put (`blobs`), and who reads does, or is to put it. Where several have put it, the first
    whole one is looked for before anything is handed out.
Rule 3: what a lost link or a silent server still owes is asked again (`Asks`), as at a broker: no piece is read or put for
    nothing.
Rule 4: while little is left of a server's disk nothing is put, and what nothing names goes (`blobs`).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final, NamedTuple, Protocol, TypeVar

from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import held_on
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError
from dsmt.ports.blobs import not_in_depot

PIECE: Final = 128 * 1024
AT_ONCE: Final = 8
_COUNT: Final = re.compile(rb"([0-9a-f]{8}-)?([0-9]{1,8})")
"""How many pieces there are, and what their names begin with: nothing, of what was put before that was so."""
FULL: Final = 10077
"""The stream of blobs takes no more, or has that piece."""
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


class Copy(NamedTuple):
    """What somebody has put of a blob: by whom, what its pieces' names begin with, and how many they are."""

    publisher: str
    way: str
    pieces: int


async def put(ask: Asks, subjects: Subjects, publisher: str, chunks: AsyncIterator[bytes], digest: bytes) -> None:
    """Put a blob there, unless it is. Raises `FailedError`, `TransportError`, `RefusedError`."""
    if await _is_there(ask, subjects, digest):
        return
    way, count, waiting, seen = f"{os.urandom(4).hex()}-", 0, bytearray(), sha256()
    pieces: list[Publication] = []
    async for chunk in chunks:
        seen.update(chunk)
        waiting += chunk
        while len(waiting) >= PIECE:
            pieces.append(Publication(subjects.piece(publisher, digest, f"{way}{count}"), bytes(waiting[:PIECE]), {}))
            del waiting[:PIECE]
            count += 1
            if len(pieces) == AT_ONCE:
                await _publish(ask, subjects, pieces)
    if waiting:
        pieces.append(Publication(subjects.piece(publisher, digest, f"{way}{count}"), bytes(waiting), {}))
        count += 1
    await _publish(ask, subjects, pieces)
    if seen.digest() != digest:
        raise FailedError("depot.mismatch", f"blob {digest.hex()}: it has another sha256", next="put it again")
    try:
        await _publish(
            ask, subjects, [Publication(subjects.piece(publisher, digest, "count"), f"{way}{count}".encode(), {})]
        )
    except FailedError:  # the same source has put it meanwhile, perhaps
        if not await _is_there(ask, subjects, digest):
            raise


async def _is_there(ask: Asks, subjects: Subjects, digest: bytes) -> bool:
    """Whether somebody has put it, whole and right: that he says so would keep everybody else from putting it."""
    for one in await _held(ask, subjects, digest):
        if await is_whole(ask, subjects, one, digest):
            return True
    return False


async def _publish(ask: Asks, subjects: Subjects, pieces: list[Publication]) -> None:
    async def publish(one: Publication) -> None:
        try:
            await ask(lambda link: link.publish(one))
        except ApiError as error:
            await _check_stands(ask, subjects, one, error)

    await asyncio.gather(*(publish(one) for one in pieces))
    pieces.clear()


async def _check_stands(ask: Asks, subjects: Subjects, piece: Publication, error: ApiError) -> None:
    """Whether what was not taken stands there already. Raises `FailedError`, `TransportError`."""
    found = await ask(lambda link: held_on(link, subjects.blobs, [piece.subject]))
    if not found:
        said = "little is left of a server's disk, which is kept for events" if error.code == FULL else str(error)
        raise FailedError("depot.full", f"the depot takes nothing: {said}", next="make room, and put it again") from error
    if found[0].raw != piece.payload:
        said = f"blob {subjects.digest(piece.subject).hex()}: other bytes stand where a piece of it is to be"
        raise FailedError("depot.mismatch", said, next="put it again") from error


async def get(ask: Asks, subjects: Subjects, digest: bytes) -> AsyncIterator[bytes]:
    """The blob's bytes, checked at the end. Raises `NotFoundError`, `FailedError`, `TransportError`."""
    held = await _held(ask, subjects, digest)
    if not held:
        raise not_in_depot(digest)
    chosen = held[0]
    for one in held if len(held) > 1 else ():
        if await is_whole(ask, subjects, one, digest):
            chosen = one
            break
    seen = sha256()
    async for piece in _pieces(ask, subjects, chosen, digest):
        seen.update(piece)
        yield piece
    if seen.digest() != digest:
        raise FailedError(
            "depot.mismatch", f"blob {digest.hex()} of {chosen.publisher} has another sha256", next="apply again"
        )


async def digests(link: NatsLink, subjects: Subjects) -> list[bytes]:
    """The digests of all that was put, by anybody. Raises `TransportError`."""
    found = dict[bytes, None]()
    async for one in all_of(link, subjects.blobs, [subjects.all_counts]):
        with suppress(ValueError):
            found[subjects.digest(one.subject)] = None
    return list(found)


async def _held(ask: Asks, subjects: Subjects, digest: bytes) -> list[Copy]:
    """Who has put it, and in how many pieces."""
    found = await ask(lambda link: held_on(link, subjects.blobs, [subjects.counts(digest)]))
    return [copy for one in found if (copy := copy_of(subjects.publisher(one.subject), one.raw)) is not None]


def copy_of(publisher: str, counted: bytes) -> Copy | None:
    """What somebody has put, by what it says of that last; None for what says no such thing."""
    found = _COUNT.fullmatch(counted)
    return None if found is None else Copy(publisher, (found[1] or b"").decode(), int(found[2]))


async def is_whole(ask: Asks, subjects: Subjects, copy: Copy, digest: bytes) -> bool:
    """Whether somebody has put all pieces of a blob, and right. Raises `TransportError`."""
    seen = sha256()
    try:
        async for piece in _pieces(ask, subjects, copy, digest):
            seen.update(piece)
    except FailedError:
        return False
    return seen.digest() == digest


async def _pieces(ask: Asks, subjects: Subjects, copy: Copy, digest: bytes) -> AsyncIterator[bytes]:
    async def piece(number: int) -> bytes:
        subject = subjects.piece(copy.publisher, digest, f"{copy.way}{number}")
        found = await ask(lambda link: held_on(link, subjects.blobs, [subject]))
        if not found:
            said = f"blob {digest.hex()} of {copy.publisher} has no piece {number}"
            raise FailedError("depot.mismatch", said, next="apply again")
        return found[0].raw

    for first in range(0, copy.pieces, AT_ONCE):
        for one in await asyncio.gather(*(piece(n) for n in range(first, min(first + AT_ONCE, copy.pieces)))):
            yield one
