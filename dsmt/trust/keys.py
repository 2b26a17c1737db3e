"""Keys: one Ed25519 key is a source's identity, and its X25519 form encrypts its links (RFC 8032, RFC 7748).

Rule 1: a key is 32 bytes; its id is the first 16 bytes of its SHA-256.
Rule 2: no key is made here: a seed comes from the entropy port.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from dsmt.errors import InputError
from dsmt.event.codec import EDDSA, Signing

SEED_BYTES = 32


def key_id_of(public: bytes) -> bytes:
    """The id of a public key: 16 bytes."""
    return sha256(public).digest()[:16]


class Key(Signing, Protocol):
    """A source's private key. `SecretKey` is the real one; the simulator has a keyed hash in its place and says so."""

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        ...

    @property
    def seed(self) -> bytes:
        """What the key is made of, 32 secret bytes."""
        ...

    def link_secret(self) -> bytes:
        """The X25519 secret key, 32 bytes, for links."""
        ...


class SecretKey:
    """A source's Ed25519 private key; fulfils `Key`."""

    __slots__ = ("_secret", "key_id", "public", "seed")

    algorithm: int = EDDSA

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise InputError("trust.key", f"a key's seed has {SEED_BYTES} bytes, this has {len(seed)}")
        self.seed = seed
        self.public, self._secret = crypto_sign_seed_keypair(seed)
        self.key_id = key_id_of(self.public)

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes (RFC 8032)."""
        signed: bytes = crypto_sign(message, self._secret)
        return signed[:crypto_sign_BYTES]

    def link_secret(self) -> bytes:
        """The X25519 secret key, 32 bytes, for CURVE."""
        secret: bytes = crypto_sign_ed25519_sk_to_curve25519(self._secret)
        return secret

    def __repr__(self) -> str:
        return f"SecretKey({self.key_id.hex()})"


@lru_cache(maxsize=16384)
def link_key(public: bytes) -> bytes:
    """The X25519 form of an Ed25519 public key, 32 bytes: what the other end of a link is known by."""
    try:
        converted: bytes = crypto_sign_ed25519_pk_to_curve25519(public)
    except Exception as error:
        raise InputError("trust.key", f"{public.hex()} is not an Ed25519 public key") from error
    return converted


def verify(algorithm: int, public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's over the message. Only EdDSA is accepted (RFC 9053, 2.2)."""
    if algorithm != EDDSA or len(signature) != crypto_sign_BYTES or len(public) != SEED_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except (BadSignatureError, ValueError):
        return False
    return True
