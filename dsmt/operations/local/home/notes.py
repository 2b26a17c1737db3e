"""Notes: certificates of keys that may be elsewhere, kept in a directory of the home that has the root key.

Rule 1: who has said nothing is known to nobody: its key could not be ended when its machine is lost. So the certificate of
    an issuer, and of an operator whose key was made here, is noted before it is given.
Rule 2: the note of an issuer goes where the key is deleted, with all that is on its machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dsmt.operations.local.home.home import write_secret
from dsmt.trust.certificate import SignedCertificate
from dsmt.trust.revocations import KEY_ID_BYTES

_ANY_KEY = "?" * 2 * KEY_ID_BYTES


def place(directory: Path, name: str, key_id: bytes) -> Path:
    """Where the certificate of a key is noted."""
    return directory / f"{name}.{key_id.hex()}"


def note(directory: Path, given: SignedCertificate) -> None:
    """Keep a certificate; the last one of each key."""
    certificate = given.certificate
    write_secret(place(directory, certificate.subject.partition("/")[2], certificate.key_id), given.raw)


def drop(directory: Path, name: str) -> None:
    """Keep none of this name any more."""
    for path in directory.glob(f"{name}.{_ANY_KEY}"):
        path.unlink(missing_ok=True)


def noted(directory: Path) -> Iterator[bytes]:
    """The certificates that are kept."""
    for path in sorted(directory.glob("[!.]*")):
        yield path.read_bytes()
