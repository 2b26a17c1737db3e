"""Quota: what one authenticated party may cost a broker, charged to the ancestor that stands for it (rule D2).

Rule 1: who pays is the ancestor: the certificate nearest to the root that is no issuer's. What a node certifies counts
    towards the node, however many names it makes.
Rule 2: work is paid with tokens, `RATE` a second and at most `BURST` at once; who has none waits, and loses nothing.
Rule 3: retained facts are bounded per ancestor, in number by its certificate and in bytes by `FACT_BYTES` for each, and all
    together by `LIVE_SHARE` of the store's size. What takes the place of one that is no smaller always may.
Rule 4: of the certificates below one ancestor at most `CERTIFICATES` are kept in memory. Those on the shelf, which only
    stored events need, are bounded in bytes: `SHELF_SHARE` of the store's size for all, `ANCESTOR_SHARE` of that for one.
Rule 5: what a broker says of somebody's sessions is on that ancestor's account, and so is each attachment and each return
    from silence: `ATTACH_RATE` a second and `ATTACH_BURST` at once, for the ancestor itself and again for all below it. Who
    has none left is refused, and tries again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dsmt.trust.certificate import Certificate, SignedCertificate

RATE: Final = 5_000.0
BURST: Final = 5_000.0
"""Units of work of one ancestor, in a second and at once; a request, an event that comes alone, or a run is one, and each
`UNIT_BYTES` of it."""
UNIT_BYTES: Final = 4096
FACT_BYTES: Final = 2048
"""Bytes of retained facts for each one that a certificate allows, ..."""
LEAST_LIVE_BYTES: Final = 8 * 1024 * 1024
"""... and what everybody may hold."""
LIVE_SHARE: Final = 0.5
"""Of the store's size, for the retained facts of all: the other half is history."""
ANCESTOR_SHARE: Final = 0.25
"""Of the store's size, for the retained facts of one ancestor; of the shelf's, for its certificates."""
CERTIFICATES: Final = 4096
ATTACH_RATE: Final = 4.0
ATTACH_BURST: Final = 4096.0
"""As many as may be below one ancestor at once, all of which may be started anew in one moment."""
SHELF_SHARE: Final = 0.0625
"""Of the store's size, for the certificates on the shelf of all."""


def charged(chain: Sequence[SignedCertificate]) -> Certificate | None:
    """Whose certificate pays for the holder of a chain, which begins with its own (rule 1); None for an empty chain."""
    below = [one.certificate for one in chain if one.certificate.role != "issuer"]
    return below[-1] if below else (chain[-1].certificate if chain else None)


def is_delegate(chain: Sequence[SignedCertificate]) -> bool:
    """Whether somebody else pays for the holder of a chain."""
    payer = charged(chain)
    return payer is not None and payer.subject != chain[0].certificate.subject


class FactTotals(NamedTuple):
    """Retained facts: how many, and their bytes in the store."""

    facts: int
    bytes: int


def over_live(payer: Certificate, own: FactTotals, every: FactTotals, *, size: int, adds: int, limit: int) -> str:
    """Why a retained fact that adds so many bytes, and facts (0 or 1), is refused; empty when it may be (rule 3)."""
    if size <= 0 and not adds:
        return ""
    most = min(max(payer.quota * FACT_BYTES, LEAST_LIVE_BYTES), int(limit * ANCESTOR_SHARE))
    if own.facts + adds > payer.quota:
        return f"{payer.subject} has {own.facts} live facts, as many as its certificate allows"
    if own.bytes + size > most:
        return f"{payer.subject} has {own.bytes} bytes of live facts, {most} are the limit"
    if every.bytes + size > int(limit * LIVE_SHARE):
        return f"the broker's store has {every.bytes} bytes of live facts, half of its size is the limit"
    return ""


def over_own(holder: Certificate, facts: int, adds: int = 1) -> str:
    """Why somebody with so many retained facts may not have so many more; empty when they may."""
    if facts + adds <= holder.quota:
        return ""
    return f"{holder.subject} has {facts} live facts, and its certificate allows {holder.quota}"


def over_shelf(own: int, every: int, *, size: int, limit: int) -> bool:
    """Whether certificates of so many bytes find no room on the shelf (rule 4)."""
    shelf = int(limit * SHELF_SHARE)
    return own + size > int(shelf * ANCESTOR_SHARE) or every + size > shelf


class Rates:
    """Who may have work done now (rule 2). `now` is boot-time seconds."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._spent: dict[str, tuple[float, float]] = {}
        """By payer: tokens that are missing to the burst, and since when."""

    def _missing(self, payer: str, now: float) -> float:
        missing, since = self._spent.get(payer, (0.0, now))
        return max(0.0, missing - (now - since) * self._rate)

    def may(self, payer: str, now: float) -> bool:
        """Whether there is a token left."""
        return payer not in self._spent or self._missing(payer, now) < self._burst

    def spend(self, payer: str, cost: float, now: float) -> None:
        """Work was done. It may have cost more than was left: the next one waits for that too."""
        self._spent[payer] = (self._missing(payer, now) + cost, now)

    def forget(self, now: float) -> None:
        """Forget who has all tokens again: they are as if they had never come."""
        self._spent = {payer: spent for payer, spent in self._spent.items() if self._missing(payer, now) > 0}


class Certified:
    """Which certificates are in memory below each ancestor (rule 4)."""

    def __init__(self, most: int = CERTIFICATES) -> None:
        self._most = most
        self._kept: dict[str, set[bytes]] = {}

    def may(self, ancestor: str, raw: bytes) -> bool:
        """Whether a certificate may be taken in; one that is kept always may."""
        kept = self._kept.get(ancestor, ())
        return raw in kept or len(kept) < self._most

    def take(self, ancestor: str, raw: bytes) -> None:
        """Count a certificate."""
        self._kept.setdefault(ancestor, set()).add(raw)

    def drop(self, raw: bytes) -> None:
        """A certificate is kept no more."""
        for ancestor, kept in list(self._kept.items()):
            kept.discard(raw)
            if not kept:
                del self._kept[ancestor]
