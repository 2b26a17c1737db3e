"""The trust store: which certificates are good, and what an event's signature is worth.

Rule 1: a certificate is good if its issuer's is, up to the realm's root; what it grants and its depth lie within its
    issuer's; and its signature is the issuer's key's.
Rule 2: an event is good if its signing key has a good certificate whose subject is the event's source, which was
    valid at the event's own time and was not revoked. So a renewal keeps the certificates before it.
Rule 3: an owned topic is written by its owner only, a shared one by the roles of its row, each within its grant.
Rule 4: certificates are kept by key and name: who certifies a key that others know by another name displaces nothing, and
    a signature counts for the name that its event claims. Of one key, each issuer fills its own places only (J3).
Rule 5: a key ends by the word of the root, or of a key above it. A certificate stands while one way up to the root stands
    on which no key was revoked by a key above it, nor by the root. So an issuer ends what it issued and all below, a node
    its monitor and agents, an operator its programs; what the root has signed, only the root ends.
Rule 6: the answer for one burst's root is remembered: its signature is checked once.
Rule 7: a key of which nothing is in memory is looked for on the shelf (`look_on`): what was checked before it was put there.
    Who has certified anything is in memory, and what is taken in of a key brings all that the shelf has of it.
Rule 8: who is shown an event is shown all certificates of its signer (`proof`): that of its time counts, not the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import cbor2
import msgspec

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.burst import TAG
from dsmt.event.codec import Envelope, Part, decode_part
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.payload import canonical
from dsmt.trust import certificate as cwt
from dsmt.trust.certificate import Certificate, SignedCertificate, bounded
from dsmt.trust.grants import denied, is_name, may_say, widens
from dsmt.trust.keys import key_id_of
from dsmt.trust.keys import verify as verify_ed25519
from dsmt.trust.proven import ProvenSignatures, Verify
from dsmt.trust.revocations import Revocations

Decode = Callable[[bytes], Part]
Signer = tuple[bytes, str]
"""A key's id and the name that it signs as."""
Shelf = Callable[[bytes], Iterable[SignedCertificate]]
"""Gives the certificates of a key that are kept, and not in memory."""
Terms = tuple[tuple[int, int, bool], ...]
"""Of each certificate of a source: from when and until when it is valid, in s, and whether it grants a topic."""
_REMEMBERED: Final = 65536


class Realm(msgspec.Struct, frozen=True, kw_only=True):
    """A realm's name and its root's public keys; the first is the current one, old ones are kept."""

    name: str
    roots: tuple[bytes, ...]


Opened = tuple[SignedEvent, UnusableEventError | None]
"""An event that was read, and why it may not be used; None when it may."""


