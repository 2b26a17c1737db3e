"""Kept: signed facts on a node's disk, each in one file with the certificates that prove it (rule R5).

Rule 1: fact and certificates are written and read together: who starts anew can offer what it acts on to a broker that
    knows nobody.
Rule 2: a file that is not there or damaged is nothing known; a damaged certificate is left out, and the fact still obeyed.
"""

from __future__ import annotations

import cbor2
import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import SignedEvent
from dsmt.event.payload import canonical
from dsmt.ports.bus import Bus
from dsmt.ports.files import Files


class _Kept(msgspec.Struct, frozen=True):
    """What a file holds."""

    event: bytes
    certificates: tuple[bytes, ...]


def proven(signed: SignedEvent, bus: Bus) -> bytes:
    """A fact with what proves it, as it is kept."""
    return canonical({"event": signed.raw, "certificates": list(bus.proof(signed))})


def keep(files: Files, path: str, signed: SignedEvent, bus: Bus) -> None:
    """Write a fact with what proves it. Raises `FailedError` (`fetch.no_space`)."""
    files.write(path, proven(signed, bus))


def kept(files: Files, path: str, bus: Bus) -> SignedEvent | None:
    """A fact that was kept, and was verified when it came; what proves it is known to the bus from now on."""
    raw = files.read(path)
    if raw is None:
        return None
    try:
        told = msgspec.convert(cbor2.loads(raw), _Kept, builtin_types=(bytes,))
        signed = decode(told.event)
    except (UnusableEventError, msgspec.ValidationError, cbor2.CBORDecodeError, ValueError):
        return None
    bus.introduce(told.certificates)
    return signed
