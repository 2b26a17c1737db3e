"""Items of a CBOR sequence (RFC 8742), as they stand; definite lengths only.

Rule 1: who reads a file is told how far that is at each `PIECE` of it, and so not of a small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.phrases import size_in_words
from dsmt.operations.words.telling import Tell, silent

PIECE: Final = 4 * 1024 * 1024
_MAX_DEPTH: Final = 16


def items(raw: bytes, tell: Tell = silent) -> Iterator[bytes]:
    """The items, one after the other. Raises `UnusableEventError` where it is no sequence of them."""
    at, told = 0, PIECE
    while at < len(raw):
        end = _end(raw, at, 0)
        yield raw[at:end]
        at = end
        if at >= told:
            told = at + PIECE
            tell(f"{100 * at // len(raw)} % of {size_in_words(len(raw))} are read")


def _end(raw: bytes, at: int, depth: int) -> int:
    """Where the item that begins at `at` ends."""
    if at >= len(raw) or depth > _MAX_DEPTH:
        raise UnusableEventError("event.form", f"the file ends, or is not CBOR, at byte {at}")
    major, extra = raw[at] >> 5, raw[at] & 31
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(extra, 0)
    if extra > 27 or at + 1 + size > len(raw):
        raise UnusableEventError("event.form", f"the file ends, or is not CBOR, at byte {at}")
    value = int.from_bytes(raw[at + 1 : at + 1 + size], "big") if size else extra
    at += 1 + size
    if major in (0, 1, 7):
        return at
    if major in (2, 3):
        if at + value > len(raw):
            raise UnusableEventError("event.form", f"the file ends within an item, at byte {len(raw)}")
        return at + value
    for _ in range({4: value, 5: 2 * value, 6: 1}[major]):
        at = _end(raw, at, depth + 1)
    return at
