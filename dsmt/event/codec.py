"""Bytes of events: deterministic CBOR (RFC 8949, 4.2.1) in COSE_Sign1 (RFC 9052, 4.2; tag 18).

Rule 1: the protected header holds the algorithm (1) and the key id (4), nothing else; it is the same for a whole burst.
Rule 2: the unprotected header is empty, or holds the inclusion path of B8 under `PATH_LABEL`; anything else is refused.
Rule 3: the signature is over the Sig_structure of RFC 9052 4.4 with the payload or, for a member of a burst, with
    the 32-byte root of its tree in the payload's place. No event is 32 bytes long, so neither can pass for the other.
Rule 4: keys of one map are all text, so both of CBOR's canonical orders agree. Data is what JSON and every other
    reader can hold as well: null, booleans, 64-bit integers, finite numbers, text, bytes, lists and maps, at most
    `MAX_DEPTH` deep. No other tag, and nothing that is unequal to itself.
Rule 5: `decode` checks form, never trust; `reencodes` is the validator's test that the bytes are the canonical ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Protocol

import cbor2
import msgspec

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import MAX_EVENT_BYTES, NO_LEAF, Event, EventId, Link, SignedEvent
from dsmt.event.merkle import Path, leaf_hash, root_of, tree
from dsmt.event.topic import is_topic

EDDSA: Final = -8
KEYED_BLAKE2B: Final = -65537
"""A private-use algorithm number for the simulator's keyed hash; never accepted outside it."""
PATH_LABEL: Final = -70_010
"""The private-use header label under which the inclusion path stands."""

