"""Layouts: payloads of one source that differ in sequence, time, chain and data only, written and read by the one before.

What is said on one topic over and over costs so half of what it costs to check and to take apart all of it anew.

Rule 1: a layout is made of an event that was written, or read, in full. It takes a payload that has the very bytes of that
    event's in all other places, numbers of as many bytes, and one whole value for data.
Rule 2: what it does not take, for whatever reason, is written or read in full: nothing is taken that is refused there, and
    nothing is read in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from dsmt.event.envelope import ChainLink, Event
from dsmt.event.merkle import HASH_BYTES
from dsmt.event.payload import (
    HASH,
    MAX_BODY_BYTES,
    MAX_INT,
    TIME,
    Fixed,
    canonical,
    encode,
    event_of,
    fixed_parts,
    is_plain,
    load_before,
    written,
)

_PACKED: Final = ((0xFF, b"\x18", "B"), (0xFFFF, b"\x19", "H"), (0xFFFFFFFF, b"\x1a", "I"), (MAX_INT, b"\x1b", "Q"))
"""How numbers are written: up to which, behind which first byte, and how (RFC 8949, 3.1)."""
_TIME: Final = TIME + b"\x1b"
_END: Final = 16
"""So many last bytes are looked at before a layout is made: what names the topic stands there."""

_FEW: Final = 23
"""A map of no more keys tells their number in its first byte."""

_struct = lru_cache(maxsize=256)(Struct)


class Encoder:
    """Writes the payloads of one source."""

    __slots__ = ("_fixed", "_keys", "_like", "_names")

    def __init__(self) -> None:
        self._like: Event | None = None
        self._fixed: Fixed | None = None
        self._names: tuple[str, ...] = ()
        self._keys: list[tuple[bytes, str]] = []
        """The keys of the data before, encoded, in their order."""

    def encode(self, event: Event) -> bytes:
        """As `payload.encode`. Raises `InputError`."""
        like = self._like
        if like is None or not _is_like(event, like):
            body = encode(event)
            self._like, self._fixed = event, None
            return body
        if self._fixed is None:
            self._fixed = fixed_parts(like)
        return self._written(event, self._fixed) or encode(event)

    def _written(self, event: Event, fixed: Fixed) -> bytes:
        """The payload of an event whose fixed parts were checked; empty where it is not one that is surely taken."""
        number, previous = event.chain
        numbers_fit = 0 < event.sequence <= MAX_INT and 1 < number <= MAX_INT and 0 < event.time <= MAX_INT
        if not (numbers_fit and len(previous) == HASH_BYTES and type(event.data) is dict and is_plain(event.data)):
            return b""
        try:
            body = written(fixed, event, self._data(event.data))
        except (UnicodeEncodeError, TypeError):
            return b""
        return body if len(body) <= MAX_BODY_BYTES else b""

    def _data(self, data: dict[str, Any]) -> bytes:
        """The deterministic encoding of data: its keys are sorted when they are others than before."""
        names = tuple(data)
        if len(names) > _FEW:
            return canonical(data)
        if names != self._names:
            self._names, self._keys = names, sorted((canonical(name), name) for name in names)
        return bytes((0xA0 + len(names),)) + b"".join([key + canonical(data[name]) for key, name in self._keys])


def _is_like(event: Event, like: Event) -> bool:
    return (
        event.topic == like.topic
        and event.incarnation == like.incarnation
        and event.subject == like.subject
        and event.type == like.type
        and event.source == like.source
        and (event.ttl, event.to, event.cause) == (like.ttl, like.to, like.cause)
        and (event.epoch, event.version, event.replaces) == (like.epoch, like.version, like.replaces)
        and event.declares == like.declares
    )


def events_of(bodies: Sequence[bytes], leaves: Sequence[bytes]) -> list[Event]:
    """The events of the payloads of a run, each with its leaf (`payload.event_of`). Raises `UnusableEventError`."""
    events: list[Event] = []
    layout: Layout | None = None
    end = b""
    for body, leaf in zip(bodies, leaves, strict=True):
        if layout is None and events and body[-_END:] == end:
            layout = Layout(events[-1])
        event = None if layout is None else layout.event_of(body, leaf)
        if event is None:
            event, layout, end = event_of(body, leaf), None, body[-_END:]
        events.append(event)
    return events


class Layout:
    """How payloads are read that are like that of an event."""

    __slots__ = ("_after", "_before", "_fixed", "_like")

    def __init__(self, like: Event) -> None:
        before, middle, behind, end = fixed_parts(like)
        (first, sequence), (second, number) = _packed(like.sequence), _packed(like.chain.number)
        self._like, self._fixed = like, (before + first, middle, behind + second, end)
        self._before = _struct(f">{len(before) + 1}s{sequence}{len(middle)}s")
        self._after = _struct(f">{len(_TIME)}sQ{len(behind) + 1}s{number}{len(HASH)}s{HASH_BYTES}s{len(end)}s")

    def event_of(self, body: bytes, leaf: bytes) -> Event | None:
        """The event of a payload; None where it has to be read in full."""
        first, last = self._before.size, len(body) - self._after.size
        if last < first:
            return None
        before, sequence, middle = self._before.unpack_from(body)
        at, time, behind, number, link, previous, end = self._after.unpack_from(body, last)
        if (before, middle, behind, end) != self._fixed or at != _TIME or link != HASH:
            return None
        try:
            data, found = load_before(leaf, body[first:last])
        except Exception:  # noqa: BLE001 - who reads it in full says why
            return None
        numbers_fit = 0 < sequence <= MAX_INT and 1 < number <= MAX_INT and 0 < time <= MAX_INT
        if found != leaf or not numbers_fit or type(data) is not dict or not is_plain(data):
            return None
        like = self._like
        return Event(
            source=like.source,
            incarnation=like.incarnation,
            sequence=sequence,
            chain=ChainLink(number, previous),
            type=like.type,
            topic=like.topic,
            subject=like.subject,
            time=time,
            data=data,
            cause=like.cause,
            ttl=like.ttl,
            to=like.to,
            epoch=like.epoch,
            version=like.version,
            replaces=like.replaces,
            declares=like.declares,
        )


def _packed(number: int) -> tuple[bytes, str]:
    """The first byte of a number of as many bytes as this one, and how the others are packed."""
    return next((first, code) for most, first, code in _PACKED if number <= most)
