"""Who is attached to a NATS server, told as a broker tells it: from what the server says of its connections.

Rule 1: the server tells of each connection that is made or ends; what did not come is made up for, each `LOOK_S` it is asked
    for all that it has. Who is quiet is asked (`rules.nats_sessions`).
Rule 2: nothing is told before what was said in an earlier life was read.
Rule 3: a connection of a key that was revoked is ended by the server, at once when the revocation comes, or when the gate
    comes back.
Rule 4: so is one of who costs too much (`accounts`), and one of two of one name (A11).
Rule 5: a gate ends with its own server. That no majority can be asked at the moment ends nothing.
Rule 6: where realm time has stepped ahead, for the servers' clock was put ahead, who is attached is said anew (J4).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Never

import msgspec
from nats.aio.msg import Msg

from dsmt.bus.nats.accounts import NatsAccounts
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.hearing import Hearing
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.rules.nats_config import ACCOUNT, LISTED, broker_of
from dsmt.bus.rules.nats_sessions import NatsSession, NatsSessions, ServerConnection
from dsmt.bus.rules.presence import two_of_one_name
from dsmt.bus.rules.quota import charged
from dsmt.bus.rules.session_words import HEARTBEAT_S, SessionWords
from dsmt.bus.wire.nats_tokens import read_connection_name
from dsmt.bus.wire.nkeys import public_of
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.records import to_data
from dsmt.event.registry import is_fact
from dsmt.ports.bus import Arrived, Complete, Draft, Interest
from dsmt.ports.clock import Clock
from dsmt.ports.store import Row
from dsmt.trust.certificate import Certificate
from dsmt.trust.keys import key_id_of
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore

TICK_S: Final = 0.25
LOOK_S: Final = 30.0
_ADVISORY: Final = f"$SYS.ACCOUNT.{ACCOUNT}"


class BusWords:
    """What a gate says, on its bus; of what is said of a subject on a topic in one turn the newest: `session_words.Says`."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._unsaid: dict[tuple[str, str], Draft] = {}

    def say(
        self,
        topic: str,
        record: msgspec.Struct,
        *,
        subject: str = "",
        ttl_ms: int | None = None,
        payer: str = "",
        to: tuple[str, ...] = (),
    ) -> None:
        """Say something of the gate's own; nobody pays for it."""
        del payer
        if not self._unsaid:
            asyncio.get_running_loop().call_soon(self._say)
        self._unsaid[topic, subject] = Draft(topic, to_data(record), subject=subject, ttl_ms=ttl_ms, to=to)

    def _say(self) -> None:
        unsaid, self._unsaid = self._unsaid, {}
        for draft in unsaid.values():
            self._bus.emit(draft)


