"""Asking: what a client asks its broker and waits for: events by id, pages and the head of its history, blobs of the depot.

Rule 1: what a lost link still owes is asked again at the next attachment: every question may be asked twice.
Rule 2: what comes from the broker is checked here: events by their signatures, a blob by its sha256.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import CHUNK_BYTES
from dsmt.errors import FailedError, TransportError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.ports.blobs import not_in_depot
from dsmt.ports.bus import HistoryPage

Parts = tuple[bytes, ...]
Question = f.Fetch | f.HistoryAsked | f.HeadAsked | f.BlobAsked | f.ChunkAsked | f.ChunkPut | f.BlobFinished
Answer = TypeVar("Answer", f.BlobIs, f.Chunk, f.Fetched, f.HistoryIs, f.HeadIs)


class Asking:
    """Questions that wait for their answers. `post` sends a frame, or raises `TransportError`."""

    def __init__(self, post: Callable[..., None], attached: asyncio.Event) -> None:
        self._post, self._attached = post, attached
        self._answers: dict[int, asyncio.Future[tuple[f.Frame, Parts] | None]] = {}
        self._numbers = 0

    def answered(self, number: int, frame: f.Frame, parts: Parts) -> None:
        """The broker has answered."""
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result((frame, parts))

    def lost(self) -> None:
        """The link is lost: what was asked is asked again at the next one."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _ask(self, kind: type[Answer], frame: Question, *parts: bytes) -> tuple[Answer, Parts]:
        while True:
            await self._attached.wait()
            answer: asyncio.Future[tuple[f.Frame, Parts] | None] = asyncio.get_running_loop().create_future()
            self._answers[frame.id] = answer
            try:
                try:
                    self._post(frame, *parts)
                except TransportError:
                    if not self._attached.is_set():  # it was lost before this task was woken, and `lost` was called
                        continue
                found = await answer
            finally:
                del self._answers[frame.id]
            if found is None:
                continue
            told, more = found
            if not isinstance(told, kind):
                raise TransportError("bus.frame", "the broker answered something else than was asked")
            return told, more

    async def fetch(self, ids: Sequence[EventId], opened: Callable[[bytes], SignedEvent]) -> list[SignedEvent]:
        """Events of the history by id; what nobody believes any more is none of them, nor what no frame can ask for."""
        found: list[SignedEvent] = []
        ids = [one for one in ids if max(one.incarnation, one.sequence) <= GREATEST_COUNT]
        for start in range(0, len(ids), f.FETCH_IDS):
            some: tuple[Any, ...] = tuple(tuple(one) for one in ids[start : start + f.FETCH_IDS])
            _, parts = await self._ask(f.Fetched, f.Fetch(id=self._number(), ids=some))
            for raw in parts:
                with suppress(UnusableEventError):
                    found.append(opened(raw))
        return found

    async def history(self, after: int, store: Callable[[], str]) -> HistoryPage:
        """What of the store stands behind a row."""
        told, parts = await self._ask(f.HistoryIs, f.HistoryAsked(id=self._number(), after=after))
        if len(parts) != len(told.rows):
            raise TransportError("bus.frame", f"the broker sent {len(parts)} events for {len(told.rows)} rows")
        rows = tuple((row, arrived_ms, raw) for (row, arrived_ms), raw in zip(told.rows, parts, strict=True))
        return HistoryPage(store(), rows, told.nodes, told.lost)

    async def head(self) -> bytes:
        """The broker's stats with the head of its store, signed now. Raises `UnusableEventError` where it can sign none."""
        _, parts = await self._ask(f.HeadIs, f.HeadAsked(id=self._number()))
        if len(parts) != 1:
            raise TransportError("bus.frame", "the broker sent no signed head")
        if not parts[0]:
            raise UnusableEventError("trust.expired", "it signs nothing, for its certificate has ended")
        return parts[0]

    async def put_blob(self, chunks: AsyncIterator[bytes], digest: bytes, store: Callable[[], str]) -> None:
        """Put a blob with this sha256 into the depot.

        Raises `FailedError` when it is not kept: `depot.moved` where the link is at another broker, with no beginning,
        `depot.busy` where somebody else writes it, or it is being checked.
        """
        held, _ = await self._ask(f.BlobIs, f.BlobAsked(id=self._number(), digest=digest))
        if held.size is not None:
            return
        count, at = 0, store()
        async for chunk in chunks:
            for start in range(0, len(chunk), CHUNK_BYTES):
                part = chunk[start : start + CHUNK_BYTES]
                put, _ = await self._ask(f.BlobIs, f.ChunkPut(id=self._number(), digest=digest, number=count), part)
                if store() != at:
                    raise _moved(digest)
                if put.busy:
                    raise _busy(put)
                if not put.ok:
                    raise FailedError("depot.full", put.message, next="see to the broker's disk, and put it again")
                count += 1
        done, _ = await self._ask(f.BlobIs, f.BlobFinished(id=self._number(), digest=digest, chunks=count))
        if not done.ok and store() != at:
            raise _moved(digest)
        if done.busy:
            raise _busy(done)
        if not done.ok:
            raise FailedError("depot.mismatch", f"blob {digest.hex()}: {done.message}", next="put it again")

    async def get_blob(self, digest: bytes) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks, checked at the end. Raises `NotFoundError`."""
        held, _ = await self._ask(f.BlobIs, f.BlobAsked(id=self._number(), digest=digest))
        if held.size is None:
            raise not_in_depot(digest)
        whole, count, left = sha256(), 0, held.size
        while True:
            _, parts = await self._ask(f.Chunk, f.ChunkAsked(id=self._number(), digest=digest, number=count))
            if not parts:
                break
            left -= len(parts[0])
            if left < 0 or count >= held.size:
                said = f"blob {digest.hex()} has {held.size} bytes, and more than that came"
                raise FailedError("depot.mismatch", said, next="fetch it from another broker")
            whole.update(parts[0])
            yield parts[0]
            count += 1
        if whole.digest() != digest:
            raise FailedError("depot.mismatch", f"blob {digest.hex()} arrived with another sha256", next="fetch it again")


def _busy(told: f.BlobIs) -> FailedError:
    return FailedError("depot.busy", told.message, next="put it again")


def _moved(digest: bytes) -> FailedError:
    said = f"the broker to which blob {digest.hex()} was being put is gone"
    return FailedError("depot.moved", said, next="put it again, to the next one")
