"""Alert: what somebody may have to act on, and what one look at a realm found, of which alerts tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import msgspec

from dsmt.event.reason import Reason
from dsmt.operations.read.rows.broker_rows import BrokerRow
from dsmt.operations.read.rows.controller_rows import Controller
from dsmt.operations.read.rows.node_rows import NodeRow
from dsmt.operations.read.rows.outside import NO_CERTIFICATES, Used
from dsmt.operations.read.rows.revisions import RefusedRevision


class OfService(Protocol):
    """What alerts need to know of a service."""

    @property
    def service(self) -> str:
        """Its name."""

    @property
    def owner(self) -> str:
        """Whom to call."""

    @property
    def refused(self) -> RefusedRevision | None:
        """The revision that was rolled back."""


class Found(NamedTuple):
    """What one look at a realm found, of which alerts tell.

    `used` are the certificates in use, by name; `revoked` the names of those whose key is revoked, `left` of who has left.
    """

    nodes: Sequence[NodeRow] = ()
    brokers: Sequence[BrokerRow] = ()
    controllers: Sequence[Controller] = ()
    services: Sequence[OfService] = ()
    used: Used = NO_CERTIFICATES
    revoked: Collection[str] = ()
    left: Collection[str] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may have to act on; `owner` is whom to call of a service, if its file says so.

    `who` acts: `you`, `dsmt`, `world` (what it waits for), or `nobody` any more: it is told for who wonders what that was.
    """

    target: str
    code: str
    message: str
    next: str
    who: str
    owner: str | None = None


def yours(target: str, code: str, message: str, next_: str) -> Alert:
    """What needs a person."""
    return Alert(target=target, code=code, message=message, next=next_, who="you")


def reasoned(target: str, why: Reason, message: str = "", *, owner: str = "") -> Alert:
    """What has a reason, told in other words than its own where there are any."""
    return Alert(
        target=target, code=why.code, message=message or why.message, next=why.next, who=why.who, owner=owner or None
    )
