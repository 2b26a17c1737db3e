"""Certificates for the servers' TLS (X.509): an authority of the realm, and one certificate for each server below it.

Rule 1: they encrypt and name servers, and prove nothing else: what an event is worth its own signature says.
Rule 2: the authority is made when a realm is born, and its key is kept by who holds the root: it signs each further server.
    A server's own key is made where the server stands, and leaves that machine never.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS_S: Final = 10 * 365 * 24 * 3600
SKEW_S: Final = 3600


class Issued(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: str
    key: str


def issue_servers(realm: str, hosts: Sequence[str], *, now_s: int) -> tuple[Issued, list[Issued]]:
    """A new authority, and a key and a certificate for a server at each host, a name or an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"dsmt realm {realm}")
    begins, ends = (datetime.fromtimestamp(s, UTC) for s in (now_s - SKEW_S, now_s + YEARS_S))
    signed = (
        _begun(issuer, issuer, key.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Issued(signed.public_bytes(Encoding.PEM).decode(), _written(key))
    issued = []
    for host, own in ((host, new_key()) for host in hosts):
        issued.append(Issued(issue_server(authority, host, public_of(own), now_s=now_s), own))
    return authority, issued


def new_key() -> str:
    """A new key of a server, in PEM."""
    return _written(ec.generate_private_key(ec.SECP256R1()))


def public_of(key: str) -> str:
    """The public half of a server's key, in PEM."""
    loaded = load_pem_private_key(key.encode(), None)
    return loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def issue_server(authority: Issued, host: str, public: str, *, now_s: int) -> str:
    """The certificate of a server's key, in PEM; it ends no later than the authority's. Raises `ValueError` for no key."""
    above, signer = x509.load_pem_x509_certificate(authority.certificate.encode()), _signer(authority.key)
    key = load_pem_public_key(public.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a server has a key of an elliptic curve")  # noqa: TRY004 - it is told by another machine
    begins, ends = (datetime.fromtimestamp(s, UTC) for s in (now_s - SKEW_S, now_s + YEARS_S))
    signed = (
        _begun(_name(host), above.subject, key, begins, min(ends, above.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return signed.public_bytes(Encoding.PEM).decode()


def _signer(key: str) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key.encode(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError("an authority has a key of an elliptic curve")  # noqa: TRY004 - a file may hold anything
    return loaded


def _written(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _begun(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
