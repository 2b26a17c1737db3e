"""Making a realm in a home: the addresses of its brokers, and what is left where it is refused."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.operations.local.home import addresses, making
from dsmt.operations.local.home import home as homes
from dsmt.operations.local.home.addresses import check_free
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.members import letting_in
from dsmt.operations.local.processes.keeping import write_kept
from dsmt.operations.local.up.startable import check_broker
from dsmt.programs.configuration import IDENTITY, BrokerFile, NodeFile, RealmConfig
from dsmt.programs.kept import KeeperFile
from dsmt.system.removing import remove_or_empty
from dsmt.trust.keys import SecretKey
from tests.ipv6 import on_ipv6


def only(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """A machine with one port for brokers."""
    monkeypatch.setattr(addresses, "PORTS", (port, port))
    monkeypatch.setattr(addresses, "_given", deque())


def test_no_second_broker_is_given_the_address_at_which_the_first_one_is_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, 10_500)
    with pytest.raises(FailedError, match="no free port"):
        init(Home(tmp_path), name="test", listen="127.0.0.9:10500", brokers=2)


def test_a_port_is_free_where_the_broker_is_to_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.9", 0))
        only(monkeypatch, held.getsockname()[1])
        with pytest.raises(FailedError, match="no free port"):
            init(Home(tmp_path), name="test", listen="127.0.0.9:1", brokers=2)


def test_where_a_realm_is_refused_for_its_address_no_root_key_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no address of this machine"):
        init(Home(tmp_path / "home"), name="test", listen="192.0.2.99:4222", brokers=3)
    assert not (tmp_path / "home").exists()


def test_one_server_of_nats_has_no_route_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, 10_500)
    realm = init(Home(tmp_path), name="test", listen="127.0.0.9:10501", nats=True)
    assert [address for address, _ in realm.brokers] == ["127.0.0.9:10501"]
    assert 10_500 not in addresses._given


def test_a_root_key_that_was_brought_first_is_that_of_the_realm(tmp_path: Path) -> None:
    key = bytes(range(32))
    homes.write_secret(tmp_path / "root.key", key)
    realm = init(Home(tmp_path), name="test")
    assert (tmp_path / "root.key").read_bytes() == key
    assert realm.roots == (SecretKey(key).public,)
    with pytest.raises(RefusedError, match="holds a realm already"):
        init(Home(tmp_path), name="test")


@pytest.mark.parametrize("host", ["192.0.2.99", "nobody.invalid", "[2001:db8::99]"])
def test_where_a_broker_is_to_listen_at_an_address_of_another_machine_that_is_said_before_anybody_waits(host: str) -> None:
    with pytest.raises(FailedError, match="is no address of this machine") as told:
        check_free(f"{host}:4222", "broker b1", then="")
    assert told.value.code == "start.address"


@pytest.mark.parametrize("host", ["127.0.0.9", "localhost", "0.0.0.0", pytest.param("[::1]", marks=on_ipv6)])
def test_every_address_of_this_machine_may_be_listened_at(host: str) -> None:
    check_free(f"{host}:{addresses.free_port(host.strip('[]'))}", "broker b1", then="")


@on_ipv6
def test_brokers_and_nodes_are_at_the_address_of_ipv6_at_which_a_realm_is_made(tmp_path: Path) -> None:
    realm = init(Home(tmp_path), name="test", listen="[::1]:1", brokers=2)
    (first, _), (second, _) = realm.brokers
    assert (first, second.rpartition(":")[0]) == ("[::1]:1", "[::1]")
    assert addresses.own_address(second) == "::1"
    assert addresses.free_everywhere("::1").startswith("[::1]:")


def test_in_an_empty_directory_there_is_no_program(tmp_path: Path) -> None:
    for name in ("b1", "b2"):
        (tmp_path / "brokers" / name).mkdir(parents=True)
    (tmp_path / "brokers" / "b1" / "identity").write_bytes(b"")
    assert Home(tmp_path).names("brokers") == ["b1"]


def test_a_broker_whose_directory_is_a_disk_of_its_own_leaves_it_with_what_is_its_own_alone(small_disk: Path) -> None:
    (small_disk / "identity").write_bytes(b"")
    (small_disk / "store").mkdir()
    (small_disk / "store" / "log").write_bytes(b"")
    (small_disk / "lost+found").mkdir()
    remove_or_empty(str(small_disk))
    assert [path.name for path in small_disk.iterdir()] == ["lost+found"]


def test_a_brokers_directory_in_which_something_is_mounted_is_not_said_to_be_gone(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "kept").write_bytes(b"")
    (tmp_path / "identity").write_bytes(b"")
    with pytest.raises(OSError, match="something is mounted there") as told:
        remove_or_empty(str(tmp_path))
    assert told.value.filename == str(small_disk)
    assert sorted(path.name for path in (*tmp_path.iterdir(), *small_disk.iterdir())) == ["identity", "kept", "small"]


def test_what_a_node_of_a_home_runs_is_reached_where_others_reach_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "own_address", {"127.0.0.9:10500": "10.0.0.7"}.__getitem__)
    home = Home(tmp_path)
    init(home, name="test", listen="127.0.0.9:10500")
    assert NodeFile.read(ensure_node(home, "n1")).address == "10.0.0.7"


@pytest.mark.parametrize("broker", ["127.0.0.1:10500", "no.such.host.invalid:10500"])
def test_on_a_realm_of_one_machine_and_where_no_broker_is_found_that_is_this_machine(broker: str) -> None:
    assert addresses.own_address(broker) == "127.0.0.1"


def test_a_node_that_is_being_removed_is_none_of_those_that_the_next_keeper_begins(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in ("n1", "n2"):
        home.part("nodes", name).mkdir(parents=True)
        (home.part("nodes", name) / "node.log").touch()
    keeper_directory(home).mkdir()
    write_kept(home, without=str(home.part("nodes", "n1")))
    assert KeeperFile.read(keeper_directory(home)).nodes == (str(home.part("nodes", "n2")),)


@pytest.mark.parametrize(
    ("brokers", "joined", "advice"),
    [
        (1, False, "choose another one, for a new realm in another home"),
        (2, False, "dsmt broker remove b1, while another broker of the realm answers, and dsmt up again"),
        (2, True, "dsmt node remove b1, where the realm was made, and add it again"),
    ],
    ids=["it is the only one", "another machine took over", "an added host"],
)
def test_who_has_not_the_address_of_its_broker_is_told_what_helps_there(
    tmp_path: Path, brokers: int, joined: bool, advice: str
) -> None:
    """A copy of a home is put back on another machine, or a machine was given another address."""
    home = Home(tmp_path)
    known = tuple((f"192.0.2.9{number}:4000", bytes([number]) * 32) for number in range(brokers))
    realm = RealmConfig(name="r", roots=(bytes(32),), brokers=known)
    realm.write(home.root)
    BrokerFile(realm=realm, address=known[0][0]).write(home.part("brokers", "b1"))
    if joined:
        home.part("nodes", "b1").mkdir(parents=True)
        (home.part("nodes", "b1") / IDENTITY).touch()
    with pytest.raises(FailedError, match="is no address of this machine") as told:
        check_broker(home, "b1")
    assert told.value.next == f"give it that address; or {advice}"


@pytest.mark.parametrize(
    ("has_node", "advice"),
    [
        (True, "dsmt join TOKEN here makes this machine a node again, with --name under another name"),
        (False, "dsmt node add --roles controller HOST, where the realm was made, gives controller/c1 another key"),
    ],
)
def test_a_machine_of_which_nobody_is_let_in_is_told_what_helps_its_first_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_node: bool, advice: str
) -> None:
    home = Home(tmp_path)
    init(home, name="test")
    if has_node:
        ensure_node(home, "n1")
    else:
        ensure_controller(home, "c1")
    for file in (home.operator_file, home.root / "root.key", home.part("brokers", "b1") / "birth"):
        file.unlink()

    @asynccontextmanager
    async def refused(*_: object, **__: object) -> AsyncIterator[None]:
        raise RefusedError("trust.revoked", "its key was revoked")
        yield

    monkeypatch.setattr(letting_in, "reading", refused)
    with pytest.raises(RefusedError, match="its key was revoked") as told:
        asyncio.run(letting_in.check_let_in(home))
    assert told.value.next.startswith(advice)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\u00fc" * 80])
def test_a_name_that_none_can_have_is_no_address_of_this_machine(host: str) -> None:
    assert not addresses.is_here(host)
    assert addresses.own_address(f"{host}:1") == "127.0.0.1"
    with pytest.raises(InputError, match="is no address of this machine"):
        addresses.free_address(host)
