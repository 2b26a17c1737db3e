"""Joining: tokens, and which certificate an issuer gives to whom (rules J1 and J2).

Rule 1: a token is one printable line: the realm's name, root keys and brokers, and a short-lived key that is certified as
    `joining/<id>`, which may do nothing but ask. What it is good for stands in the fact `trust/token/<id>`, which ends it.
Rule 2: the fact is also the answer: who has used the token, and the certificate. It follows the operator's, so of two uses
    one broker refuses the later; of two brokers' the winner in fact order stays, and what the other use was given ends. So
    it does where the winner is an operator's word that revokes the token.
Rule 3: the id of a node's certificate is that of its token, also when it is renewed: so each issuer sees by the facts, and
    with no memory of its own, which of its certificates have lost (`lost`).
Rule 4: nobody joins under a name that somebody has whose certificate stands, unless an operator has removed that node.
    Two issuers may give one name at the same moment, or on two sides of a partition: the later use ends (`lost`).
    An issuer certifies nodes only (`may_name`).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import cbor2
import msgspec

from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.event.kinds import joining as kinds
from dsmt.event.payload import canonical
from dsmt.event.topic import is_level
from dsmt.trust.certificate import Certificate, SignedCertificate, read
from dsmt.trust.grants import widens
from dsmt.trust.identity import SKEW_S, Identity, certify
from dsmt.trust.keys import Key, SecretKey, key_id_of

TOKENS: Final = "trust/token/"
PREFIX: Final = "dsmt-join-"
NODE_S: Final = 30 * 24 * 3600
"""How long a node's certificate is valid that an issuer gives; it is renewed when half of that has passed."""
ID_BYTES: Final = 16
_MOST: Final = 64 * 1024
USE: Final = 2
"""The version of a use, and of a word that revokes an unused token: it follows the word that made the token."""
YOUNG_MS: Final = 24 * 3600 * 1000
"""How long after a certificate was given it may turn out that its name had been given, or its token revoked.

Who has stolen a key makes up whatever time it likes, and ends nobody by this who has been there for longer.
"""
Stands = Callable[[str, str], bool]
"""Whether a key, by its id in hex, has a certificate of a name that stands."""
_WHOLE: Final = "copy the whole line that dsmt token create printed"


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token holds. `brokers` are (address, public key); `chain` certifies the key of `seed`.

    `nats`, where the brokers are NATS servers: the certificate of their authority in PEM, and how many hold a stream.
    """

    realm: str
    roots: tuple[bytes, ...]
    brokers: tuple[tuple[str, bytes], ...]
    seed: bytes
    chain: tuple[bytes, ...]
    nats: tuple[str, int] | None = None

    @property
    def identity(self) -> Identity:
        """As whom its holder asks."""
        return Identity(SecretKey(self.seed), tuple(read(raw)[0] for raw in self.chain))

    @property
    def id(self) -> str:
        """Its id, in hex."""
        return self.identity.name.partition("/")[2]

    def line(self) -> str:
        """The token as it is copied."""
        packed = zlib.compress(canonical(msgspec.to_builtins(self, builtin_types=(bytes,))), 9)
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(line: str) -> Token:
    """A token from its line. Raises `InputError`."""
    text = "".join(line.split())
    if not text.startswith(PREFIX):
        said = "this is not a token" if text else "there is no token on that line"
        raise InputError("token.form", f"{said}: one begins with {PREFIX}", next=_WHOLE)
    body = text.removeprefix(PREFIX)
    try:
        unpacking = zlib.decompressobj()
        told: Any = cbor2.loads(unpacking.decompress(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), _MOST))
        if not unpacking.eof:
            raise InputError("token.form", "the token is cut off", next=_WHOLE)
        if unpacking.unused_data:
            raise InputError("token.form", "something follows the token: another one, perhaps", next=_WHOLE)
        token = msgspec.convert(told, Token, builtin_types=(bytes,))
        matching = bool(token.chain) and token.identity.certificate.public == token.identity.key.public
    except (ValueError, zlib.error, cbor2.CBORDecodeError, msgspec.ValidationError, UnusableEventError) as error:
        raise InputError("token.form", "the token is damaged", next=_WHOLE) from error
    if not matching or not token.id or not token.brokers or not token.roots:
        raise InputError("token.form", "the token is damaged: it holds no key that may join", next=_WHOLE)
    return token


def joining_identity(operator: Identity, *, key: Key, token_id: bytes, now_s: int, lifetime_s: int) -> Identity:
    """The identity that a token holds, below an operator's. Raises `RefusedError` where the operator may not give it."""
    above = operator.certificate
    signed = certify(
        f"joining/{token_id.hex()}",
        key.public,
        issuer=above.subject,
        signer=operator.key,
        now_s=now_s,
        lifetime_s=min(lifetime_s, above.not_after - now_s),
        serial=token_id,
        not_before=max(now_s - SKEW_S, above.not_before),
    )
    if why := widens(above, signed.certificate):  # it was issued by a dsmt that knew no tokens, or has ended
        raise RefusedError("token.operator", why, next=f"dsmt cert rotate {above.subject}, then try again")
    return Identity(key, (signed, *operator.chain))


