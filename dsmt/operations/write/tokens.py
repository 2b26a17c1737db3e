"""Tokens: how an operator lets machines join: one token for each, shown once, good for a while and for one use (rule J2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds import joining as kinds
from dsmt.event.phrases import whose
from dsmt.event.records import from_data, to_data
from dsmt.operations.connection import Connection
from dsmt.operations.read.realm.facts import retained
from dsmt.operations.write.brokers import announced, unknown
from dsmt.operations.write.writing import say
from dsmt.ports.bus import BusReader, Draft
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import Identity
from dsmt.trust.joining import ID_BYTES, PREFIX, TOKENS, Token, joining_identity, read_token
from dsmt.trust.keys import SecretKey

LEAST_S: Final = 60
MOST_S: Final = 30 * 24 * 3600
KEPT_S: Final = 7 * 24 * 3600
"""How long a token is still listed that nobody has used."""
State = Literal["open", "used", "expired", "revoked"]
FIRST: Final = "whoever uses this line first is let in as a node: show it to nobody else"
_LOOPBACK: Final = re.compile(r"127\.|localhost:|\[?::1\]?:")
_PATTERN: Final = re.compile(r"[a-z0-9._*?\[\]-]{1,63}")


def is_loopback(*addresses: str) -> bool:
    """Whether only its own machine reaches brokers at these addresses."""
    return all(map(_LOOPBACK.match, addresses))


def check_role(role: str) -> None:
    """Raise `InputError` for what no token makes: issuers, which answer who shows one, certify nodes and nobody else."""
    if role != "node":
        said = f"--role {role}: a token makes a node; the key of a {role} is certified by the root key alone"
        raise InputError("token.role", said, next=f"dsmt node add --roles {role},node HOST, which asks for that over SSH")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is listed: without its key, which nobody has but who was given it. `member`: who has joined by it."""

    token: str
    state: State
    role: str
    name: str
    labels: dict[str, str]
    expires: str | None
    by: str
    member: str | None
    reason: str


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A new token; `line` is what `dsmt join` takes. `warnings` say what to heed of it."""

    token: str
    line: str
    expires: str | None
    brokers: list[str]
    warnings: list[str]


async def create(
    connection: Connection,
    operator: Identity,
    *,
    name: str = "*",
    labels: Mapping[str, str] | None = None,
    ttl_s: float = 3600,
    broker: str | None = None,
    reason: str = "",
) -> Created:
    """Make a token for one machine, whose name fits a pattern; it begins with a broker, if one is named: its site's leaf.

    Raises `InputError`, `NotFoundError`, `RefusedError`, `TransportError`.
    """
    if not _PATTERN.fullmatch(name):
        said = f"{name!r} is no pattern for the name of a node: a-z, 0-9, `.`, `_`, `-`, and `*` for any of them"
        raise InputError("token.name", said, next="one looks like web-*")
    if not LEAST_S <= ttl_s <= MOST_S:
        raise InputError("token.ttl", "a token lives from one minute to 30 days", next="dsmt token create --ttl 1h")
    reached = await _reached(connection, broker)
    entropy, now_ms = SystemEntropy(), connection.bus.now_ms()
    token_id, key = entropy.bytes(ID_BYTES), SecretKey(entropy.bytes(32))
    identity = joining_identity(operator, key=key, token_id=token_id, now_s=now_ms // 1000, lifetime_s=round(ttl_s))
    expires_ms = now_ms + round(ttl_s * 1000)
    fact = kinds.TokenFact(
        role="node", name=name, labels=dict(labels or {}), expires_ms=expires_ms, by=connection.by, reason=reason
    )
    kept_ms = round((ttl_s + KEPT_S) * 1000)
    topic = f"{TOKENS}{token_id.hex()}"
    await say(connection.bus, [Draft(topic, to_data(fact), subject=identity.name, ttl_ms=kept_ms)])
    realm = connection.realm
    token = Token(
        realm=realm.name,
        roots=realm.roots,
        brokers=reached,
        seed=key.seed,
        chain=tuple(signed.raw for signed in identity.chain),
        nats=None if realm.nats is None else (realm.nats.authority, realm.nats.replicas),
    )
    return Created(
        token=token_id.hex(),
        line=token.line(),
        expires=rfc3339(expires_ms),
        brokers=[address for address, _ in reached],
        warnings=[FIRST, *_unreached([address for address, _ in reached])],
    )


ANOTHER_REALM: Final = "make another realm, which is reached: dsmt --home DIR init --listen HOST:PORT"
"""What to do about a realm that only its own machine reaches: a home that has a realm is given no other one."""


def _unreached(brokers: list[str]) -> list[str]:
    """The warning that no other machine reaches the brokers that a token names."""
    if not is_loopback(*brokers):
        return []
    one, at = len(brokers) == 1, ", ".join(brokers)
    what = "the realm's only broker listens" if one else "the realm's brokers listen"
    return [f"{what} at {at}: no other machine reaches {'it' if one else 'them'}; {ANOTHER_REALM}"]


async def _reached(connection: Connection, broker: str | None) -> tuple[tuple[str, bytes], ...]:
    """The brokers that a token names. Raises `NotFoundError` for one that was not announced, `RefusedError` on NATS."""
    realm, every = connection.realm, connection.realm.brokers
    if broker is None:
        return every
    if realm.nats is not None:
        said = f"beginning with one broker is not built for realm {realm.name}, which is carried by NATS"
        raise RefusedError("bus.unable", said, next="use a realm that has brokers of dsmt")
    found = await announced(connection.bus)
    if broker not in found:
        raise unknown(broker, found)
    first = (found[broker].address, found[broker].public)
    return (first, *(one for one in every if one != first))


async def _facts(bus: BusReader) -> dict[str, SignedEvent]:
    """Every token's fact, by its id."""
    return {one.event.topic.removeprefix(TOKENS): one for one in await retained(bus, TOKENS, "the tokens")}


