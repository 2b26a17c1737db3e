"""Passed sources: certificates that nobody needs any more leave a broker's memory and its store (rule D2, J3).

Rule 1: needed is the key of who is attached with it, if only to read (what ends above it is to end it), of whom an event is
    stored that it signed, or who has signed another certificate that is kept. What the root has signed stays.
Rule 2: one that was not needed in two rounds goes: what was brought a moment ago is about to be needed.
Rule 3: a round each `ROUND_S` is taken in steps of `STEP`, so that nobody waits long for it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from dsmt.ports.store import Store
from dsmt.trust.certificate import SignedCertificate
from dsmt.trust.store import Signer, TrustStore

STEP: Final = 100
ROUND_S: Final = 60.0


class Passed:
    """Finds those certificates."""

    def __init__(self, trust: TrustStore, store: Store) -> None:
        self._trust, self._store = trust, store
        self._round: list[Signer] = []
        self._again_at = 0.0
        self._idle: set[Signer] = set()
        self._idle_before: set[Signer] = set()

    def step(self, attached: Callable[[], Container[Signer]], now: float) -> list[SignedCertificate]:
        """Look at a part of them; the certificates that are let go. `now` is boot-time seconds."""
        if not self._round and now >= self._again_at:
            self._again_at = now + ROUND_S
            self._round = self._trust.delegates()
            self._idle_before, self._idle = self._idle, set()
        part, self._round = self._round[:STEP], self._round[STEP:]
        gone, here = [], attached() if part else ()
        for signer in part:
            if signer in here or self._store.has_signed(*signer):
                continue
            if signer in self._idle_before:
                gone += self._trust.forget(*signer)
            else:
                self._idle.add(signer)
        return gone
