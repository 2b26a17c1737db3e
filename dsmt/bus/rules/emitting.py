"""Emitting: a draft becomes a pending event, which its caller holds until it is answered.

Rule 1: a draft may name as its cause, or as what it replaces, an event that its own bus has not signed yet.
"""

from __future__ import annotations

from dsmt.bus.rules.signer import EventSigner, PendingEvent
from dsmt.errors import DsmtError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.bus import Ack, Draft


class Underway:
    """An event on its way, and its answer: the half of `ports.bus.Emission` that does not wait."""

    __slots__ = ("acked", "error", "pending")

    def __init__(self, pending: PendingEvent) -> None:
        self.pending = pending
        self.acked: Ack | None = None
        self.error: DsmtError | None = None

    @property
    def id(self) -> EventId | None:
        """Its id, once the incarnation is known."""
        return self.pending.id

    @property
    def signed(self) -> SignedEvent | None:
        """The event, once it is signed."""
        return self.pending.signed

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """It was answered."""
        self.acked, self.error = ack, error

    @property
    def answered(self) -> bool:
        """Whether it was."""
        return self.acked is not None or self.error is not None

    def answer(self) -> Ack:
        """The acknowledgement of what was answered. Raises `RefusedError`, `FailedError` (see the port)."""
        if self.error is not None:
            raise self.error
        if self.acked is None:
            raise AssertionError
        return self.acked


def pending_of(signer: EventSigner, draft: Draft) -> PendingEvent:
    """A draft as its source is to sign it. Raises `InputError` when it is not valid for its topic."""
    replaces, version, epoch = None, draft.version, draft.epoch
    if draft.replaces is not None:
        replaces, followed_epoch, followed_version = _followed(draft.replaces)
        version = version or followed_version + 1
        epoch = epoch or followed_epoch
    return signer.pending(
        draft.topic,
        dict(draft.data),
        subject=draft.subject,
        cause=tuple([one if isinstance(one, EventId) else _own(one) for one in draft.cause]),
        ttl=draft.ttl_ms,
        to=draft.to,
        epoch=epoch,
        version=version,
        replaces=replaces,
        own_times=draft.own_times,
    )


def _followed(fact: object) -> tuple[EventId | PendingEvent, int, int]:
    """The fact that another one follows: what it is called, its epoch and its version."""
    if isinstance(fact, SignedEvent):
        return fact.id, fact.event.epoch or 0, fact.event.version or 0
    pending = _own(fact)
    return pending, pending.epoch or 0, pending.version or 0


def _own(emission: object) -> PendingEvent:
    if not isinstance(emission, Underway):
        raise TypeError("only an emission of this very bus can be named by another one")
    return emission.pending
