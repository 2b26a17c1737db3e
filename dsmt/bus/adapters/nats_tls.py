"""Certificates for the servers' TLS (X.509): an authority of the realm, and one certificate for each server below it.

Rule 1: they encrypt and name servers, and prove nothing else: what an event is worth its own signature says.
Rule 2: both are made when a realm is born, by who holds its root; the authority's key is thrown away after that, as a server
    that is added later brings a new authority with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS_S: Final = 10 * 365 * 24 * 3600
SKEW_S: Final = 3600


class Issued(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: str
    key: str


def issue_servers(realm: str, hosts: Sequence[str], *, now_s: int, lifetime_s: int = YEARS_S) -> tuple[str, list[Issued]]:
    """An authority's certificate in PEM, and a certificate for a server at each host, a name or an address."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"dsmt realm {realm}")
    begins, ends = (datetime.fromtimestamp(s, UTC) for s in (now_s - SKEW_S, now_s + lifetime_s))
    authority = (
        _begun(issuer, issuer, authority_key, begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    issued = []
    for host in hosts:
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            _begun(_name(host), issuer, key, begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        issued.append(Issued(signed.public_bytes(Encoding.PEM).decode(), written))
    return authority.public_bytes(Encoding.PEM).decode(), issued


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
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
