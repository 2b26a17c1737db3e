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
from typing import Any, Final, Protocol, TypeVar

import cbor2
import msgspec

from dsmt.event.merkle import HASH_BYTES, Path, steps, tree

PATH_LABEL: Final = -70_010
"""The private-use header label under which the inclusion path stands."""
TAG: Final = b"\xd2"
"""CBOR tag 18, in its one deterministic encoding: how a COSE_Sign1 begins."""
RUN: Final = b"\x83"
"""How a run begins: an array of three."""
RUN_EVENTS: Final = 256
RUN_BYTES: Final = 48 * 1024
"""A source signs no more under one signature: events, and bytes of payload but for a single event."""
_ENVELOPE_BYTES: Final = 98
"""What header and signature of one event take at least, with their lengths; of a run no more."""


def assemble(protected: bytes, body: bytes, signature: bytes, path: Path | None = None) -> bytes:
    """The COSE_Sign1 bytes."""
    unprotected: dict[int, Any] = {} if path is None else {PATH_LABEL: [path.index, path.size, list(path.siblings)]}
    return TAG + cbor2.dumps([protected, unprotected, body, signature])


class Sized(Protocol):
    """What has a size in bytes."""

    @property
    def size(self) -> int:
        """Its size."""
        ...


Item = TypeVar("Item", bound=Sized)


class Burst:
    """One signature: the protected header's bytes, the signature over the root, and the leaves one behind the other."""

    __slots__ = ("_paths", "leaves", "protected", "signature")

    def __init__(self, protected: bytes, signature: bytes, leaves: bytes) -> None:
        self.protected, self.signature, self.leaves = protected, signature, leaves
        self._paths: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.leaves) // HASH_BYTES

    def leaf(self, index: int) -> bytes:
        """The leaf hash of a member."""
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def path(self, index: int) -> Path:
        """The inclusion path of a member."""
        if self._paths is None:
            self._paths = tree([self.leaf(n) for n in range(len(self))])[1]
        return self._paths[index]


class Member(msgspec.Struct, frozen=True):
    """A signed event within its burst: its place there and its payload."""

    burst: Burst
    index: int
    body: bytes

    def raw(self) -> bytes:
        """The event alone (rule 1)."""
        return assemble(self.burst.protected, self.body, self.burst.signature, self.burst.path(self.index))


Sealed = bytes | Member
"""A signed event as it is held: its COSE_Sign1, or its place in a burst."""


def raw_of(sealed: Sealed) -> bytes:
    """The COSE_Sign1 of a signed event."""
    return sealed.raw() if isinstance(sealed, Member) else sealed


def content_of(sealed: Sealed) -> bytes:
    """Bytes of a signed event in which its payload stands, as they are held."""
    return sealed.body if isinstance(sealed, Member) else sealed


def size_of(sealed: Sealed) -> int:
    """What a signed event takes where it is held, in bytes: a member its payload, its leaf and its share of the rest."""
    if isinstance(sealed, Member):
        return len(sealed.body) + HASH_BYTES + _ENVELOPE_BYTES // len(sealed.burst)
    return len(sealed)


def parts_of(sealed: Iterable[Sealed]) -> list[bytes]:
    """Signed events as parts of a message, in their order (rule 3)."""
    parts: list[bytes] = []
    for burst, group in groupby(sealed, key=_burst_of):
        if burst is None:
            parts.extend(raw_of(one) for one in group)
        else:
            parts.extend(_of_one_burst(burst, [one for one in group if isinstance(one, Member)]))
    return parts


def _burst_of(sealed: Sealed) -> Burst | None:
    return sealed.burst if isinstance(sealed, Member) else None


def _of_one_burst(burst: Burst, members: Sequence[Member]) -> Iterable[bytes]:
    """Parts for some members of one burst, which are in the order of their places, or alone."""
    if not all(one.index < other.index for one, other in pairwise(members)):
        return [one.raw() for one in members]
    absent = len(burst) - len(members)
    if absent == 0:
        return [_run(burst, [one.body for one in members])]
    paths = sum(steps(one.index, len(burst)) for one in members)
    if (absent - paths) * (HASH_BYTES + 2) >= (len(members) - 1) * _ENVELOPE_BYTES:
        return [one.raw() for one in members]
    bodies = {one.index: one.body for one in members}
    return [_run(burst, [bodies.get(n) or burst.leaf(n) for n in range(len(burst))])]


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
