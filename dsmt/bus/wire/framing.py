"""Framing: a frame and its parts as a message, and back: the frame as a map in CBOR, behind it the parts as they are."""

from __future__ import annotations

from math import isfinite
from typing import Final, get_args

import cbor2
import msgspec

from dsmt.bus.wire import frames as f
from dsmt.errors import UnusableEventError
from dsmt.event.payload import load_plain
from dsmt.ports.network import Message

MAX_PARTS: Final = 1024
MAX_HEAD: Final = 64 * 1024
"""The longest map of a message, in bytes."""

CHUNK_BYTES: Final = 256 * 1024
"""Of a blob, but for its last chunk."""

KINDS: Final[dict[str, type[f.Frame]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(f.Frame)}
"""Every frame by its kind, the tag on the wire."""


def pack(frame: f.Frame, *parts: bytes) -> Message:
    """A message."""
    return (cbor2.dumps(msgspec.to_builtins(frame, builtin_types=(bytes,))), *parts)


def unpack(message: Message) -> tuple[f.Frame, tuple[bytes, ...]]:
    """A frame and its parts. Raises `UnusableEventError` for anything else."""
    if len(message) > 1 + MAX_PARTS or len(message[0]) > MAX_HEAD:
        said = f"a message has at most {MAX_PARTS} parts behind a map of {MAX_HEAD} bytes"
        raise UnusableEventError("bus.frame", said)
    try:
        told = load_plain(message[0], text_keys=True)
        if any(type(value) is float and not isfinite(value) for value in told.values()):
            raise ValueError("a number that is none")  # noqa: TRY301 - said as all else
        frame = msgspec.convert(told, KINDS[told["t"]], builtin_types=(bytes,))
    except Exception as error:
        raise UnusableEventError("bus.frame", f"not a frame of this protocol: {str(error)[:200]}") from error
    return frame, message[1:]
