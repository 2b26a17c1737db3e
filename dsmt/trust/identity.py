"""Identities: a key with the certificates that make it somebody, how new ones are issued, and for how long (`YEAR_S`).

Rule 1: a delegated certificate is a subset of its issuer's in grant, quota, time and depth: what its role may do today and
    its issuer's certificate, which an earlier version made, does not give, is left out.
Rule 2: times are given by the caller, in seconds since 1970; a certificate begins a minute early for skewed clocks.
Rule 3: a delegated certificate is valid exactly as long as its issuer's: who delegates may not know the time yet (J4).
"""

from __future__ import annotations

from typing import Final

import cbor2
import msgspec

from dsmt.errors import InputError
from dsmt.event.codec import Signing
from dsmt.event.payload import canonical
from dsmt.trust.certificate import Certificate, SignedCertificate, issue, read
from dsmt.trust.grants import DEFAULT_QUOTA, DEPTHS, QUOTAS, is_name, publish_patterns, read_patterns, within
from dsmt.trust.keys import Key, SecretKey

SKEW_S: Final = 60
YEAR_S: Final = 365 * 24 * 3600


class Identity(msgspec.Struct, frozen=True):
    """A source: its key, its certificate, and those above it up to the root's (excluded), nearest first."""

    key: Key
    chain: tuple[SignedCertificate, ...]

    @property
    def certificate(self) -> Certificate:
        """The source's own certificate."""
        return self.chain[0].certificate

    @property
    def name(self) -> str:
        """The source's name."""
        return self.certificate.subject


def certify(
    subject: str,
    public: bytes,
    *,
    issuer: str,
    signer: Signing,
    now_s: int,
    lifetime_s: int,
    serial: bytes,
    not_before: int | None = None,
    above: Certificate | None = None,
) -> SignedCertificate:
    """A certificate with the grants of the subject's role, signed by the issuer's key; below another no more than that.

    Raises `InputError` for a name that no source may have.
    """
    if not is_name(subject):
        raise InputError("trust.name", f"{subject!r} is not the name of a source", next="one looks like node/n1")
    role = subject.split("/", 1)[0]
    publish, read = publish_patterns(subject), read_patterns(subject)
    depth, quota = DEPTHS.get(role, 0), QUOTAS.get(role, DEFAULT_QUOTA)
    if above is not None:
        publish, read = within(publish, above.publish), within(read, above.read)
        depth, quota = min(depth, max(0, above.depth - 1)), min(quota, above.quota)
    return issue(
        Certificate(
            issuer=issuer,
            subject=subject,
            public=public,
            issued=now_s,
            not_before=now_s - SKEW_S if not_before is None else not_before,
            not_after=now_s + lifetime_s,
            publish=publish,
            read=read,
            depth=depth,
            quota=quota,
            serial=serial,
        ),
        signer,
    )


def root_issued(name: str, root: Signing, *, key: Key, now_s: int, serial: bytes, lifetime_s: int = YEAR_S) -> Identity:
    """A new identity for a key, under the realm's root. `serial` is 16 random bytes."""
    signed = certify(name, key.public, issuer="root", signer=root, now_s=now_s, lifetime_s=lifetime_s, serial=serial)
    return Identity(key, (signed,))


def delegate(name: str, parent: Identity, *, key: Key, now_s: int, serial: bytes) -> Identity:
    """A new identity for a key, below another's, for as long as the parent's own certificate holds."""
    above = parent.certificate
    issued = min(max(now_s, above.not_before), above.not_after)
    signed = certify(
        name,
        key.public,
        issuer=above.subject,
        signer=parent.key,
        now_s=issued,
        lifetime_s=above.not_after - issued,
        serial=serial,
        not_before=above.not_before,
        above=above,
    )
    return Identity(key, (signed, *parent.chain))


def dump(identity: Identity) -> bytes:
    """An identity as bytes, secret included: for a file of mode 0600."""
    return canonical({"seed": identity.key.seed, "chain": [signed.raw for signed in identity.chain]})


_RESTORE = "restore it from a backup"


def load(raw: bytes, *, where: str) -> Identity:
    """Read what `dump` wrote. Raises `InputError` that names the file."""
    try:
        told = cbor2.loads(raw)
        chain = tuple(read(one)[0] for one in told["chain"])
        identity = Identity(SecretKey(told["seed"]), chain)
        matching = bool(chain) and identity.certificate.public == identity.key.public
    except Exception as error:
        raise InputError("trust.identity", f"{where} is damaged: it holds no identity", next=_RESTORE) from error
    if not matching:
        raise InputError("trust.identity", f"{where}: certificate and key do not belong together", next=_RESTORE)
    return identity
