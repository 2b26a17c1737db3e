"""The accounts of a gate: who has cost the servers more than a party may, and is sent away (`rules.nats_quota`, rule D2).

Rule 1: a server says how much it was sent in all. Where that is more than one party may send it is asked of each connection;
    of one that has ended it tells by itself.
Rule 2: when a tenth more or less is retained, all of that is looked at: under whose name it stands, and how large it is.
    What stands under the names of who has too much is read. What nobody ever could believe is removed, whoever it is of; of
    the rest its own facts count, each copy for itself, and the certificates that an ancestor has given. Its marks go, what
    it offers that stands there anyway, and what revoked keys have said beyond what they might: so it is looked when one is
    revoked, too.
Rule 3: a mark is retained for a minute or two, whatever its header says: stream H has it, for who still looks for it.
Rule 4: of its own server a gate counts work, of what is retained all; and it sends away and keeps out who comes to its own.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Never

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import all_of
from dsmt.bus.nats.link import NOT_NOW, ApiError, NatsLink, Publication
from dsmt.bus.nats.opener import ENDED, STAYS, NatsOpener
from dsmt.bus.nats.streams import MARK_S, StreamMessage, head, held_on, last_on, purge
from dsmt.bus.rules.nats_config import ACCOUNT, LISTED
from dsmt.bus.rules.nats_quota import RATE, UNIT_BYTES, Counted, Work, beyond, over_held, paid_by, summed, suspected
from dsmt.bus.rules.nats_sessions import NatsSession, ServerConnection
from dsmt.bus.rules.quota import LEAST_LIVE_BYTES, FactTotals, charged
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.order import newer
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore

LOOK_S: Final = 1.0
CHANGED: Final = 10
"""One part in so many."""
LEAST_FACTS: Final = 64
STRANGERS_MOST: Final = 1000
"""So many names that nobody has are seen to at once: who has too much is not to wait for long."""

Sessions = Mapping[ServerConnection, NatsSession]


class _Held(NamedTuple):
    """What is retained and counts: its sequence in stream F, who has it, its bytes, and whether its key was revoked."""

    sequence: int
    name: str
    size: int
    ended: bool = False


class NatsAccounts:
    """Those that one gate keeps. `expel` sends away who is over."""

    def __init__(self, bus: NatsBus, trust: TrustStore, clock: Clock) -> None:
        self._bus, self._trust, self._clock = bus, trust, clock
        self._subjects, self._log = Subjects(trust.realm.name), Logger(gate=bus.source)
        self._opener = NatsOpener(trust, self._subjects, clock.boottime)
        self._work, self._sent = Work(), -math.inf
        self._held: dict[str, FactTotals] = {}
        """What was said by those who have too much, or have had it said in their names."""
        self._somebody: set[str] = set()
        """Names of which certificates stand there."""
        self._looked = (0, 0, 0)
        """How many facts were retained at the last look, and their bytes; how many revocations were known."""
        self._before = 0
        """Where stream F ended a minute ago."""

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
        return over_held(holder.subject, holder.quota, self._held.get(holder.subject, FactTotals(0, 0)))

    def ended(self, session: NatsSession, sent: Mapping[str, int]) -> None:
        """A connection has ended, over which so much was sent (rule 1)."""
        self._work.ended(session.at, _counted(session, sent["msgs"], sent["bytes"]), self._clock.boottime())

    async def run(self, link: NatsLink, sessions: Sessions, expel: Callable[[], Awaitable[None]]) -> Never:
        """Count, and have those sent away who are over, until cancelled."""

        async def each(count: Callable[[], Awaitable[bool]], pause_s: float = LOOK_S) -> Never:
            while True:
                with suppress(*NOT_NOW):
                    if await count():
                        await expel()
                await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            group.create_task(each(lambda: self._count_work(link, sessions)))
            group.create_task(each(self._count_held))
            group.create_task(each(self._end_marks, MARK_S))
        raise AssertionError

    async def _count_work(self, link: NatsLink, sessions: Sessions) -> bool:
        received = (await self._asked(link, "STATSZ", "statsz"))["received"]
        sent: float = received["msgs"] + received["bytes"] / UNIT_BYTES
        busy = sent - self._sent >= RATE * LOOK_S
        if busy:
            told = await self._asked(link, "CONNZ", "data", {"acc": ACCOUNT, "limit": LISTED})
            listed = ((ServerConnection(link.server_id, one["cid"]), one) for one in told["connections"])
            found = {at: _counted(sessions.get(at), one["in_msgs"], one["in_bytes"]) for at, one in listed}
            self._work.counted(found, self._clock.boottime())
        self._sent = sent
        return busy

    @staticmethod
    async def _asked(link: NatsLink, what: str, part: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a gate's own server says of itself. Raises `TransportError`, also where it says why it cannot tell."""
        asked = Publication(f"$SYS.REQ.SERVER.{link.server_id}.{what}", json.dumps(body or {}).encode(), {})
        told: dict[str, dict[str, Any]] = json.loads((await link.request(asked)).data)
        if part not in told:
            raise TransportError("link.nobody", f"the NATS server does not tell {what}: {told.get('error')}")
        return told[part]

    async def _count_held(self) -> bool:
        link = await self._bus.held()
        at = await head(link, self._subjects.facts)
        facts, size, revocations = self._looked
        more, larger, known = abs(at.messages - facts), abs(at.size - size), self._trust.revocations
        few = more < max(LEAST_FACTS, facts // CHANGED) and larger < max(LEAST_LIVE_BYTES, size // CHANGED)
        if few and known == revocations:
            return False
        publisher, every = self._subjects.publisher, self._subjects.retained()
        held, marked = list[tuple[str, int]](), set[str]()
        async for one in all_of(link, self._subjects.facts, every, sizes=True):
            name = publisher(one.subject)
            held.append((name, one.size))
            if self._subjects.is_mark(one.subject):
                marked.add(name)
        suspects = suspected(summed(held))
        names = sorted({name for name, _ in held if not suspects.isdisjoint((name, paid_by(name)))})
        for name in marked.intersection(names):
            await self._purge(link, self._subjects.marks(name))
        found = [one for name in names for one in await self._said_by(link, name)]
        gone = await self._end(link, sorted(one for one in found if one.ended))
        self._held = summed((one.name, one.size) for one in found if one.sequence not in gone)
        if await self._end_strangers(link, {name for name, _ in held}):
            self._looked = at.messages, at.size, known
        return bool(suspects)

    async def _end_strangers(self, link: NatsLink, names: set[str]) -> bool:
        """Remove what stands under names of which no certificate is there (rule 2); whether all were seen to."""
        self._somebody |= {one.subject for one in self._trust.certificates()}
        unknown, strangers = sorted(names - self._somebody), 0
        for name in unknown[:STRANGERS_MOST]:
            if await self._is_somebody(link, name):
                self._somebody.add(name)
                continue
            strangers += 1
            for subject in self._subjects.said_by(name):
                await self._purge(link, subject)
        if strangers:
            self._log.warning("what stood under names that nobody has was removed", names=strangers)
        return len(unknown) <= STRANGERS_MOST

    async def _is_somebody(self, link: NatsLink, name: str) -> bool:
        for stored in await held_on(link, self._subjects.facts, [self._subjects.certificates(name)]):
            with suppress(UnusableEventError):
                self._opener.check_certificates(stored)
                return True
        return False

    async def _said_by(self, link: NatsLink, name: str) -> list[_Held]:
        """What counts of what stands under a name; what nobody could believe, or needs, is removed (rule 2)."""
        found, removed = list[_Held](), 0
        async for stored in all_of(link, self._subjects.facts, self._subjects.said_by(name)):
            try:
                found += await self._counts(link, stored)
            except UnusableEventError:
                await self._remove(link, stored.sequence)
                removed += 1
        if removed:
            self._log.warning("what nobody can believe, or needs, was removed", name=name, messages=removed)
        return found

    async def _counts(self, link: NatsLink, stored: StreamMessage) -> list[_Held]:
        """What of a message counts. Raises `UnusableEventError` for one that is to go, `TransportError`."""
        said, ended = self._opener.said(stored), False
        payer = paid_by(said.publisher)
        if said.kind == "c":
            brought = self._opener.check_certificates(stored)
            if paid_by(said.author) == payer:
                return [_Held(stored.sequence, payer, stored.size)]
            if brought <= await self._brought(link, self._subjects.brought_by(said.author, stored.subject)):
                raise UnusableEventError("stale", f"{said.author} itself has brought them")
            return []
        try:
            event = (await self._opener.open(link, stored)).event
        except UnusableEventError as error:
            if error.code not in STAYS or not self._opener.is_signed(stored):
                raise
            ended = error.code == ENDED
        else:
            if said.kind == "o" and await self._is_there(link, event):
                raise UnusableEventError("stale", f"{event.source} itself has said {event.topic}")
        return [_Held(stored.sequence, said.publisher, stored.size, ended)] if said.kind in "fn" else []

    async def _brought(self, link: NatsLink, subject: str) -> frozenset[bytes]:
        """The certificates that stand on a subject."""
        own = await last_on(link, self._subjects.facts, subject)
        with suppress(UnusableEventError):
            return frozenset() if own is None else self._opener.check_certificates(own)
        return frozenset()

    async def _is_there(self, link: NatsLink, event: Event) -> bool:
        """Whether what somebody offers stands where its own source has said it, or what that has said since."""
        own = await last_on(link, self._subjects.facts, self._subjects.event(event.source, event.topic, fact=True))
        with suppress(UnusableEventError):
            return own is not None and not newer(event, (await self._opener.open(link, own)).event)
        return False

    async def _end(self, link: NatsLink, ended: Sequence[_Held]) -> set[int]:
        """Remove what revoked keys have said beyond what they might; the sequences of that."""
        gone = {ended[place].sequence for place in beyond((one.name, one.size) for one in ended)}
        for sequence in gone:
            await self._remove(link, sequence)
        if gone:
            self._log.warning("what revoked keys had said beyond their quota was removed", messages=len(gone))
        return gone

    async def _end_marks(self) -> bool:
        """Remove the marks that stood a minute ago (rule 3); nobody is over by that."""
        link = await self._bus.held()
        if self._before:
            await self._purge(link, self._subjects.marks(), seq=self._before + 1)
        self._before = (await head(link, self._subjects.facts)).last
        return False

    async def _purge(self, link: NatsLink, subject: str, **upto: int) -> None:
        await purge(link, self._subjects.facts, {"filter": subject, **upto})

    async def _remove(self, link: NatsLink, sequence: int) -> None:
        with suppress(ApiError):  # it is no more the last on its subject, and gone
            await link.api(f"STREAM.MSG.DELETE.{self._subjects.facts}", {"seq": sequence, "no_erase": True})


def _counted(session: NatsSession | None, messages: int, size: int) -> Counted:
    """What a session has sent; the bytes of an operator's may be those of a blob, and are no work."""
    payer = "" if session is None else session.payer or paid_by(session.name)
    return Counted(payer, messages, 0 if payer.startswith("operator/") else size)
