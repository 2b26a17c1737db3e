"""Birth: the store in a broker's directory, and the root's word that the realm was born in it, or moved into it (rule A4).

A record is for one store: a broker that has lost it makes another one, of which nobody has said that it holds everything.
"""

from __future__ import annotations

from pathlib import Path

from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import UnusableEventError
from dsmt.event.codec import open_envelope, sign_alone
from dsmt.event.payload import canonical
from dsmt.system.entropy import SystemEntropy
from dsmt.system.procfs import boot
from dsmt.trust.keys import Key
from dsmt.trust.store import TrustStore


def open_store(directory: Path, *, synced: bool = False) -> SqliteStore:
    """The store in a broker's directory, made when there is none. Raises `FailedError`."""
    identity = SystemEntropy().bytes(8).hex()
    return SqliteStore(str(directory / "store.db"), identity=identity, synced=synced, boot=boot())


def birth_record(realm: str, broker: str, store: str, root: Key) -> bytes:
    """The root's word that a realm was born in this store of a broker (rule A4): one that was made later is not meant."""
    return sign_alone(canonical(["birth", realm, broker, store]), root)


def is_birth_record(raw: bytes, broker: str, store: str, trust: TrustStore) -> bool:
    """Whether the bytes are such a word for this store of a broker, by one of the realm's roots."""
    try:
        envelope = open_envelope(raw)
    except UnusableEventError:  # damaged: nothing is known of a birth
        return False
    right = envelope.payload == canonical(["birth", trust.realm.name, broker, store])
    return right and any(trust.check(root, envelope) for root in trust.realm.roots)
