"""NATS servers that a realm gets after its birth, and those that it gives up: what is refused, made, signed and waited for.

Rule 1: a server's own key is made where it stands. The key of the authority signs it where the root key signs its gate's;
    what lets in, which is the same beside each server, is brought to it (`ServersKey`).
Rule 2: each stream is on three servers, so three must be there when one is given up; it ends when others hold what it held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import FailedError, RefusedError, TimedOutError, TransportError
from dsmt.event.addresses import host_of
from dsmt.operations.local.home.addresses import free_address
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.words.telling import Tell
from dsmt.ports.bus import BusReader
from dsmt.ports.realm import BrokerAddress
from dsmt.programs import nats_server
from dsmt.programs.configuration import BrokerFile, RealmConfig, ServersKey

LEAST: Final = nats_server.COPIES
MOVED_S: Final = 60.0
LOOK_S: Final = 0.5
SILENT_S: Final = 10.0
"""How long a gate is waited for that is silent: it, or the server beside it, may be on its way back."""


class ServerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is told that gets a server: where the others listen for it, its certificate in PEM."""

    routes: tuple[str, ...]
    certificate: str = ""


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same beside each server, in hex: it is brought on standard input, and stands in no command line."""

    system: str
    issuer: str


def check_grows(realm: RealmConfig) -> None:
    """Raise `RefusedError` for a realm on NATS that gets no further server."""
    if realm.nats is not None and realm.nats.replicas < LEAST:
        said = f"realm {realm.name} was born with one NATS server, and one that stands alone cannot become a cluster"
        advice = "dsmt bus migrate dsmt, then dsmt broker add twice, then dsmt bus migrate nats; or make another realm"
        raise RefusedError("nats.alone", said, next=f"{advice}: dsmt init --engine nats --brokers 3")


def check_mesh(*, leaf: bool) -> None:
    """Raise `RefusedError` for a leaf."""
    if leaf:
        raise RefusedError("nats.leaf", "on NATS there is no leaf: each stream is on three servers", next="leave --leaf out")


def key_of(home: Home) -> ServersKey:
    """What makes further servers. Raises `RefusedError` where it is not here."""
    file = home.root / ServersKey.FILE
    if not file.exists():
        said = f"{file} is missing: the key that signs the certificates of the realm's NATS servers"
        advice = "bring it there; a realm that was made before it was kept gets one by dsmt bus migrate dsmt, and back"
        raise RefusedError("nats.key", said, next=advice)
    return ServersKey.read(home.root)


def routes_of(*known: Mapping[str, BrokerAddress]) -> tuple[str, ...]:
    """Where servers listen for each other."""
    return tuple(dict.fromkeys(one.route for some in known for one in some.values() if one.route))


def signed(realm: RealmConfig, key: ServersKey, address: str, public: str) -> str:
    """The certificate of a server's key, for its address. Raises `FailedError` for what is no key."""
    try:
        return nats_server.sign(realm, key, host_of(address), public, now_s=int(time.time()))
    except ValueError as error:
        raise FailedError("nats.asked", f"the server at {address} asks with no key: {error}", next="try again") from error


def write(directory: Path, file: BrokerFile, public: bytes, *, order: ServerOrder, brought: Brought, tls_key: str) -> None:
    """Write what a server and its gate need besides an identity."""
    nats_server.add_server(
        directory,
        file,
        public=public,
        secrets=(bytes.fromhex(brought.system), bytes.fromhex(brought.issuer)),
        routes=order.routes,
        cluster=free_address(host_of(file.address)),
        tls=(order.certificate, tls_key),
    )


def maker(home: Home, others: Mapping[str, BrokerAddress], *, leaf: bool) -> Callable[[Path, BrokerFile, bytes], None]:
    """What writes the same in the home of the operator, where all keys are. Raises `RefusedError`, also for a leaf."""
    check_mesh(leaf=leaf)
    key, routes = key_of(home), routes_of(others)
    brought = Brought(system=key.system.hex(), issuer=key.issuer.hex())

    def make(directory: Path, file: BrokerFile, public: bytes) -> None:
        tls_key = nats_server.new_key()
        certificate = signed(file.realm, key, file.address, nats_server.public_of(tls_key))
        order = ServerOrder(routes=routes, certificate=certificate)
        write(directory, file, public, order=order, brought=brought, tls_key=tls_key)

    return make


async def check_left(bus: BusReader, name: str, known: Collection[str], waits: Tell) -> None:
    """Raise `RefusedError` where fewer than three of the servers are there besides one; who is silent is waited for."""
    if name not in known:
        return
    others, told, deadline = set(known) - {name}, set[str](), time.monotonic() + SILENT_S
    while len(alive := others & await _alive(bus)) < LEAST:
        if len(others) < LEAST or time.monotonic() >= deadline:
            there = f"{', '.join(sorted(alive)) or 'none'} of the others {'is' if len(alive) == 1 else 'are'} there"
            said = f"each stream of the realm is on {LEAST} NATS servers, and without {name} only {there}"
            raise RefusedError("broker.few", said, next="dsmt node add --roles broker,node HOST, or dsmt broker add, first")
        missing = others - alive
        if missing != told:
            waits(f"{', '.join(sorted(missing))} {'is' if len(missing) == 1 else 'are'} silent")
        told = missing
        await asyncio.sleep(LOOK_S)


async def _alive(bus: BusReader) -> set[str]:
    return {one.broker for one in broker_rows(await look(bus, passing=True), []) if one.alive and one.broker is not None}


async def emptied(bus: BusReader, realm: RealmConfig, name: str) -> None:
    """Wait until other servers hold all that one held. Raises `TimedOutError`."""
    deadline, kept = time.monotonic() + MOVED_S, ""
    while time.monotonic() < deadline:
        try:
            found = await nats_server.kept_by(bus, realm, name)
        except TransportError as error:  # they choose a leader, perhaps
            found = error.message
        if found is None:
            return
        kept = found
        await asyncio.sleep(LOOK_S)
    said = f"NATS server {name} is being removed, and others do not hold all that it held within {MOVED_S:.0f} s: {kept}"
    raise TimedOutError("broker.holds", said, next="see dsmt brokers, and type it again: it goes on meanwhile")
