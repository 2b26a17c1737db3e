"""Adding nodes, and what else hosts run, over SSH: side by side, each to its end, whatever becomes of others.

Rule 1: it may be repeated: a host that is a node of this realm already is only started, and uses no token; but where the
    key of that node was revoked it joins anew, and where its certificate has ended, with its key: what it runs goes on.
    Where it is kept out, for a copy has its key, that key is revoked first, and what it runs goes on.
Rule 2: a host is done when what it runs is alive in the realm, and not when it says so.
Rule 3: which host a node was added on is kept in the operator's home (`hosts.json`), for its removal, before anything
    is made there: what is interrupted is removed by the same name. That a broker or a controller is there, too, is kept
    once nobody else has that name: who is refused for it is removed alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from dsmt.errors import DsmtError, FailedError, InputError, RefusedError
from dsmt.event.topic import is_level, level_of
from dsmt.operations.connection import Connection
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.members.certificates import revoke
from dsmt.operations.local.members.roles import Role
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.outside import COPIED, Why, kept_out, outside
from dsmt.operations.read.waits.waiting import until
from dsmt.operations.remote.hosts import HostAddress, ReachedHost, reached
from dsmt.operations.remote.places import NodePlace, TellOfHost, check_found, keep_place, place_of, taken
from dsmt.operations.remote.roles import Roles
from dsmt.operations.remote.wheels import Platform, Wheels, collected, keep, unit_texts
from dsmt.operations.write import revoking, tokens
from dsmt.trust.identity import Identity
from dsmt.version import __version__

AT_ONCE: Final = 20
ALIVE_S: Final = 60.0
TOKEN_S: Final = 900.0
CLOSING_S: Final = 3.0
"""How long a token of a host that did not join is tried to be ended; then it ends by its time."""


class HostOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one host: its node, what else is there, how that is kept there, or why it is none."""

    host: str
    node: str | None = None
    broker: str | None = None
    """Where the broker there listens."""
    controller: bool = False
    kept: str | None = None
    already: bool = False
    brought: bool = False
    """Whether it had not the dsmt of this machine, and has it now."""
    beside: tuple[str, ...] = ()
    """Other living nodes of the realm on that machine, as one that has joined with a token."""
    took_s: float = 0.0
    error: dict[str, Any] | None = None