def node_certificate(
    issuer: Identity, name: str, public: bytes, *, now_s: int, serial: bytes, lifetime_s: int = NODE_S
) -> SignedCertificate:
    """A node's certificate by an issuer, which it does not outlive."""
    above = issuer.certificate
    return certify(
        f"node/{name}",
        public,
        issuer=above.subject,
        signer=issuer.key,
        now_s=now_s,
        lifetime_s=min(lifetime_s, above.not_after - now_s),
        serial=serial,
        not_before=max(now_s - SKEW_S, above.not_before),
        above=above,
    )


def check_request(
    asked: kinds.JoinRequest, token: kinds.TokenFact | None, *, now_ms: int, holders: Callable[[str], Iterable[bytes]]
) -> None:
    """Check that a request is to be answered; `holders`: the keys that stand for a name. Raises `RefusedError`."""
    if token is None:
        raise RefusedError("token.unknown", "no operator has made this token", next="dsmt token create makes one")
    if token.revoked:
        raise RefusedError("token.revoked", "the token was revoked", next="ask for another: dsmt token create")
    check_unused(token, key_id_of(asked.public))
    if now_ms > token.expires_ms:
        raise RefusedError("token.expired", "the token has expired", next="ask for another: dsmt token create")
    if len(asked.public) != 32 or not is_level(asked.name):
        raise RefusedError("token.name", f"{asked.name!r} is not a name for a node", next="dsmt join TOKEN --name NAME")
    if not fnmatchcase(asked.name, token.name):
        said = f"the token is for the name {token.name}, and not for {asked.name}"
        raise RefusedError("token.name", said, next="dsmt join TOKEN --name NAME")
    if any(key_id != key_id_of(asked.public) for key_id in holders(f"node/{asked.name}")):
        said = f"there is a node {asked.name} already, with another key"
        other = "ask for a token for another name" if token.name == asked.name else "choose another with --name"
        gone = f"if {asked.name} is gone for good: dsmt node remove {asked.name}"
        raise RefusedError("token.taken", said, next=f"{other}; {gone}")


def check_unused(token: kinds.TokenFact, key_id: bytes) -> None:
    """Check that nobody but the holder of a key has used a token. Raises `RefusedError`."""
    if token.key and token.key != key_id.hex():
        said = f"the token was used already, by {token.member}"
        raise RefusedError("token.used", said, next="each machine needs its own: dsmt token create")


class Use(msgspec.Struct, frozen=True):
    """What stands of a token, in which version, and when that was said (realm ms)."""

    said_ms: int
    version: int
    token: str
    fact: kinds.TokenFact


def lost(
    certificates: Iterable[Certificate], tokens: Mapping[str, Use], stands: Stands, *, now_ms: int
) -> Iterator[tuple[Certificate, str]]:
    """Those that were given in vain, and why.

    Something else stands of their token, or their name was given to another key first (rules 3 and 4). What follows a use
    was said by somebody who knew of it, and ends nothing.
    """
    given: dict[str, list[Use]] = {}
    for one in certificates:
        use = tokens.get(one.serial.hex())
        if one.role != "node" or use is None or use.version != USE:
            continue
        young = now_ms < 1000 * one.issued + YOUNG_MS
        if young and not given:
            given = _by_member(tokens)
        if why := _in_vain(one, use, given[use.fact.member] if young else (), stands):
            yield one, why


def _by_member(tokens: Mapping[str, Use]) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for one in tokens.values():
        found.setdefault(one.fact.member, []).append(one)
    return found


def _in_vain(one: Certificate, use: Use, given: Sequence[Use], stands: Stands) -> str:
    fact, key = use.fact, one.key_id.hex()
    if fact.revoked:
        return "its token was revoked first" if given else ""
    if fact.key != key:
        return f"its token was used twice, and {fact.member} was first" if fact.key else ""
    if fact.freed_ms is not None:
        for other in given:
            first = fact.freed_ms < other.said_ms and (other.said_ms, other.token) < (use.said_ms, use.token)
            if first and other.fact.key != key and stands(other.fact.key, one.subject):
                return f"the name {fact.member} was given twice, and to another key first"
    return ""


def is_due(certificate: Certificate, now_s: int) -> bool:
    """Whether a certificate is to be renewed: half of its life has passed, and the next one ends later."""
    return now_s >= certificate.renew_s and now_s + NODE_S > certificate.not_after
