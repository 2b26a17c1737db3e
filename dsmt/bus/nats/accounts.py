"""The accounts of a gate: who has cost the servers more than a party may, and is sent away (`rules.nats_quota`, rule D2).

Rule 1: a server says how much it was sent in all. Where that is more than one party may send it is asked of each connection;
    of one that has ended it tells by itself.
Rule 2: when a tenth more or less is retained, all of that is looked at: under whose name it stands, and how large it is.
    What stands under the names of who has too much is read. What nobody can believe is removed, whoever it is of; of the
    rest its own facts count, and the certificates that an ancestor has given.
Rule 3: of its own server a gate counts work, of what is retained all; and it sends away and keeps out who comes to its own.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Never

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import Stored, head
from dsmt.bus.rules.nats_config import ACCOUNT, LISTED
from dsmt.bus.rules.nats_quota import RATE, UNIT_BYTES, Counted, Work, over_held, paid_by, summed, suspected
from dsmt.bus.rules.nats_sessions import Connection, NatsSession
from dsmt.bus.rules.quota import LEAST_LIVE_BYTES, Live, charged
from dsmt.bus.wire.subjects import SPOKEN, Subjects
from dsmt.errors import RefusedError, TransportError, UnusableEventError
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore

LOOK_S: Final = 1.0
CHANGED: Final = 10
"""One part in so many."""
LEAST_FACTS: Final = 64
MAY_COUNT_YET: Final = frozenset({"trust.revoked", "trust.expired", "clock_ahead"})
"""Why what is not believed is kept: it was believed, or will be."""

Sessions = Mapping[Connection, NatsSession]


class NatsAccounts:
    """Those that one gate keeps. `expel` sends away who is over."""

    def __init__(self, bus: NatsBus, trust: TrustStore, clock: Clock) -> None:
        self._bus, self._trust, self._clock = bus, trust, clock
        self._subjects, self._log = Subjects(trust.realm.name), Logger(gate=bus.source)
        self._opener = NatsOpener(trust, self._subjects, clock.boottime)
        self._work, self._sent = Work(), -math.inf
        self._held: dict[str, Live] = {}
        """What was said by those who have too much, or have had it said in their names."""
        self._looked = (0, 0)
        """How many facts were retained at the last look, and their bytes."""

    def over(self, key_id: bytes, name: str) -> str:
        """Why the holder of a key is kept out; empty when it is not."""
        chain = self._trust.chain(key_id, name)
        payer = charged(chain)
        if payer is None or payer.role == "broker":
            return ""
        waits_s = self._work.waits_s(payer.subject, self._clock.boottime())
        if waits_s:
            return f"{payer.subject} has said far more than {RATE:g} messages or KiB a second: {waits_s:.0f} s are left"
        return self._over_held(chain[0].certificate) or self._over_held(payer)

    def _over_held(self, holder: Certificate) -> str:
        return over_held(holder.subject, holder.quota, self._held.get(holder.subject, Live(0, 0)))

    def ended(self, session: NatsSession, sent: Mapping[str, int]) -> None:
        """A connection has ended, over which so much was sent (rule 1)."""
        self._work.ended(session.at, _counted(session, sent["msgs"], sent["bytes"]), self._clock.boottime())

    async def run(self, link: NatsLink, sessions: Sessions, expel: Callable[[], Awaitable[None]]) -> Never:
        """Count, and have those sent away who are over, until cancelled."""

        async def each(count: Callable[[], Awaitable[bool]]) -> Never:
            while True:
                with suppress(TransportError, RefusedError):  # it is looked again
                    if await count():
                        await expel()
                await asyncio.sleep(LOOK_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(each(lambda: self._count_work(link, sessions)))
            group.create_task(each(self._count_held))
        raise AssertionError

    async def _count_work(self, link: NatsLink, sessions: Sessions) -> bool:
        received = (await self._asked(link, "STATSZ"))["statsz"]["received"]
        sent: float = received["msgs"] + received["bytes"] / UNIT_BYTES
        busy = sent - self._sent >= RATE * LOOK_S
        if busy:
            told = (await self._asked(link, "CONNZ", {"acc": ACCOUNT, "limit": LISTED}))["data"]
            listed = ((Connection(link.server_id, one["cid"]), one) for one in told["connections"])
            found = {at: _counted(sessions.get(at), one["in_msgs"], one["in_bytes"]) for at, one in listed}
            self._work.counted(found, self._clock.boottime())
        self._sent = sent
        return busy

    @staticmethod
    async def _asked(link: NatsLink, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a gate's own server says of itself. Raises `TransportError`."""
        asked = Publication(f"$SYS.REQ.SERVER.{link.server_id}.{what}", json.dumps(body or {}).encode(), {})
        told: dict[str, Any] = json.loads((await link.request(asked)).data)
        return told

    async def _count_held(self) -> bool:
        link = await self._bus.held()
        at = await head(link, self._subjects.facts)
        facts, size = self._looked
        more, larger = abs(at.messages - facts), abs(at.size - size)
        if more < max(LEAST_FACTS, facts // CHANGED) and larger < max(LEAST_LIVE_BYTES, size // CHANGED):
            return False
        speaker, every = self._subjects.speaker, self._subjects.retained(SPOKEN)
        held = [(speaker(one.subject), one.size) async for one in all_of(link, self._subjects.facts, every, sizes=True)]
        suspects = suspected(summed(held))
        names = sorted({name for name, _ in held if not suspects.isdisjoint((name, paid_by(name)))})
        self._held = summed([one for name in names for one in await self._said_by(link, name)])
        self._looked = (at.messages, at.size)
        return bool(suspects)

    async def _said_by(self, link: NatsLink, name: str) -> list[tuple[str, int]]:
        """What counts of what stands under a name, with who has it; what nobody can believe is removed (rule 2)."""
        found, removed, below = list[tuple[str, int]](), 0, self._subjects.said_by(name)
        async for stored in all_of(link, self._subjects.facts, below):
            said = self._opener.said(stored)
            try:
                if said.kind == "c":
                    self._opener.check_certificates(stored)
                else:
                    await self._opener.open(link, stored)
            except UnusableEventError as error:
                if error.code not in MAY_COUNT_YET:
                    await self._remove(link, stored)
                    removed += 1
                continue
            if said.kind == "f":
                found.append((name, len(stored.raw)))
            elif said.kind == "c" and paid_by(said.author) == paid_by(name):
                found.append((paid_by(name), len(stored.raw)))
        if removed:
            self._log.warning("what nobody can believe was removed", name=name, messages=removed)
        return found

    async def _remove(self, link: NatsLink, stored: Stored) -> None:
        with suppress(ApiError):  # it is no more the last on its subject, and gone
            await link.api(f"STREAM.MSG.DELETE.{self._subjects.facts}", {"seq": stored.sequence, "no_erase": True})


def _counted(session: NatsSession | None, messages: int, size: int) -> Counted:
    """What a session has sent; the bytes of an operator's may be those of a blob, and are no work."""
    payer = "" if session is None else session.payer or paid_by(session.name)
    return Counted(payer, messages, 0 if payer.startswith("operator/") else size)
