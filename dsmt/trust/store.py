"""The trust store: which certificates are good, and what an event's signature is worth (DESIGN.md 5).

Rule 1: a certificate is good if its issuer's is, up to the realm's root; what it grants and its depth lie within its
    issuer's; and its signature is the issuer's key's.
Rule 2: an event is good if its signing key has a good certificate whose subject is the event's source, which was
    valid at the event's own time and was not revoked. So a renewal keeps the certificates before it.
Rule 3: a topic that is owned is written by its owner only, a shared one by the roles of its row, and every topic only
    within the certificate's grant.
Rule 4: revocations only grow, and end every certificate below (J3) that nobody else has signed.
Rule 5: the answer for one burst's root is remembered: its signature is checked once.
Rule 6: who has signed a key's first certificate has named it: only the root gives a known key another name.
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
from dsmt.trust import certificate as cwt
from dsmt.trust.certificate import Certificate, SignedCertificate
from dsmt.trust.grants import is_name, may, may_write, widens
from dsmt.trust.keys import key_id_of
from dsmt.trust.keys import verify as verify_ed25519

Verify = Callable[[int, bytes, bytes, bytes], bool]
Decode = Callable[[bytes], tuple[SignedEvent, Envelope]]
REVOKED: Final = "trust/revoked/"
"""Below it a fact on `<key id in hex>` ends that key."""
_ROOTS_REMEMBERED: Final = 4096
_KEPT_PER_KEY: Final = 64


def revoked_by(topic: str) -> bytes | None:
    """The id of the key that a fact on this topic ends; None for a topic that ends none."""
    if not topic.startswith(REVOKED):
        return None
    try:
        return bytes.fromhex(topic.removeprefix(REVOKED))
    except ValueError:
        return None


class Realm(msgspec.Struct, frozen=True, kw_only=True):
    """A realm's name and its root's public keys; the first is the current one, old ones are kept."""

    name: str
    roots: tuple[bytes, ...]


class TrustStore:
    """What one process knows about who may say what. Pure: the time comes from the event that is judged.

    The simulator brings its own `verify`, and a `decode` that many readers share.
    """

    def __init__(self, realm: Realm, *, verify: Verify = verify_ed25519, decode: Decode = decode) -> None:
        self.realm = realm
        self._verify, self._decode = verify, decode
        self._roots = {key_id_of(root): root for root in realm.roots}
        self._good: dict[bytes, list[SignedCertificate]] = {}
        """By the id of the key that they name, newest first."""
        self._revoked: set[bytes] = set()
        self._bursts: OrderedDict[bytes, None] = OrderedDict()

    def add(self, raw: bytes) -> Certificate:
        """Take in a certificate whose issuer is known. Raises `UnusableEventError` that says why not."""
        signed, algorithm, message, signature = cwt.read(raw)
        certificate = signed.certificate
        if not is_name(certificate.subject):
            raise UnusableEventError("trust.name", f"{certificate.subject} is no name of a source")
        held = self._good.get(certificate.key_id, [])
        if any(one.raw == raw for one in held):
            return certificate
        by_root = signed.issuer_key_id in self._roots
        if not by_root and any(one.certificate.subject != certificate.subject for one in held):
            raise UnusableEventError("trust.name", f"the key of {certificate.subject} is another's already")
        if not self._verify(algorithm, self._issuer_key(signed), message, signature):
            raise UnusableEventError("trust.signature", f"certificate of {certificate.subject}: bad signature")
        kept = [one for one in held if one.certificate.subject == certificate.subject or self._is_by_root(one)]
        kept = sorted([*kept, signed], key=lambda one: (one.certificate.issued, one.raw), reverse=True)
        self._good[certificate.key_id] = kept[:_KEPT_PER_KEY]
        return certificate

    def _is_by_root(self, signed: SignedCertificate) -> bool:
        return signed.issuer_key_id in self._roots

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
        issuers = self._good.get(signed.issuer_key_id)
        if not issuers:
            raise UnusableEventError(
                "trust.stranger", f"{certificate.subject} has a certificate by nobody known in realm {self.realm.name}"
            )
        if self._above(signed) is None:
            raise UnusableEventError("trust.widened", widens(issuers[0].certificate, certificate))
        return issuers[0].certificate.public

    def _above(self, signed: SignedCertificate) -> SignedCertificate | None:
        issuers = [] if self._is_by_root(signed) else self._good.get(signed.issuer_key_id, [])
        return next((one for one in issuers if not widens(one.certificate, signed.certificate)), None)

    def revoke(self, key_id: bytes) -> None:
        """End a key and all that it has signed, for good."""
        self._revoked.add(key_id)

    def certificate(self, key_id: bytes) -> SignedCertificate | None:
        """The newest good certificate of a key."""
        held = self._good.get(key_id)
        return held[0] if held else None

    def certificates(self) -> list[Certificate]:
        """The newest good certificate of each key."""
        return [held[0].certificate for held in self._good.values()]

    def chain(self, key_id: bytes) -> list[SignedCertificate]:
        """A key's certificate and those above it, the root's excepted: what a stranger needs to believe it."""
        found = []
        signed = self.certificate(key_id)
        while signed is not None:
            found.append(signed)
            signed = self._above(signed)
        return found

    def is_revoked(self, key_id: bytes) -> bool:
        """Whether a key, or all that stand above it, were revoked."""
        if key_id in self._revoked:
            return True
        if key_id in self._roots or key_id not in self._good:
            return False
        return all(self.is_revoked(one.issuer_key_id) for one in self._good[key_id])

    def open(self, raw: bytes) -> tuple[SignedEvent, Envelope]:
        """Read an event and check who signed it and that they may. Raises `UnusableEventError` that says why not."""
        signed, envelope = self._decode(raw)
        event = signed.event
        held = self._good.get(envelope.key_id)
        if not held:
            raise UnusableEventError("trust.stranger", f"{event.source} signed with a key that nobody here knows")
        own = [one.certificate for one in held if one.certificate.subject == event.source]
        if not own:
            raise UnusableEventError("trust.name", f"{held[0].certificate.subject} signed as {event.source}")
        if self._revoked and self.is_revoked(envelope.key_id):
            raise UnusableEventError("trust.revoked", f"{event.source} was revoked")
        valid = [one for one in own if one.not_before <= event.time_ms // 1000 <= one.not_after]
        if not valid:
            raise UnusableEventError(
                "trust.expired", f"certificate of {event.source} was not valid at the time of the event"
            )
        if not may_write(event.source, event.topic) or not any(may(one.publish, event.topic) for one in valid):
            raise UnusableEventError("trust.denied", f"{event.source} may not publish {event.topic}")
        self._check_signature(own[0].public, envelope, event.source)
        return signed, envelope

    def check(self, public: bytes, envelope: Envelope) -> bool:
        """Whether a signed statement that is no event bears a key's signature."""
        return self._verify(envelope.algorithm, public, envelope.to_be_signed(), envelope.signature)

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
                "certificates": sorted(signed.raw for held in self._good.values() for signed in held),
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
