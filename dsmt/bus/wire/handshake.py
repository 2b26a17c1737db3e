"""The handshake: how a client shows who it is, and what it signs of its attachment (rule F1, A11).

Rule 1: the certificate must be good in the realm, valid now, not revoked, and its key's X25519 form the link's own key;
    that it is still valid is seen again at `attach`.
Rule 2: the client signs (nonce, broker, name, incarnation, attachment), so no broker can invent an attachment.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import cbor2

from dsmt.bus.wire.frames import PROTOCOL, Hello
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.codec import open_envelope, sign_alone
from dsmt.event.hlc import rfc3339
from dsmt.event.payload import canonical, load_plain
from dsmt.event.phrases import another_certificate, another_name
from dsmt.trust.certificate import Certificate, read
from dsmt.trust.keys import Key, link_key
from dsmt.trust.store import TrustStore

MAX_CHAIN: Final = 4
"""The longest chain of certificates below the root: issuer, node, agent, and one for a renewal under way."""
ONE_VERSION: Final = "install one version of dsmt at both ends: the lower number is the older's; what runs goes on meanwhile"
"""What to do where two versions meet that do not understand each other."""


class Attaching(Protocol):
    """What a broker knows of the session that attaches."""

    name: str
    certificate: Certificate | None
    incarnation: int
    attachment: int
    nonce: bytes


def check_hello(
    trust: TrustStore, hello: Hello, parts: tuple[bytes, ...], key: bytes, now_ms: int, *, ended: bool = False
) -> Certificate:
    """The certificate of who says hello, which may have `ended`. Raises `RefusedError` that says why not."""
    if hello.protocol != PROTOCOL:
        said = f"this broker speaks protocol {PROTOCOL}, you speak {hello.protocol}"
        raise RefusedError("bus.protocol", said, next=ONE_VERSION)
    if hello.realm != trust.realm.name:
        raise RefusedError("trust.realm", f"this broker serves realm {trust.realm.name}, not {hello.realm}")
    if len(parts) > MAX_CHAIN:
        raise RefusedError("bus.frame", f"{hello.name} showed {len(parts)} certificates, {MAX_CHAIN} are the limit")
    try:
        trust.add_all(parts)
        certificate = read(parts[0])[0].certificate if parts else None
    except UnusableEventError as error:
        raise RefusedError(error.code, error.message) from error
    held = certificate is not None and trust.holds(parts[0], certificate.key_id)
    if certificate is None or not held or certificate.subject != hello.name:
        raise RefusedError("trust.stranger", f"{hello.name} showed no certificate of its own")
    if link_key(certificate.public) != key:
        raise RefusedError("trust.stranger", f"the link is not encrypted with the key of {hello.name}")
    check_valid(trust, certificate, now_ms, ended=ended)
    return certificate


def check_valid(trust: TrustStore, certificate: Certificate, now_ms: int, *, ended: bool = False) -> None:
    """Check that a certificate is not revoked and valid now, unless it may have `ended`. Raises `RefusedError`."""
    name = certificate.subject
    if trust.is_revoked(certificate.key_id, name):
        raise revoked(trust, name, now_ms)
    error = None if ended and has_ended(certificate, now_ms) else out_of_time(certificate, now_ms)
    if error is not None:
        raise error


def revoked(trust: TrustStore, name: str, now_ms: int) -> RefusedError:
    """Why nobody lets in who has a key that was revoked; it is told where the name has another one since.

    So the machine that had the name of a node before learns that it is out for good, and what to do.
    """
    role, _, rest = name.partition("/")
    node = f"node/{rest.partition('/')[0]}" if role in ("node", "monitor", "agent") else ""
    if any(one.subject == node and is_valid(trust, one, now_ms) for one in trust.certificates()):
        said = f"{name} was revoked, and {node.removeprefix('node/')} is another machine, or has another key, by now"
        return RefusedError("trust.revoked", said, next=another_name(node))
    return RefusedError("trust.revoked", f"{name} was revoked", next=another_certificate(name))


def is_valid(trust: TrustStore, certificate: Certificate, now_ms: int) -> bool:
    """Whether a certificate stands and is valid at a realm time."""
    return not trust.is_revoked(certificate.key_id, certificate.subject) and out_of_time(certificate, now_ms) is None


def has_ended(certificate: Certificate, now_ms: int) -> bool:
    """Whether a certificate has ended at a realm time."""
    return certificate.not_after < now_ms // 1000


def out_of_time(certificate: Certificate, now_ms: int) -> RefusedError | None:
    """Why a certificate is not valid at a realm time; None where it is. One above it never ends before it (`widens`)."""
    name, now_s = certificate.subject, now_ms // 1000
    if certificate.not_before <= now_s <= certificate.not_after:
        return None
    own = name.startswith("joining/") or certificate.issuer.split("/", 1)[0] in ("root", "issuer")
    who = name if own else certificate.issuer
    said = f"the certificate of {name} ended at {rfc3339(certificate.not_after * 1000)}"
    if now_s < certificate.not_before:
        said = f"the certificate of {name} begins at {rfc3339(certificate.not_before * 1000)}, and realm time is"
        said = f"{said} {rfc3339(now_ms)}: one of the two is of a wrong clock"
    return RefusedError("trust.expired", said, next=another_certificate(who))


def statement(key: Key, *, nonce: bytes, broker: str, name: str, incarnation: int, attachment: int) -> bytes:
    """What a client signs to attach."""
    return sign_alone(canonical([nonce, broker, name, incarnation, attachment]), key)


def check_attach(
    trust: TrustStore, signed: bytes, session: Attaching, broker: str, now_ms: int, *, ended: bool = False
) -> None:
    """Check what a client signed, whose certificate may have `ended`. Raises `RefusedError`."""
    expected = [session.nonce, broker, session.name, session.incarnation, session.attachment]
    try:
        envelope = open_envelope(signed)
        told: Any = load_plain(envelope.payload)
    except (UnusableEventError, cbor2.CBORDecodeError, ValueError) as error:
        raise RefusedError("trust.attach", f"{session.name} sent an attach statement that cannot be read") from error
    certificate = session.certificate
    if certificate is None or envelope.key_id != certificate.key_id or told != expected:
        raise RefusedError("trust.attach", f"{session.name} signed another attachment than it was given")
    if not trust.check(certificate.public, envelope):
        raise RefusedError("trust.signature", f"bad signature on the attach statement of {session.name}")
    check_valid(trust, certificate, now_ms, ended=ended)
