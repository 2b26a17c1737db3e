"""Introducing: who has signed what a broker takes over is known by certificates that come with it (rules R5, E1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.broker.admission import Admission
from dsmt.event.envelope import SignedEvent
from dsmt.trust.store import Signer

Proofs = Callable[[SignedEvent], tuple[bytes, ...]]
"""The certificates of who signed an event, issuers last."""
REMEMBERED: Final = 8192
"""Of how many signers it is remembered which certificates were taken in."""


class Introducing:
    """Into the certificates of one broker."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._proofs: dict[Signer, tuple[bytes, ...]] = {}

    def introduce(self, events: Sequence[SignedEvent], proofs: Proofs) -> None:
        """Take in the certificates of who has signed these, unless they are known."""
        for signer, one in {(each.key_id, each.event.source): each for each in events}.items():
            proof = proofs(one)
            if self._proofs.get(signer) != proof or not self._admission.knows(*signer):
                self._admission.brought(proof)
                if len(self._proofs) >= REMEMBERED:
                    self._proofs.clear()  # they are taken in again
                self._proofs[signer] = proof
