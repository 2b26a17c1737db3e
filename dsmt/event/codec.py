"""Bytes of events: deterministic CBOR (RFC 8949, 4.2.1) in COSE_Sign1 (RFC 9052, 4.2; tag 18).

Rule 1: the protected header holds the algorithm (1) and the key id (4), nothing else; it is the same for a whole burst.
Rule 2: the unprotected header is empty, or holds the inclusion path of B8 under `PATH_LABEL`; anything else is refused.
Rule 3: the signature is over the Sig_structure of RFC 9052 4.4 with the payload or, for a member of a burst, with
    the 32-byte root of its tree in the payload's place. No event is 32 bytes long, so neither can pass for the other.
Rule 4: `decode` checks form, never trust.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.burst import (
    PATH_LABEL,
    RUN,
    RUN_BYTES,
    RUN_EVENTS,
    TAG,
    Burst,
    Member,
    Sealed,
    assemble,
    byte_string,
    disassemble,
    in_portions,
    is_worth_a_run,
)
from dsmt.event.envelope import MAX_EVENT_BYTES, Event, SignedEvent
from dsmt.event.layout import events_of
from dsmt.event.merkle import HASH_BYTES, Path, leaf_hash, root, root_of
from dsmt.event.payload import canonical, encode, load_plain

EDDSA: Final = -8
KEYED_BLAKE2B: Final = -65537
"""A private-use algorithm number for the simulator's keyed hash; never accepted outside it."""
EventsOf = Callable[[Sequence[bytes], Sequence[bytes]], Sequence[Event]]
"""Reads the payloads of one burst, each with its leaf: `layout.events_of`, or what remembers what that has read."""


class Signing(Protocol):
    """What `seal` needs of a signer; `trust.keys.SecretKey` fulfils it."""

    @property
    def algorithm(self) -> int:
        """The COSE algorithm number."""
        ...

    @property
    def key_id(self) -> bytes:
        """The COSE key id."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        ...


class Envelope(msgspec.Struct, frozen=True):
    """A COSE_Sign1 taken apart: header bytes, payload bytes, signature, and the inclusion path if it has one."""

    protected: bytes
    payload: bytes
    signature: bytes
    path: Path | None
    algorithm: int
    key_id: bytes

    def leaf(self) -> bytes:
        """The hash that chains link (B8)."""
        return leaf_hash(self.protected, self.payload)

    def to_be_signed(self) -> bytes:
        """The Sig_structure over which the signature was made."""
        content = self.payload if self.path is None else root_of(self.leaf(), self.path)
        return sig_structure(self.protected, content)


@lru_cache(maxsize=64)
def protected_header(algorithm: int, key_id: bytes) -> bytes:
    """The protected header's bytes for a key."""
    return canonical({1: algorithm, 4: key_id})


def sig_structure(protected: bytes, content: bytes) -> bytes:
    """The bytes to sign (RFC 9052, 4.4) with no external data."""
    return b"".join((b"\x84\x6aSignature1", byte_string(protected), b"\x40", byte_string(content)))


