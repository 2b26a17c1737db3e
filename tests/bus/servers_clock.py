"""The clock of NATS servers, as sources measure realm time by it."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.nats import bus as nats_bus
from dsmt.bus.nats import measuring
from dsmt.bus.nats.link import NatsLink


class ServersClock:
    """Is ahead for the source of a name, or for all; sources measure it each `measure_s` from now on."""

    def __init__(self, patch: pytest.MonkeyPatch, ahead_ms: int, name: str = "", *, measure_s: float = 0.2) -> None:
        self.ahead_ms, self._name, self._real = ahead_ms, name, measuring.head
        patch.setattr(nats_bus, "MEASURE_S", measure_s)
        patch.setattr(measuring, "head", self._head)

    async def _head(self, link: NatsLink, stream: str) -> Any:
        at = await self._real(link, stream)
        return at._replace(now_ms=at.now_ms + self.ahead_ms) if self._name in {"", link._name} else at
