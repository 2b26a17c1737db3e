"""Accounts: on whose account an event is stored, and whether there is room for another retained fact on it (rule D2).

Rule 1: what is charged counts at once, before it is stored; after each commit the store is asked again.
    What a broker says of what is missing or twofold of a source is on the account of that source's ancestor (rule D2).
Rule 2: a delegate whose certificate allows less than its ancestor's is held to that as well.
"""

from __future__ import annotations

from dsmt.bus.rules.quota import FactTotals, charged, over_live, over_own
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.store import ROW_BYTES, Facts
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import Signer, TrustStore


class Accounts:
    """Of one store's retained facts. `own` is the certificate of who pays for what nobody else does."""

    def __init__(self, own: Certificate, trust: TrustStore, facts: Facts) -> None:
        self._own, self._trust, self._facts = own, trust, facts
        self._live: dict[str | None, FactTotals] = {}
        """Retained facts on the accounts of those who said some since the last commit; None: of all."""
        self._counts: dict[str, int] = {}
        """Retained facts of delegates who said some since the last commit."""
        self._payers: dict[Signer, Certificate] = {}
        self._sources: dict[str, str] = {}
        """Who paid last for what a source said."""

    def committed(self) -> None:
        """What was charged is in the store now, or lost."""
        self._live.clear()
        self._counts.clear()

    def renew(self) -> None:
        """Look up anew who pays: certificates may have been renewed."""
        self._payers.clear()
        self._sources.clear()

    def payer(self, signed: SignedEvent) -> Certificate:
        """To whose account an event goes (rule D2)."""
        signer = (signed.key_id, signed.event.source)
        payer = self._payers.get(signer)
        if payer is None:
            payer = charged(self._trust.chain(*signer)) or self._own
            self._payers[signer] = payer
            self._sources[signed.event.source] = payer.subject
        return payer

    def payer_of(self, source: str) -> str:
        """On whose account it is what is said of a source; empty where it has said nothing for a while: the broker's."""
        return self._sources.get(source, "")

    def charge(self, signed: SignedEvent, held: SignedEvent | None) -> None:
        """Charge a retained fact in the place of the one that is held. Raises `UnusableEventError` for want of room."""
        limit = self._facts.limit_bytes
        payer = self.payer(signed)
        mine = held is not None and self.payer(held).subject == payer.subject
        adds, size = (0, signed.size - held.size) if held and mine else (1, signed.size + ROW_BYTES)
        own, every = self._live_of(payer.subject), self._live_of(None)
        why = over_live(payer, own, every, size=size, adds=adds, limit=limit) or self._over_own(signed, payer, adds)
        if why:
            raise UnusableEventError("quota", why, next="end facts that are not needed any more")
        for whose, live in ((payer.subject, own), (None, every)):
            self._live[whose] = FactTotals(live.facts + adds, live.bytes + size)

    def _over_own(self, signed: SignedEvent, payer: Certificate, adds: int) -> str:
        """Why a delegate may have no more facts, beside what its ancestor may have; empty when it may."""
        source = signed.event.source
        holder = self._trust.certificate(signed.key_id, source)
        if not adds or holder is None or holder.certificate.quota >= payer.quota:
            return ""
        count = self._counts.get(source, 0) or self._facts.live_facts(source)
        self._counts[source] = count + adds
        return over_own(holder.certificate, count)

    def _live_of(self, payer: str | None) -> FactTotals:
        if payer not in self._live:
            self._live[payer] = FactTotals(*self._facts.live(payer))
        return self._live[payer]
