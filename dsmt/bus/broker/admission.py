"""Admission: who may attach to a broker, and as what (rule A11, F1, J3).

Rule 1: the greater certificate of one name stays; two processes that take turns under one name are both kept out.
Rule 2: an incarnation is above all that the store or this broker knows of the name, unless the process's own disk
    knows the last one; an attachment number is above all that were granted or attached before, and at least the realm's
    ms: a broker forgets who is away for long, a verdict that judged them does not. Nobody gets a number by claiming it
    that is more than 10 s ahead of realm time: it would be the name's greatest for ever.
Rule 3: who attaches is told all revocations (J3) before anything else, who is attached each.
Rule 4: who only reads is no source (D2): it is given no incarnation and no number, any number of readers of one name may be
    attached, and nothing of them is kept. But another broker, which reads, is one that others look after (F1): it is
    given a number, unless an operator has removed it, or its name is another one's by the newest word (R8).
Rule 5: each attachment of a source, and each return from silence, is paid for by its ancestor (`quota`, rule D2), and so is
    the session fact of one that has none yet.
Rule 6: a broker whose own certificate has ended lets other brokers read it whose has, too (R8): all of a realm may end in
    one second.
"""

from __future__ import annotations

from collections.abc import Callable

from dsmt.bus.broker.keyring import Keyring
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.judged import judged_of
from dsmt.bus.rules.presence import Presence, two_of_one_name
from dsmt.bus.rules.quota import ATTACH_BURST, ATTACH_RATE, FactTotals, Rates, over_live
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.handshake import MAX_CHAIN, check_attach, check_hello, has_ended, out_of_time
from dsmt.errors import RefusedError
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.realm import BrokerWord
from dsmt.ports.store import Events
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore


