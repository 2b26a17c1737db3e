"""Bytes of events: deterministic CBOR (RFC 8949, 4.2.1) in COSE_Sign1 (RFC 9052, 4.2; tag 18).

Rule 1: the protected header holds the algorithm (1) and the key id (4), nothing else; it is the same for a whole burst.
Rule 2: the unprotected header is empty, or holds the inclusion path of B8 under `PATH_LABEL`; anything else is refused.
Rule 3: the signature is over the Sig_structure of RFC 9052 4.4 with the payload or, for a member of a burst, with
    the 32-byte root of its tree in the payload's place. No event is 32 bytes long, so neither can pass for the other.
Rule 4: keys of one map are all text, so both of CBOR's canonical orders agree.
Rule 5: `decode` checks form, never trust; `reencodes` is the door's test that the bytes are the canonical ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import cbor2
import msgspec

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import MAX_EVENT_BYTES, Event, EventId, Link, SignedEvent
from dsmt.event.merkle import Path, leaf_hash, root_of, tree
from dsmt.event.topic import is_topic

EDDSA: Final = -8
KEYED_BLAKE2B: Final = -65537
"""A private-use algorithm number for the simulator's keyed hash; never accepted outside it."""
PATH_LABEL: Final = -70_010
"""The private-use header label under which the inclusion path stands."""

_TAG: Final = b"\xd2"  # tag 18, in its one deterministic encoding
_MAX_INT: Final = 2**63 - 1


class Signing(Protocol):
    """What `seal` needs of a signer; `ports.signer.Signer` fulfils it."""

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
    if event.version is not None:
        wire["version"] = event.version
    if event.replaces is not None:
        wire["replaces"] = list(event.replaces)
    return canonical(wire)


def assemble(protected: bytes, body: bytes, signature: bytes, path: Path | None = None) -> bytes:
    """The COSE_Sign1 bytes."""
    unprotected: dict[int, Any] = {} if path is None else {PATH_LABEL: [path.index, path.size, list(path.siblings)]}
    return _TAG + cbor2.dumps([protected, unprotected, body, signature])


def seal(events: Sequence[Event], signer: Signing) -> list[SignedEvent]:
    """Sign a burst: one signature for all when there is more than one. Raises `InputError` on an event over 64 KiB."""
    protected = protected_header(signer.algorithm, signer.key_id)
    bodies = [payload(event) for event in events]
    leaves = [leaf_hash(protected, body) for body in bodies]
    if len(events) == 1:
        raws = [assemble(protected, bodies[0], signer.sign(sig_structure(protected, bodies[0])))]
    else:
        root, paths = tree(leaves)
        signature = signer.sign(sig_structure(protected, root))
        raws = [assemble(protected, body, signature, path) for body, path in zip(bodies, paths, strict=True)]
    for event, raw in zip(events, raws, strict=True):
        if len(raw) > MAX_EVENT_BYTES:
            raise InputError(
                "event.too_big",
                f"event on {event.topic} has {len(raw)} bytes, the limit is {MAX_EVENT_BYTES}",
                next="put large content into the depot and name its sha256",
            )
    return [SignedEvent(event, raw, leaf, signer.key_id) for event, raw, leaf in zip(events, raws, leaves, strict=True)]


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
        case [int() as index, int() as size, [*siblings]] if (
            all(type(s) is bytes and len(s) == 32 for s in siblings) and 0 <= index < size <= 2**20
        ):
            return Path(index, size, tuple(siblings))
        case _:
            raise UnusableEventError("event.path", "not an inclusion path")


def _load(raw: bytes, what: str) -> Any:
    try:
        return cbor2.loads(raw)
    except Exception as error:
        raise UnusableEventError("event.form", f"{what} is not CBOR: {error}") from error


def decode(raw: bytes) -> tuple[SignedEvent, Envelope]:
    """Read a signed event. Raises `UnusableEventError`; says nothing about its signature."""
    envelope = open_envelope(raw)
    event = _event(_load(envelope.payload, "payload"))
    return SignedEvent(event, raw, envelope.leaf(), envelope.key_id), envelope


_REQUIRED: Final = frozenset({"source", "id", "chain", "type", "topic", "subject", "time", "data"})
_OPTIONAL: Final = frozenset({"cause", "ttl", "to", "version", "replaces"})


def _event(wire: Any) -> Event:
    if type(wire) is not dict or not wire.keys() >= _REQUIRED or not wire.keys() <= _REQUIRED | _OPTIONAL:
        raise UnusableEventError("event.form", "payload has not the attributes of an event")
    try:
        incarnation, sequence = wire["id"]
        number, previous = wire["chain"]
        replaces = wire.get("replaces")
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
            version=wire.get("version"),
            replaces=None if replaces is None else EventId(*replaces),
        )
    except (TypeError, ValueError) as error:
        raise UnusableEventError("event.form", f"payload is no event: {error}") from error
    fault = _fault(event)
    if fault:
        raise UnusableEventError("event.form", f"{fault} in an event of {str(event.source)[:80]!r}")
    return event


def _fault(event: Event) -> str:
    texts = (event.source, event.type, event.topic, event.subject, *event.to)
    if not all(type(text) is str and len(text) <= 512 for text in texts):
        return "a name that is not a short text"
    ints = (event.incarnation, event.sequence, event.chain.number, event.time)
    if not all(type(i) is int and 0 < i <= _MAX_INT for i in ints):
        return "a number that is out of range"
    if type(event.chain.previous) is not bytes or len(event.chain.previous) != 32:
        return "a link that is no hash"
    if not is_topic(event.source) or not is_topic(event.topic):
        return "a source or topic outside the grammar"
    optional = (event.ttl, event.version)
    if not all(i is None or (type(i) is int and 0 < i <= _MAX_INT) for i in optional):
        return "a ttl or version that is out of range"
    ids = event.cause if event.replaces is None else (*event.cause, event.replaces)
    if not all(type(i[0]) is str and type(i[1]) is int and type(i[2]) is int for i in ids):
        return "a cause that is no event id"
    if type(event.data) is not dict or not all(type(key) is str for key in event.data):
        return "data that is no map of named values"
    return ""


def reencodes(signed: SignedEvent, envelope: Envelope) -> bool:
    """Whether the payload is the one deterministic encoding of its event: the door's test."""
    try:
        return payload(signed.event) == envelope.payload
    except Exception:  # noqa: BLE001 - a value that cannot be encoded at all does not re-encode
        return False
