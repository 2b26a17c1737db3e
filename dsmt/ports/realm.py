"""Where a realm is reached: what each client of the bus is configured with; and which refusals end it (`ENDED`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from dsmt.event.kinds.realm import BrokerWord


class BrokerAddress(msgspec.Struct, frozen=True):
    """A broker: `host:port` and its Ed25519 public key, 32 bytes."""

    address: str
    public: bytes
    leaf: bool = False
    """Whether an operator has said that it is the broker of a site, and read by one other at a time (E5)."""
    route: str = ""
    """Of a NATS server that has others: where it listens for them, `host:port`."""


def address_of(word: BrokerWord) -> BrokerAddress:
    """Where a broker is, by an operator's word on it."""
    return BrokerAddress(word.address, word.public, leaf=bool(word.leaf), route=word.route or "")


def standing(words: Mapping[str, BrokerWord]) -> dict[str, BrokerWord]:
    """The words on brokers, by name, as they count: where all that are no leaves were removed none was (rule R8)."""
    mesh = {name for name, word in words.items() if not word.leaf and not word.route}
    if not all(words[name].removed for name in mesh):
        return dict(words)
    return {name: replace(word, removed=False) if name in mesh else word for name, word in words.items()}


class About(msgspec.Struct, frozen=True):
    """What a session says of its process, beside its name."""

    pid: int | None
    version: str
    address: str = ""


KEY_ENDED: Final = "dsmt.notice.ended"
"""The type of a notice to who folds: what is held may be void, and is read anew (J3)."""
KEPT_OUT: Final = "trust.denied"
"""The code of an error: the gate of a NATS server does not let somebody in, and has no way to tell why."""
ENDED: Final = frozenset({"trust.revoked", "trust.expired", KEPT_OUT})
"""The codes of errors of which only an operator can change the cause (J3)."""


class NatsTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Of a realm whose brokers are NATS servers: what can be asked of no server.

    `authority` is the certificate, in PEM, by which the servers are known; `replicas` how many of them hold each stream.
    """

    authority: str
    replicas: int
