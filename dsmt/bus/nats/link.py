"""One connection to a NATS server: requests, publishes that are acknowledged, and what a consumer delivers.

Rule 1: it is not mended: when it is lost everything that waits on it fails, and its owner makes another one.
Rule 2: what a server refuses for want of a permission it tells beside the request; here the request is what fails.
Rule 3: where answers come nobody else can tell, for a server answers on whatever subject is named by who asks.
Rule 4: foreign errors end here: a lost or silent connection is a `TransportError`, what JetStream answers an `ApiError`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from dsmt.bus.nats.connecting import NatsClient, NatsRealm
from dsmt.bus.nats.headers import NO_RESPONDERS, STATUS
from dsmt.bus.rules.nats_config import ALL, is_administration
from dsmt.errors import RefusedError, TransportError
from dsmt.trust.keys import Key

ANSWER_S: Final = 2.0
_DENIED: Final = "permissions violation for publish to "


class ApiError(Exception):
    """JetStream said no. `code` is its `err_code`."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"{said} ({code})")
        self.code, self.said = code, said


NOT_NOW: Final = (ApiError, TransportError, RefusedError)
"""Why a stream does not answer now: it chooses its leader, perhaps, and is asked again."""


class Publication(NamedTuple):
    """One message to publish."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class NatsLink:
    """One connection. `lost` is done when it has ended."""

    def __init__(self, name: str, key: Key) -> None:
        self._client = NatsClient(key, erred=self._erred, ended=self._ended)
        self._name, self._numbers = name, count(1)
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._inboxes: dict[str, tuple[Subscription, asyncio.Queue[Msg]]] = {}
        self._inbox = ""
        self._asks = self._administers = "$JS.API"
        self.reads: tuple[str, ...] = ALL
        """The patterns that may be read over it."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, server: str, realm: NatsRealm, *, key: Key, name: str, shows: str = "") -> NatsLink:
        """A new connection of a source to a server, `host:port`; `shows` are its certificates, as a token.

        Raises `TransportError`, `RefusedError`.
        """
        link = cls(name.split(" ", maxsplit=1)[0], key)
        try:
            await link._client.dial(server, realm, name=name, shows=shows)
            link._inbox = link._client.new_inbox()
            link._administers += f".{realm.way}" if realm.way else ""
            with link._translated():
                await link._client.subscribe(f"{link._inbox}.*", cb=link._came)
        except BaseException:  # it may be that who connects is ended meanwhile
            await link.close()
            raise
        return link

    @property
    def server(self) -> str:
        """What the server is called."""
        return self._client.told("server_name")

    @property
    def server_id(self) -> str:
        """By what the server is asked in the system account."""
        return self._client.told("server_id")

    async def close(self) -> None:
        """End it."""
        await self._client.hang_up()

    async def _ended(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(TransportError("link.lost", f"{self._name} lost its NATS server"))
        for _, queue in self._inboxes.values():
            queue.put_nowait(Msg(self._client))  # wakes who waits; it looks at `lost`

    async def _erred(self, error: Exception) -> None:
        said = str(error).lower()
        _, found, subject = said.partition(_DENIED)
        for asked, future in list(self._waiting.values()) if found else ():
            if subject.startswith(f'"{asked.lower()}"') and not future.done():
                future.set_exception(RefusedError("trust.denied", f"NATS does not let {self._name} publish {asked}"))

    async def _came(self, message: Msg) -> None:
        waits = self._waiting.get(message.subject.rpartition(".")[2])
        if waits is not None and not waits[1].done():
            waits[1].set_result(message)

    # --- requests ------------------------------------------------------------------------------------------------

    async def request(self, *entries: Publication, within_s: float = ANSWER_S) -> Msg:
        """Send messages, the last one of which is answered. Raises `TransportError`, `RefusedError`."""
        number, future = str(next(self._numbers)), asyncio.get_running_loop().create_future()
        self._waiting[number] = entries[-1].subject, future
        try:
            for entry in entries:
                reply = f"{self._inbox}.{number}" if entry is entries[-1] else ""
                await self.send(entry, reply)
            async with asyncio.timeout(within_s):
                answer: Msg = await future
        except TimeoutError as error:
            raise TransportError("link.silent", f"NATS did not answer {entries[-1].subject}") from error
        finally:
            del self._waiting[number]
            future.cancel()
        if answer.headers and answer.headers.get(STATUS) == NO_RESPONDERS:
            raise TransportError("link.nobody", f"no NATS server leads {entries[-1].subject} at the moment")
        return answer

    async def send(self, entry: Publication, reply: str = "") -> None:
        """Send a message that need not be answered. Raises `TransportError`."""
        if self.lost.done():
            raise TransportError("link.lost", f"{self._name} lost its NATS server")
        with self._translated():
            await self._client.publish(entry.subject, entry.payload, reply=reply, headers=dict(entry.headers) or None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A block in which the client may find that its server is lost. Raises `TransportError` (rule 4)."""
        try:
            yield
        except (OSError, nats.errors.Error) as error:
            raise TransportError("link.lost", f"{self._name} lost its NATS server: {error}") from error

    async def api(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream. Raises `ApiError`, `TransportError`, `RefusedError`."""
        return answered(await self.request(self.question(name, body)))

    def question(self, name: str, body: Mapping[str, Any] | None = None) -> Publication:
        """What is sent to ask JetStream."""
        asks = self._administers if is_administration(name) else self._asks
        return Publication(f"{asks}.{name}", b"" if body is None else json.dumps(body).encode(), {})

    def ask_through(self, subject: str) -> None:
        """Ask through a gate from now on, below this subject: who asks may not read everything."""
        self._asks = subject

    async def publish(self, *entries: Publication) -> dict[str, Any]:
        """Publish messages, all or none of them, in this order; the acknowledgement of the last.

        Raises `ApiError`, `TransportError`, `RefusedError`.
        """
        if len(entries) == 1:
            return answered(await self.request(*entries))
        about = {"Nats-Batch-Id": os.urandom(12).hex()}  # all can read it: it tells neither an inbox nor the next one
        marked = [
            one._replace(headers={**one.headers, **about, "Nats-Batch-Sequence": str(n)}) for n, one in enumerate(entries, 1)
        ]
        marked[-1] = marked[-1]._replace(headers={**marked[-1].headers, "Nats-Batch-Commit": "1"})
        return answered(await self.request(*marked))

    # --- what comes by itself ------------------------------------------------------------------------------------

    async def listen(self) -> tuple[str, asyncio.Queue[Msg]]:
        """An inbox of its own, and where its messages go until `deaf`. Raises `TransportError`."""
        inbox, queue = self._client.new_inbox(), asyncio.Queue[Msg]()
        with self._translated():
            self._inboxes[inbox] = await self._client.subscribe(inbox, cb=queue.put), queue
        return inbox, queue

    def inbox(self, name: str) -> str:
        """An inbox of this link's own."""
        return f"{self._inbox}-{name}"

    async def hear(self, subject: str, call: Callable[[Msg], Awaitable[None]], *, queue: str = "") -> None:
        """Have each message on a subject handled, for as long as the link lasts; in a queue by one of those who hear it.

        Raises `TransportError`.
        """
        with self._translated():
            await self._client.subscribe(subject, queue=queue, cb=call)

    async def heard(self) -> None:
        """Wait until the server has all that was asked of it, what is heard too. Raises `TransportError`."""
        while True:
            with self._translated(), suppress(nats.errors.FlushTimeoutError):  # it is asked again while the link lasts
                return await self._client.flush()

    async def answer(self, asked: str, answer: str) -> None:
        """Send something on one subject, now and whenever something comes on another. Raises `TransportError`."""

        async def here(_: Msg) -> None:
            with suppress(TransportError):
                await self.send(Publication(answer, b"", {}))

        await self.hear(asked, here)
        await self.send(Publication(answer, b"", {}))

    async def deaf(self, inbox: str) -> None:
        """Nobody listens there any more."""
        subscription, _ = self._inboxes.pop(inbox)
        with suppress(OSError, nats.errors.Error):
            await subscription.unsubscribe()

    async def next_of(self, queue: asyncio.Queue[Msg]) -> Msg:
        """What comes next to an inbox. Raises `TransportError` when the link is lost, or nothing comes in time."""
        try:
            async with asyncio.timeout(ANSWER_S):
                message = await queue.get()
        except TimeoutError as error:
            raise TransportError("link.silent", f"{self._name} heard nothing for {ANSWER_S:.1f} s") from error
        if self.lost.done():
            raise TransportError("link.lost", f"{self._name} lost its NATS server")
        return message


def answered(message: Msg) -> dict[str, Any]:
    """What JetStream has answered. Raises `ApiError`."""
    told: dict[str, Any] = json.loads(message.data)
    if "error" in told:
        raise ApiError(told["error"].get("err_code", 0), told["error"].get("description", ""))
    return told


async def any_server(
    servers: Sequence[str], chosen: int, realm: NatsRealm, *, key: Key, name: str, shows: str = ""
) -> NatsLink:
    """A connection to one of the servers, the chosen one first. Raises `TransportError`, `RefusedError`."""
    failed: TransportError | None = None
    for n in range(len(servers)):
        try:
            return await NatsLink.connect(servers[(chosen + n) % len(servers)], realm, key=key, name=name, shows=shows)
        except TransportError as error:
            failed = error
    raise failed or TransportError("link.lost", f"{name} knows no NATS server", next="name one")
