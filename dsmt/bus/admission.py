"""Admission: who may attach to a broker, as what, and whose certificates it keeps (SEMANTICS A11, F1, J3).

Rule 1: the greater certificate of one name stays; two processes that take turns under one name are both kept out.
Rule 2: an incarnation is above all that the store or this broker knows of the name, unless the process's own disk
    knows the last one; an attachment number is above all before, and at least the realm's ms: a broker forgets who
    is away for long, a verdict that judged them does not.
Rule 3: a certificate is kept in the store when its holder attaches, or when a fact of its holder is re-offered (R5).
Rule 4: a fact on `trust/revoked/<key id in hex>` ends that key for good.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsmt.bus import frames as f
from dsmt.bus.delivery import Session
from dsmt.bus.handshake import check_attach, check_hello
from dsmt.bus.presence import Presence
from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.logs import Logger
from dsmt.ports.store import Row, Store
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore, revoked_by


class Admission:
    """Decides about sessions. `now_ms` is realm time."""

    def __init__(self, identity: Identity, trust: TrustStore, store: Store) -> None:
        self._identity, self._trust, self._store = identity, trust, store
        self._kept: set[bytes] = set()
        self._log = Logger(broker=identity.name)
        self._restore()
        trust.add_all([signed.raw for signed in identity.chain])
        self._keep(identity.certificate.key_id)

    # --- certificates --------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        kept = [raw for _, raw in self._store.certificates()]
        self._kept.update(kept)
        try:
            self._trust.add_all(kept)  # at once: an issuer's may come after those that it has signed
        except UnusableEventError as error:
            self._log.warning("kept certificate not used", reason=str(error))

    def _keep(self, key_id: bytes) -> None:
        for signed in self._trust.chain(key_id):
            if signed.raw not in self._kept:
                self._store.put_certificate(signed.certificate.key_id, signed.raw)
                self._kept.add(signed.raw)

    def introduced(self, session: Session, raws: tuple[bytes, ...]) -> None:
        """Take in the certificates of those whose facts are re-offered next (rule 3). Raises `InputError` for too many."""
        if len(raws) > f.MAX_CERTIFICATES:
            raise InputError("bus.frame", f"{session.name} brought {len(raws)} certificates at once")
        for raw in raws:
            try:
                self._keep(self._trust.add(raw).key_id)
            except UnusableEventError as error:
                self._log.warning("certificate refused", session=session.name, code=error.code, reason=error.message)

    def revoked(self, rows: Iterable[Row]) -> bool:
        """Obey the revocations among stored rows; whether there was one (rule 4)."""
        keys = [key for row in rows if (key := revoked_by(row.topic)) is not None]
        for key in keys:
            self._trust.revoke(key)
        return bool(keys)

    def is_revoked(self, session: Session) -> bool:
        """Whether the session's key, or one above it, was revoked."""
        return session.certificate is not None and self._trust.is_revoked(session.certificate.key_id)

    # --- sessions ------------------------------------------------------------------------------------------------

    def welcome(
        self, session: Session, hello: f.Hello, parts: tuple[bytes, ...], *, presence: Presence, nonce: bytes, now_ms: int
    ) -> f.Welcome:
        """Grant a session its incarnation and attachment number. Raises `RefusedError` that says why not."""
        certificate = check_hello(self._trust, hello, parts, session.key, now_ms)
        if presence.contested(hello.name, certificate.issued):
            raise self.contested(hello.name)
        if not presence.supersedes(hello.name, certificate.issued):
            raise RefusedError(
                "trust.superseded", f"{hello.name} is attached with a newer certificate", next="revoke one of the two"
            )
        self._keep(certificate.key_id)
        stored = self._store.high_mark(hello.name)
        greatest = max(0 if stored is None else stored[0], presence.incarnation_of(hello.name))
        firm = hello.firm and hello.incarnation >= greatest
        session.name, session.certificate, session.claimed = hello.name, certificate, hello.incarnation
        session.incarnation = hello.incarnation if firm else max(hello.incarnation, greatest + 1, now_ms)
        presence.granted(hello.name, session.incarnation)
        session.attachment = max(hello.attachment, presence.attachment_of(hello.name) + 1, now_ms)
        session.nonce = nonce
        session.pid, session.version, session.address = hello.pid, hello.version, hello.address
        return f.Welcome(
            broker=self._identity.name,
            incarnation=session.incarnation,
            attachment=session.attachment,
            nonce=nonce,
            realm_ms=float(now_ms),
            store=self._store.identity,
        )

    def attach(self, session: Session, attach: f.Attach) -> None:
        """Check what a welcomed session has signed: it is attached. Raises `RefusedError` that says why not."""
        if session.certificate is None or not session.nonce:
            raise RefusedError("bus.order", "say hello first")
        check_attach(self._trust, attach.statement, session, self._identity.name)
        session.nonce, session.attached = b"", True

    @staticmethod
    def contested(name: str) -> RefusedError:
        """What both of two processes of one name are told."""
        said = f"two processes attached as {name} by turns"
        return RefusedError("trust.contested", said, next=f"stop one, then dsmt cert rotate {name}")
