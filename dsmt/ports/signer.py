"""Signer: the private key of one source, as a port."""

from __future__ import annotations

from typing import Protocol


class Signer(Protocol):
    """Signs for one key. Ed25519 in life; the simulator has a keyed hash in its place and says so."""

    @property
    def algorithm(self) -> int:
        """The COSE algorithm number: -8 is EdDSA (RFC 9053, 2.2)."""
        ...

    @property
    def key_id(self) -> bytes:
        """The first 16 bytes of the SHA-256 of the public key: the COSE `kid`."""
        ...

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes for Ed25519 (RFC 8032)."""
        ...
