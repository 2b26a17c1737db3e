"""A pull consumer: what a stream holds from a row on, in order and without a hole, as fast as it is asked for.

Rule 1: it asks for a page at a time and is given no more: a reader that does not read costs the server nothing. For what is
    larger than a page, an answer of a server that came to stand there, it asks alone.
Rule 2: a server that is given a time and several subjects may begin too late (2.15.1, where the last of a subject is the
    newest of all, once in twelve): it is asked which row that time is, of all subjects, and begins by that.
    Who may not read everything cannot ask that: it is given all that there is.
Rule 3: whatever is not as it should be ends it with `TransportError`: a number that does not follow, a silence, a
    consumer that is gone. Who reads begins another one behind the last row that it has.
Rule 4: where a stream ends its leader says: what a consumer has is that of one server, which may have just come back and
    lack the last rows; who is to have all of them waits until they are there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from nats.aio.msg import Msg

from dsmt.bus.nats.headers import DESCRIPTION, STATUS
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import StreamMessage, delivered, last_on
from dsmt.bus.rules.nats_config import ALL, PAGE
from dsmt.bus.rules.nats_reads import CONSUMER, KEPT_S
from dsmt.errors import TransportError

PAGE_BYTES: Final = 1024 * 1024
HEARTBEAT_S: Final = 0.5
SILENT_S: Final = 2.0
EXPIRES_S: Final = 20.0
ASKED_S: Final = 5.0
"""The same of one that was made to learn where a time is."""
BEHIND_S: Final = 20.0
"""How long a server may take to have what others have."""
LOOK_S: Final = 0.5
_LARGE: Final = "maxbytes"
_ASKS_AGAIN: Final = ("batch completed", "request timeout", "no messages", _LARGE)
_NS: Final = 1_000_000_000


class PullConsumer:
    """Reads one stream, with `sizes` not what messages say but how large they are.

    `after` is the sequence behind which it begins, or a time in ms with `since_ms`.
    """

    def __init__(self, link: NatsLink, stream: str, filters: Sequence[str], *, sizes: bool = False) -> None:
        self._link, self._stream, self._filters, self._sizes = link, stream, list(filters), sizes
        self._name = os.urandom(9).hex()
        self._inbox, self._queue = "", asyncio.Queue[Msg]()
        self._open = self._delivered = 0
        self._is_large = False
        """Whether what comes next is larger than a page."""
        self._heard = asyncio.get_running_loop().time()

    async def begin(self, *, after: int = 0, since_ms: int | None = None) -> int:
        """Have it made; how much there is for it. Raises `TransportError`."""
        try:
            if since_ms is not None:
                after = await self._before(since_ms) if self._link.reads == ALL else 0
            self._inbox, self._queue = await self._link.listen()
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
            if self._sizes:
                start["headers_only"] = True
            told = await self._made(self._name, KEPT_S, {"filter_subjects": self._filters, **start})
        except ApiError as error:
            raise TransportError("nats.consumer", f"stream {self._stream} gives no consumer: {error}") from error
        return int(told["num_pending"])

    async def _before(self, since_ms: int) -> int:
        """The last row before a time (rule 2)."""
        name = os.urandom(9).hex()
        at = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat()
        told = await self._made(name, ASKED_S, {"deliver_policy": "by_start_time", "opt_start_time": at})
        await self._delete(name)
        return int(told["delivered"]["stream_seq"])

    async def _made(self, name: str, kept_s: float, about: dict[str, Any]) -> dict[str, Any]:
        config = {
            "name": name,
            **CONSUMER,
            "inactive_threshold": int(kept_s * _NS),
            **about,
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        return await self._link.api(f"CONSUMER.CREATE.{self._stream}.{name}", body)

    async def _delete(self, name: str) -> None:
        with suppress(TransportError):
            await self._link.send(Publication(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"", {}))

    async def end(self) -> None:
        """Let the server forget it."""
        if not self._inbox:
            return
        await self._link.deaf(self._inbox)
        await self._delete(self._name)

    async def next(self, within_s: float) -> list[StreamMessage]:
        """What has come; nothing when nothing does in time. Raises `TransportError`."""
        if self._open <= 0:
            await self._ask()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, min(within_s, self._heard + SILENT_S - now))):
                message = await self._queue.get()
        except TimeoutError:
            if asyncio.get_running_loop().time() >= self._heard + SILENT_S:
                raise TransportError("link.silent", f"the consumer of stream {self._stream} is silent") from None
            return []
        found = self._took(message)
        while not self._queue.empty() and len(found) < PAGE:
            found += self._took(self._queue.get_nowait())
        return found

    async def _ask(self) -> None:
        page = {"batch": 1} if self._is_large else {"batch": PAGE, "max_bytes": PAGE_BYTES}
        asked = {**page, "expires": int(EXPIRES_S * _NS), "idle_heartbeat": int(HEARTBEAT_S * _NS)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        await self._link.send(Publication(subject, json.dumps(asked).encode(), {}), self._inbox)
        self._open, self._heard, self._is_large = page["batch"], asyncio.get_running_loop().time(), False

    def _took(self, message: Msg) -> list[StreamMessage]:
        if self._link.lost.done():
            raise TransportError("link.lost", f"the consumer of stream {self._stream} is lost with its link")
        self._heard = asyncio.get_running_loop().time()
        headers = (message.headers or {}) if message.subject == self._inbox else {}  # else it is a message of the stream
        status = headers.get(STATUS)
        if status == "100":
            return []
        if status is not None:
            described = headers.get(DESCRIPTION, "").lower()
            if not any(word in described for word in _ASKS_AGAIN):
                raise TransportError("nats.consumer", f"the consumer of stream {self._stream} ended: {described or status}")
            self._open, self._is_large = 0, self._open == PAGE and _LARGE in described
            return []
        stored = delivered(message, sizes=self._sizes)
        self._delivered += 1
        if stored.number != self._delivered:
            raise TransportError("nats.consumer", f"the consumer of stream {self._stream} left something out")
        self._open -= 1
        return [stored]


async def all_of(
    link: NatsLink, stream: str, filters: Sequence[str], *, after: int = 0, sizes: bool = False
) -> AsyncGenerator[StreamMessage]:
    """All that a stream holds on some subjects behind a row when it is asked (rule 4). Raises `TransportError`."""
    consumer, at, end = PullConsumer(link, stream, filters, sizes=sizes), after, await end_of(link, stream, filters)
    late = asyncio.get_running_loop().time() + BEHIND_S
    try:
        if at < end:
            await consumer.begin(after=after)
        while at < end:
            found = await consumer.next(LOOK_S)
            for stored in found:
                at = stored.sequence
                yield stored
            if found:
                late = asyncio.get_running_loop().time() + BEHIND_S
            elif asyncio.get_running_loop().time() > late:
                raise TransportError("nats.behind", f"row {end} of stream {stream} does not come")
            else:
                end = min(end, await end_of(link, stream, filters))  # the last of it may be trimmed meanwhile
    finally:
        await consumer.end()


async def end_of(link: NatsLink, stream: str, filters: Sequence[str]) -> int:
    """The sequence of the last that a stream holds on some subjects; 0 where it holds none. Raises `TransportError`."""
    last = [await last_on(link, stream, one) for one in filters]
    return max((one.sequence for one in last if one is not None), default=0)
