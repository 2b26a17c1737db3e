"""Issuers' certificates, kept where the root key is.

Rule 1: an issuer that has certified nobody has said nothing, and nobody knows its key: whose machine is lost could not end
    it. So its certificate is noted here before it is given.
Rule 2: the note goes where the key is deleted, with all that is on its machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from dsmt.operations.local.home.home import Home, write_secret
from dsmt.trust.certificate import SignedCertificate
from dsmt.trust.revocations import KEY_ID_BYTES

_ANY_KEY = "?" * 2 * KEY_ID_BYTES


def note(home: Home, issuer: SignedCertificate) -> None:
    """Keep the certificate of an issuer; the last one of each key."""
    certificate = issuer.certificate
    name = certificate.subject.partition("/")[2]
    write_secret(home.issuers / f"{name}.{certificate.key_id.hex()}", issuer.raw)


def drop(home: Home, name: str) -> None:
    """Keep none of an issuer of this name any more (rule 2)."""
    for path in home.issuers.glob(f"{name}.{_ANY_KEY}"):
        path.unlink(missing_ok=True)


def noted(home: Home) -> Iterator[bytes]:
    """The certificates that are kept."""
    for path in sorted(home.issuers.glob("[!.]*")):
        yield path.read_bytes()
