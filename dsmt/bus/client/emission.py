"""Emissions: what a caller holds of an event that is on its way."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dsmt.bus.rules.signer import PendingEvent
from dsmt.errors import DsmtError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.bus import Ack, Emission


class ClientEmission:
    """An event on its way; fulfils `ports.bus.Emission`."""

    __slots__ = ("_done", "acked", "error", "saying")

    def __init__(self, saying: PendingEvent) -> None:
        self.saying = saying
        self._done: asyncio.Event | None = None
        self.acked: Ack | None = None
        self.error: DsmtError | None = None

    @property
    def id(self) -> EventId | None:
        """Its id, once the incarnation is known."""
        return self.saying.id

    @property
    def signed(self) -> SignedEvent | None:
        """The event, once it is signed."""
        return self.saying.signed

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """The broker has answered."""
        self.acked, self.error = ack, error
        if self._done is not None:
            self._done.set()

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError`, `FailedError` (see the port)."""
        if self.acked is None and self.error is None:
            self._done = self._done or asyncio.Event()
            await self._done.wait()
        if self.error is not None:
            raise self.error
        if self.acked is None:
            raise AssertionError
        return self.acked


class Followed(NamedTuple):
    """The fact that another one follows: what it is called, and where it stands in fact order."""

    name: EventId | PendingEvent
    epoch: int
    version: int


def followed(fact: SignedEvent | Emission) -> Followed:
    """What a draft names as the fact that it follows, as the speaker takes it."""
    if isinstance(fact, SignedEvent):
        return Followed(fact.id, fact.event.epoch or 0, fact.event.version or 0)
    saying = _own(fact).saying
    return Followed(saying, saying.epoch or 0, saying.version or 0)


def cause_of(cause: EventId | Emission) -> EventId | PendingEvent:
    """What a draft names as its cause, as the speaker takes it."""
    if isinstance(cause, EventId):
        return cause
    return _own(cause).saying


def _own(emission: Emission) -> ClientEmission:
    if not isinstance(emission, ClientEmission):
        raise TypeError("only an emission of this very bus can be named by another one")
    return emission
