"""One connection to a NATS server: requests, publishes that are acknowledged, and what a consumer delivers.

Rule 1: it is not mended: when it is lost everything that waits on it fails, and its owner makes another one.
Rule 2: what a server refuses for want of a permission it tells beside the request; here the request is what fails.
Rule 3: foreign errors end here: a lost or silent connection is a `TransportError`, what JetStream answers an `ApiError`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from dsmt.bus.rules.nats_config import ALL, CALLOUT_S
from dsmt.bus.wire.nkeys import user_nkey
from dsmt.errors import RefusedError, TransportError
from dsmt.event.addresses import host_of
from dsmt.ports.bus import Ability, Capabilities, Level
from dsmt.ports.realm import KEPT_OUT, NatsTerms
from dsmt.trust.keys import Key

OLDEST: Final = (2, 12, 3)
"""Those before it store a batch twice whose acknowledgement was lost, or know no batches."""
ANSWER_S: Final = 2.0
CONNECT_S: Final = 2.0
CANCEL_S: Final = 0.1
PING_S: Final = 2.0
_ABILITIES: Final = frozenset({Ability.HISTORY, Ability.MARKS, Ability.FETCH, Ability.BLOBS})
WATCH_S: Final = 0.5
_UNKNOWN: Final = "authorization violation"
_PERHAPS: Final = "its key was revoked, or it has said too much, perhaps"
_LOOK: Final = (
    "see dsmt cert list, where the realm was made, and the server's log; a node that has joined joins again: dsmt join TOKEN"
)
_DENIED: Final = "permissions violation for publish to "


class ApiError(Exception):
    """JetStream said no. `code` is its `err_code`."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"{said} ({code})")
        self.code, self.said = code, said


class Publication(NamedTuple):
    """One message to publish."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class NatsRealm(msgspec.Struct, frozen=True):
    """Where a realm's NATS servers are, and what was promised of them: none of it can be asked of a server.

    `replicas` is how many servers hold each stream, `synced` whether each commits to its disk before it answers
    (`sync_interval: always`), `authority` the certificate in PEM that has signed those of the servers; without it links
    are not encrypted. `gated`: each server has a gate beside it, which lets in who shows its certificates, and tells who
    is attached.
    """

    servers: tuple[str, ...]
    replicas: int = 1
    synced: bool = False
    authority: str = ""
    gated: bool = False
    own: str = ""
    """The server that is tried first: of a gate that beside which it stands."""

    @classmethod
    def of(cls, addresses: Iterable[str], terms: NatsTerms) -> NatsRealm:
        """The servers at these addresses, each with its gate."""
        return cls(tuple(dict.fromkeys(addresses)), terms.replicas, authority=terms.authority, gated=True)

    @property
    def can(self) -> Capabilities:
        """What a bus to these servers can do: with three replicas an acknowledgement is a majority's."""
        level = Level.SAFE if self.replicas > 1 else Level.STORED
        return Capabilities(level, _ABILITIES | ({Ability.PRESENCE} if self.gated else set()))


