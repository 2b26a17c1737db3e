"""Joining: tokens, what their holders ask for, and what issuers answer; and how a node's certificate is renewed (J1, J2)."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Ms
from dsmt.event.kinds.row import KindRow, fact, signal
from dsmt.event.phrases import whose


class TokenFact(msgspec.Struct, frozen=True, kw_only=True):
    """A token for one machine. `name` is a pattern for its name, `key` the id of the key that has used it: empty before.

    `certificate` is the answer to that use, signed by the source of the fact. `freed_ms`: when an operator removed
    the node that had the name before, 0 for none; None where an issuer of before has not said it.
    """

    role: Literal["node"]
    name: str
    labels: dict[str, str]
    expires_ms: Ms
    by: str
    reason: str = ""
    revoked: bool = False
    key: str = ""
    member: str = ""
    certificate: bytes = b""
    freed_ms: Ms | None = None


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a token asks for a certificate: for a key that it has made, under a name."""

    name: str
    public: bytes


class JoinRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Why an issuer gives no certificate for a key; its id is `key`."""

    key: str
    code: str
    message: str
    next: str = ""


class RenewalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node, of whose certificate half of the life has passed, asks for the next one, for the same key."""

    expires_ms: Ms


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """The next certificate of a node."""

    certificate: bytes


def _token(event: Event, said: TokenFact) -> str:
    if said.revoked:
        return f"is revoked by {whose(said.by, event.source, said.reason)}"
    if said.key:
        return f"is used: {said.member} joins"
    names = "any name" if said.name == "*" else f"the name {said.name}"
    return f"lets one {said.role} join with {names}, says {whose(said.by, event.source, said.reason)}"


def _request(_: Event, said: JoinRequest) -> str:
    return f"asks to join as {said.name}"


def _refused(_: Event, said: JoinRefused) -> str:
    return f"may not join: {said.message}"


def _renewal(_: Event, __: RenewalRequest) -> str:
    return "asks for the next certificate"


def _renewed(_: Event, __: Renewed) -> str:
    return "has its certificate renewed"


ROWS: Final[tuple[KindRow, ...]] = (
    fact("trust/token/<token>", "dsmt.trust.token", ("operator", "issuer"), TokenFact, _token),
    signal("joining/<token>/request", "dsmt.joining.request", "joining/<token>", JoinRequest, _request, budget="evidence"),
    signal("joining/<token>/refused", "dsmt.joining.refused", ("issuer",), JoinRefused, _refused, budget="evidence"),
    signal("node/<node>/renewal", "dsmt.node.renewal", "node/<node>", RenewalRequest, _renewal),
    signal("node/<node>/certificate", "dsmt.node.certificate", ("issuer",), Renewed, _renewed, budget="evidence"),
)