_TAG: Final = b"\xd2"  # tag 18, in its one deterministic encoding
_MAX_INT: Final = 2**63 - 1
_MAX_TTL_MS: Final = 2**53
"""A time of expiry, too, fits into 63 bits."""
MAX_DEPTH: Final = 64
"""How deep lists and maps in an event's data may stand in each other."""
_TAGS: Final = (*range(6), 25, *range(28, 31), *range(35, 38), 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""Tags that the decoder would build something of: regular expressions, shared values that grow when they are written."""
_OVERHEAD: Final = 1024
"""Room for header, signature and inclusion path beside the payload, in bytes."""


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


def _refuse_tag(*_: object) -> Any:
    raise ValueError("a tag")


_REFUSED_TAGS: Final = dict.fromkeys(_TAGS, _refuse_tag)


def load_plain(raw: bytes, *, text_keys: bool = False) -> Any:
    """CBOR without tags, at most twice `MAX_DEPTH` deep (rule 4): what it holds is never larger than its bytes tell.

    `text_keys`: keys of maps are texts or bytes only; numbers can be chosen so that their hashes collide.
    """
    depth = 2 * MAX_DEPTH
    return cbor2.loads(raw, semantic_decoders=_REFUSED_TAGS, max_depth=depth, strict_hashable_types=text_keys)


def canonical(value: Any) -> bytes:
    """Deterministic CBOR of a value."""
    return cbor2.dumps(value, canonical=True)


@lru_cache(maxsize=64)
def protected_header(algorithm: int, key_id: bytes) -> bytes:
    """The protected header's bytes for a key."""
    return canonical({1: algorithm, 4: key_id})


def sig_structure(protected: bytes, content: bytes) -> bytes:
    """The bytes to sign (RFC 9052, 4.4) with no external data."""
    return cbor2.dumps(["Signature1", protected, b"", content])


def payload(event: Event) -> bytes:
    """The canonical payload of an event."""
    wire: dict[str, Any] = {
        "source": event.source,
        "id": [event.incarnation, event.sequence],
        "chain": [event.chain.number, event.chain.previous],
        "type": event.type,
        "topic": event.topic,
        "subject": event.subject,
        "time": event.time,
        "data": event.data,
    }
    if event.cause:
        wire["cause"] = [list(c) for c in event.cause]
    if event.ttl is not None:
        wire["ttl"] = event.ttl
    if event.to:
        wire["to"] = list(event.to)
    if event.epoch is not None:
        wire["epoch"] = event.epoch
    if event.version is not None:
        wire["version"] = event.version
    if event.replaces is not None:
        wire["replaces"] = list(event.replaces)
    if event.declares is not None:
        wire["declares"] = list(event.declares)
    return canonical(wire)


def assemble(protected: bytes, body: bytes, signature: bytes, path: Path | None = None) -> bytes:
    """The COSE_Sign1 bytes."""
    unprotected: dict[int, Any] = {} if path is None else {PATH_LABEL: [path.index, path.size, list(path.siblings)]}
    return _TAG + cbor2.dumps([protected, unprotected, body, signature])


class Prepared(msgspec.Struct, frozen=True):
    """An event that has its number and its hash, and only lacks the signature of its burst."""

    event: Event
    body: bytes
    leaf: bytes


def prepare(event: Event, protected: bytes) -> Prepared:
    """Encode and hash an event. Raises `InputError` when it is over 64 KiB, or no reader would take it."""
    fault = _fault(event)
    if fault:
        raise InputError("event.form", f"{fault} in an event on {event.topic!r}", next="nothing was signed")
    try:
        body = payload(event)
    except UnicodeEncodeError as error:
        raise InputError("event.form", f"event on {event.topic!r} holds text that is no Unicode: {error}") from error
    if len(body) > MAX_EVENT_BYTES - _OVERHEAD:
        raise InputError(
            "event.too_big",
            f"event on {event.topic} has {len(body)} bytes, the limit is {MAX_EVENT_BYTES - _OVERHEAD}",
            next="put large content into the depot and name its sha256",
        )
    return Prepared(event, body, leaf_hash(protected, body))


def sign_burst(burst: Sequence[Prepared], signer: Signing) -> list[SignedEvent]:
    """Sign at least one event with one signature (B8)."""
    protected = protected_header(signer.algorithm, signer.key_id)
    if len(burst) == 1:
        body = burst[0].body
        raws = [assemble(protected, body, signer.sign(sig_structure(protected, body)))]
    else:
        root, paths = tree([one.leaf for one in burst])
        signature = signer.sign(sig_structure(protected, root))
        raws = [assemble(protected, one.body, signature, path) for one, path in zip(burst, paths, strict=True)]
    return [SignedEvent(one.event, raw, one.leaf, signer.key_id) for one, raw in zip(burst, raws, strict=True)]


def seal(events: Sequence[Event], signer: Signing) -> list[SignedEvent]:
    """Encode and sign a burst of at least one. Raises `InputError` on an event that no reader would take."""
    protected = protected_header(signer.algorithm, signer.key_id)
    return sign_burst([prepare(event, protected) for event in events], signer)


def open_envelope(raw: bytes) -> Envelope:
    """Take a COSE_Sign1 apart. Raises `UnusableEventError` for anything that is not exactly one of ours."""
    if len(raw) > MAX_EVENT_BYTES:
        raise UnusableEventError("event.too_big", f"event has {len(raw)} bytes, the limit is {MAX_EVENT_BYTES}")
    if raw[:1] != _TAG:
        raise UnusableEventError("event.form", "not a tagged COSE_Sign1")
    protected, unprotected, body, signature = _array_of_four(raw)
    header = _load(protected, "protected header")
    if type(header) is not dict or set(header) != {1, 4} or type(header[1]) is not int or type(header[4]) is not bytes:
        raise UnusableEventError("event.form", "protected header must hold algorithm and key id, nothing else")
    path = None
    if unprotected:
        if list(unprotected) != [PATH_LABEL]:
            raise UnusableEventError("event.form", "unknown unprotected header")
        path = _path(unprotected[PATH_LABEL])
    envelope = Envelope(protected, body, signature, path, header[1], header[4])
    if protected != protected_header(header[1], header[4]) or raw != assemble(protected, body, signature, path):
        raise UnusableEventError("event.form", "not the deterministic encoding")
    return envelope


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


def _load(raw: bytes, what: str, *, text_keys: bool = False) -> Any:
    try:
        return load_plain(raw, text_keys=text_keys)
    except Exception as error:
        raise UnusableEventError("event.form", f"{what} is not CBOR: {error}") from error


def decode(raw: bytes) -> tuple[SignedEvent, Envelope]:
    """Read a signed event. Raises `UnusableEventError`; says nothing about its signature."""
    envelope = open_envelope(raw)
    event = _event(_load(envelope.payload, "payload", text_keys=True))
    return SignedEvent(event, raw, envelope.leaf(), envelope.key_id), envelope


_REQUIRED: Final = frozenset({"source", "id", "chain", "type", "topic", "subject", "time", "data"})
_OPTIONAL: Final = frozenset({"cause", "ttl", "to", "epoch", "version", "replaces", "declares"})


def _event(wire: Any) -> Event:
    if type(wire) is not dict or not wire.keys() >= _REQUIRED or not wire.keys() <= _REQUIRED | _OPTIONAL:
        raise UnusableEventError("event.form", "payload has not the attributes of an event")
    try:
        incarnation, sequence = wire["id"]
        number, previous = wire["chain"]
        replaces, declares = wire.get("replaces"), wire.get("declares")
        event = Event(
            source=wire["source"],
            incarnation=incarnation,
            sequence=sequence,
            chain=Link(number, previous),
            type=wire["type"],
            topic=wire["topic"],
            subject=wire["subject"],
            time=wire["time"],
            data=wire["data"],
            cause=tuple(EventId(*cause) for cause in wire.get("cause", ())),
            ttl=wire.get("ttl"),
            to=tuple(wire.get("to", ())),
            epoch=wire.get("epoch"),
            version=wire.get("version"),
            replaces=None if replaces is None else EventId(*replaces),
            declares=None if declares is None else (declares[0], declares[1]),
        )
    except (TypeError, ValueError, LookupError) as error:
        raise UnusableEventError("event.form", f"payload is no event: {error}") from error
    fault = _fault(event)
    if fault:
        raise UnusableEventError("event.form", f"{fault} in an event of {str(event.source)[:80]!r}")
    return event


def _fault(event: Event) -> str:  # noqa: C901, PLR0911 - a list of what may be wrong, in order
    texts = (event.source, event.type, event.topic, event.subject, *event.to)
    if not all(isinstance(text, str) and len(text) <= 512 and text.isprintable() for text in texts):
        return "a name that is not a short printable text"
    ints = (event.incarnation, event.sequence, event.chain.number, event.time)
    if not all(type(i) is int and 0 < i <= _MAX_INT for i in ints):
        return "a number that is out of range"
    if type(event.chain.previous) is not bytes or len(event.chain.previous) != 32:
        return "a link that is no hash"
    if event.chain.number == 1 and event.chain.previous != NO_LEAF:
        return "a first event that links to another"
    if not is_topic(event.topic) or not all(is_topic(name) for name in (event.source, *event.to)):
        return "a source, topic or addressee outside the grammar"
    optional = (event.ttl, event.epoch, event.version)
    if not all(i is None or (type(i) is int and 0 < i <= _MAX_INT) for i in optional):
        return "a ttl, epoch or version that is out of range"
    if (event.epoch is None) != (event.version is None):
        return "an epoch without a version, or a version without an epoch,"
    if event.ttl is not None and event.ttl > _MAX_TTL_MS:
        return "a ttl that is out of range"
    if event.declares is not None and not all(type(i) is int and 0 < i <= _MAX_INT for i in event.declares):
        return "a declared range that is out of range"
    ids = event.cause if event.replaces is None else (*event.cause, event.replaces)
    if not all(_is_id(i) for i in ids):
        return "a cause that is no event id"
    if not isinstance(event.data, dict) or not _is_plain(event.data, MAX_DEPTH):
        return "data that is no map of plain values"
    return ""


def _is_id(name: EventId) -> bool:
    source, *numbers = name
    return isinstance(source, str) and is_topic(source) and all(type(i) is int and 0 < i <= _MAX_INT for i in numbers)


def _is_plain(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, (str, bytes)):
        return True
    if isinstance(value, int):
        return -_MAX_INT <= value <= _MAX_INT
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(key, str) and _is_plain(one, depth - 1) for key, one in value.items())
    return False


def reencodes(signed: SignedEvent, envelope: Envelope) -> bool:
    """Whether the payload is the one deterministic encoding of its event: the validator's test."""
    try:
        return payload(signed.event) == envelope.payload
    except Exception:  # noqa: BLE001 - a value that cannot be encoded at all does not re-encode
        return False
