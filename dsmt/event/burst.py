"""Bursts: events under one signature, and how those that travel together are written (rule B8, RFC 9052 4.2).

Rule 1: an event that is signed alone is a COSE_Sign1. A member of a burst is one too, with its inclusion path, but that is
    made only when it leaves its burst: until then it is its payload and its place.
Rule 2: what travels together of one burst is a run: the array [protected header, signature, members]. A member is the
    payload or, of one that does not travel, its leaf: 32 bytes, which no payload is.
Rule 3: a part of a message is an event alone or a run; they differ in the first byte. Of one burst as many bytes go as
    are fewer: a run with the leaves of the others, or each alone with its path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final, Protocol, TypeVar

import cbor2
import msgspec

from dsmt.event.merkle import HASH_BYTES, Path, steps, tree

PATH_LABEL: Final = -70_010
"""The private-use header label under which the inclusion path stands."""
TAG: Final = b"\xd2"
"""CBOR tag 18, in its one deterministic encoding: how a COSE_Sign1 begins."""
RUN: Final = b"\x83"
"""How a run begins: an array of three."""
RUN_EVENTS: Final = 64
RUN_BYTES: Final = 16 * 1024
"""No more is signed together: events, and bytes of payloads; one that is longer is signed alone."""
_ENVELOPE_BYTES: Final = 98
"""What header and signature of one event take at least, with their lengths; of a run no more."""


def byte_string(content: bytes) -> bytes:
    """A byte string (RFC 8949, 3.1), for a third of what it costs to ask the encoder."""
    size = len(content)
    if size > 0xFFFF or size < 24:
        return cbor2.dumps(content)
    return (b"\x58" + size.to_bytes(1, "big") if size <= 0xFF else b"\x59" + size.to_bytes(2, "big")) + content


def assemble(protected: bytes, body: bytes, signature: bytes, path: Path | None = None) -> bytes:
    """The COSE_Sign1 bytes."""
    header = b"\xa0" if path is None else cbor2.dumps({PATH_LABEL: [path.index, path.size, list(path.siblings)]})
    return b"".join((TAG, b"\x84", byte_string(protected), header, byte_string(body), byte_string(signature)))


def disassemble(raw: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Header, payload and signature of what was assembled without a path; None where they do not stand as usual."""
    start = 4 if raw[2:3] == b"\x58" else 3  # a header's length is in its first byte, or in the one behind that
    end = start + (raw[start - 1] & (0xFF if start == 4 else 0x1F)) if len(raw) > start else 0
    begin = end + 1 + (3 if raw[end + 1 : end + 2] == b"\x59" else 2)
    size = int.from_bytes(raw[end + 2 : begin], "big")
    parts = raw[start:end], raw[begin : begin + size], raw[begin + size + 2 :]
    return parts if raw == assemble(*parts) else None


class Sized(Protocol):
    """What has a size in bytes."""

    @property
    def size(self) -> int:
        """Its size."""
        ...


Item = TypeVar("Item", bound=Sized)


class Burst:
    """One signature: the protected header's bytes, the signature over the root, and the leaves one behind the other."""

    __slots__ = ("leaves", "protected", "share", "signature")

    def __init__(self, protected: bytes, signature: bytes, leaves: bytes) -> None:
        self.protected, self.signature, self.leaves = protected, signature, leaves
        self.share = share_of(self, len(self))
        """Of one member of all."""

    def __len__(self) -> int:
        return len(self.leaves) // HASH_BYTES

    def leaf(self, index: int) -> bytes:
        """The leaf hash of a member."""
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def paths(self) -> list[Path]:
        """The inclusion path of each member: one hash for each."""
        return tree([self.leaf(n) for n in range(len(self))])[1]


class Member(msgspec.Struct, frozen=True, gc=False):
    """A signed event within its burst: its place there and its payload."""

    burst: Burst
    index: int
    body: bytes

    def raw(self, path: Path) -> bytes:
        """The event alone, with its path (rule 1)."""
        return assemble(self.burst.protected, self.body, self.burst.signature, path)


