"""Connecting: the library's client over one connection to a NATS server.

Rule 1: it is not mended, and leaves no socket behind: the library would wait for a server that is gone.
Rule 2: why a connection was not made is told by whose fault it is: the server's, its gate's, or ours.
Rule 3: what somebody has published ends no connection of who is given it: neither a subject that is no text, or of which
    the library makes two, for a form feed ends it there, nor what are no headers (`headers`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol import parser

from dsmt.bus.nats.headers import headers_of
from dsmt.bus.rules.nats_config import CALLOUT_S
from dsmt.bus.wire.nkeys import user_nkey
from dsmt.errors import RefusedError, TransportError
from dsmt.event.addresses import host_of
from dsmt.ports.bus import Ability, Capabilities, Level
from dsmt.ports.realm import KEPT_OUT, NatsTerms
from dsmt.trust.keys import Key

OLDEST: Final = (2, 12, 3)
"""Those before it store a batch twice whose acknowledgement was lost, or know no batches."""
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
_WORD: Final = rb"[ \t]+([^ \t\r\n]+)"
parser.MSG_RE = re.compile(rb"\AMSG%b%b(%b)?[ \t]+([0-9]+)\r\n" % (_WORD, _WORD, _WORD))
parser.HMSG_RE = re.compile(rb"\AHMSG%b%b(%b)?[ \t]+([0-9]+)[ \t]+([0-9]+)\r\n" % (_WORD, _WORD, _WORD))


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
    way: str = ""
    """Of a gate, and of who fills the servers: below which token they administer the streams (`rules.nats_config`)."""

    @classmethod
    def of(cls, addresses: Iterable[str], terms: NatsTerms) -> NatsRealm:
        """The servers at these addresses, each with its gate."""
        return cls(tuple(dict.fromkeys(addresses)), terms.replicas, authority=terms.authority, gated=True)

    @property
    def can(self) -> Capabilities:
        """What a bus to these servers can do: with three replicas an acknowledgement is a majority's."""
        level = Level.SAFE if self.replicas > 1 else Level.STORED
        return Capabilities(level, _ABILITIES | ({Ability.PRESENCE} if self.gated else set()))


class NatsClient(Client):
    """The library's, which signs a server's nonce with a key of ours: else it wants a package more, and a seed as text.

    `erred` hears what the server complains of, `ended` that the connection has ended, perhaps several times.
    """

    def __init__(
        self, key: Key, *, erred: Callable[[Exception], Awaitable[None]], ended: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__()
        self._key, self._erred, self._ended = key, erred, ended
        self._watching: asyncio.Task[None] | None = None

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return headers_of(headers) if headers else None

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None) -> Msg:
        names = subject.decode(errors="replace"), reply.decode(errors="replace")
        return Msg(self, *names, data, headers, _sid=sid)

    def _setup_nkeys_seed_connect(self) -> None:
        self._public_nkey = user_nkey(self._key.public)
        self._signature_cb = self._signed

    def _signed(self, nonce: str) -> bytes:
        return base64.b64encode(self._key.sign(nonce.encode()))

    async def dial(self, server: str, realm: NatsRealm, *, name: str, shows: str) -> None:
        """Connect as a source to a server; `shows` are its certificates. Raises `TransportError`, `RefusedError`."""
        logging.getLogger("asyncio").addFilter(_is_told)
        began = asyncio.get_running_loop().time()
        try:
            context = _trusting(realm.authority) if realm.authority else None
            await _apart(
                self.connect(
                    servers=[f"{'tls' if context else 'nats'}://{server}"],
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=2,
                    ping_interval=int(PING_S),
                    max_outstanding_pings=2,
                    inbox_prefix=f"_INBOX_{user_nkey(self._key.public)}",
                    tls=context,
                    tls_hostname=host_of(server) if context else None,
                    nkeys_seed_str="its own" if realm.gated else None,
                    token=shows or None,
                    error_cb=self._erred,
                    disconnected_cb=self._ended,
                    closed_cb=self._ended,
                )
            )
        except (OSError, TimeoutError, ValueError, nats.errors.Error) as error:  # what is no address is a ValueError
            late = asyncio.get_running_loop().time() > began + CALLOUT_S
            raise _kept_out(server, name.split(" ", maxsplit=1)[0], error, late=late) from error
        self._watching = asyncio.create_task(self._watch())
        version = self.connected_server_version
        if (version.major, version.minor, version.patch) < OLDEST:
            said = f"the NATS server at {server} is {version}, and {'.'.join(map(str, OLDEST))} is the oldest that will do"
            raise RefusedError("nats.version", said, next="take a newer one")

    def told(self, what: str) -> str:
        """What the server has told of itself."""
        return str(self._server_info.get(what, ""))

    async def _watch(self) -> None:
        """See that the library has given up: over TLS it tells so only when its shutdown was answered, or after 30 s."""
        while self.is_connected:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(WATCH_S)
        await self._ended()

    async def hang_up(self) -> None:
        """End it: no socket is left, also where the server is gone, which would answer the end of a TLS connection."""
        if self._watching is not None:
            self._watching.cancel()
        await self._ended()
        try:
            with suppress(OSError, TimeoutError, AssertionError, nats.errors.Error):  # the third: it was never connected
                await _apart(self.close())
        finally:
            writer = getattr(self._transport, "_bare_io_writer", None)  # the library leaves it open
            if writer is not None:
                writer.transport.abort()


def _kept_out(server: str, name: str, error: Exception, *, late: bool) -> TransportError | RefusedError:
    """Why a connection was not made; `late` when a gate had all the time that it has."""
    if _UNKNOWN not in str(error).lower():
        return TransportError("link.lost", f"no NATS server answers at {server}: {error}")
    if late:
        said = f"the gate of the NATS server at {server} does not answer"
        return TransportError("link.nobody", said, next="it is started again by itself")
    said = f"the gate of the NATS server at {server} does not let {name} in: {_PERHAPS}"
    return RefusedError(KEPT_OUT, said, next=_LOOK)


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


def _trusting(authority: str) -> ssl.SSLContext:
    """Trust in a realm's authority alone. Its certificates do not name its key (RFC 5280, 4.2.1.1), as Python 3.13 asks."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
