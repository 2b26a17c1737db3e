"""Frames: every message between a client and a broker (docs/reference/frames.md is made from this table).

Rule 1: a message is one CBOR map with the key `t` that names its kind, followed by raw parts (events, certificates, chunks).
    On ZeroMQ a message is one ZMTP frame, each part behind its length in 4 bytes, big-endian.
Rule 2: a message that cannot be read closes its connection; nothing of it is used.
Rule 3: it has `MAX_PARTS` parts and a map of `MAX_HEAD` bytes at most, no tags (`framing`); else it is refused unread (D2).
Rule 4: a number with which is reckoned is finite and in its range: who sends another one harms itself only (D2).
Rule 5: a client speaks `hello` and `attach` first; before that only `time` is answered.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from dsmt.bus.wire.fields import Closing, Digest, Level, Name, Patterns, Ranges, RealmMs, Said, Sent, Signers, Token
from dsmt.event.kinds.numbers import Count, Ms
from dsmt.event.kinds.realm import MAX_BROKERS

PROTOCOL: Final = 3
MAX_CERTIFICATES: Final = 64
"""How many certificates a client brings at once."""
FETCH_IDS: Final = 4
"""How many events one `fetch` may ask for: their answer is one message of at most 256 KiB."""


class _Frame(msgspec.Struct, frozen=True, tag_field="t", tag=str.lower, kw_only=True, omit_defaults=True):
    """What all frames have in common: the kind, in lower case, under `t`."""


class Hello(_Frame, frozen=True):
    """Client: who I am. Parts: my certificates. `firm`: my disk knows my last incarnation, so this one is used at once."""

    protocol: int
    realm: Name
    name: Name
    incarnation: Count
    firm: bool
    attachment: Count
    pid: Count | None
    version: Name
    address: Name
    reads: bool = False
    """I only read: give me no incarnation and no number, and say nothing of me; of a broker it is said that it is linked."""


class Welcome(_Frame, frozen=True):
    """Broker: your incarnation, your attachment number, and if I have what all others have (A4). Parts: my certificates.

    `isolated`: I am linked with no other broker (R8).
    """

    broker: Name
    incarnation: Count
    attachment: Count
    nonce: bytes
    realm_ms: RealmMs
    store: Name
    whole: bool = True
    isolated: bool = False


class Attach(_Frame, frozen=True):
    """Client: a COSE_Sign1 over nonce, broker, incarnation and attachment number (F1)."""

    statement: bytes


class Refused(_Frame, frozen=True):
    """Broker: no, and why. The connection is closed after it."""

    code: Name
    message: Said
    next: Said


class Time(_Frame, frozen=True):
    """Client: what is realm time? `sent`, seconds of a clock of your own, comes back unchanged."""

    sent: Sent


class TimeIs(_Frame, frozen=True):
    """Broker: the answer to `time`."""

    sent: Sent
    realm_ms: RealmMs


class Measure(_Frame, frozen=True):
    """Broker: my realm time has stepped; ask for it now, as you do each minute (J4)."""


class Keepalive(_Frame, frozen=True):
    """Either: I am here; `asks`: say that you are, too. Only over quiet links; unsigned, inside CURVE (F3)."""

    asks: bool = False


class Publish(_Frame, frozen=True):
    """Client: events to be stored. Parts: signed events, alone or as runs (B8)."""

    offered: bool = False
    """Facts that were stored elsewhere before (R5)."""


class Missing(_Frame, frozen=True):
    """Broker: of your incarnation these sequences have not come (B2). What you hold, say again; what not, is `gone`."""

    incarnation: Count
    ranges: Ranges


class Gone(_Frame, frozen=True):
    """Client: these of my sequences that you miss I have no more."""

    incarnation: Count
    ranges: Ranges


class Acked(_Frame, frozen=True):
    """Broker: an acknowledgement record for (source, incarnation, first, last) ranges (D1)."""

    ranges: tuple[tuple[Name, Count, Count, Count], ...]
    level: Level
    copies: Count
    synced: bool
    store: Name
    row: Count
    time_ms: Ms


class Nacked(_Frame, frozen=True):
    """Broker: one event is refused for good. `restart`: take a new incarnation (A11)."""

    source: Name
    incarnation: Count
    sequence: Count
    code: Name
    message: Said
    next: Said
    realm_ms: Ms
    restart: bool = False


class Subscribe(_Frame, frozen=True):
    """Client: what I want (`ports.bus.Interest`), under a number of my own."""

    id: Count
    patterns: Patterns
    start: Literal["facts", "live", "history"]
    store: Name | None = None
    row: Count | None = None
    time_ms: Ms | None = None
    inbox: bool = False
    conflate: bool = False
    signals: bool = True
    bookmarks: bool = False
    copies: Annotated[tuple[Name, ...], Meta(max_length=MAX_BROKERS)] | None = None
    """From a broker that keeps a copy: everything but what is live and came to you from these, who send it me themselves."""
    credit: Count = 4 * 1024 * 1024


class Unsubscribe(_Frame, frozen=True):
    """Client: no more of it."""

    id: Count


class Consumed(_Frame, frozen=True):
    """Client: so many bytes of a subscription have been taken: send as many more."""

    id: Count
    count: Count


class Mark(_Frame, frozen=True):
    """Client: tell me, by a bookmark that carries this token, when the subscription has all that is here now (A4)."""

    id: Count
    token: Count


class Stored(_Frame, frozen=True):
    """Broker, of what it copies: all of the subscription up to this row is stored here too (D1)."""

    id: Count
    row: Count


class Deliver(_Frame, frozen=True):
    """Broker: events of a subscription, in store order but for retained facts. Parts: signed events, alone or as runs."""

    id: Count
    rows: tuple[Count, ...]
    live: bool


class Certificates(_Frame, frozen=True):
    """Either: who signed what comes next, also when it is re-offered (R5). Parts: certificates."""


class Revocations(_Frame, frozen=True):
    """Broker: keys that have ended: all at the attachment, before anything else, then each at once. Parts: signed facts."""

    all: bool = False


class Brokers(_Frame, frozen=True):
    """Broker: all operators' words on which brokers there are, at the attachment and at each change. Parts: signed facts.

    `isolated`: I am linked with none of them (R8).
    """

    isolated: bool = False


class Known(_Frame, frozen=True):
    """Client: some of the keys and names whose certificates it has been shown; `Forget` says which it may let go of (D2)."""

    signers: Signers


class Forget(_Frame, frozen=True):
    """Broker: whom of these it does not know any more. What they sign comes with their certificates again."""

    signers: Signers


class CompleteFrame(_Frame, tag="complete", frozen=True):
    """Broker: a subscription's retained facts or history have all been delivered up to here."""

    id: Count
    store: Name
    row: Count
    time_ms: Ms
    whole: bool