Sealed = bytes | Member
"""A signed event as it is held: its COSE_Sign1, or its place in a burst."""


class Carried:
    """Whatever carries a signed event, as `sealed`."""

    __slots__ = ()
    sealed: Sealed

    @property
    def raw(self) -> bytes:
        """The event alone, as a COSE_Sign1 that anybody can verify."""
        return raw_of(self.sealed)

    @property
    def size(self) -> int:
        """What it takes where it is held, in bytes."""
        return size_of(self.sealed)


def raw_of(sealed: Sealed) -> bytes:
    """The COSE_Sign1 of a signed event; of a member it is made, by a hash for each event of its burst."""
    return sealed.raw(sealed.burst.paths()[sealed.index]) if isinstance(sealed, Member) else sealed


def raws_of(sealed: Iterable[Sealed]) -> list[bytes]:
    """Signed events, each alone: of those of one burst that stand side by side the tree is made once."""
    return [raw for burst, group in groupby(sealed, key=burst_of) for raw in _alone(burst, group)]


def _alone(burst: Burst | None, group: Iterable[Sealed]) -> list[bytes]:
    paths = [] if burst is None else burst.paths()
    return [one.raw(paths[one.index]) if isinstance(one, Member) else one for one in group]


def content_of(sealed: Sealed) -> bytes:
    """Bytes of a signed event in which its payload stands, as they are held."""
    return sealed.body if isinstance(sealed, Member) else sealed


def size_of(sealed: Sealed) -> int:
    """What a signed event takes where it is held, in bytes: a member its payload, and its share of a whole burst."""
    return len(sealed.body) + sealed.burst.share if isinstance(sealed, Member) else len(sealed)


def share_of(burst: Burst, members: int) -> int:
    """What each of so many members that are held takes of what they have in common, in bytes."""
    return (len(burst.leaves) + _ENVELOPE_BYTES) // members


def parts_of(sealed: Iterable[Sealed]) -> list[bytes]:
    """Signed events as parts of a message, in their order (rule 3)."""
    parts: list[bytes] = []
    for burst, group in groupby(sealed, key=burst_of):
        if burst is None:
            parts.extend(_alone(None, group))
        else:
            parts.extend(_of_one_burst(burst, [one for one in group if isinstance(one, Member)]))
    return parts


def burst_of(sealed: Sealed) -> Burst | None:
    """The burst of a member; None for what is alone."""
    return sealed.burst if isinstance(sealed, Member) else None


def _of_one_burst(burst: Burst, members: Sequence[Member]) -> Iterable[bytes]:
    """Parts for some members of one burst, which are in the order of their places, or alone."""
    places = [one.index for one in members]
    if not all(one < other for one, other in pairwise(places)) or not is_worth_a_run(places, len(burst)):
        return _alone(burst, members)
    bodies = {one.index: one.body for one in members}
    return [_run(burst, [bodies.get(n) or burst.leaf(n) for n in range(len(burst))])]


def is_worth_a_run(places: Sequence[int], size: int) -> bool:
    """Whether the members in these places of a burst take fewer bytes as a run than each alone (rule 3).

    Who reads a run asks it too: leaves are kept with a burst and paid by its events, so nobody brings many for few.
    """
    absent = size - len(places)
    if absent == 0:
        return True
    paths = sum(steps(place, size) for place in places)
    return (absent - paths) * (HASH_BYTES + 2) < (len(places) - 1) * _ENVELOPE_BYTES


def _run(burst: Burst, members: Sequence[bytes]) -> bytes:
    return cbor2.dumps([burst.protected, burst.signature, members])


def in_portions(items: Iterable[Item], events: int, most: int) -> Iterator[list[Item]]:
    """Events in portions of at most so many, and so many bytes; one that is larger is a portion by itself."""
    portion: list[Item] = []
    total = 0
    for one in items:
        size = one.size
        if portion and (len(portion) >= events or total + size > most):
            yield portion
            portion, total = [], 0
        portion.append(one)
        total += size
    if portion:
        yield portion
