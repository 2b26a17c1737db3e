"""Kept: signed facts on a node's disk, each in one file with the certificates that prove it (rule R5).

Rule 1: fact and certificates are written and read together: who starts anew can offer what it acts on to a broker that
    knows nobody.
Rule 2: a file that is not there, damaged or no file is nothing known; a damaged certificate is left out, and the fact still
    obeyed.
Rule 3: what stands in the place of a file of ours goes: a program that has our uid may have put anything there.
"""

from __future__ import annotations

import cbor2
import msgspec

from dsmt.errors import FailedError, UnusableEventError
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


def own(files: Files, path: str) -> bytes | None:
    """The content of a file of ours; None where there is none, and where something else stood (rule 3).

    Raises `FailedError` where that cannot be removed, and where the machine does not let it be read now.
    """
    try:
        return files.read(path)
    except FailedError as error:
        if not error.fields.get("other"):
            raise
        files.remove(path)
        return None


def kept(files: Files, path: str, bus: Bus) -> SignedEvent | None:
    """A fact that was kept, and was verified when it came; what proves it is known to the bus from now on."""
    try:
        told = _read(files.read(path))
    except FailedError:
        return None
    if told is None:
        return None
    bus.introduce(told[1])
    return told[0]


def fact_in(raw: bytes | None) -> SignedEvent | None:
    """The fact in the content of such a file, for who has no bus; None where there is none that can be read."""
    told = _read(raw)
    return None if told is None else told[0]


def _read(raw: bytes | None) -> tuple[SignedEvent, tuple[bytes, ...]] | None:
    try:
        told = msgspec.convert(cbor2.loads(raw or b""), _Kept, builtin_types=(bytes,))
        return decode(told.event), told.certificates
    except (UnusableEventError, msgspec.ValidationError, cbor2.CBORDecodeError, ValueError):
        return None
