"""The gate of a NATS server: it lets in who has a certificate of the realm, and sends away whom a revocation ends.

Rule 1: a server asks it of each connection (auth callout). It checks the certificates as a broker does, the signature on the
    server's nonce, and answers with what the certificate grants (`rules.nats_config`), for as long as that is valid.
Rule 2: it has a broker's certificate, and a bus of its own. Until that has read the revocations nobody is let in but
    brokers, without whom none of them could; the others wait.
Rule 3: it tells who is attached (`presence`), and ends connections whose key was revoked.
Rule 4: a gate that loses its server ends, and begins anew with what it has said before: as a broker that was restarted.
Rule 5: the gate of the broker in which the realm was born makes the streams, once. Another one makes them anew in the place
    of lost ones: that of a server that stands alone, or of one of several where an operator has said so. Gates note in
    those since when they let anybody in (`streams`).
Rule 6: it asks JetStream for those who may not read everything (`questions`); until it does nobody but brokers is let in.
Rule 7: blobs that nothing names, and history, give way before its server's disk is full (`room`, `blobs`).
Rule 8: it sees to it that what is retained is not overwritten (`guard`).
Rule 9: where there are several, it sees to it that who was removed is none of them (`members`).
Rule 10: who costs too much is sent away, and kept out until that is made up for (`accounts`); so are both of two processes
    of one name that take turns (A11).
Rule 11: before anybody is let in it looks whether the store of a server that stands alone is an older copy (`older`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Never, TypeVar

import msgspec
import nats.errors
from nats.aio.msg import Msg

from dsmt.bus.nats.accounts import NatsAccounts
from dsmt.bus.nats.blobs import NatsBlobs
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.guard import NatsGuard
from dsmt.bus.nats.link import ApiError, NatsLink
from dsmt.bus.nats.members import NatsMembers
from dsmt.bus.nats.older import NatsEnd
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.presence import NatsPresence
from dsmt.bus.nats.questions import NatsQuestions
from dsmt.bus.nats.reporter import NatsReporter
from dsmt.bus.nats.room import NatsRoom
from dsmt.bus.nats.servers import KnownServers
from dsmt.bus.nats.streams import make_streams, opened
from dsmt.bus.rules.nats_config import ACCOUNT, CALLOUT_S, permissions
from dsmt.bus.wire.handshake import check_hello
from dsmt.bus.wire.nats_tokens import AuthRequest, kept_out, let_in, read_asked, read_connection_name
from dsmt.bus.wire.nkeys import public_of
from dsmt.errors import DsmtError, RefusedError, TransportError, UnusableEventError
from dsmt.event.codec import EDDSA
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.records import to_data
from dsmt.logs import Logger
from dsmt.ports.bus import Draft
from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.realm import About
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import Identity
from dsmt.trust.keys import Key, link_key, verify
from dsmt.trust.store import TrustStore

CALLOUT: Final = "$SYS.REQ.USER.AUTH"
Result = TypeVar("Result")
RETRY_S: Final = 0.05


class GateKeys(msgspec.Struct, frozen=True):
    """The keys of the gates of one realm: with which they connect, and with which they let in."""

    system: Key
    issuer: Key


class NatsGate:
    """The gate beside one server, `realm.own`.

    `made` is called when the streams were made; None: it makes none. `anew`: if any, then in the place of lost ones.
    `dismissed`: its server was removed, and may end.
    `ends` keeps where the store of a server that stands alone ends; None: nobody looks whether it is an older copy.
    `full` says which directory's disk is full, so that the server stores nothing; empty for none. `low`:
    little is left of it.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        trust: TrustStore,
        realm: NatsRealm,
        keys: GateKeys,
        clock: Clock,
        entropy: Entropy,
        about: About,
        made: Callable[[], object] | None,
        anew: bool,
        known: KnownServers | None,
        dismissed: Callable[[], object],
        full: Callable[[], str],
        low: Callable[[], bool],
        ends: Files | None = None,
    ) -> None:
        self._identity, self._trust, self._realm, self._keys = identity, trust, realm, keys
        self._made, self._anew = made, anew
        self.bus = NatsBus(
            identity=identity, trust=trust, realm=realm, clock=clock, entropy=entropy, about=about, known=known
        )
        self._subjects = self.bus.subjects
        self._end = None if ends is None or realm.replicas > 1 else NatsEnd(self._subjects, ends)
        self._members = NatsMembers(self.bus, dismissed)
        self._accounts = NatsAccounts(self.bus, trust, clock)
        self._questions = NatsQuestions(self.bus)
        self._blobs = NatsBlobs(self.bus)
        self._room = NatsRoom(self.bus, self._blobs, low)
        self._guard = NatsGuard(self.bus, NatsOpener(trust, self._subjects, clock.boottime))
        self._presence = NatsPresence(self.bus, trust, clock, accounts=self._accounts, ended=self._guard.ended)
        self._reporter = NatsReporter(self.bus, clock, about, sessions=lambda: self._presence.count, full=full)
        self._answering: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._log = Logger(gate=identity.name)

    async def run(self) -> Never:
        """Be the gate, until its server is lost: then with a group of `TransportError`."""
        link = await self._system()
        try:
            await link.hear(CALLOUT, self._asked, queue="gate")
            await self._presence.listen(link)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ends_with(link))
                if self._made is not None:
                    await self._make_streams(self._made)
                if self._end is not None:
                    await self._look_whether_older(self._end)
                    group.create_task(self._end.run(self.bus.held))
                group.create_task(self.bus.run())
                group.create_task(self._presence.run(link))
                group.create_task(self._reporter.run(self._presence.ready))
                group.create_task(self._questions.run())
                group.create_task(self._room.run())
                group.create_task(self._blobs.run())
                group.create_task(self._guard.run())
                group.create_task(self._let_in())
                if self._realm.replicas > 1:
                    group.create_task(self._members.run(link))
        finally:
            for task in self._answering:
                task.cancel()
            await link.close()
        raise AssertionError

    async def _system(self) -> NatsLink:
        """A connection that needs no gate, when the server is there."""
        while True:
            with suppress(TransportError):
                name = f"gate {self._identity.name}"
                return await NatsLink.connect(self._realm.own, self._realm, key=self._keys.system, name=name)
            await asyncio.sleep(RETRY_S)

    @staticmethod
    async def _ends_with(link: NatsLink) -> Never:
        await link.lost
        raise TransportError("link.lost", "the NATS server of this gate has gone", next="it begins anew with it")

    async def _make_streams(self, made: Callable[[], object]) -> None:
        replicas = self._realm.replicas
        await self._done(
            lambda link: make_streams(link, self._subjects, replicas=replicas, anew=self._anew), "no streams yet"
        )
        made()

    async def _look_whether_older(self, end: NatsEnd) -> None:
        """Whether the server has lost what it had stored (rule 11)."""
        lost = await self._done(end.look, "not looked at yet")
        if lost:
            self._log.warning("an older copy", reason=lost)
            said = BrokerNotice(kind="older", source=self._identity.name, topic=None, first=0, last=0, message=lost)
            self.bus.emit(Draft(f"{self._identity.name}/notice", to_data(said), subject=self._identity.name))

    async def _done(self, work: Callable[[NatsLink], Awaitable[Result]], not_yet: str) -> Result:
        """Do something over a link of its own, and again while that fails: the cluster has no leader yet, perhaps."""
        while True:
            try:
                link = await self.bus.connect()
                try:
                    return await work(link)
                finally:
                    await link.close()
            except (ApiError, DsmtError) as error:
                self._log.info(not_yet, reason=str(error))
                await asyncio.sleep(RETRY_S)

    # --- who comes in --------------------------------------------------------------------------------------------

    async def _let_in(self) -> None:
        """Let in others than brokers, when all that they need is there (rules 2, 5 and 6)."""
        await self._presence.ready.wait()
        await self._questions.ready.wait()
        while not self._open.is_set():
            try:
                await opened(await self.bus.held(), self._subjects)
            except (ApiError, DsmtError):  # a stream chooses its leader, perhaps
                await asyncio.sleep(RETRY_S)
            else:
                self._open.set()

    async def _asked(self, message: Msg) -> None:
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Msg) -> None:
        try:
            asked = read_asked(message.data)
        except UnusableEventError as error:
            self._log.warning("kept out", reason=error.message)
            return  # the server keeps it out by itself, in time
        if not asked.name.startswith("broker/") and not await self._is_open():
            return  # nor does it wait for an answer any more
        now_ms = self.bus.now_ms()
        try:
            certificate = self._checked(asked, now_ms)
        except (RefusedError, UnusableEventError) as error:
            self._log.warning("kept out", name=asked.name, code=error.code, reason=error.message)
            answer = kept_out(asked, self._keys.issuer, f"{error.code}: {error.message}", now_s=now_ms // 1000)
        else:
            allowed = permissions(certificate, self._subjects)
            until_s = certificate.not_after
            answer = let_in(asked, self._keys.issuer, ACCOUNT, allowed, now_s=now_ms // 1000, until_s=until_s)
        with suppress(nats.errors.Error):  # the server has gone, and who asked with it
            await message.respond(answer)

    async def _is_open(self) -> bool:
        """Wait until others than brokers are let in, as long as a server waits for an answer; whether they are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * CALLOUT_S):
                await self._open.wait()
        return self._open.is_set()

    def _checked(self, asked: AuthRequest, now_ms: int) -> Certificate:
        """The certificate of who comes (rule 1). Raises `RefusedError`, `UnusableEventError`."""
        hello = read_connection_name(asked.name, self._trust.realm.name)
        public = public_of(asked.nkey)
        if not verify(EDDSA, public, asked.nonce.encode(), asked.signature):
            raise RefusedError("trust.signature", f"{hello.name} did not sign the server's nonce")
        certificate = check_hello(self._trust, hello, asked.certificates, link_key(public), now_ms)
        over = self._accounts.over(certificate.key_id, certificate.subject)
        if over:
            raise RefusedError("quota", over)
        self._presence.check(certificate)
        return certificate