class Adding:
    """Adds hosts to a realm; what all of them need is made once."""

    def __init__(
        self,
        connection: Connection,
        operator: Identity,
        home: Home,
        *,
        labels: Mapping[str, str],
        roles: Roles,
        name: str | None = None,
        broker: str | None = None,
        user: bool = False,
        wheels: Path | None = None,
        tell: TellOfHost,
    ) -> None:
        self._broker = broker
        self._connection, self._operator, self._home = connection, operator, home
        self._labels, self._name, self._user, self._tell = dict(labels), name, user, tell
        self._given, self._roles = wheels, roles
        self._wheels: dict[tuple[Platform, str], asyncio.Task[Wheels]] = {}
        self._kept: set[tuple[Platform, str]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def add(self, hosts: Sequence[HostAddress], done: Callable[[HostOutcome], object]) -> list[HostOutcome]:
        """Make each host a node; `done` hears of each as it ends. What became of all, in the order that was typed.

        Raises `RefusedError` for a realm that no other machine reaches; and what is wrong with a host that is the only one.
        """
        realm = self._connection.realm
        if tokens.is_loopback(*(address for address, _ in realm.brokers)):
            said = f"the brokers of realm {realm.name} listen at {realm.brokers[0][0]}: no other machine reaches them"
            raise RefusedError("node.loopback", said, next=tokens.ANOTHER_REALM)

        ended = await asyncio.gather(*(self._tried(address, done) for address in hosts))
        if len(ended) == 1 and ended[0][1] is not None:
            raise ended[0][1]
        return [outcome for outcome, _ in ended]

    async def _tried(
        self, address: HostAddress, done: Callable[[HostOutcome], object]
    ) -> tuple[HostOutcome, DsmtError | None]:
        """What became of one host, and what was wrong with it."""
        began = time.monotonic()
        error: DsmtError | None = None
        try:
            async with self._at_once:
                outcome = await self._add(address)
        except DsmtError as failed:
            error = failed
        except OSError as failed:  # of this machine: what the other one says is put in words where it is heard
            said = f"{address}: {failed.filename or 'this machine'}: {(failed.strerror or str(failed)).lower()}"
            error = FailedError("machine.failed", said, next="see what is wrong on this machine, and try again")
        if error is not None:
            outcome = HostOutcome(host=address.typed, error=error.told())
        outcome = msgspec.structs.replace(outcome, took_s=round(time.monotonic() - began, 1))
        done(outcome)
        return outcome, error

    async def _add(self, address: HostAddress) -> HostOutcome:
        place = NodePlace(host=address.typed, user=self._user, roles=self._roles.all)
        self._tell(address.typed, "connects")
        async with reached(address, for_user=self._user) as host:
            known = place_of(self._home, address.typed)
            serves = "broker" in (*place.roles, *(known[1].roles if known is not None else ()))
            what = self._connection.realm.distribution(serves=serves)
            wheels = await self._collected(host.platform, what)
            told = self._told(place, wheels, what)
            found = await host.do("state", told)
            check_found(address, self._connection.realm.name, found)
            if serves and (known is None or "broker" not in known[1].roles):
                _check_served(address, what, found)
            is_new = not found["nodes"]
            node: str = self._name or _name_of(address, found["hostname"]) if is_new else found["nodes"][0]
            if is_new:
                await _check_free(self._connection, self._roles, address, node)
            await keep_place(self._home, node, msgspec.structs.replace(place, roles=()))
            if not found["installed"]:
                self._tell(address.typed, f"installs dsmt {__version__}, {len(wheels.files)} wheels")
                await host.bring(list(wheels.files), below="wheels")
                await host.do("install", told)
            await self._keep(host.platform, wheels, what)
            if is_new:
                await self._join(address, host, told, node)
            else:
                await self._let_in(address, host, told, node)
            given = await self._roles.give(host, told, node, place)
            self._tell(address.typed, f"starts {node}")
            kept = (await host.do("start", {**told, "again": not is_new, "certified": given.certified}))["kept"]
        sight = await _alive(self._connection, node, place.roles)
        return HostOutcome(
            host=address.typed,
            node=node,
            broker=given.broker,
            controller="controller" in place.roles,
            kept=kept,
            already=not is_new,
            brought=not found["installed"],
            beside=_on_machine_of(sight, node),
        )

    async def _collected(self, platform: Platform, what: str) -> Wheels:
        """The wheels of what a host needs, for its platform, which are collected once."""
        if (platform, what) not in self._wheels:
            self._wheels[platform, what] = asyncio.create_task(collected(platform, self._given, what=what))
        return await asyncio.shield(self._wheels[platform, what])

    async def _keep(self, platform: Platform, wheels: Wheels, what: str) -> None:
        """Keep those of a directory that was given, which a host has now, for who adds the next one without it."""
        if self._given is not None and (platform, what) not in self._kept:
            self._kept.add((platform, what))
            await asyncio.to_thread(keep, platform, wheels, what=what)

    def _told(self, place: NodePlace, wheels: Wheels, what: str) -> dict[str, Any]:
        """What the host is told; the first root key tells the realm."""
        return {
            **place.paths,
            "build": wheels.build,
            "sums": wheels.sums,
            "requirement": f"{what}=={__version__}",
            "root": self._connection.realm.roots[0].hex(),
            "units": {} if place.user else unit_texts(),
            "labels": self._labels,
        }

    async def _end_key(self, node: str, key: str) -> None:
        """End the key of a node of which there is a copy, for good: the next one is another. Needs the root key."""
        root = self._home.root_key()
        claim = msgspec.structs.replace(await revoking.claim(self._connection, key), name=f"node/{node}")
        await revoke(self._connection, root, claim, reason="two processes had it")

    async def _let_in(self, address: HostAddress, host: ReachedHost, told: dict[str, Any], node: str) -> None:
        """Have the realm let in again a node that is there: it joins anew where what it has lets it in no more."""
        out, key = await _out(self._connection, node)
        if out in COPIED and key is not None:
            await self._end_key(node, key)
        if out is not None:
            await self._join(address, host, told, node, ends=out == "revoked")
        ends_s = (await host.do("settle", told))["ends_s"]
        has_ended = ends_s is not None and ends_s * 1000 < self._connection.bus.now_ms()
        if out is None and has_ended:  # the realm knows a later one
            await self._join(address, host, told, node)

    async def _join(
        self, address: HostAddress, host: ReachedHost, told: dict[str, Any], node: str, *, ends: bool = False
    ) -> None:
        """Have the host join as this node, with a token of its own; with `ends` by another key than it has."""
        self._tell(address.typed, f"joins as {node}")
        why = f"node add {address}"
        token = await tokens.create(
            self._connection, self._operator, name=node, ttl_s=TOKEN_S, broker=self._broker, reason=why
        )
        try:
            await host.do("join", {**told, "name": node, "ends": ends}, given=f"{token.line}\n")
        except BaseException:  # an interrupt, too: nobody else is to join with it; one that was used stays as it is
            with suppress(DsmtError, TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await tokens.revoke(self._connection, token.token, reason=f"{why} has failed")
            raise


async def _out(connection: Connection, node: str) -> tuple[Why | None, str | None]:
    """Why the realm lets a node in no more, and the key. One that is away, of unknown certificate, counts as `expired`."""
    sight = await look(connection.bus, passing=True)
    entry, used = sight.view.nodes.get(node), in_use(connection.trust, sight.now_ms // 1000)
    out = None if entry is None else outside(sight, entry, used)
    if out is not None:
        return out.why, out.key
    own = used.get(f"node/{node}")
    ended = own is None or own.not_after * 1000 < sight.now_ms
    return ("expired" if ended and sight.fleet.state(node) != "alive" else None), None


async def _check_free(connection: Connection, roles: Roles, address: HostAddress, node: str) -> None:
    """Raise `RefusedError` for a name that another machine has: nothing is made on this one, nor known of it."""
    await roles.check_free(address, node)
    sight = await look(connection.bus, passing=True)
    own = in_use(connection.trust, sight.now_ms // 1000).get(f"node/{node}")
    if own is None or connection.trust.is_revoked(own.key_id, own.subject):
        return
    if not sight.fleet.knows(node) or sight.fleet.state(node) == "left":  # it was never here, or is free again
        return
    raise taken(address, "node", node, gone=f"; if {node} is gone for good: dsmt node remove {node}")


def _check_served(address: HostAddress, what: str, found: dict[str, Any]) -> None:
    """Raise `RefusedError` for a node that runs without what a NATS server needs: who keeps it there would not find it."""
    if what == "dsmt[nats]" and found["nodes"] and not found["installed"]:
        node = found["nodes"][0]
        said = f"{address} is a node already, {node}, and was brought no NATS server"
        raise RefusedError("host.server", said, next=f"dsmt node remove {node}, then add it again with its roles")


def _name_of(address: HostAddress, hostname: str) -> str:
    """The name of a node: the host's, as it was typed, or as it calls itself. Raises `InputError`."""
    host = hostname if address.is_number else address.host
    name = level_of(host)
    if not is_level(name):
        raise InputError("node.name", f"{address}: {host!r} is no name for a node", next="name it: --name NAME")
    return name


async def _alive(connection: Connection, node: str, roles: Sequence[Role]) -> Sight:
    """Wait until a node is alive in the realm and has told of its machine, and what else is there by its name.

    Raises `TimedOutError`.
    """

    def missing(sight: Sight) -> str:
        brokers = sight.view.sessions.brokers - sight.fleet.lost_brokers.keys()
        controllers = {one.controller for one in controller_rows(sight) if one.alive} if "controller" in roles else set()
        entry = sight.view.nodes.get(node)
        is_in = entry is not None and entry.attributes is not None and kept_out(sight, entry) is None
        is_alive = is_in and sight.fleet.state(node) == "alive"
        there = {"node": is_alive, "broker": node in brokers, "controller": node in controllers}
        return ", ".join(one for one in ("node", *roles) if not there[one])

    return await until(
        connection.bus,
        lambda sight: None if missing(sight) else sight,
        limit_s=ALIVE_S,
        unmet=f"not all of {node} is alive",
        look="dsmt status",
        far=lambda sight: f"missing: {missing(sight)}",
    )


def _machine(sight: Sight, node: str) -> tuple[str, str] | None:
    """What tells a node's machine from others, by its own word: containers share a kernel, other homes an address."""
    entry = sight.view.nodes.get(node)
    told = None if entry is None or entry.attributes is None else entry.attributes.record
    return None if told is None else (told.boot_id, told.address)


def _on_machine_of(sight: Sight, node: str) -> tuple[str, ...]:
    """The other nodes that live on the machine of one."""
    machine = _machine(sight, node)
    others = (one for one in sorted(sight.view.nodes) if one != node and _machine(sight, one) == machine)
    return tuple(one for one in others if sight.fleet.state(one) == "alive")
