"""NATS servers that come and go: who is attached learns of them, and keeps what it has learnt."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.servers import KnownServers
from dsmt.bus.rules.brokers import BROKERS_FILE
from dsmt.bus.rules.nats_config import Server, broker_of, peer_of, server_config, server_name
from dsmt.errors import RefusedError
from dsmt.operations.local.home.home import write_secret
from dsmt.operations.write import brokers
from dsmt.ports.realm import BrokerAddress, NatsTerms
from dsmt.programs.configuration import BrokerFile, GateFile, RealmConfig, write_config
from dsmt.programs.nats_server import configuration
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import dump
from dsmt.trust.store import TrustStore
from tests.bus.nats_servers import BINARY, NatsServers
from tests.bus.realm import TestClock, TestEntropy
from tests.bus.test_nats_door import Kept, on_nats
from tests.ipv6 import on_ipv6
from tests.loops import in_real_time
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]

KEYS = [bytes([n]) * 32 for n in range(4)]
FAR = "127.0.0.1:9"


async def say(bus: NatsBus, n: int, *, address: str = FAR, route: str = "127.0.0.1:1009") -> None:
    await brokers.announce(bus, {f"b{n}": BrokerAddress(address, KEYS[n], route=route)}, by="alice")


async def remove(bus: NatsBus, n: int) -> None:
    await brokers.remove(bus, f"b{n}", {}, by="alice", reason="")


@on_ipv6
@in_real_time
async def test_a_server_at_an_ipv6_address_is_known_by_its_certificate() -> None:
    servers = NatsServers(1, tls=True, host="[::1]")
    try:
        servers.start()
        link = await servers.administrator()
        await link.close()
    finally:
        servers.close()


def node(k: Kept, trust: TrustStore, known: KnownServers) -> NatsBus:
    """A node's bus that knows these servers."""
    identity, realm = k.made.identity("node/n1"), k.servers.realm()
    return NatsBus(identity=identity, trust=trust, realm=realm, clock=TestClock(), entropy=TestEntropy(), known=known)


@on_nats
async def test_who_is_attached_learns_of_servers_keeps_them_and_forgets_those_that_are_removed(k: Kept) -> None:
    files, made = DiskFiles(str(k.servers.directory / "kept")), k.made
    seeds = [BrokerAddress(address, KEYS[0]) for address in k.servers.addresses]
    trust = made.trust()
    known = KnownServers(seeds, trust, files)
    bus = node(k, trust, known)
    alice = await k.bus(k.identities["operator/alice"])
    running = asyncio.create_task(bus.run())
    try:
        await say(alice, 1)
        await bus.wait_attached()
        await until(lambda: set(known.addresses) == {*k.servers.addresses, FAR})
        await say(alice, 2, address="127.0.0.1:10")
        await until(lambda: "127.0.0.1:10" in known.addresses)
        await remove(alice, 1)
        await until(lambda: FAR not in known.addresses)
        await say(alice, 3, route="", address="127.0.0.1:11")  # a broker of dsmt, of before it moved
        await remove(alice, 2)
        await until(lambda: set(known.addresses) == set(k.servers.addresses))
        again = KnownServers(seeds, made.trust(), files)
        assert again.words.removed.keys() == {"b1", "b2"}
        assert set(again.addresses) == set(k.servers.addresses)
    finally:
        running.cancel()
        await asyncio.wait({running})


@on_nats
async def test_a_servers_routes_are_of_what_its_gate_has_heard_and_one_that_was_removed_does_not_start(
    k: Kept,
) -> None:
    directory, made = k.servers.directory / "b0", k.made
    nats = NatsTerms(authority="", replicas=3)
    realm = RealmConfig(name=made.name, roots=made.trust().realm.roots, brokers=((FAR, KEYS[0]),), nats=nats)
    write_config(directory / "broker.cbor", BrokerFile(realm=realm, address=FAR))
    gate = GateFile(system=bytes(32), issuer=bytes(32), routes=("127.0.0.1:1001",), cluster="127.0.0.1:1000", server="b0~1")
    write_config(directory / "gate.cbor", gate)
    own = made.identity("broker/b0")
    write_secret(directory / "identity", dump(own))

    def cluster() -> dict:
        return json.loads(configuration(directory))["cluster"]

    assert (cluster()["listen"], cluster()["routes"]) == ("127.0.0.1:1000", ["nats://127.0.0.1:1001"])
    trust = made.trust()
    known = KnownServers(realm.addresses, trust, DiskFiles(str(directory)))
    bus = node(k, trust, known)
    known.words.seeds = ()  # of those that it would try, none is there
    alice = await k.bus(k.identities["operator/alice"])
    await say(alice, 1, route="127.0.0.1:1001")
    await say(alice, 2, route="127.0.0.1:1002", address=k.servers.addresses[0])
    running = asyncio.create_task(bus.run())
    try:
        await until(lambda: (directory / BROKERS_FILE).exists() and "nats://127.0.0.1:1002" in cluster()["routes"])
        await remove(alice, 1)
        await until(lambda: cluster()["routes"] == ["nats://127.0.0.1:1002"])
        await brokers.announce(alice, {"b0": BrokerAddress(FAR, own.key.public, route="127.0.0.1:1000")}, by="alice")
        await remove(alice, 0)
        await until(lambda: "b0" in known.words.removed)
        with pytest.raises(RefusedError, match="was removed from realm"):
            configuration(directory)
    finally:
        running.cancel()
        await asyncio.wait({running})


def test_a_server_understands_its_configuration_in_a_directory_of_any_name(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_bytes(server_config(Server("s0", "127.0.0.1:1", f'{tmp_path}/é "x"/😀'), None).encode())
    told = subprocess.run([BINARY, "-t", "-c", config], capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0, told.stderr


def test_a_server_that_is_added_has_a_name_of_its_own_that_tells_its_broker() -> None:
    name = server_name("b.1", KEYS[1])
    assert (name, broker_of(name), broker_of("b1")) == ("b.1~01010101", "b.1", "b1")
    assert peer_of("s0") != peer_of("s1")
    assert len(peer_of("s0")) == 8
