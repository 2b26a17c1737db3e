"""Proofs: the certificates that are kept with a fact, so that whoever starts again can verify what it has kept (rule D2)."""

from __future__ import annotations

from collections.abc import Sequence

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.trust.store import TrustStore


def proof(trust: TrustStore, signed: SignedEvent) -> tuple[bytes, ...]:
    """The certificates of who signed a fact, up to the root's; those above come after those that they have signed."""
    return trust.proof(signed.key_id, signed.event.source)[::-1]


def introduce(trust: TrustStore, certificates: Sequence[bytes]) -> list[UnusableEventError]:
    """Take in what was kept with a fact, in the order of `proof`; why those that cannot be used are left out."""
    refused = []
    for raw in reversed(certificates):
        try:
            trust.add(raw)
        except UnusableEventError as error:
            refused.append(error)
    return refused
