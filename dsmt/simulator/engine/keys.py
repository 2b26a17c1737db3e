"""Keys of the simulation: real Ed25519 key pairs that sign with a keyed hash, which is about 20 times as fast.

Rule 1: a signature is BLAKE2b under the PUBLIC key, so anybody could forge one; its algorithm number is refused
    everywhere outside of the simulator.
Rule 2: the link keys are real, so that the handshake is the one that is run in life.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from nacl.bindings import crypto_scalarmult_base

from dsmt.event.codec import KEYED_BLAKE2B
from dsmt.trust.identity import Identity, load
from dsmt.trust.keys import SecretKey


class SimKey(SecretKey):
    """Fulfils `trust.keys.Key`."""

    __slots__ = ()

    algorithm: int = KEYED_BLAKE2B

    def sign(self, message: bytes) -> bytes:
        """The keyed hash, 64 bytes."""
        return blake2b(message, key=self.public).digest()


def verify(algorithm: int, public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the keyed hash is the key's over the message: `TrustStore(verify=...)`."""
    return algorithm == KEYED_BLAKE2B and blake2b(message, key=public).digest() == signature


@lru_cache(maxsize=16384)
def link_public(secret: bytes) -> bytes:
    """The X25519 public key of a link's secret."""
    public: bytes = crypto_scalarmult_base(secret)
    return public


def load_identity(raw: bytes, *, where: str) -> Identity:
    """Read what `dsmt.trust.identity.dump` wrote of an identity of the simulation. Raises `InputError`."""
    identity = load(raw, where=where)
    return Identity(SimKey(identity.key.seed), identity.chain)
