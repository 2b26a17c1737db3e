"""The trust store: which certificates are good, and what an event's signature is worth (DESIGN.md 5).

Rule 1: a certificate is good if its issuer's is, up to the realm's root; what it grants and its depth lie within its
    issuer's; and its signature is the issuer's key's.
Rule 2: an event is good if its signing key has a good certificate whose subject is the event's source, which was
    valid at the event's own time and was not revoked.
Rule 3: a topic that is owned is written by its owner only, and every topic only within the certificate's grant.
Rule 4: revocations only grow, and end every certificate below (J3).
Rule 5: the answer for one burst's root is remembered: its signature is checked once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import cbor2
import msgspec

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.codec import Envelope, canonical, decode
from dsmt.event.envelope import SignedEvent
from dsmt.event.registry import owner_of
from dsmt.trust import certificate as cwt
from dsmt.trust.certificate import Certificate, SignedCertificate
from dsmt.trust.grants import may, subset
from dsmt.trust.keys import key_id_of
from dsmt.trust.keys import verify as verify_ed25519

Verify = Callable[[int, bytes, bytes, bytes], bool]
_ROOTS_REMEMBERED: Final = 4096


class Realm(msgspec.Struct, frozen=True, kw_only=True):
    """A realm's name and its root's public keys; the first is the current one, old ones are kept."""

    name: str
    roots: tuple[bytes, ...]


class TrustStore:
    """What one process knows about who may say what. Pure: the time comes from the event that is judged."""

    def __init__(self, realm: Realm, *, verify: Verify = verify_ed25519) -> None:
        self.realm = realm
        self._verify = verify
        self._roots = {key_id_of(root): root for root in realm.roots}
        self._good: dict[bytes, SignedCertificate] = {}
        self._revoked: set[bytes] = set()
        self._bursts: OrderedDict[bytes, None] = OrderedDict()

    def add(self, raw: bytes) -> Certificate:
        """Take in a certificate whose issuer is known. Raises `UnusableEventError` that says why not."""
        signed, algorithm, message, signature = cwt.read(raw)
        certificate = signed.certificate
        held = self._good.get(certificate.key_id)
        if held is not None and (held.raw == raw or held.certificate.issued > certificate.issued):
            return held.certificate
        public = self._issuer_key(signed)
        if not self._verify(algorithm, public, message, signature):
            raise UnusableEventError("trust.signature", f"certificate of {certificate.subject}: bad signature")
        self._good[certificate.key_id] = signed
        return certificate

    def add_all(self, raws: Iterable[bytes]) -> None:
        """Take in certificates in any order; those that stay without a known issuer raise."""
        left = list(raws)
        while left:
            rest, last = [], None
            for raw in left:
                try:
                    self.add(raw)
                except UnusableEventError as error:
                    rest.append(raw)
                    last = error
            if last is not None and len(rest) == len(left):
                raise last
            left = rest

    def _issuer_key(self, signed: SignedCertificate) -> bytes:
        certificate = signed.certificate
        root = self._roots.get(signed.issuer_key_id)
        if root is not None:
            return root
        issuer = self._good.get(signed.issuer_key_id)
        if issuer is None:
            raise UnusableEventError(
                "trust.stranger", f"{certificate.subject} has a certificate by nobody known in realm {self.realm.name}"
            )
        above = issuer.certificate
        wider = not subset(certificate.publish, above.publish) or not subset(certificate.read, above.read)
        if above.depth < 1 or certificate.depth >= above.depth or wider or certificate.issuer != above.subject:
            raise UnusableEventError(
                "trust.widened", f"certificate of {certificate.subject} grants more than {above.subject} may give"
            )
        if certificate.not_before < above.not_before or certificate.not_after > above.not_after:
            raise UnusableEventError("trust.widened", f"certificate of {certificate.subject} outlives its issuer's")
        return above.public

    def revoke(self, key_id: bytes) -> None:
        """End a key and all that it has signed, for good."""
        self._revoked.add(key_id)

    def certificate(self, key_id: bytes) -> SignedCertificate | None:
        """The good certificate of a key."""
        return self._good.get(key_id)

    def chain(self, key_id: bytes) -> list[SignedCertificate]:
        """A key's certificate and those above it, the root's excepted: what a stranger needs to believe it."""
        found = []
        signed = self._good.get(key_id)
        while signed is not None:
            found.append(signed)
            signed = self._good.get(signed.issuer_key_id)
        return found

    def is_revoked(self, key_id: bytes) -> bool:
        """Whether a key, or one above it, was revoked."""
        return any(c.certificate.key_id in self._revoked for c in self.chain(key_id))

    def open(self, raw: bytes) -> tuple[SignedEvent, Envelope]:
        """Read an event and check who signed it and that they may. Raises `UnusableEventError` that says why not."""
        signed, envelope = decode(raw)
        event = signed.event
        holder = self._good.get(envelope.key_id)
        if holder is None:
            raise UnusableEventError("trust.stranger", f"{event.source} signed with a key that nobody here knows")
        certificate = holder.certificate
        if certificate.subject != event.source:
            raise UnusableEventError("trust.name", f"{certificate.subject} signed as {event.source}")
        if self._revoked and self.is_revoked(envelope.key_id):
            raise UnusableEventError("trust.revoked", f"{event.source} was revoked")
        if not certificate.not_before <= event.time_ms // 1000 <= certificate.not_after:
            raise UnusableEventError(
                "trust.expired", f"certificate of {event.source} was not valid at the time of the event"
            )
        self._check_grant(certificate, event.topic)
        self._check_signature(certificate.public, envelope, event.source)
        return signed, envelope

    @staticmethod
    def _check_grant(certificate: Certificate, topic: str) -> None:
        owner = owner_of(topic)
        if (owner is not None and owner != certificate.subject) or not may(certificate.publish, topic):
            raise UnusableEventError("trust.denied", f"{certificate.subject} may not publish {topic}")

    def _check_signature(self, public: bytes, envelope: Envelope, source: str) -> None:
        message = envelope.to_be_signed()
        burst = None if envelope.path is None else envelope.signature + message
        if burst is not None and burst in self._bursts:
            return
        if not self._verify(envelope.algorithm, public, message, envelope.signature):
            raise UnusableEventError("trust.signature", f"bad signature on an event of {source}")
        if burst is not None:
            self._bursts[burst] = None
            if len(self._bursts) > _ROOTS_REMEMBERED:
                self._bursts.popitem(last=False)

    def export(self) -> bytes:
        """Everything that is needed to verify this realm's events offline, as canonical CBOR (`trust export`)."""
        return canonical(
            {
                "realm": self.realm.name,
                "roots": list(self.realm.roots),
                "certificates": sorted(signed.raw for signed in self._good.values()),
                "revoked": sorted(self._revoked),
            }
        )

    @classmethod
    def from_export(cls, raw: bytes, *, verify: Verify = verify_ed25519) -> TrustStore:
        """Read what `export` wrote. Raises `InputError`."""
        try:
            told = cbor2.loads(raw)
            store = cls(Realm(name=told["realm"], roots=tuple(told["roots"])), verify=verify)
            store.add_all(told["certificates"])
            for key_id in told["revoked"]:
                store.revoke(key_id)
        except (UnusableEventError, cbor2.CBORDecodeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                "trust.file", f"the trust file cannot be used: {error}", next="make a new one with dsmt trust export"
            ) from error
        return store
