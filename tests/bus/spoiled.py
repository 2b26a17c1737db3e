"""Bytes with a bit flipped, values that are shared until nothing could hold them, and disks that are full."""

from __future__ import annotations

from typing import Any, Never

import cbor2

from dsmt.ports.store import StoreFullError


class Full:
    """In the place of a method: there is no room."""

    def __init__(self) -> None:
        self.tried = 0

    def __call__(self, *_: Any, **__: Any) -> Never:
        self.tried += 1
        raise StoreFullError("store.full", "the disk is full", next="make room")


def flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def shared(depth: int) -> bytes:
    """A list of two that are one list of two, and so on: 2^depth values in a few bytes."""
    value = b"\xd8\x1c\x81\x00"
    for above in range(depth):
        value = b"\xd8\x1c\x82" + value + b"\xd8\x1d" + cbor2.dumps(depth - above)
    return value
