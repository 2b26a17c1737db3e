"""A broker or a controller on a host that is a node: it asks, over the connection, and the root key here certifies its keys.

Rule 1: the root key stays here, and the keys stay there (`dsmt.operations.local.members.roles`).
Rule 2: no name is given twice: a broker or a controller of another machine keeps its own.
Rule 3: it may be repeated: what is certified there is only announced, where that was not done. A controller whose key was
    revoked, as of one that was removed, comes back with another key. A broker does not: what it stores ends with its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.operations.connection import Connection
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import reach_also
from dsmt.operations.local.members import servers
from dsmt.operations.local.members.brokers import check_number, check_still, made_ms, note_announced, of_home
from dsmt.operations.local.members.roles import Answer, Role, RoleOrder
from dsmt.operations.local.members.servers import Brought, ServerOrder
from dsmt.operations.remote.hosts import HostAddress, ReachedHost
from dsmt.operations.remote.places import NodePlace, keep_place, taken
from dsmt.operations.words.telling import silent
from dsmt.operations.write import brokers
from dsmt.operations.write.tokens import is_loopback
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import ServersKey
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.certificate import SignedCertificate
from dsmt.trust.identity import YEAR_S, certify
from dsmt.trust.keys import SecretKey, key_id_of


class Given(NamedTuple):
    """What a host was given: the address of its broker, if it has one, and whether any certificate was."""

    broker: str | None
    certified: bool


class Roles:
    """What hosts are to run besides a node; the root key that this takes is read before any host is reached."""

    def __init__(
        self, connection: Connection, home: Home, roles: Sequence[Role], *, listen: str | None = None, leaf: bool = False
    ) -> None:
        self.all, self._leaf = tuple(roles), leaf
        self._connection, self._home, self._listen = connection, home, listen
        self._adding: set[str] = set()
        """Whose brokers are being added side by side: none of them may be announced yet."""
        self._servers: ServersKey | None = None
        if "broker" in roles and connection.realm.nats is not None:
            servers.check_grows(connection.realm)
            servers.check_mesh(leaf=leaf)
            self._servers = servers.key_of(home)
        self._root = home.root_key() if roles else None

    async def give(self, host: ReachedHost, told: Mapping[str, Any], name: str, place: NodePlace) -> Given:
        """Have a host hold what it is to run, by its node's name; that `place` has it is kept once the name is free.

        Raises `RefusedError` for a name that another one has, and for a broker while the realm is moved, `InputError`, and
        what the host says.
        """
        root, now_s = self._root, self._connection.bus.now_ms() // 1000
        if root is None:
            return Given(None, certified=False)
        if "broker" in self.all:
            check_still(self._home)
        announced = await brokers.announced(self._connection.bus)
        if "broker" in self.all and not self._leaf:
            check_number(self._adding | {name}, {**of_home(self._home), **announced})
            self._adding.add(name)
        known = {*self._home.realm().brokers, *((one.address, one.public) for one in announced.values() if not one.leaf)}
        asks = RoleOrder(
            name=name,
            roles=self.all,
            reached=host.reached_at,
            now_s=now_s,
            listen=self._listen,
            brokers=tuple((address, public.hex()) for address, public in sorted(known)),
            removed="broker" in self.all and name not in {**announced, **of_home(self._home)},
            server=self._order(announced),
        )
        asked = await self._asked(host, told, asks)
        self._check(host, name, asked, announced)
        await keep_place(self._home, name, place)
        given = {source: _certificate(root, source, public, now_s) for source, public in asked.asked.items()}
        if f"issuer/{name}" in given:
            notes.note(self._home.issuers, given[f"issuer/{name}"])
        certificates = {source: one.raw.hex() for source, one in given.items()}
        asks, brought = self._signed(host, msgspec.structs.replace(asks, certificates=certificates), asked)
        done = await self._said(host, "accept", told, asks, brought)
        if done.address is None or done.public is None:
            return Given(None, certified=bool(asked.asked))
        at = BrokerAddress(done.address, bytes.fromhex(done.public), leaf=self._leaf, route=done.route)
        known_here, why = {**of_home(self._home), name: at}, f"node add {host.address}"
        gone = await brokers.announce(
            self._connection.bus, known_here, by=self._connection.by, reason=why, again=name, made_ms=made_ms(self._home)
        )
        note_announced(self._home, known_here.keys() - gone)
        if not self._leaf:  # that one is for those of its site (E5)
            async with alone(self._home, silent):
                reach_also(self._home, at)
        return Given(at.address, certified=bool(asked.asked))

    async def _asked(self, host: ReachedHost, told: Mapping[str, Any], asks: RoleOrder) -> Answer:
        """What a host asks for; once more, with other keys, where some that it has were revoked. Raises `RefusedError`."""
        asked = await self._said(host, "request", told, asks)
        revoked = self._revoked(asked)
        if f"broker/{asks.name}" in revoked:
            said = f"{host.address}: the key of broker {asks.name}, which it has, was revoked: nobody reads that broker"
            advice = f"dsmt node remove {asks.name}, then dsmt node add {host.address} again"
            raise RefusedError("trust.revoked", said, next=advice)
        return await self._said(host, "request", told, msgspec.structs.replace(asks, anew=revoked)) if revoked else asked

    def _revoked(self, told: Answer) -> tuple[str, ...]:
        """The sources of a host whose keys were revoked: who asks for their role wants them back, with others (J3)."""
        trust = self._connection.trust
        held = ((source, key_id_of(bytes.fromhex(public))) for source, public in told.held.items())
        return tuple(source for source, key in held if trust.is_revoked(key, source))

    def _order(self, announced: Mapping[str, BrokerAddress]) -> ServerOrder | None:
        """Of a realm on NATS: where a further server finds the others."""
        if self._servers is None:
            return None
        return ServerOrder(routes=servers.routes_of(of_home(self._home), announced))

    def _signed(self, host: ReachedHost, asks: RoleOrder, asked: Answer) -> tuple[RoleOrder, str]:
        """The order with the certificate of a NATS server that asks for one; and what is brought to it."""
        if self._servers is None or asks.server is None or asked.tls is None:
            return asks, ""
        at = self._listen or f"{host.reached_at}:0"
        certificate = servers.signed(self._connection.realm, self._servers, at, asked.tls)
        brought = Brought(system=self._servers.system.hex(), issuer=self._servers.issuer.hex())
        order = msgspec.structs.replace(asks.server, certificate=certificate)
        return msgspec.structs.replace(asks, server=order), f"{msgspec.json.encode(brought).decode()}\n"

    @staticmethod
    async def _said(host: ReachedHost, verb: str, told: Mapping[str, Any], asks: RoleOrder, given: str = "") -> Answer:
        return msgspec.convert(
            await host.do(verb, {**told, "asks": msgspec.to_builtins(asks), "brings": bool(given)}, given=given), Answer
        )

    async def check_free(self, address: HostAddress, name: str) -> None:
        """Of a host on which there is nothing yet, raise `RefusedError` for a name that another machine has."""
        if self.all:
            self._check_name(address, name, None, await brokers.announced(self._connection.bus))

    def _check_name(
        self, address: HostAddress, name: str, public: str | None, announced: Mapping[str, BrokerAddress]
    ) -> None:
        here = of_home(self._home)
        held = {**announced, **here}.get(name)
        if "broker" in self.all and held is not None and held.public.hex() != public:
            gone = "" if name in here else f"; if {name} is gone for good: dsmt node remove {name} --forget"
            raise taken(address, "broker", name, gone=gone)
        if "controller" in self.all and name in self._home.names("controllers"):
            raise taken(address, "controller", name)

    def _check(self, host: ReachedHost, name: str, asked: Answer, announced: Mapping[str, BrokerAddress]) -> None:
        """Check what a host is to be, and what it asks for.

        Raises `RefusedError` for a name that is another's, `FailedError` where it asks for more, `InputError` for an address
        on the host alone.
        """
        self._check_name(host.address, name, asked.public, announced)
        names = {f"{role}/{name}" for role in (*self.all, *(("issuer",) if "controller" in self.all else ()))}
        if strange := sorted(asked.asked.keys() - names):
            said = f"{host.address} asks for a certificate of {strange[0]}, which it is not to be"
            raise FailedError("host.asked", said, next="see what runs there: nothing was certified")
        listen = self._listen or f"{host.reached_at}:0"
        if "broker" in self.all and is_loopback(listen):
            said = f"{host.address}: no other machine reaches a broker at {listen.rpartition(':')[0]}"
            raise InputError("host.listen", said, next="say where it is to listen: --listen HOST:PORT")


def _certificate(root: SecretKey, source: str, public: str, now_s: int) -> SignedCertificate:
    """A certificate of a key that a host has made."""
    serial, key = SystemEntropy().bytes(16), bytes.fromhex(public)
    return certify(source, key, issuer="root", signer=root, now_s=now_s, lifetime_s=YEAR_S, serial=serial)
