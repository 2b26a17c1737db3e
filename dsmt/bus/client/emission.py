"""Emissions: what a caller holds of an event that is on its way to a broker."""

from __future__ import annotations

import asyncio

from dsmt.bus.rules.emitting import Underway
from dsmt.bus.rules.signer import PendingEvent
from dsmt.errors import DsmtError
from dsmt.ports.bus import Ack


class ClientEmission(Underway):
    """An event on its way; fulfils `ports.bus.Emission`."""

    __slots__ = ("_done",)

    def __init__(self, pending: PendingEvent) -> None:
        super().__init__(pending)
        self._done: asyncio.Event | None = None

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """The broker has answered."""
        super().settle(ack, error)
        if self._done is not None:
            self._done.set()

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError`, `FailedError` (see the port)."""
        if not self.answered:
            self._done = self._done or asyncio.Event()
            await self._done.wait()
        return self.answer()