class TrustStore:
    """What one process knows about who may say what. Pure: the time comes from the event that is judged.

    The simulator brings its own `verify`, and a `decode` that many readers share.
    """

    def __init__(self, realm: Realm, *, verify: Verify = verify_ed25519, decode: Decode = decode_part) -> None:
        self.realm = realm
        self._verify, self._decode = verify, decode
        self._roots = {key_id_of(root): root for root in realm.roots}
        self._good: dict[bytes, list[SignedCertificate]] = {}
        """By the id of the key that they name, newest first."""
        self._shelf: Shelf = lambda _key_id: ()
        self._revocations = Revocations(self._roots)
        self._standing: dict[bytes, bool] = {}
        """Whether a certificate stands (rule 5), as far as it was asked since the last change."""
        self._terms: dict[tuple[bytes, str, str], Terms] = {}
        """By key, source and topic, as far as it was asked since the last change."""
        self._proofs: dict[Signer, tuple[bytes, ...]] = {}
        """Of keys in memory, as far as it was asked since the last change."""
        self._proven = ProvenSignatures(verify)

    def fresh(self) -> TrustStore:
        """A store that knows the same certificates, and has heard of no revocation yet."""
        fresh = TrustStore(self.realm, verify=self._verify, decode=self._decode)
        fresh._good = dict(self._good)
        return fresh

    def _clear_answers(self) -> None:
        """Certificates or revocations have changed."""
        self._standing.clear()
        self._terms.clear()
        self._proofs.clear()

    # --- certificates --------------------------------------------------------------------------------------------

    def look_on(self, shelf: Shelf) -> None:
        """Look on a shelf for what is not in memory (rule 7)."""
        self._shelf = shelf

    def _held(self, key_id: bytes) -> Sequence[SignedCertificate]:
        return self._good.get(key_id) or bounded(self._shelf(key_id))

    def add(self, raw: bytes) -> Certificate:
        """Take in a certificate whose issuer is known. Raises `UnusableEventError` that says why not."""
        signed, algorithm, message, signature = cwt.read(raw)
        certificate = signed.certificate
        if not is_name(certificate.subject):
            raise UnusableEventError("trust.name", f"{certificate.subject} is not the name of a source")
        if self.holds(raw, certificate.key_id):
            return certificate
        if not self._verify(algorithm, self._issuer_key(signed), message, signature):
            raise UnusableEventError("trust.signature", f"certificate of {certificate.subject}: bad signature")
        held = [one for one in self._held(certificate.key_id) if one.raw != raw]
        self._good[certificate.key_id] = bounded([*held, signed])
        self._clear_answers()
        return certificate

    def delegates(self) -> list[Signer]:
        """Keys and names that the root has not certified itself, and that have certified nobody here."""
        return [(key_id, name) for key_id in self.delegated() for name in self.names(key_id)]

    def delegated(self) -> list[bytes]:
        """The ids of the keys in memory that the root has not certified itself, and that have certified nobody here."""
        above = {one.issuer_key_id for held in self._good.values() for one in held}
        return [
            key_id for key_id, held in self._good.items() if key_id not in above and not any(map(self._is_by_root, held))
        ]

    def forget(self, key_id: bytes, name: str) -> list[SignedCertificate]:
        """Let go of what certifies a key under a name; what that was. Whoever needs it is shown it again."""
        held = self._good.get(key_id, [])
        left = [one for one in held if one.certificate.subject != name]
        if left:
            self._good[key_id] = left
        else:
            self._good.pop(key_id, None)
        self._clear_answers()
        return [one for one in held if one.certificate.subject == name]

    def _is_by_root(self, signed: SignedCertificate) -> bool:
        return signed.issuer_key_id in self._roots

    def add_all(self, raws: Iterable[bytes]) -> None:
        """Take in certificates in any order; those that stay without a known issuer raise."""
        left = list(dict.fromkeys(raws))
        while left:
            refused: dict[bytes, UnusableEventError] = {}
            for raw in left:
                try:
                    self.add(raw)
                except UnusableEventError as error:
                    refused[raw] = error
            if len(refused) == len(left):
                raise refused[left[-1]]
            left = list(refused)

    def _issuer_key(self, signed: SignedCertificate) -> bytes:
        certificate = signed.certificate
        root = self._roots.get(signed.issuer_key_id)
        if root is not None:
            return root
        issuers = self._good.get(signed.issuer_key_id)
        if not issuers:
            raise UnusableEventError(
                "trust.stranger",
                f"{certificate.subject} has a certificate from an issuer that is unknown in realm {self.realm.name}",
            )
        if not self._issuers(signed):
            raise UnusableEventError("trust.widened", widens(issuers[0].certificate, certificate))
        return issuers[0].certificate.public

    def _issuers(self, signed: SignedCertificate) -> list[SignedCertificate]:
        """The certificates that hold up another, newest first; none for one by the root."""
        issuers = [] if self._is_by_root(signed) else self._good.get(signed.issuer_key_id, [])
        return [one for one in issuers if not widens(one.certificate, signed.certificate)]

    def holds(self, raw: bytes, key_id: bytes) -> bool:
        """Whether this very certificate of a key is among those that are kept."""
        return any(one.raw == raw for one in self._good.get(key_id, ()))

    def in_memory(self, key_id: bytes) -> list[SignedCertificate]:
        """The certificates of a key that are in memory, newest first."""
        return list(self._good.get(key_id, ()))

    def names(self, key_id: bytes) -> list[str]:
        """The names that a key is known by, in order; mostly one."""
        return sorted({one.certificate.subject for one in self._held(key_id)})

    def sole_name(self, key_id: bytes) -> str | None:
        """The name that a key is known by; None when there are several, or none."""
        held = self._held(key_id)
        name = held[0].certificate.subject if held else None
        return name if len(held) <= 1 or all(one.certificate.subject == name for one in held) else None

    def certificate(self, key_id: bytes, name: str) -> SignedCertificate | None:
        """The newest good certificate of a key under a name; one that stands before one that does not."""
        own = [one for one in self._held(key_id) if one.certificate.subject == name]
        return next((one for one in own if self._stands(one)), own[0] if own else None)

    def certificates(self, at_s: int = 2**63) -> list[Certificate]:
        """The newest good certificate of each key and name; one that has begun at a time before one that has not."""
        newest: dict[tuple[bytes, str], Certificate] = {}
        for key_id, held in self._good.items():
            for one in sorted(held, key=lambda one: one.certificate.not_before > at_s):
                newest.setdefault((key_id, one.certificate.subject), one.certificate)
        return list(newest.values())

    def chain(self, key_id: bytes, name: str) -> list[SignedCertificate]:
        """A key's certificate under a name and those above it, the root's excepted: whom it stands for now."""
        signed = self.certificate(key_id, name)
        return [] if signed is None else [signed, *self.above(signed)]

    def proof(self, key_id: bytes, name: str) -> tuple[bytes, ...]:
        """What a stranger needs to believe whatever a key has signed under a name (rule 8); issuers come first."""
        found = self._proofs.get((key_id, name))
        if found is None:
            own = [one for one in self._held(key_id) if one.certificate.subject == name]
            found = tuple(dict.fromkeys(one.raw for leaf in own for one in (*self.above(leaf)[::-1], leaf)))
            if key_id in self._good and len(self._proofs) < _REMEMBERED:
                self._proofs[key_id, name] = found
        return found

    def above(self, signed: SignedCertificate) -> list[SignedCertificate]:
        """The certificates above one that is kept or only shown, nearest first, the root's excepted."""
        found: list[SignedCertificate] = []
        while issuers := self._issuers(found[-1] if found else signed):
            found.append(next((one for one in issuers if self._stands(one)), issuers[0]))
        return found

    # --- revocations ---------------------------------------------------------------------------------------------

    def revoke(self, signed: SignedEvent) -> bool:
        """Take in a fact that was opened: whether it is a revocation that ends something known. Those only grow."""
        key_id = self._revocations.key_of(signed.event)
        if key_id is None:
            return False
        self._end(key_id, signed.key_id)
        return self.may_revoke(signed.key_id, key_id)

    def _end(self, key_id: bytes, by: bytes) -> None:
        if self._revocations.add(key_id, by):
            self._clear_answers()

    def may_revoke(self, by: bytes, key_id: bytes) -> bool:
        """Whether a key may end another (rule 5), beside those that it has ended."""
        if key_id in self._roots or by in self._roots:
            return key_id not in self._roots
        return self._revocations.has_room(key_id, by) and any(by in self._above(one) for one in self._held(key_id))

    def _above(self, signed: SignedCertificate) -> set[bytes]:
        """The ids of all keys above a certificate, the root's excepted."""
        issuers = self._issuers(signed)
        found = {one.certificate.key_id for one in issuers}
        return found.union(*[self._above(one) for one in issuers])

    def _stands(self, signed: SignedCertificate) -> bool:
        if not self._revocations:
            return True
        stands = self._standing.get(signed.raw)
        if stands is None:
            stands = self._standing[signed.raw] = self._leads_up(signed, frozenset())
        return stands

    def _leads_up(self, signed: SignedCertificate, ended_by: frozenset[bytes]) -> bool:
        """Whether a way from here to the root stands; `ended_by` are the keys that have revoked one further down on it."""
        key_id = signed.certificate.key_id
        if key_id in ended_by:
            return False
        ended_by |= self._revocations.of(key_id)
        if self._is_by_root(signed):
            return not any(by in self._roots for by in ended_by)
        return any(self._leads_up(one, ended_by) for one in self._issuers(signed))

    def is_revoked(self, key_id: bytes, name: str | None = None) -> bool:
        """Whether a key has ended, or all that stand above it, under one name or under all."""
        if not self._revocations:
            return False
        if any(by in self._roots for by in self._revocations.of(key_id)):
            return True
        held = [one for one in self._held(key_id) if name is None or one.certificate.subject == name]
        return bool(held) and not any(self._stands(one) for one in held)

    @property
    def revocations(self) -> int:
        """How many revocations are known; they only grow."""
        return len(self._revocations)

    def without(self, key_id: bytes) -> TrustStore:
        """As it would judge if the root had ended a key."""
        after = TrustStore(self.realm, verify=self._verify, decode=self._decode)
        after.merge(self.export())
        for root in self._roots:
            after._end(key_id, root)
        return after

    def disowns(self, signed: SignedEvent) -> bool:
        """Whether the key of an event that was opened once has been revoked since."""
        return self.is_revoked(signed.key_id, signed.event.source)

    # --- events --------------------------------------------------------------------------------------------------

    def open(self, raw: bytes) -> SignedEvent:
        """Read an event and check who signed it and that they may. Raises `UnusableEventError` that says why not."""
        if raw[:1] != TAG:
            raise UnusableEventError("event.form", "not a tagged COSE_Sign1")
        ((signed, error),) = self.open_part(raw)
        if error is not None:
            raise error
        return signed

    def open_part(self, part: bytes) -> list[Opened]:
        """Read an event alone or a run, and check who signed each and that they may.

        Raises `UnusableEventError` when none of it can be used.
        """
        read = self._decode(part)
        held = self._held(read.key_id)
        if not held:
            source = read.events[0].event.source if read.events else "somebody"
            raise UnusableEventError("trust.stranger", f"{source} signed with a key that is unknown here")
        opened: list[Opened] = [(signed, self._denied(signed, held)) for signed in read.events]
        if any(error is None for _, error in opened) and not self._proven.check(held[0].certificate.public, read):
            raise UnusableEventError("trust.signature", f"bad signature on an event of {read.events[0].event.source}")
        return opened

    def _denied(self, signed: SignedEvent, held: Sequence[SignedCertificate]) -> UnusableEventError | None:
        """Why who signed an event may not say it; None when they may."""
        event = signed.event
        signer = (signed.key_id, event.source, event.topic)
        terms = self._terms.get(signer)
        if terms is None:
            found = self._terms_of(event, held)
            if isinstance(found, UnusableEventError):
                return found
            if len(self._terms) >= _REMEMBERED:
                self._terms.clear()
            terms = self._terms[signer] = found
        at_s = event.time_ms // 1000
        for not_before, not_after, granted in terms:
            if granted and not_before <= at_s <= not_after:
                return None
        if any(not_before <= at_s <= not_after for not_before, not_after, _ in terms):
            return denied(event.source, event.topic)
        said = f"certificate of {event.source} was not valid at the time of the event"
        return UnusableEventError("trust.expired", said)

    def _terms_of(self, event: Event, held: Sequence[SignedCertificate]) -> Terms | UnusableEventError:
        """When a source may say what it says, by each of its certificates that stands."""
        known = [one for one in held if one.certificate.subject == event.source]
        if not known:
            return UnusableEventError("trust.name", f"{held[0].certificate.subject} signed as {event.source}")
        own = [one.certificate for one in known if self._stands(one)]
        if not own:
            return UnusableEventError("trust.revoked", f"{event.source} was revoked")
        return tuple((one.not_before, one.not_after, may_say(one, event.topic)) for one in own)

    def check(self, public: bytes, envelope: Envelope) -> bool:
        """Whether a signed statement that is no event bears a key's signature."""
        return self._verify(envelope.algorithm, public, envelope.to_be_signed(), envelope.signature)

    def export(self) -> bytes:
        """Everything that is needed to verify this realm's events offline, as canonical CBOR (`trust export`)."""
        return canonical(
            {
                "realm": self.realm.name,
                "roots": list(self.realm.roots),
                "certificates": sorted(signed.raw for held in self._good.values() for signed in held),
                "revoked": [list(pair) for pair in self._revocations],
            }
        )

    def merge(self, exported: bytes) -> None:
        """Take in what `export` wrote. Raises `InputError`."""
        try:
            told = cbor2.loads(exported)
            self.add_all(told["certificates"])
            for key_id, by in told["revoked"]:
                self._end(bytes(key_id), bytes(by))
        except (UnusableEventError, cbor2.CBORDecodeError, LookupError, TypeError, ValueError) as error:
            raise _no_trust_file(error) from error

    @classmethod
    def from_export(cls, raw: bytes, *, verify: Verify = verify_ed25519) -> TrustStore:
        """Read what `export` wrote. Raises `InputError`."""
        try:
            told = cbor2.loads(raw)
            store = cls(Realm(name=told["realm"], roots=tuple(told["roots"])), verify=verify)
        except (cbor2.CBORDecodeError, LookupError, TypeError, ValueError) as error:
            raise _no_trust_file(error) from error
        store.merge(raw)
        return store


def _no_trust_file(error: Exception) -> InputError:
    """What is wrong with a trust file: our own words say it; a decoder's are of no use to who has named another file."""
    why = f": {error.message}" if isinstance(error, UnusableEventError) else ""
    said = f"the trust file is none that dsmt trust export has written, or it is damaged{why}"
    return InputError("trust.file", said, next="dsmt trust export FILE writes one")
