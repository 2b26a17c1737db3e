"""Frames: every message between a client and a broker (docs/frames.md is made from this table).

Rule 1: a message is one CBOR map with the key `t` that names its kind, followed by raw parts (events, certificates, chunks).
Rule 2: a message that cannot be read closes its connection; nothing of it is used.
Rule 3: a client speaks `hello` and `attach` first; before that only `time` and `keepalive` are answered.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2
import msgspec

from dsmt.errors import UnusableEventError
from dsmt.ports.network import Message

PROTOCOL: Final = 1


class _Frame(msgspec.Struct, frozen=True, tag_field="t", tag=str.lower, kw_only=True, omit_defaults=True):
    """What all frames have in common: the kind, in lower case, under `t`."""


class Hello(_Frame, frozen=True):
    """Client: who I am. Parts: my certificates. `firm`: my disk knows my last incarnation, so this one is used at once."""

    protocol: int
    realm: str
    name: str
    incarnation: int
    firm: bool
    attachment: int
    pid: int | None
    version: str
    address: str


class Welcome(_Frame, frozen=True):
    """Broker: your incarnation and attachment number. Parts: my certificates."""

    broker: str
    incarnation: int
    attachment: int
    nonce: bytes
    realm_ms: float
    store: str


class Attach(_Frame, frozen=True):
    """Client: a COSE_Sign1 over nonce, broker, incarnation and attachment number (F1)."""

    statement: bytes


class Refused(_Frame, frozen=True):
    """Broker: no, and why. The connection is closed after it."""

    code: str
    message: str
    next: str


class Time(_Frame, frozen=True):
    """Client: what is realm time? `sent` comes back unchanged."""

    sent: float


class TimeIs(_Frame, frozen=True):
    """Broker: the answer to `time`."""

    sent: float
    realm_ms: float


class Keepalive(_Frame, frozen=True):
    """Either: I am here. Once a second; unsigned, inside CURVE (F3)."""


class Publish(_Frame, frozen=True):
    """Client: events to be stored. Parts: signed events."""


class Acked(_Frame, frozen=True):
    """Broker: an acknowledgement record for (source, incarnation, first, last) ranges (D1)."""

    ranges: tuple[tuple[str, int, int, int], ...]
    level: str
    copies: int
    synced: bool
    store: str
    row: int
    time_ms: int


class Nacked(_Frame, frozen=True):
    """Broker: one event is refused for good. `restart`: take a new incarnation (A11)."""

    source: str
    incarnation: int
    sequence: int
    code: str
    message: str
    realm_ms: int
    restart: bool = False


class Subscribe(_Frame, frozen=True):
    """Client: what I want (`ports.bus.Interest`), under a number of my own."""

    id: int
    patterns: tuple[str, ...]
    start: str
    store: str | None = None
    row: int | None = None
    time_ms: int | None = None
    inbox: bool = False
    conflate: bool = False
    signals: bool = True
    bookmarks: bool = False
    credit: int = 4 * 1024 * 1024


class Unsubscribe(_Frame, frozen=True):
    """Client: no more of it."""

    id: int


class Consumed(_Frame, frozen=True):
    """Client: so many bytes of a subscription have been taken: send as many more."""

    id: int
    count: int


class Deliver(_Frame, frozen=True):
    """Broker: events of a subscription in store order. Parts: signed events."""

    id: int
    rows: tuple[int, ...]
    live: bool


class Certificates(_Frame, frozen=True):
    """Broker: who signed what comes next. Parts: certificates."""


class CompleteFrame(_Frame, tag="complete", frozen=True):
    """Broker: a subscription's retained facts or history have all been delivered up to here."""

    id: int
    store: str
    row: int
    time_ms: int
    whole: bool


class BookmarkFrame(_Frame, tag="bookmark", frozen=True):
    """Broker: a subscription has everything up to here."""

    id: int
    store: str
    row: int
    time_ms: int
    whole: bool


class Told(_Frame, frozen=True):
    """Broker: a notice about a subscription, as its fields; `type` is one of INTERFACE 2's `dsmt.notice.` words."""

    id: int
    type: str
    message: str
    fields: dict[str, Any]


class Fetch(_Frame, frozen=True):
    """Client: these events, by (source, incarnation, sequence)."""

    id: int
    ids: tuple[tuple[str, int, int], ...]


class Fetched(_Frame, frozen=True):
    """Broker: those of them that are here. Parts: signed events."""

    id: int


class BlobAsked(_Frame, frozen=True):
    """Client: asks whether a blob is here, and how large it is."""

    id: int
    digest: bytes


class BlobIs(_Frame, frozen=True):
    """Broker: the answer; `size` null when it is not here. `ok` answers a put."""

    id: int
    size: int | None
    ok: bool = True
    message: str = ""


class ChunkAsked(_Frame, frozen=True):
    """Client: one chunk of a blob."""

    id: int
    digest: bytes
    number: int


class Chunk(_Frame, frozen=True):
    """Broker: the chunk as the one part; no part beyond the blob's end."""

    id: int


class ChunkPut(_Frame, frozen=True):
    """Client: one chunk of a blob to keep. One part. Answered by `blobis`."""

    id: int
    digest: bytes
    number: int


class BlobFinished(_Frame, frozen=True):
    """Client: that were all chunks. Answered by `blobis` after the sha256 was checked."""

    id: int
    digest: bytes
    chunks: int


Frame = (
    Hello
    | Welcome
    | Attach
    | Refused
    | Time
    | TimeIs
    | Keepalive
    | Publish
    | Acked
    | Nacked
    | Subscribe
    | Unsubscribe
    | Consumed
    | Deliver
    | Certificates
    | CompleteFrame
    | BookmarkFrame
    | Told
    | Fetch
    | Fetched
    | BlobAsked
    | BlobIs
    | ChunkAsked
    | Chunk
    | ChunkPut
    | BlobFinished
)


def pack(frame: Frame, *parts: bytes) -> Message:
    """A message."""
    return (cbor2.dumps(msgspec.to_builtins(frame, builtin_types=(bytes,))), *parts)


def unpack(message: Message) -> tuple[Frame, tuple[bytes, ...]]:
    """A frame and its parts. Raises `UnusableEventError` for anything else."""
    try:
        frame: Frame = msgspec.convert(cbor2.loads(message[0]), Frame, builtin_types=(bytes,))
    except Exception as error:
        raise UnusableEventError("bus.frame", f"not a frame of this protocol: {error}") from error
    return frame, message[1:]