class Admission:
    """Decides about sessions. `now_ms` is realm time; `is_whole` says whether all is here that others have (A4).

    `is_copy` says whether a session is of another broker of the realm, and `word_on` which word on a broker stands.
    """

    def __init__(
        self,
        identity: Identity,
        trust: TrustStore,
        store: Events,
        keyring: Keyring,
        presence: Presence,
        *,
        is_whole: Callable[[], bool],
        is_copy: Callable[[Session], bool],
        word_on: Callable[[str], BrokerWord | None],
    ) -> None:
        self._identity, self._trust, self._store, self._is_whole = identity, trust, store, is_whole
        self.keyring, self._presence, self._is_copy, self._word_on = keyring, presence, is_copy, word_on
        self.comings = Rates(ATTACH_RATE, ATTACH_BURST)

    # --- revocations ---------------------------------------------------------------------------------------------

    def is_revoked(self, session: Session) -> bool:
        """Whether the session's key, or one above it, was revoked."""
        own = session.certificate
        return own is not None and self._trust.is_revoked(own.key_id, own.subject)

    def out_of_time(self, session: Session, now_ms: int) -> RefusedError | None:
        """Why the certificate of a session is not valid at a realm time; None where it is, and by rule 6."""
        own = session.certificate
        if own is None or (has_ended(own, now_ms) and self._lets_ended(session, now_ms)):
            return None
        return out_of_time(own, now_ms)

    def _lets_ended(self, who: f.Hello | Session, now_ms: int) -> bool:
        """Whether the certificate of who comes, or is here, may have ended (rule 6)."""
        return who.reads and who.name.startswith("broker/") and has_ended(self._identity.certificate, now_ms)

    # --- sessions ------------------------------------------------------------------------------------------------

    def pay(self, session: Session, now: float) -> None:
        """A source comes, or comes back from silence (rule 5). `now` is boot-time seconds. Raises `RefusedError`."""
        own = session.certificate
        payer = "" if own is None else self.keyring.payer(own)
        account = f"{payer}/" if session.name != payer else payer
        if not self.comings.may(account, now):
            who = payer if session.name == payer else f"what {payer} has certified"
            said = f"{who} attaches again and again: {ATTACH_RATE:g} times a second is the limit"
            raise RefusedError("quota", said, next=f"it tries again by itself; see what runs below {payer}, or revoke it")
        self.comings.spend(account, 1.0, now)

    def _check_room(self, name: str, certificate: Certificate) -> None:
        """Raises `RefusedError` where one more session fact is more than the ancestor of a source may have (rule 5)."""
        payer = self.keyring.charged(certificate)
        if payer is None or self._presence.attachment_of(name):
            return
        own, every = FactTotals(*self._store.live(payer.subject)), FactTotals(*self._store.live(None))
        why = over_live(payer, own, every, size=0, adds=1, limit=self._store.limit_bytes)
        if why:
            raise RefusedError("quota", why, next="end facts that are not needed any more")

    def welcome(
        self,
        session: Session,
        hello: f.Hello,
        parts: tuple[bytes, ...],
        *,
        nonce: bytes,
        now: float,
        now_ms: int,
        elsewhere: int,
        isolated: bool,
    ) -> f.Welcome:
        """Grant a session its incarnation and attachment number: above the one that it has `elsewhere`, and any judged.

        Raises `RefusedError` that says why not.
        """
        if len(parts) <= MAX_CHAIN:
            self.keyring.take_in(parts)
        certificate = check_hello(self._trust, hello, parts, session.key, now_ms, ended=self._lets_ended(hello, now_ms))
        if hello.reads:
            self._admit_reader(session, hello, certificate, now_ms)
            return self._granted(session, nonce, now_ms, isolated=isolated)
        if self._presence.contested(hello.name, certificate.issued):
            self._presence.refused(hello.name, now)
            raise two_of_one_name(certificate)
        if not self._presence.supersedes(hello.name, certificate.issued):
            raise RefusedError(
                "trust.superseded", f"{hello.name} is attached with a newer certificate", next="revoke one of the two"
            )
        session.name, session.certificate = hello.name, certificate
        self._check_room(hello.name, certificate)
        self.pay(session, now)
        self.keyring.keep(certificate)
        stored = self._store.high_mark(hello.name)
        greatest = max(0 if stored is None else stored[0], self._presence.incarnation_of(hello.name))
        ahead_ms = hello.incarnation - max(now_ms, greatest + 1 - BOUND_MS)
        if ahead_ms > BOUND_MS:
            raise RefusedError(
                "bus.incarnation",
                f"{hello.name} claims an incarnation that is {ahead_ms / 1000:.0f} s ahead of realm time",
                next="set the clock of its machine, and start it again",
            )
        firm = hello.firm and hello.incarnation >= greatest
        session.claimed, session.follows = hello.incarnation, hello.attachment - 1
        session.incarnation = hello.incarnation if firm else max(hello.incarnation, greatest + 1, now_ms)
        self._presence.granted(hello.name, session.incarnation)
        above = max(elsewhere, judged_of(hello.name, self._store.winner)) + 1
        session.attachment = self._presence.grant(hello.name, max(min(hello.attachment, now_ms + BOUND_MS), above), now_ms)
        session.pid, session.version, session.address = hello.pid, hello.version, hello.address
        return self._granted(session, nonce, now_ms, isolated=isolated)

    def _admit_reader(self, session: Session, hello: f.Hello, certificate: Certificate, now_ms: int) -> None:
        """Rule 4."""
        session.name, session.certificate, session.reads = hello.name, certificate, True
        session.incarnation = session.attachment = 0
        session.displaced = self.is_displaced(session)
        if session.is_broker:
            session.attachment = self._presence.grant(hello.name, min(hello.attachment, now_ms + BOUND_MS), now_ms)
            session.pid, session.version, session.address = hello.pid, hello.version, hello.address

    def is_displaced(self, session: Session) -> bool:
        """Whether who reads under a broker's name is one no more, or that name is another key's by the newest word (R8)."""
        if session.certificate is None or not session.reads or not session.name.startswith("broker/"):
            return False
        word = self._word_on(session.name)
        if word is None or word.route:
            return False
        return not self._is_copy(session) if word.removed else word.public != session.certificate.public

    def _granted(self, session: Session, nonce: bytes, now_ms: int, *, isolated: bool) -> f.Welcome:
        session.nonce = nonce
        return f.Welcome(
            broker=self._identity.name,
            incarnation=session.incarnation,
            attachment=session.attachment,
            nonce=session.nonce,
            realm_ms=float(now_ms),
            store=self._store.identity,
            whole=self._is_whole(),
            isolated=isolated,
        )

    def attach(self, session: Session, attach: f.Attach, now_ms: int) -> None:
        """Check what a welcomed session has signed: it is attached. Raises `RefusedError` that says why not."""
        if session.certificate is None or not session.nonce:
            raise RefusedError("bus.order", "say hello first")
        own, ended = self._identity.name, self._lets_ended(session, now_ms)
        check_attach(self._trust, attach.statement, session, own, now_ms, ended=ended)
        if not session.reads and session.attachment <= self._presence.attachment_of(session.name):
            said = f"{session.name} has attached anew meanwhile"
            raise RefusedError("trust.superseded", said, next="see that only one process has this name")
        session.nonce, session.attached = b"", True
        session.payer = self.keyring.payer(session.certificate)