def sign_alone(body: bytes, signer: Signing) -> bytes:
    """A statement of one signer (COSE_Sign1): an event, a certificate, or what is no event."""
    protected = protected_header(signer.algorithm, signer.key_id)
    return assemble(protected, body, signer.sign(sig_structure(protected, body)))


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event that has its number and its hash, and only lacks the signature of its burst."""

    event: Event
    body: bytes
    leaf: bytes

    @property
    def size(self) -> int:
        """The bytes of its payload."""
        return len(self.body)


def prepare(event: Event, protected: bytes, encode: Callable[[Event], bytes] = encode) -> Prepared:
    """Encode and hash an event. Raises `InputError` when it is over 64 KiB, or no reader would take it."""
    body = encode(event)
    return Prepared(event, body, leaf_hash(protected, body))


def sign_burst(burst: Sequence[Prepared], signer: Signing) -> list[SignedEvent]:
    """Sign at least one event with one signature (B8)."""
    if len(burst) == 1:
        return [SignedEvent(burst[0].event, sign_alone(burst[0].body, signer), burst[0].leaf, signer.key_id)]
    protected, leaves = protected_header(signer.algorithm, signer.key_id), [one.leaf for one in burst]
    signed = Burst(protected, signer.sign(sig_structure(protected, root(leaves))), b"".join(leaves))
    return [SignedEvent(one.event, Member(signed, at, one.body), one.leaf, signer.key_id) for at, one in enumerate(burst)]


def sign_bursts(prepared: Sequence[Prepared], signer: Signing) -> list[SignedEvent]:
    """Sign any number of events, in their order, with as few signatures as may be (`RUN_EVENTS`, `RUN_BYTES`)."""
    return [one for burst in in_portions(prepared, RUN_EVENTS, RUN_BYTES) for one in sign_burst(burst, signer)]


def seal(events: Sequence[Event], signer: Signing) -> list[SignedEvent]:
    """Encode and sign events. Raises `InputError` on an event that no reader would take."""
    protected = protected_header(signer.algorithm, signer.key_id)
    return sign_bursts([prepare(event, protected) for event in events], signer)


def open_envelope(raw: bytes) -> Envelope:
    """Take a COSE_Sign1 apart. Raises `UnusableEventError` for anything that is not exactly one of ours."""
    if len(raw) > MAX_EVENT_BYTES:
        raise UnusableEventError("event.too_big", f"event has {len(raw)} bytes, the limit is {MAX_EVENT_BYTES}")
    if raw[:1] != TAG:
        raise UnusableEventError("event.form", "not a tagged COSE_Sign1")
    usual = disassemble(raw)
    if usual is not None:
        protected, body, signature = usual
        return Envelope(protected, body, signature, None, *_header(protected))
    protected, unprotected, body, signature = _array_of_four(raw)
    algorithm, key_id = _header(protected)
    path = None
    if unprotected:
        if list(unprotected) != [PATH_LABEL]:
            raise UnusableEventError("event.form", "unknown unprotected header")
        path = _path(unprotected[PATH_LABEL])
    if raw != assemble(protected, body, signature, path):
        raise UnusableEventError("event.form", "not the deterministic encoding")
    return Envelope(protected, body, signature, path, algorithm, key_id)


@lru_cache(maxsize=256)
def _header(protected: bytes) -> tuple[int, bytes]:
    """The algorithm and the key id of a protected header."""
    header = _load(protected, "protected header")
    if type(header) is not dict or set(header) != {1, 4} or type(header[1]) is not int or type(header[4]) is not bytes:
        raise UnusableEventError("event.form", "protected header must hold algorithm and key id, nothing else")
    if protected != protected_header(header[1], header[4]):
        raise UnusableEventError("event.form", "not the deterministic encoding")
    return header[1], header[4]


def _load(raw: bytes, what: str) -> Any:
    try:
        return load_plain(raw)
    except Exception as error:
        raise UnusableEventError("event.form", f"{what} is not CBOR: {error}") from error


def _array_of_four(raw: bytes) -> tuple[bytes, dict[Any, Any], bytes, bytes]:
    outer = _load(raw[1:], "envelope")
    match outer:
        case [bytes() as protected, dict() as unprotected, bytes() as body, bytes() as signature]:
            return protected, unprotected, body, signature
        case _:
            raise UnusableEventError("event.form", "not a COSE_Sign1 of four parts")


def _path(value: Any) -> Path:
    match value:
        case [int() as index, int() as size, list() as siblings] if (
            type(index) is int
            and type(size) is int
            and 0 <= index < size <= 2**20
            and all(type(s) is bytes and len(s) == 32 for s in siblings)
        ):
            return Path(index, size, tuple(siblings))
        case _:
            raise UnusableEventError("event.path", "not an inclusion path")


class Part(msgspec.Struct, frozen=True, gc=False):
    """A part of a message, read: its events, and the one signature over `message` that they have from a key."""

    events: tuple[SignedEvent, ...]
    algorithm: int
    key_id: bytes
    message: bytes
    signature: bytes


def decode_part(part: bytes, events_of: EventsOf = events_of) -> Part:
    """Read an event alone or a run. Raises `UnusableEventError`; says nothing about its signature."""
    return _decode_run(part, events_of) if part[:1] == RUN else _decode_alone(part, events_of)


def events_in(part: bytes) -> int:
    """How many events a part says to hold, whether they can be used or not."""
    if part[:1] != RUN:
        return 1
    try:
        return sum(len(one) != HASH_BYTES for one in _load(part, "run")[2])
    except (UnusableEventError, TypeError):
        return 1


def decode(raw: bytes) -> SignedEvent:
    """Read a signed event. Raises `UnusableEventError`; says nothing about its signature."""
    return _decode_alone(raw, events_of).events[0]


def read(sealed: Sealed, events_of: EventsOf = events_of) -> SignedEvent:
    """A signed event as it is held, once it was read and believed."""
    if not isinstance(sealed, Member):
        return _decode_alone(sealed, events_of).events[0]
    leaf = sealed.burst.leaf(sealed.index)
    (event,) = events_of((sealed.body,), (leaf,))
    return SignedEvent(event, sealed, leaf, _header(sealed.burst.protected)[1])


def _decode_alone(raw: bytes, events_of: EventsOf) -> Part:
    envelope = open_envelope(raw)
    leaf = envelope.leaf()
    (event,) = events_of((envelope.payload,), (leaf,))
    signed = SignedEvent(event, raw, leaf, envelope.key_id)
    return Part((signed,), envelope.algorithm, envelope.key_id, envelope.to_be_signed(), envelope.signature)


def _decode_run(part: bytes, events_of: EventsOf) -> Part:
    match _load(part, "run"):
        case [bytes() as protected, bytes() as signature, list() as members] if 1 < len(members) <= RUN_EVENTS and all(
            type(one) is bytes for one in members
        ):
            pass
        case _:
            raise UnusableEventError("event.form", "not a run of header, signature and members")
    bodies = [at for at, one in enumerate(members) if len(one) != HASH_BYTES]
    size = sum(len(members[at]) for at in bodies)
    if size > RUN_BYTES:
        raise UnusableEventError("event.too_big", f"a run has {size} bytes of payloads, the limit is {RUN_BYTES}")
    if not is_worth_a_run(bodies, len(members)):
        raise UnusableEventError("event.form", "a run of more leaves than its events would take alone")
    algorithm, key_id = _header(protected)
    leaves = [one if len(one) == HASH_BYTES else leaf_hash(protected, one) for one in members]
    burst = Burst(protected, signature, b"".join(leaves))
    events = events_of([members[at] for at in bodies], [leaves[at] for at in bodies])
    signed = tuple(
        [
            SignedEvent(one, Member(burst, at, members[at]), leaves[at], key_id)
            for one, at in zip(events, bodies, strict=True)
        ]
    )
    return Part(signed, algorithm, key_id, sig_structure(protected, root(leaves)), signature)
