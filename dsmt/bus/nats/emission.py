"""What a source has said on NATS, for who said it: its acknowledgement, or why there is none."""

from __future__ import annotations

import asyncio

from dsmt.bus.rules.emitting import Underway
from dsmt.bus.rules.signer import PendingEvent
from dsmt.errors import DsmtError
from dsmt.ports.bus import Ack


class NatsEmission(Underway):
    """An event on its way; fulfils `ports.bus.Emission`."""

    __slots__ = ("_done",)

    def __init__(self, pending: PendingEvent) -> None:
        super().__init__(pending)
        self._done = asyncio.Event()

    def settle(self, ack: Ack | None, error: DsmtError | None) -> None:
        """It was answered."""
        super().settle(ack, error)
        self._done.set()

    async def acknowledged(self) -> Ack:
        """Wait for the acknowledgement. Raises `RefusedError`, `FailedError` (see the port)."""
        await self._done.wait()
        return self.answer()
