"""The keyring: the certificates that a broker keeps, of whom, for how long, at whose cost; and what has ended a key.

Rule 1: a certificate is kept in the store when its holder attaches, or when a fact of its holder is re-offered (R5), or
    brought by another broker (E1).
Rule 2: of the certificates below one ancestor a bounded number is taken in (`quota`, rule D2); what is on the shelf is taken
    in when its holder comes again, and not when others bring it (`passed`).
Rule 3: a revocation (J3) ends a key for good.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.passed import Passed
from dsmt.bus.rules.quota import CERTIFICATES, Certified, charged
from dsmt.bus.wire.frames import MAX_CERTIFICATES
from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.logs import Logger
from dsmt.newest import Newest
from dsmt.ports.store import Row, Store
from dsmt.trust.certificate import Certificate, SignedCertificate, read
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import revoked_by
from dsmt.trust.store import Signer, TrustStore

Proofs = Callable[[SignedEvent], tuple[bytes, ...]]
"""The certificates of who signed an event, issuers last."""
REMEMBERED: Final = 8192
"""Of how many signers it is remembered which certificates were brought."""


class Keyring:
    """That of the broker of this identity."""

    def __init__(self, identity: Identity, trust: TrustStore, store: Store) -> None:
        self._trust, self._certificates = trust, store.certificates
        self._kept: set[bytes] = set()
        self._passed = Passed(trust, store.certificates, limit_bytes=store.limit_bytes)
        self._certified = Certified()
        self._revocations: dict[str, Row] = {}
        self._brought: Newest[Signer, tuple[bytes, ...]] = Newest(REMEMBERED)
        self._log = Logger(broker=identity.name)
        self._restore()
        trust.add_all([signed.raw for signed in identity.chain])
        self.keep(identity.certificate)

    def _restore(self) -> None:
        kept = [raw for _, raw in self._certificates.all()]
        self._kept.update(kept)
        try:
            self._trust.add_all(kept)  # at once: an issuer's may come after those that it has signed
        except UnusableEventError as error:
            self._log.warning("kept certificate not used", reason=str(error))
        for raw in kept:
            self.take_in((raw,))

    def keep(self, certificate: Certificate) -> None:
        """Keep somebody's certificate, and those above it (rule 1)."""
        for raw in self._trust.proof(certificate.key_id, certificate.subject):
            if raw not in self._kept:
                self._certificates.put(read(raw)[0].certificate.key_id, raw)
                self._kept.add(raw)

    def take_in(self, raws: tuple[bytes, ...]) -> None:
        """Take in those that are good, and count them for their ancestors (rule 2).

        Raises `RefusedError` for one too many, with nothing counted.
        """
        every = (*raws, *(raw for one in raws for raw in self._beside(one)))
        counted = [(ancestor, raw) for raw in every if (ancestor := self._ancestor(raw, every))]
        for ancestor, raw in counted:
            if not self._certified.may(ancestor, raw):
                said = f"{CERTIFICATES} certificates below {ancestor} are known here, which is the limit"
                raise RefusedError("quota", said, next=f"revoke {ancestor} if it is not you who made them")
        with suppress(UnusableEventError):  # whoever adds it says why not
            self._trust.add_all(raws)
        for ancestor, raw in counted:
            if self._trust.holds(raw, read(raw)[0].certificate.key_id):  # anybody may name another one as its issuer
                self._certified.take(ancestor, raw)

    def _beside(self, raw: bytes) -> list[bytes]:
        """What is on the shelf of the key that a certificate names: it is in memory with it."""
        try:
            return self._certificates.shelved(read(raw)[0].certificate.key_id)
        except UnusableEventError:
            return []  # whoever reads it says why not

    def _take_one(self, raw: bytes) -> None:
        """Take in and keep a certificate, unless it is on the shelf: it is found there. Raises as `take_in`, and `add`."""
        if raw not in self._beside(raw):
            self.take_in((raw,))
            self.keep(self._trust.add(raw))

    def _ancestor(self, raw: bytes, beside: tuple[bytes, ...]) -> str:
        """Who pays for a certificate that comes with others; empty when nobody known has signed it."""
        known: dict[bytes, SignedCertificate] = {}
        chain: list[SignedCertificate] = []
        try:
            known = {one.certificate.key_id: one for one in (read(other)[0] for other in beside)}
            signed: SignedCertificate | None = read(raw)[0]
        except UnusableEventError:
            return ""  # whoever reads it says why not
        while signed is not None and signed not in chain:
            chain.append(signed)
            held = self._trust.above(signed)
            chain.extend(held)
            signed = None if held else known.get(signed.issuer_key_id)
        payer = charged(chain)
        return "" if payer is None else payer.subject

    def charged(self, certificate: Certificate) -> Certificate | None:
        """Whose certificate pays for what the holder of a certificate does."""
        return charged(self._trust.chain(certificate.key_id, certificate.subject))

    def payer(self, certificate: Certificate) -> str:
        """Who that is."""
        payer = self.charged(certificate)
        return "" if payer is None else payer.subject

    def introduced(self, by: str, raws: tuple[bytes, ...]) -> None:
        """Take in the certificates of those whose facts somebody re-offers next. Raises `InputError` for too many."""
        if len(raws) > MAX_CERTIFICATES:
            raise InputError("bus.frame", f"{by} brought {len(raws)} certificates at once")
        for raw in raws:
            try:
                self._take_one(raw)
            except UnusableEventError as error:
                self._log.warning("certificate refused", session=by, code=error.code, reason=error.message)

    def brought(self, events: Sequence[SignedEvent], proofs: Proofs) -> None:
        """Take in the certificates of who has signed what another broker brings, unless they are known (rule 1)."""
        for signer, one in {(each.key_id, each.event.source): each for each in events}.items():
            proof = proofs(one)
            if self._brought.get(signer) != proof or not self.knows(*signer):
                self._take_proof(proof)
                self._brought[signer] = proof

    def _take_proof(self, proof: tuple[bytes, ...]) -> None:
        for raw in reversed(proof):  # issuers first
            try:
                self._take_one(raw)
            except (RefusedError, UnusableEventError) as error:
                self._log.warning("certificate refused", code=error.code, reason=error.message)

    def knows(self, key_id: bytes, name: str) -> bool:
        """Whether a key is known by a name."""
        return name in self._trust.names(key_id)

    # --- revocations ---------------------------------------------------------------------------------------------

    @property
    def revocations(self) -> list[Row]:
        """All that were obeyed."""
        return list(self._revocations.values())

    def revoked(self, rows: Iterable[Row]) -> list[Row]:
        """Obey the revocations among stored rows (rule 3); which those are that their signer had not said before."""
        found = []
        for row in rows:
            if revoked_by(row.topic) is None:
                continue
            try:
                self._trust.revoke(self._trust.open(row.raw))
            except UnusableEventError as error:
                self._log.warning("revocation not obeyed", topic=row.topic, code=error.code, reason=error.message)
                continue
            before = self._revocations.get(row.topic)
            self._revocations[row.topic] = row
            if before is None or before.key_id != row.key_id:
                found.append(row)
        return found

    # --- what nobody needs any more ------------------------------------------------------------------------------

    def let_go(self, attached: Callable[[], Container[Signer]], now: float) -> None:
        """Let go of certificates of passed sources, a few at a time. `now` is boot-time seconds."""
        for signed in self._passed.step(attached, now):
            self._certified.drop(signed.raw)
            if signed.raw in self._kept:
                self._kept.discard(signed.raw)
                self._certificates.drop(signed.raw)
