"""Shown certificates: those that a client was shown to verify what it reads, and the keys that have ended (rules D2, J3).

Rule 1: it is told every revocation before anything else of an attachment (`ended_keys`), and brings those that its broker
    lacks. For a node, and what is below it, it minds the node's name: two may have been given that (J2).
    Who folds is told of each that is news, but for those of the first attachment: what they hold may be void.
Rule 2: it asks now and then about some of the certificates, and lets go of those that its broker does not know any more:
    nothing is stored there that they verify.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.rules.ended_keys import KEY_HAS_ENDED, EndedKeys
from dsmt.bus.rules.proofs import introduce
from dsmt.bus.rules.quota import charged
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.logs import Logger
from dsmt.ports.bus import Notice
from dsmt.trust.identity import Identity
from dsmt.trust.store import Signer, TrustStore

ASKED_AT_ONCE: Final = 256


class ShownCertificates:
    """Of one client."""

    def __init__(self, identity: Identity, trust: TrustStore, log: Logger, tell: Callable[[Notice], None]) -> None:
        self._trust, self._log, self._tell, self._was_told = trust, log, tell, False
        payer = charged(identity.chain)
        self._node = payer if payer is not None and payer.role == "node" else None
        self._own = {(one.certificate.key_id, one.certificate.subject) for one in identity.chain}
        self._asked: Signer = (b"", "")
        """Up to whom it has asked."""
        self._ended_keys = EndedKeys(trust)
        trust.add_all([signed.raw for signed in identity.chain])

    def attached(self) -> None:
        """There is a new attachment."""
        self._ended_keys.attached()

    def shown(self, raws: Sequence[bytes]) -> None:
        """Take in what the broker shows."""
        try:
            self._trust.add_all(raws)
        except UnusableEventError as error:
            self._log.warning("certificate refused", reason=str(error))

    def introduce(self, certificates: Sequence[bytes]) -> None:
        """Take in what was kept with a fact."""
        for error in introduce(self._trust, certificates):
            self._log.warning("kept certificate not used", code=error.code, reason=error.message)

    def to_ask(self) -> tuple[Signer, ...]:
        """About whom to ask now (rule 2)."""
        held = sorted(self._held())
        part = [one for one in held if one > self._asked][:ASKED_AT_ONCE] or held[:ASKED_AT_ONCE]
        if part:
            self._asked = part[-1]
        return tuple(part)

    def forget(self, signers: Sequence[Signer]) -> None:
        """The broker does not know these any more."""
        for signer in self._held().intersection(signers):
            self._trust.forget(*signer)

    def _held(self) -> set[Signer]:
        return {*self._trust.delegates()} - self._own

    @property
    def namesake_ended_ms(self) -> int:
        """When the last other key of this client's node ended, in ms of realm time; 0 where none has, or it is no node's."""
        return 0 if self._node is None else self._ended_keys.namesake_ended_ms(self._node)

    def revoked(self, raws: Sequence[bytes], *, complete: bool) -> list[SignedEvent]:
        """Take in revocations; when these were all, those that the broker lacks (rule 1)."""
        known = self._trust.revocations
        for error in self._ended_keys.told(raws):
            self._log.warning("revocation not believed", code=error.code, reason=error.message)
        if self._was_told and self._trust.revocations > known:
            self._tell(KEY_HAS_ENDED)
        self._was_told = self._was_told or complete
        return self._ended_keys.missing() if complete else []
