"""Certificates: CBOR Web Tokens with a confirmation key, in COSE_Sign1 (RFC 8392, RFC 8747, RFC 9052).

Rule 1: claims: 1 issuer's name, 2 subject's name, 4 not after, 5 not before, 6 issued at (seconds), 7 id,
    8 confirmation key (COSE_Key: OKP, Ed25519); private claims: -70001 topic patterns that may be published, -70002
    that may be read, -70003 depth of further delegation, -70004 quota of live facts.
Rule 2: the protected header holds algorithm and the issuer's key id, the unprotected one is empty.
Rule 3: a certificate is good only under its issuer's, up to the realm's root (`store.TrustStore`).
Rule 4: of one key, each issuer has `KEPT_PER_ISSUER` places, which its newest certificates fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.codec import Signing, open_envelope, sign_alone
from dsmt.event.payload import canonical, load_plain
from dsmt.event.topic import check_pattern, is_topic
from dsmt.trust.keys import key_id_of

PUBLISH: Final = -70_001
READ: Final = -70_002
DEPTH: Final = -70_003
QUOTA: Final = -70_004
MAX_BYTES: Final = 4096
"""No certificate is larger; those that dsmt makes have less than 1000 bytes for names of usual length."""
KEPT_PER_ISSUER: Final = 64
"""How many certificates of one key are kept that one issuer has signed."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a key, what it may do, and who says so. Times: seconds since 1970; `quota`: live facts (D2)."""

    issuer: str
    subject: str
    public: bytes
    issued: int
    not_before: int
    not_after: int
    publish: tuple[str, ...]
    read: tuple[str, ...]
    depth: int
    quota: int
    serial: bytes

    @property
    def key_id(self) -> bytes:
        """The id of the key it names."""
        return key_id_of(self.public)

    @property
    def role(self) -> str:
        """The first word of the subject: broker, node, controller, operator, agent, monitor, issuer, root."""
        return self.subject.split("/", 1)[0]

    @property
    def renew_s(self) -> int:
        """When half of its life has passed: it is to be renewed from then on."""
        return (self.issued + self.not_after) // 2


class SignedCertificate(msgspec.Struct, frozen=True):
    """A certificate with its bytes and the id of the key that signed it."""

    certificate: Certificate
    raw: bytes
    issuer_key_id: bytes


def issue(certificate: Certificate, signer: Signing) -> SignedCertificate:
    """Sign a certificate with the issuer's key."""
    claims: dict[int, Any] = {
        1: certificate.issuer,
        2: certificate.subject,
        4: certificate.not_after,
        5: certificate.not_before,
        6: certificate.issued,
        7: certificate.serial,
        8: {1: {1: 1, -1: 6, -2: certificate.public}},
        PUBLISH: list(certificate.publish),
        READ: list(certificate.read),
        DEPTH: certificate.depth,
        QUOTA: certificate.quota,
    }
    return SignedCertificate(certificate, sign_alone(canonical(claims), signer), signer.key_id)


@lru_cache(maxsize=8192)
def read(raw: bytes) -> tuple[SignedCertificate, int, bytes, bytes]:
    """Take a certificate apart: itself, and algorithm, signed bytes and signature for its check.

    Raises `UnusableEventError`.
    """
    if len(raw) > MAX_BYTES:
        raise UnusableEventError("trust.certificate", f"a certificate has {len(raw)} bytes, {MAX_BYTES} are the limit")
    envelope = open_envelope(raw)
    if envelope.path is not None:
        raise UnusableEventError("trust.certificate", "a certificate is signed alone, not in a burst")
    try:
        certificate = _claims(load_plain(envelope.payload))
    except UnusableEventError:
        raise
    except Exception as error:
        raise UnusableEventError("trust.certificate", f"not a certificate: {error}") from error
    signed = SignedCertificate(certificate, raw, envelope.key_id)
    return signed, envelope.algorithm, envelope.to_be_signed(), envelope.signature


def bounded(held: Iterable[SignedCertificate]) -> list[SignedCertificate]:
    """Certificates of one key, newest first, without what one issuer has signed beyond its places (rule 4)."""
    signed_by: Counter[bytes] = Counter()
    kept = []
    for one in sorted(held, key=lambda one: (one.certificate.issued, one.raw), reverse=True):
        signed_by[one.issuer_key_id] += 1
        if signed_by[one.issuer_key_id] <= KEPT_PER_ISSUER:
            kept.append(one)
    return kept


def _claims(claims: dict[int, Any]) -> Certificate:
    key = claims[8][1]
    if key[1] != 1 or key[-1] != 6:
        raise UnusableEventError("trust.certificate", "the confirmation key is not an Ed25519 key")
    certificate = msgspec.convert(
        {
            "issuer": claims[1],
            "subject": claims[2],
            "public": key[-2],
            "issued": claims[6],
            "not_before": claims[5],
            "not_after": claims[4],
            "publish": claims[PUBLISH],
            "read": claims[READ],
            "depth": claims[DEPTH],
            "quota": claims[QUOTA],
            "serial": claims[7],
        },
        Certificate,
        builtin_types=(bytes,),
    )
    if not is_topic(certificate.subject) or len(certificate.public) != 32:
        raise UnusableEventError("trust.certificate", "subject or key is malformed")
    for pattern in (*certificate.publish, *certificate.read):
        check_pattern(pattern)
    return certificate