class NatsPresence:
    """That of the server at which a gate listens. `ready` is set when the past was read, and who attaches is heard.

    `ended` is told how many revocations are known, whenever there may be more.
    """

    def __init__(
        self,
        bus: NatsBus,
        trust: TrustStore,
        clock: Clock,
        *,
        accounts: NatsAccounts,
        ended: Callable[[int], object],
    ) -> None:
        self._bus, self._trust, self._clock = bus, trust, clock
        self._tell_ended = ended
        self._accounts = accounts
        self._subjects = Subjects(trust.realm.name)
        self._says = BusWords(bus)
        self._words = SessionWords(bus.source, self._says, clock.boottime())
        self._sessions = NatsSessions(bus.source, self._words)
        self._opener = NatsOpener(trust, self._subjects, clock.boottime)
        self._told: asyncio.Queue[Msg] = asyncio.Queue()
        self._inbox = ""
        self._missed: set[ServerConnection] = set()
        """Those that the last listing of their server did not have."""
        self._restored = asyncio.Event()
        self._hearing = Hearing(bus, dict.fromkeys((self._subjects.signals, self._subjects.answers), self._heard))
        self.ready = self._hearing.begun

    @property
    def count(self) -> int:
        """How many are attached."""
        return len(self._sessions.at)

    async def listen(self, link: NatsLink) -> None:
        """Begin to hear what the servers tell. Raises `TransportError`."""
        for what in ("CONNECT", "DISCONNECT"):
            await link.hear(f"{_ADVISORY}.{what}", self._told.put)
        self._inbox = link.inbox("listed")
        await link.hear(self._inbox, self._told.put)

    async def run(self, link: NatsLink) -> Never:
        """Tell who comes and goes. Raises `TransportError` when the link is lost."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(link))
            await self._restored.wait()
            group.create_task(self._follow(link))
            group.create_task(self._look(link))
            group.create_task(self._hearing.run())
            group.create_task(self._tick(link))
            group.create_task(self._accounts.run(link, self._sessions.at, lambda: self._expel(link, self._accounts.over)))
        raise AssertionError

    # --- what others say -----------------------------------------------------------------------------------------

    async def _read(self, link: NatsLink) -> None:
        patterns = ("broker/+/session/", REVOKED)
        async with self._bus.subscribe(Interest(patterns, conflate=True)) as subscription:
            async for batch in subscription:
                said = [one.signed for one in batch if isinstance(one, Arrived)]
                self._tell_ended(self._trust.revocations)
                if self._restored.is_set():
                    self._words.stored(_row(one) for one in said if one.event.source != self._bus.source)
                    await self._expel(link, self._trust.is_revoked)
                    self._words.settle(self._trust.is_revoked)
                    continue
                for one in said:
                    self._words.restore(_row(one), self._clock.boottime(), self._bus.now_ms())
                if any(isinstance(one, Complete) for one in batch):
                    self._words.started()
                    self._restored.set()

    async def _expel(self, link: NatsLink, *wrong: Callable[[bytes, str], object]) -> None:
        """End the connections of whoever is `wrong`, by key and name: revoked, or costs too much (rules 3 and 4)."""
        for session in list(self._sessions.at.values()):
            signer = key_id_of(session.public), session.name
            if any(is_wrong(*signer) for is_wrong in wrong):
                await self._kick(link, session.at)

    @staticmethod
    async def _kick(link: NatsLink, at: ServerConnection) -> None:
        body = json.dumps({"cid": at.number}).encode()
        await link.send(Publication(f"$SYS.REQ.SERVER.{at.server}.KICK", body, {}), link.inbox("kicked"))

    def check(self, own: Certificate) -> None:
        """Raise `RefusedError` for one of two processes of a name that took turns (A11)."""
        if self._words.presence.contested(own.subject, own.issued):
            self._words.presence.refused(own.subject, self._clock.boottime())
            raise two_of_one_name(own)

    # --- what the servers tell -----------------------------------------------------------------------------------

    async def _follow(self, link: NatsLink) -> Never:
        while True:
            message = await self._told.get()
            told = json.loads(message.data)
            server, own = told["server"]["id"], broker_of(told["server"]["name"]) == self._name
            if message.subject != self._inbox:
                client = told["client"]
                if message.subject.endswith(".DISCONNECT"):
                    self._ended(ServerConnection(server, client["id"]), told["reason"], told["sent"])
                else:
                    await self._opened(server, own, client["id"], client.get("user", ""), client.get("name", ""))
            elif "data" in told:  # else it says why it cannot tell
                listed = told["data"]["connections"]
                for one in listed:
                    await self._opened(server, own, one["cid"], one.get("authorized_user", ""), one.get("name", ""))
                self._missing(server, {one["cid"] for one in listed})
                for session in list(self._sessions.at.values()):
                    if session.certificate is None:
                        session.certificate, session.payer = await self._certified(session.name, session.public)
                await self._expel(link, self._trust.is_revoked, self._accounts.over)

    @property
    def _name(self) -> str:
        return self._bus.source.partition("/")[2]

    async def _opened(self, server: str, own: bool, number: int, user: str, name: str) -> None:
        at = ServerConnection(server, number)
        if at in self._sessions.at:
            return
        try:
            hello, public = read_connection_name(name, self._trust.realm.name), public_of(user)
        except UnusableEventError:
            return  # no source of dsmt: who has administered the server by hand
        if not own and not hello.name.startswith("broker/"):
            return
        certificate, payer = await self._certified(hello.name, public)
        session = NatsSession(
            at=at,
            name=hello.name,
            public=public,
            certificate=certificate,
            incarnation=hello.incarnation,
            attachment=hello.attachment,
            pid=hello.pid,
            version=hello.version,
            address=hello.address,
            payer=payer,
            reads=hello.reads,
            heard=self._clock.boottime(),
            claimed=hello.incarnation,
        )
        self._sessions.opened(session, self._clock.boottime(), self._bus.now_ms())

    async def _certified(self, name: str, public: bytes) -> tuple[Certificate | None, str]:
        """The certificate of who was let in by another gate, or before this one came; and who pays for it."""
        key_id = key_id_of(public)
        if self._trust.certificate(key_id, name) is None:
            with suppress(TransportError):  # it is asked for again with the next list
                await self._opener.learn(await self._bus.held(), name, key_id)
        signed, payer = self._trust.certificate(key_id, name), charged(self._trust.chain(key_id, name))
        return None if signed is None else signed.certificate, "" if payer is None else payer.subject

    def _ended(self, at: ServerConnection, reason: str, sent: Mapping[str, int] | None = None) -> None:
        session = self._sessions.ended(at, reason, self._clock.boottime(), self._bus.now_ms())
        if session is not None and sent is not None:
            self._accounts.ended(session, sent)
        delegate = session is not None and session.name.startswith("operator/") and session.payer not in ("", session.name)
        if session is not None and delegate:  # one for each command: they would add up
            self._trust.forget(key_id_of(session.public), session.name)

    def _missing(self, server: str, numbers: set[int]) -> None:
        """End those of a server that it has no more, though it has not told so.

        One that came while it counted is missing once: so twice it must be.
        """
        missing = {at for at in self._sessions.at if at.server == server and at.number not in numbers}
        for at in missing & self._missed:
            self._ended(at, "")
        self._missed = {at for at in self._missed if at.server != server} | missing

    async def _look(self, link: NatsLink) -> Never:
        asked = json.dumps({"auth": True, "acc": ACCOUNT, "limit": LISTED}).encode()
        while True:
            await link.send(Publication("$SYS.REQ.SERVER.PING.CONNZ", asked, {}), self._inbox)
            await asyncio.sleep(LOOK_S)

    # --- who is heard --------------------------------------------------------------------------------------------

    async def _heard(self, message: Msg) -> None:
        name = self._subjects.publisher(message.subject)
        own = self._sessions.heard(name, self._clock.boottime(), self._bus.now_ms())
        if own is not None:
            said = BrokerNotice(kind="clone", source=name, topic=None, first=0, last=0, message=two_of_one_name(own).message)
            self._says.say(f"{self._bus.source}/notice", said, subject=name)

    @property
    def _offset_ms(self) -> float:
        """How far realm time is from the boot-time clock."""
        return self._bus.now_ms() - self._clock.boottime() * 1000

    async def _tick(self, link: NatsLink) -> Never:
        beat, offset_ms = 0.0, self._offset_ms
        while True:
            await asyncio.sleep(TICK_S)
            for at in list(self._sessions.to_end):
                await self._kick(link, at)
            before, offset_ms = offset_ms, self._offset_ms
            if offset_ms - before > BOUND_MS / 2:  # it never steps by less than the bound
                self._words.presence.renew()
            now = self._clock.boottime()
            self._words.tick(now, self._bus.now_ms(), TICK_S)
            with suppress(TransportError):
                for name in self._sessions.ask(now):
                    await (await self._bus.held()).send(Publication(self._subjects.asked(name), b"", {}))
            if now >= beat:
                beat = now + HEARTBEAT_S
                self._bus.heartbeat(f"{self._bus.source}/heartbeat", HEARTBEAT_S)


def _row(signed: SignedEvent) -> Row:
    """An event as a broker's store would hold it, brought by who has said it."""
    event = signed.event
    return Row(0, 0, event.topic, event.to, is_fact(event), signed.key_id, signed.sealed, brought=event.source)
