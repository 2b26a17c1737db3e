"""Bytes with a bit flipped, and values that are shared until nothing could hold them."""

from __future__ import annotations

import cbor2


def flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def shared(depth: int) -> bytes:
    """A list of two that are one list of two, and so on: 2^depth values in a few bytes."""
    value = b"\xd8\x1c\x81\x00"
    for above in range(depth):
        value = b"\xd8\x1c\x82" + value + b"\xd8\x1d" + cbor2.dumps(depth - above)
    return value