class _Client(Client):
    """The library's, which signs a server's nonce with a key of ours: else it wants a package more, and a seed as text."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self._key = key

    def _setup_nkeys_seed_connect(self) -> None:
        self._public_nkey = user_nkey(self._key.public)
        self._signature_cb = self._signed

    def _signed(self, nonce: str) -> bytes:
        return base64.b64encode(self._key.sign(nonce.encode()))


def _kept_out(server: str, name: str, error: Exception, *, late: bool) -> TransportError | RefusedError:
    """Why a connection was not made; `late` when a gate had all the time that it has."""
    if _UNKNOWN not in str(error).lower():
        return TransportError("link.lost", f"no NATS server answers at {server}: {error}")
    if late:
        said = f"the gate of the NATS server at {server} does not answer"
        return TransportError("link.nobody", said, next="it is started again by itself")
    said = f"the gate of the NATS server at {server} does not let {name} in: {_PERHAPS}"
    return RefusedError(KEPT_OUT, said, next=_LOOK)


class NatsLink:
    """One connection. `lost` is done when it has ended."""

    def __init__(self, name: str, key: Key) -> None:
        self._client = _Client(key)
        self._name, self._numbers = name, count(1)
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._inboxes: dict[str, tuple[Subscription, asyncio.Queue[Msg]]] = {}
        self._inbox = ""
        self._asks = "$JS.API"
        self.reads: tuple[str, ...] = ALL
        """The patterns that may be read over it."""
        self._watching: asyncio.Task[None] | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, server: str, realm: NatsRealm, *, key: Key, name: str, shows: str = "") -> NatsLink:
        """A new connection of a source to a server, `host:port`; `shows` are its certificates, as a token.

        Raises `TransportError`, `RefusedError`.
        """
        link = cls(name.split(" ", maxsplit=1)[0], key)
        logging.getLogger("asyncio").addFilter(_is_told)
        context = _trusting(realm.authority) if realm.authority else None
        prefix, began = f"_INBOX_{user_nkey(key.public)}", asyncio.get_running_loop().time()
        try:
            await _apart(
                link._client.connect(
                    servers=[f"{'tls' if context else 'nats'}://{server}"],
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=2,
                    ping_interval=int(PING_S),
                    max_outstanding_pings=2,
                    inbox_prefix=prefix,
                    tls=context,
                    tls_hostname=host_of(server) if context else None,
                    nkeys_seed_str="its own" if realm.gated else None,
                    token=shows or None,
                    error_cb=link._erred,
                    disconnected_cb=link._ended,
                    closed_cb=link._ended,
                )
            )
            link._inbox = link._client.new_inbox()
            await link._client.subscribe(f"{link._inbox}.*", cb=link._came)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            await link.close()
            late = asyncio.get_running_loop().time() > began + CALLOUT_S
            raise _kept_out(server, link._name, error, late=late) from error
        except BaseException:  # who connects is ended meanwhile
            await link.close()
            raise
        link._watching = asyncio.create_task(link._watch())
        version = link._client.connected_server_version
        if (version.major, version.minor, version.patch) < OLDEST:
            await link.close()
            said = f"the NATS server at {server} is {version}, and {'.'.join(map(str, OLDEST))} is the oldest that will do"
            raise RefusedError("nats.version", said, next="take a newer one")
        return link

    @property
    def server(self) -> str:
        """What the server is called."""
        return self._told("server_name")

    @property
    def server_id(self) -> str:
        """By what the server is asked in the system account."""
        return self._told("server_id")

    def _told(self, what: str) -> str:
        return str(self._client._server_info.get(what, ""))  # noqa: SLF001 - the client tells nobody

    async def _watch(self) -> None:
        """See that the client has given up: over TLS it tells so only when its shutdown was answered, or after 30 s."""
        while self._client.is_connected:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(WATCH_S)
        await self._ended()

    async def close(self) -> None:
        """End it: no socket is left, also where the server is gone, which would answer the end of a TLS connection."""
        if self._watching is not None:
            self._watching.cancel()
        await self._ended()
        try:
            with suppress(OSError, TimeoutError, nats.errors.Error):
                await _apart(self._client.close())
        finally:
            writer = getattr(self._client._transport, "_bare_io_writer", None)  # noqa: SLF001 - the client leaves it open
            if writer is not None:
                writer.transport.abort()

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
        if answer.headers and answer.headers.get("Status") == "503":
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
        """A block in which the client may find that its server is lost. Raises `TransportError` (rule 3)."""
        try:
            yield
        except (OSError, nats.errors.Error) as error:
            raise TransportError("link.lost", f"{self._name} lost its NATS server: {error}") from error

    async def api(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream. Raises `ApiError`, `TransportError`, `RefusedError`."""
        return answered(await self.request(self.question(name, body)))

    def question(self, name: str, body: Mapping[str, Any] | None = None) -> Publication:
        """What is sent to ask JetStream."""
        return Publication(f"{self._asks}.{name}", b"" if body is None else json.dumps(body).encode(), {})

    def ask_through(self, subject: str) -> None:
        """Ask through a gate from now on, below this subject: who asks may not read everything."""
        self._asks = subject

    async def publish(self, *entries: Publication) -> dict[str, Any]:
        """Publish messages, all or none of them, in this order; the acknowledgement of the last.

        Raises `ApiError`, `TransportError`, `RefusedError`.
        """
        if len(entries) == 1:
            return answered(await self.request(*entries))
        about = {"Nats-Batch-Id": f"{self._inbox[-22:]}-{next(self._numbers)}"}
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


def _is_told(record: logging.LogRecord) -> bool:
    """Whether what asyncio complains of is to be told: not that the client ends a TLS connection as it does any other."""
    return "eof_received" not in str(record.msg)


async def _apart(work: Coroutine[Any, Any, None]) -> None:
    """Do something in a task of its own: the client swallows it when who waits is cancelled. Raises `TimeoutError`."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=CONNECT_S)
    finally:
        while not task.done():  # `wait_for` swallows a cancellation in the moment in which what it waits for comes
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)
    if not done:
        raise TimeoutError
    await task


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


def _trusting(authority: str) -> ssl.SSLContext:
    """Trust in a realm's authority alone. Its certificates do not name its key (RFC 5280, 4.2.1.1), as Python 3.13 asks."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