class BookmarkFrame(_Frame, tag="bookmark", frozen=True):
    """Broker: a subscription has everything up to here. `token`: that of the newest `mark`, which this answers."""

    id: Count
    store: Name
    row: Count
    time_ms: Ms
    whole: bool
    token: Count | None = None


class Told(_Frame, frozen=True):
    """Broker: a notice about a subscription, as its fields; `type` is a `dsmt.notice.` word."""

    id: Count
    type: Name
    message: Said
    fields: dict[str, Any]


class Repair(_Frame, frozen=True):
    """Client: what a source said on a topic between two of its sequence numbers, which a subscription misses (B1)."""

    id: Count
    source: Name
    incarnation: Count
    topic: Name
    after: Count
    before: Count


class Repaired(_Frame, frozen=True):
    """Broker: that part of the chain. Parts: signed events. What is not among them is closed as `closing` says."""

    id: Count
    source: Name
    topic: Name
    before: Count
    rows: tuple[Count, ...]
    closing: Closing
    incarnation: Count = 0


class Tally(_Frame, frozen=True):
    """Broker: give this back: so far you have read. Nobody can give back what they have not read (D2)."""

    token: Token


class Tallied(_Frame, frozen=True):
    """Client: the token of a `tally`."""

    token: Token


class Fetch(_Frame, frozen=True):
    """Client: these events, by (source, incarnation, sequence)."""

    id: Count
    ids: Annotated[tuple[tuple[Name, Count, Count], ...], Meta(max_length=FETCH_IDS)]


class Fetched(_Frame, frozen=True):
    """Broker: those of them that are here. Parts: signed events."""

    id: Count


class HistoryAsked(_Frame, frozen=True):
    """Client: what of the store stands behind a row, to export it (J3). Who may not read everything is refused."""

    id: Count
    after: Count


class HistoryIs(_Frame, frozen=True):
    """Broker: the next page of it. Parts: the signed events of `rows`, which say (row, arrived).

    `nodes` stand over what was trimmed: (first row, level, hash); `lost` are rows that are gone without a word.
    """

    id: Count
    rows: tuple[tuple[Count, Count], ...]
    nodes: tuple[tuple[Count, Count, Digest], ...]
    lost: tuple[tuple[Count, Count], ...]


class HeadAsked(_Frame, frozen=True):
    """Client: sign the head of your store, now."""

    id: Count


class HeadIs(_Frame, frozen=True):
    """Broker: its stats with the head. One part: the signed event."""

    id: Count


class BlobAsked(_Frame, frozen=True):
    """Client: asks whether a blob is here, and how large it is."""

    id: Count
    digest: Digest


class BlobIs(_Frame, frozen=True):
    """Broker: the answer; `size` null when it is not here. `ok` answers a put; `busy`: no, and soon it may be yes."""

    id: Count
    size: Count | None
    ok: bool = True
    busy: bool = False
    message: Said = ""


class ChunkAsked(_Frame, frozen=True):
    """Client: one chunk of a blob."""

    id: Count
    digest: Digest
    number: Count


class Chunk(_Frame, frozen=True):
    """Broker: the chunk as the one part; no part beyond the blob's end."""

    id: Count


class ChunkPut(_Frame, frozen=True):
    """Client: one chunk of a blob to keep. One part. Answered by `blobis`."""

    id: Count
    digest: Digest
    number: Count


class BlobFinished(_Frame, frozen=True):
    """Client: that were all chunks. Answered by `blobis` after the sha256 was checked."""

    id: Count
    digest: Digest
    chunks: Count


Frame = (
    Hello | Welcome | Attach | Refused | Time | TimeIs | Measure | Keepalive | Publish | Missing | Gone | Acked
    | Nacked | Subscribe | Unsubscribe | Consumed | Mark | Stored | Deliver | Certificates | Revocations | Brokers | Known
    | Forget | CompleteFrame | BookmarkFrame | Told | Repair | Repaired | Tally | Tallied | Fetch | Fetched
    | HistoryAsked | HistoryIs | HeadAsked | HeadIs | BlobAsked | BlobIs | ChunkAsked | Chunk | ChunkPut | BlobFinished
)  # fmt: skip