async def given(bus: BusReader, node: str) -> int:
    """When the name of a node was last given to a key, by a token (hybrid time); 0 where it never was."""
    told = [one.event for one in (await _facts(bus)).values()]
    return max((one.time for one in told if from_data(kinds.TokenFact, one.data).member == node), default=0)


async def listing(bus: BusReader) -> list[Listed]:
    """Every token that is known, the one that expires next first."""
    facts = {name: signed.event for name, signed in (await _facts(bus)).items()}
    told = [(name, from_data(kinds.TokenFact, event.data), event.source) for name, event in facts.items()]
    return [_listed(*one, bus.now_ms()) for one in sorted(told, key=lambda one: one[1].expires_ms)]


def _listed(name: str, one: kinds.TokenFact, source: str, now_ms: int) -> Listed:
    state: State = "used" if one.key else "revoked" if one.revoked else "expired" if one.expires_ms < now_ms else "open"
    return Listed(
        token=name,
        state=state,
        role=one.role,
        name=one.name,
        labels=one.labels,
        expires=rfc3339(one.expires_ms),
        by=whose(one.by, source),
        member=one.member or None,
        reason=one.reason,
    )


async def revoke(connection: Connection, which: str, *, reason: str) -> Listed:
    """End a token that nobody has used, by its id or the beginning of that, or by the token itself.

    Raises `NotFoundError`, `InputError`, and `RefusedError` for one that was used.
    """
    if which.startswith(PREFIX):  # no message repeats a token: who reads it could join
        which = read_token(which).id
    facts = await _facts(connection.bus)
    found = [name for name in facts if len(which) >= 4 and name.startswith(which)]
    if not found:
        raise NotFoundError("token.unknown", f"no token {which or repr(which)} is known", next="dsmt token list shows them")
    if len(found) > 1:
        raise InputError("token.ambiguous", f"{which} begins {len(found)} tokens", next="write more of it")
    name, now_ms = found[0], connection.bus.now_ms()
    said = from_data(kinds.TokenFact, facts[name].event.data)
    if said.key:
        why = f"token {which} was used, by node {said.member}"
        raise RefusedError("token.used", why, next=f"dsmt cert revoke node/{said.member} ends what was given for it")
    draft = ending(connection, facts[name], reason=reason)
    if not said.revoked:
        await say(connection.bus, [draft])
    return _listed(name, from_data(kinds.TokenFact, dict(draft.data)), connection.bus.source, now_ms)


def is_unused(signed: SignedEvent) -> bool:
    """Whether an event is the fact of a token that nobody has used."""
    return signed.event.topic.startswith(TOKENS) and not from_data(kinds.TokenFact, signed.event.data).key


def ending(connection: Connection, signed: SignedEvent, *, reason: str) -> Draft:
    """A draft after which a token that nobody has used is good for nobody; one that was revoked already stays as it is."""
    said, topic, now_ms = from_data(kinds.TokenFact, signed.event.data), signed.event.topic, connection.bus.now_ms()
    if not said.revoked:
        said = msgspec.structs.replace(said, revoked=True, by=connection.by, reason=reason)
    subject, kept_ms = f"joining/{topic.removeprefix(TOKENS)}", max(said.expires_ms - now_ms, 0) + KEPT_S * 1000
    return Draft(topic, to_data(said), subject=subject, replaces=signed, ttl_ms=kept_ms)
