"""The members of a cluster of NATS servers: whom an operator has removed, others take the place of.

Rule 1: the gate does it whose own server leads the cluster, for one after the other, and never where fewer than three would
    be left. It looks again and again: one that was away when it was removed may come back.
Rule 2: a server that leads and is to go lets another one lead first.
Rule 3: the gate of one that is to go has it ended, when all that it held is with others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Never

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import NOT_NOW, NatsLink, Publication
from dsmt.bus.nats.streams import kept_by
from dsmt.bus.rules.nats_config import broker_of, peer_of, server_name
from dsmt.logs import Logger

LEAST: Final = 3
LOOK_S: Final = 2.0


class NatsMembers:
    """Those of the cluster, as a gate sees to them. `dismissed` is called when its own server is no member any more."""

    def __init__(self, bus: NatsBus, dismissed: Callable[[], object]) -> None:
        self._bus, self._subjects, self._known, self._dismissed = bus, bus.subjects, bus.known, dismissed
        self._log = Logger(gate=bus.source)

    async def run(self, link: NatsLink) -> Never:
        """See to them; `link` is one of the system account."""
        while True:
            removed = self._known.words.removed
            if removed:
                with suppress(*NOT_NOW):
                    names = {one for name, at in removed.items() for one in (name, server_name(name, at.public))}
                    await self._dismiss(link, names)
                    if link.server in names:
                        await self._leave(link)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._known.news()

    async def _dismiss(self, link: NatsLink, names: set[str]) -> None:
        """Have the cluster be one without these (rule 1)."""
        peers = {peer_of(name): name for name in names}
        while True:
            asked = Publication(f"$SYS.REQ.SERVER.{link.server_id}.JSZ", b"{}", {})
            told: Mapping[str, Any] = json.loads((await link.request(asked)).data)
            cluster = told.get("data", {}).get("meta_cluster", {})
            if cluster.get("leader") != link.server:
                return
            if link.server in names:
                await link.api("META.LEADER.STEPDOWN", {})
                return
            others = [one["peer"] for one in cluster.get("replicas", [])]
            found = [one for one in others if one in peers]
            if not found or len(others) + 1 <= LEAST:
                return
            await link.api("SERVER.REMOVE", {"peer": peers[found[0]], "peer_id": found[0]})
            self._log.info("a server was removed from the cluster", server=peers[found[0]])
            await asyncio.sleep(1)

    async def _leave(self, link: NatsLink) -> None:
        """End this gate's own server, when it is not needed (rule 3)."""
        if await kept_by(await self._bus.held(), self._subjects, broker_of(link.server)) is None:
            self._log.info("this server was removed", server=link.server)
            self._dismissed()
