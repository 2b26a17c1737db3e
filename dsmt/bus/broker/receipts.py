"""Receipts: what a broker answers to what was published: acknowledgement records, and refusals that say why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from dsmt.bus.wire.frames import Acked, Nacked
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import EventId, EventRange
from dsmt.ports.store import Log


class Refusal(msgspec.Struct, frozen=True):
    """One event that is not stored, and why. `restart` asks the source for a new incarnation."""

    id: EventId | None
    error: UnusableEventError
    restart: bool = False


@dataclass(slots=True)
class PublishOutcome:
    """What became of what one session published."""

    accepted: list[EventRange] = field(default_factory=list)
    """What is acknowledged once it is stored."""
    brought: list[EventRange] = field(default_factory=list)
    """The same, of what another broker may have brought before: who reads both is not sent it from here."""
    refused: list[Refusal] = field(default_factory=list)
    refilled: bool = False
    """Whether a fact that was offered again is a winner that was not here."""
    early_ms: int = 0
    """The latest time of what somebody decided and was offered again, and refused because it is ahead of the clock here."""

    def accept(self, one: EventRange, *, brought: bool = False) -> None:
        """A range is accepted, behind those before."""
        accepted = self.brought if brought else self.accepted
        before = accepted[-1] if accepted else None
        if before is not None and before[:2] == one[:2] and before.last + 1 == one.first:
            accepted[-1] = one._replace(first=before.first)
        else:
            accepted.append(one)


def acked(ranges: Iterable[EventRange], log: Log, now_ms: int) -> Acked:
    """The record for events that are stored now, as ranges (D1)."""
    return Acked(
        ranges=tuple(ranges),
        level="stored",
        copies=1,
        synced=log.synced,
        store=log.identity,
        row=log.head,
        time_ms=now_ms,
    )


def nacked(session: str, refusal: Refusal, now_ms: int) -> Nacked:
    """The refusal of one event; `session` stands for the source of what cannot be read at all."""
    source, incarnation, sequence = refusal.id or (session, 0, 0)
    return Nacked(
        source=source,
        incarnation=incarnation,
        sequence=sequence,
        code=refusal.error.code,
        message=refusal.error.message[:4096],
        next=refusal.error.next[:4096],
        realm_ms=now_ms,
        restart=refusal.restart,
    )
