"""Passed sources: certificates that nobody needs any more leave a broker's memory and its store (rule D2, J3).

Rule 1: needed in memory is the key of who is attached with it, if only to read (what ends above it is to end it), or who has
    signed another certificate that is kept. What the root has signed stays.
Rule 2: one that was not needed in two rounds goes: what was brought a moment ago is about to be needed. If an event is
    stored that it signed it goes onto the shelf, with all names of its key: it is in the store, where it is looked for
    (`trust.store`), and is counted no more. The shelf is the store's: what is on it goes with the last event that needs it.
Rule 3: who may certify others is not put there, so that nothing on the shelf is below another; nor is what finds no room
    (`quota`): that stays in memory, and counted.
Rule 4: a round each `ROUND_S` is taken in steps of `STEP`, so that nobody waits long for it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

from dsmt.bus.rules.quota import charged, over_shelf
from dsmt.ports.store import ROW_BYTES, Certificates, Shelved
from dsmt.trust.certificate import SignedCertificate, read
from dsmt.trust.store import Signer, TrustStore

STEP: Final = 100
ROUND_S: Final = 60.0


class Passed:
    """Finds those certificates. `limit_bytes` is the size of the store."""

    def __init__(self, trust: TrustStore, certificates: Certificates, *, limit_bytes: int) -> None:
        self._trust, self._certificates, self._limit_bytes = trust, certificates, limit_bytes
        trust.look_on(self._shelf)
        self._round: list[bytes] = []
        self._again_at = 0.0
        self._idle: set[Signer] = set()
        self._idle_before: set[Signer] = set()

    def _shelf(self, key_id: bytes) -> list[SignedCertificate]:
        return [read(raw)[0] for raw in self._certificates.shelved(key_id)]

    def step(self, attached: Callable[[], Container[Signer]], now: float) -> list[SignedCertificate]:
        """Look at a part of them; the certificates that are let go. `now` is boot-time seconds."""
        if not self._round and now >= self._again_at:
            self._again_at = now + ROUND_S
            self._round = self._trust.delegated()
            self._idle_before, self._idle = self._idle, set()
        part, self._round = self._round[:STEP], self._round[STEP:]
        here = attached() if part else ()
        unneeded: list[Signer] = []
        shelved: list[Shelved] = []
        for key_id in part:
            names = self._trust.names(key_id)
            idle = [(key_id, name) for name in names if (key_id, name) not in here]
            self._idle.update(idle)
            passed = [signer for signer in idle if signer in self._idle_before]
            over = [signer for signer in passed if not self._is_needed(*signer)]
            unneeded += over
            if passed and len(passed) == len(names):
                shelved += self._fitting([signer for signer in passed if signer not in over], shelved)
        if shelved:
            self._certificates.shelve(shelved)
        going = dict.fromkeys([*unneeded, *((one.key_id, one.name) for one in shelved)])
        return [signed for signer in going for signed in self._trust.forget(*signer)]

    def _is_needed(self, key_id: bytes, name: str) -> bool:
        return self._certificates.has_signed(key_id, name) or self._certificates.upholds(key_id)

    def _fitting(self, signers: Sequence[Signer], before: Sequence[Shelved]) -> list[Shelved]:
        """All certificates of one key, as they go onto the shelf after others; none if it may not be there (rule 3)."""
        found = []
        for key_id, name in signers:
            payer = charged(self._trust.chain(key_id, name))
            for one in self._trust.in_memory(key_id):
                if one.certificate.depth or payer is None:
                    return []
                if one.certificate.subject == name:
                    found.append(Shelved(one.raw, key_id, name, one.issuer_key_id, payer.subject))
        if not found:
            return []
        payer_name, size = found[0].payer, _size(found)
        own = self._certificates.shelf_bytes(payer_name) + _size(one for one in before if one.payer == payer_name)
        every = self._certificates.shelf_bytes() + _size(before)
        return [] if over_shelf(own, every, size=size, limit=self._limit_bytes) else found


def _size(certificates: Iterable[Shelved]) -> int:
    return sum(len(one.raw) + ROW_BYTES for one in certificates)
