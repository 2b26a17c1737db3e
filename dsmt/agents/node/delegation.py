"""Delegation: the identities that a node issues below its own, for its agents and its monitor."""

from __future__ import annotations

from collections.abc import Callable

import cbor2

from dsmt.errors import InputError
from dsmt.ports.entropy import Entropy
from dsmt.trust.identity import Identity, delegate, dump, load
from dsmt.trust.keys import Key


def delegated(
    kept: bytes | None,
    name: str,
    parent: Identity,
    *,
    now_s: int,
    make_key: Callable[[bytes], Key],
    entropy: Entropy,
) -> bytes:
    """The kept identity (`dsmt.trust.identity.dump`) if it is good, else a new one. `now_s`: realm time in seconds."""
    if kept is not None and is_good(kept, name, parent, now_s):
        return kept
    key = make_key(entropy.bytes(32))
    return dump(delegate(name, parent, key=key, now_s=now_s, serial=entropy.bytes(16)))


def is_good(kept: bytes, name: str, parent: Identity, now_s: int) -> bool:
    """Whether a kept identity is of that name, below the parent's present one, and in the first half of its life."""
    if not is_below(kept, parent):
        return False
    try:
        certificate = load(kept, where=name).certificate
    except InputError:
        return False
    return certificate.subject == name and now_s < certificate.renew_s


def is_below(kept: bytes | None, parent: Identity) -> bool:
    """Whether a kept identity is below the parent's present one: it counts no longer than what it is below."""
    return chain_of(kept)[1:] == [one.raw for one in parent.chain]


def chain_of(kept: bytes | None) -> list[bytes]:
    """The certificates of a kept identity, its own first; none when it cannot be read."""
    try:
        return list(cbor2.loads(kept or b"")["chain"])
    except (cbor2.CBORDecodeError, LookupError, TypeError, ValueError):
        return []
