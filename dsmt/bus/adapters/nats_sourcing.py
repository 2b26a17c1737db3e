"""Sourcing: stream F goes on taking over what is retained in stream H, whoever leads them.

Rule 1: nats-server (2.15.1) begins that when a leader of F is elected. Where H has no leader then, it tries again only after
    10 s and more, and until then nobody can read what is retained. So a leader that hears nothing of H, though that has
    one, is asked to step down: the next one begins at once.
Rule 2: it is asked over a connection of its own: who attaches reads what is retained, and so does the bus of a gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Never

from dsmt.bus.adapters.nats_bus import NatsBus
from dsmt.bus.adapters.nats_link import ApiError, NatsLink
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError
from dsmt.logs import Logger

LOOK_S: Final = 1.0
LOOKS: Final = 2
"""So often nothing is heard before somebody else is to lead."""
SILENT_NS: Final = 3_000_000_000
"""A source says each second that it is there."""


async def keep_sourced(bus: NatsBus, subjects: Subjects, server: str, log: Logger) -> Never:
    """Look, and have another leader elected where it is this server that leads (rules 1, 2)."""
    while True:
        with suppress(DsmtError):
            link = await bus.connect()
            try:
                await _look(link, subjects, server, log)
            finally:
                await link.close()
        await asyncio.sleep(LOOK_S)


async def _look(link: NatsLink, subjects: Subjects, server: str, log: Logger) -> Never:
    """Look until the servers do not answer: then with `TransportError`."""
    silent = 0
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            silent = silent + 1 if await _is_silent(link, subjects, server) else 0
            if silent >= LOOKS:
                silent = 0
                log.warning("stream F hears nothing of stream H: somebody else is to lead it")
                await link.api(f"STREAM.LEADER.STEPDOWN.{subjects.facts}")
        except ApiError:
            silent = 0  # there is no leader to ask


async def _is_silent(link: NatsLink, subjects: Subjects, server: str) -> bool:
    facts = await link.api(f"STREAM.INFO.{subjects.facts}")
    hears = all(0 <= source["active"] <= SILENT_NS for source in facts.get("sources", ()))  # -1: it never did
    if hears or _leader(facts) != server:
        return False
    return _leader(await link.api(f"STREAM.INFO.{subjects.history}")) != ""


def _leader(told: Mapping[str, Any]) -> str:
    return str(told.get("cluster", {}).get("leader", ""))
