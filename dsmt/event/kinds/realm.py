"""The realm: what is said for all of it, what ends, which keys are revoked, and what is written by hand."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Ms, Offset
from dsmt.event.kinds.row import DAY_MS, KindRow, fact
from dsmt.event.kinds.slot import DataHome
from dsmt.event.phrases import whose

MAX_BROKERS: Final = 7
"""How many brokers a realm may have (R8)."""
BROKERS: Final = "config/broker/"
"""Where an operator says which brokers there are, each below its name."""
ENGINE: Final = "config/engine"
"""Where the realm moves, says an operator there."""
PURGES: Final = "config/purge/"
"""Where an operator says of which services that have ended the data goes, each below its name."""


class NodesetFact(msgspec.Struct, frozen=True, kw_only=True):
    """A named node set."""

    expression: str
    by: str
    reason: str = ""


class BrakeWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/brake`: an operator holds all replacing, or releases it for what was silent up to `released_ms`."""

    held: bool
    released_ms: Ms
    by: str
    reason: str


class ClockWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/clock/<broker>`: a broker's machine, whose clock is `ahead_s` ahead of realm time, is right (J4)."""

    ahead_s: Offset
    by: str
    reason: str


class BrokerWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/broker/<broker>`: a broker of the realm, by its address and Ed25519 key (32 bytes); or it is one no more.

    `leaf`: it is the one of a site, and linked to one other at a time (E5); not said of the others. `route`, of a NATS
    server that has others: where it listens for them.
    """

    address: str
    public: bytes
    by: str
    removed: bool = False
    reason: str = ""
    leaf: bool | msgspec.UnsetType = msgspec.UNSET
    route: str | msgspec.UnsetType = msgspec.UNSET


class EngineWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/engine`: where the realm moves, so that its members on other machines follow it (docs/decisions/0038).

    `brokers` are addresses with Ed25519 keys (32 bytes); none: it stays where it is. With `authority`, a certificate in PEM,
    they are NATS servers, `replicas` of which hold each stream.
    """

    brokers: tuple[tuple[str, bytes], ...]
    by: str
    authority: str = ""
    replicas: Count = 0


class PurgeWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/purge/<service>`: all that a service left in data directories up to this epoch of it is deleted (A23)."""

    epoch: Count
    by: str
    reason: str = ""


class LeftData(msgspec.Struct, frozen=True, kw_only=True):
    """Where the data of one slot of a service that has ended lies."""

    component: str
    index: Count
    home: DataHome


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one epoch of a thing, which is the epoch of the fact itself (A6); of a service, where its data lies."""

    by: str
    reason: str
    data: tuple[LeftData, ...] = ()


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the key that the topic names, and of all below it (J3). `name` is who had it."""

    by: str
    name: str = ""
    reason: str = ""


def _brake(event: Event, told: BrakeWord) -> str:
    verb = "is held: nothing is replaced" if told.held else "is released"
    return f"{verb}, says {whose(told.by, event.source, told.reason)}"


def _clock(event: Event, told: ClockWord) -> str:
    broker = event.topic.rsplit("/", 1)[1]
    by = f"{whose(told.by, event.source, told.reason)}"
    return f"the clock of {broker}'s machine, {told.ahead_s:+.1f} s, is right, says {by}"


def _broker(event: Event, told: BrokerWord) -> str:
    broker, kind = event.topic.rsplit("/", 1)[1], "a leaf" if told.leaf else "a broker"
    what = "is a broker no more" if told.removed else f"is {kind} at {told.address}"
    return f"{broker} {what}, says {whose(told.by, event.source, told.reason)}"


def _engine(event: Event, told: EngineWord) -> str:
    where = ("NATS" if told.authority else "brokers") + f" at {', '.join(address for address, _ in told.brokers)}"
    return f"{f'moves to {where}' if told.brokers else 'stays where it is'}, says {whose(told.by, event.source)}"


def _revoked(event: Event, said: Revoked) -> str:
    key = "" if said.name else f" {event.topic.split('/')[2]}"
    return f"has its key{key} revoked by {whose(said.by, event.source, said.reason)}"


def _purge(event: Event, told: PurgeWord) -> str:
    service = event.topic.removeprefix(PURGES)
    return f"what {service} left in data directories is deleted, says {whose(told.by, event.source, told.reason)}"


def _nodeset(event: Event, said: NodesetFact) -> str:
    return f"is {said.expression}, says {whose(said.by, event.source, said.reason)}"


def _tombstone(event: Event, said: Tombstone) -> str:
    return f"has ended, says {whose(said.by, event.source, said.reason)}"


_OPERATOR: Final = ("operator",)


def _ends(thing: str, *roles: str) -> KindRow:
    return fact(f"tombstone/{thing}", "dsmt.tombstone", roles, Tombstone, _tombstone, folded=True)


ROWS: Final[tuple[KindRow, ...]] = (
    fact("nodeset/<name>", "dsmt.nodeset", _OPERATOR, NodesetFact, _nodeset, folded=True),
    _ends("service/<service>", "operator", "controller"),
    _ends("node/<node>", "operator"),
    _ends("nodeset/<name>", "operator"),
    fact("config/brake", "dsmt.config.brake", _OPERATOR, BrakeWord, _brake, folded=True),
    fact("config/clock/<broker>", "dsmt.config.clock", _OPERATOR, ClockWord, _clock),
    fact(f"{BROKERS}<broker>", "dsmt.config.broker", _OPERATOR, BrokerWord, _broker),
    fact(ENGINE, "dsmt.config.engine", _OPERATOR, EngineWord, _engine),
    fact(f"{PURGES}<service>", "dsmt.config.purge", _OPERATOR, PurgeWord, _purge),
    KindRow("config/<name/>", "dsmt.config", "fact", _OPERATOR),
    fact("trust/revoked/<key>/<source/>", "dsmt.trust.revoked", "<source/>", Revoked, _revoked, folded=True),
    KindRow("trust/<name/>", "dsmt.trust", "fact", ("root", "issuer", "operator")),
    KindRow("reaction/<id>", "dsmt.reaction", "fact", _OPERATOR, ttl_ms=DAY_MS),
    KindRow("verdict/<id>", "dsmt.verdict", "fact", _OPERATOR, ttl_ms=DAY_MS),
    KindRow("user/<name/>", "dsmt.user", None, _OPERATOR, budget="signal"),
)
"""A row that takes what is left of another's topics stands behind it."""
