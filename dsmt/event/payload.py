"""Payloads: the map that an event's payload is, to bytes and back.

Rule 1: keys of one map are all text, so both of CBOR's canonical orders agree. Data is what JSON and every other
    reader can hold as well: null, booleans, 64-bit integers, finite numbers, text, bytes, lists and maps, at most
    `MAX_DEPTH` deep. No tag, and nothing that is unequal to itself.
Rule 2: what is written is the deterministic encoding (RFC 8949, 4.2.1). What is read has exactly one meaning: no key stands
    twice in a map, no length is open, nothing stands behind the payload. More is not asked: the bytes that were signed are
    what is kept, hashed and handed on, and nobody encodes them again (rule B10).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import isfinite
from typing import Annotated, Any, Final

import cbor2
import msgspec
from msgspec import Meta

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import MAX_EVENT_BYTES, NO_LEAF, ChainLink, Event, EventId
from dsmt.event.merkle import HASH_BYTES
from dsmt.event.topic import is_topic

MAX_INT: Final = 2**63 - 1
_MAX_TTL_MS: Final = 2**53
"""A time of expiry, too, fits into 63 bits."""
MAX_BODY_BYTES: Final = MAX_EVENT_BYTES - 1024
"""The limit of a payload, in bytes: with header, signature and inclusion path it is an event's."""
MAX_DEPTH: Final = 64
"""How deep lists and maps in an event's data may stand in each other."""
_TAGS: Final = (*range(6), 25, *range(28, 31), *range(35, 38), 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""Tags that the decoder would build something of: regular expressions, shared values that grow when they are written."""


Fixed = tuple[bytes, bytes, bytes, bytes]
"""The parts of a payload between what changes from event to event (`fixed_parts`)."""
TIME: Final = b"\x64time"
HASH: Final = b"\x58\x20"
"""What stands before the time, and before the hash of the chain."""

_Number = Annotated[int, Meta(gt=0, le=MAX_INT)]
_Name = Annotated[str, Meta(max_length=512)]
_Leaf = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Id = tuple[_Name, _Number, _Number]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload's map."""

    source: _Name
    id: tuple[_Number, _Number]
    chain: tuple[_Number, _Leaf]
    type: _Name
    topic: _Name
    subject: _Name
    time: _Number
    data: dict[str, Any]
    cause: tuple[_Id, ...] = ()
    ttl: _Number | None = None
    to: tuple[_Name, ...] = ()
    epoch: _Number | None = None
    version: _Number | None = None
    replaces: _Id | None = None
    declares: tuple[_Number, _Number] | None = None


def _refuse_tag(*_: object) -> Any:
    raise ValueError("a tag")


_REFUSED_TAGS: Final = dict.fromkeys(_TAGS, _refuse_tag)


def load_plain(raw: bytes, *, text_keys: bool = False) -> Any:
    """CBOR without tags, at most twice `MAX_DEPTH` deep (rule 1): what it holds is never larger than its bytes tell.

    `text_keys`: keys of maps are texts or bytes only; numbers can be chosen so that their hashes collide.
    """
    depth = 2 * MAX_DEPTH
    return cbor2.loads(raw, semantic_decoders=_REFUSED_TAGS, max_depth=depth, strict_hashable_types=text_keys)


def canonical(value: Any) -> bytes:
    """Deterministic CBOR of a value."""
    return cbor2.dumps(value, canonical=True)


def payload(event: Event) -> bytes:
    """The deterministic encoding of an event's payload."""
    return written(fixed_parts(event), event, canonical(event.data))


def written(fixed: Fixed, event: Event, data: bytes) -> bytes:
    """That, by the fixed parts that it has in common with others, and its data as it is encoded.

    Its keys stand in their order, and only `data` is sorted: that costs half of what it costs to sort everything.
    """
    before, middle, behind, end = fixed
    return b"".join(
        (
            before,
            _integer(event.sequence),
            middle,
            data,
            TIME,
            _integer(event.time),
            behind,
            _integer(event.chain.number),
            HASH,
            event.chain.previous,
            end,
        )
    )


def fixed_parts(event: Event) -> Fixed:
    """What stands in a payload before its sequence, its data, its chain's number, and behind its chain's hash."""
    told = _OPTIONAL - (not event.to) - (event.ttl is None) - (not event.cause) - (event.epoch is None)
    told -= (event.version is None) + (event.declares is None) + (event.replaces is None)
    return (
        bytes((0xA0 + _REQUIRED + told,)) + b"\x62id\x82" + _integer(event.incarnation),
        (b"\x62to" + cbor2.dumps(event.to) if event.to else b"")
        + (b"" if event.ttl is None else b"\x63ttl" + _integer(event.ttl))
        + b"\x64data",
        b"\x64type"
        + _text(event.type)
        + (b"\x65cause" + cbor2.dumps(event.cause) if event.cause else b"")
        + b"\x65chain\x82",
        b"".join(
            (
                b"" if event.epoch is None else b"\x65epoch" + _integer(event.epoch),
                b"\x65topic",
                _text(event.topic),
                b"\x66source",
                _text(event.source),
                b"\x67subject",
                _text(event.subject),
                b"" if event.version is None else b"\x67version" + _integer(event.version),
                b"" if event.declares is None else b"\x68declares" + cbor2.dumps(event.declares),
                b"" if event.replaces is None else b"\x68replaces" + cbor2.dumps(event.replaces),
            )
        ),
    )


_REQUIRED: Final = 8
_OPTIONAL: Final = 7
"""How many keys a payload always has, and how many more it may have."""


def _integer(number: int) -> bytes:
    """A positive number (RFC 8949, 3.1)."""
    if number > 0xFFFFFFFF:
        return b"\x1b" + number.to_bytes(8, "big")
    if number > 0xFFFF:
        return b"\x1a" + number.to_bytes(4, "big")
    return cbor2.dumps(number)


@lru_cache(maxsize=8192)
def _text(text: str) -> bytes:
    """A name, of which few are said over and over."""
    return cbor2.dumps(text)


def _map_of(event: Event) -> dict[str, Any]:
    """The payload's map, in no order."""
    plain: dict[str, Any] = {
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
        plain["cause"] = [list(one) for one in event.cause]
    if event.ttl is not None:
        plain["ttl"] = event.ttl
    if event.to:
        plain["to"] = list(event.to)
    if event.epoch is not None:
        plain["epoch"] = event.epoch
    if event.version is not None:
        plain["version"] = event.version
    if event.replaces is not None:
        plain["replaces"] = list(event.replaces)
    if event.declares is not None:
        plain["declares"] = list(event.declares)
    return plain


def encode(event: Event) -> bytes:
    """The payload of an event that is to be signed. Raises `InputError` when it is too long, or no reader would take it."""
    try:
        msgspec.convert(_map_of(event), _Wire, builtin_types=(bytes,))
        fault = _fault(event)
        body = payload(event)
    except (msgspec.ValidationError, UnicodeEncodeError, TypeError) as error:
        raise InputError("event.form", f"{error} in an event on {event.topic!r}", next="nothing was signed") from error
    if fault:
        raise InputError("event.form", f"{fault} in an event on {event.topic!r}", next="nothing was signed")
    if len(body) > MAX_BODY_BYTES:
        raise InputError(
            "event.too_big",
            f"event on {event.topic} has {len(body)} bytes, the limit is {MAX_BODY_BYTES}",
            next="put large content into the depot and name its sha256",
        )
    return body


def load_before(leaf: bytes, raw: bytes) -> tuple[Any, Any]:
    """The value that bytes hold, and the leaf that was put behind them: another one where they end before, or hold more."""
    value, end = cbor2.loads(
        b"\x82" + raw + b"\x58\x20" + leaf,
        semantic_decoders=_REFUSED_TAGS,
        max_depth=2 * MAX_DEPTH,
        strict_hashable_types=True,
        allow_duplicate_keys=False,
        allow_indefinite=False,
    )
    return value, end


def event_of(body: bytes, leaf: bytes) -> Event:
    """The event of a payload. Its leaf, which no payload can hold, stands behind it: so what ends before is noticed."""
    try:
        plain, end = load_before(leaf, body)
        wire = msgspec.convert(plain, _Wire, builtin_types=(bytes,))
    except Exception as error:
        raise UnusableEventError("event.form", f"payload is not an event: {str(error)[:200]}") from error
    if end != leaf:
        raise UnusableEventError("event.form", "more stands behind the payload")
    event = Event(
        source=wire.source,
        incarnation=wire.id[0],
        sequence=wire.id[1],
        chain=ChainLink(*wire.chain),
        type=wire.type,
        topic=wire.topic,
        subject=wire.subject,
        time=wire.time,
        data=wire.data,
        cause=tuple([EventId(*cause) for cause in wire.cause]) if wire.cause else (),
        ttl=wire.ttl,
        to=wire.to,
        epoch=wire.epoch,
        version=wire.version,
        replaces=None if wire.replaces is None else EventId(*wire.replaces),
        declares=wire.declares,
    )
    fault = _fault(event)
    if fault:
        raise UnusableEventError("event.form", f"{fault} in an event of {str(event.source)[:80]!r}")
    return event


def _fault(event: Event) -> str:
    """What is wrong with an event whose fields have their types and ranges; empty when nothing is."""
    if event.chain.number == 1 and event.chain.previous != NO_LEAF:
        return "a first event that links to another"
    if not (is_topic(event.topic) and is_topic(event.source) and all(map(is_topic, event.to))):
        return "a source, topic or addressee outside the grammar"
    if not (is_topic(event.subject) or event.subject.isprintable()) or not (
        is_topic(event.type) or event.type.isprintable()
    ):
        return "a name that is not a short printable text"
    if (event.epoch is None) != (event.version is None):
        return "an epoch without a version, or a version without an epoch,"
    if event.ttl is not None and event.ttl > _MAX_TTL_MS:
        return "a ttl that is out of range"
    ids = event.cause if event.replaces is None else (*event.cause, event.replaces)
    if ids and not all(is_topic(one.source) for one in ids):
        return "a cause that is not an event id"
    return "" if is_plain(event.data) else "data that is not a map of plain values"


def is_plain(data: Any) -> bool:
    """Whether this is what the data of an event may be."""
    return _is_plain(data, MAX_DEPTH)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is what data may hold. What is plain whatever it holds is looked at in place: it is most of it."""
    if isinstance(value, dict):
        return depth > 0 and _TEXT.issuperset(map(type, value)) and _all_plain(value.values(), depth)
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, int):
        return -MAX_INT <= value <= MAX_INT
    if isinstance(value, (list, tuple)):
        return depth > 0 and _all_plain(value, depth)
    return value is None or isinstance(value, (str, bytes))


def _all_plain(values: Iterable[Any], depth: int) -> bool:
    for one in values:  # no generator, no call for a number: they cost twice as much
        kind = type(one)
        if kind in _PLAIN or (kind is float and isfinite(one)) or (kind is int and -MAX_INT <= one <= MAX_INT):
            continue
        if not _is_plain(one, depth - 1):
            return False
    return True


_TEXT: Final = frozenset({str})
_PLAIN: Final = frozenset({str, bytes, bool, type(None)})
