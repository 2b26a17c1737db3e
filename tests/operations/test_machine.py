"""A realm on one machine: what `up` refuses before it does anything, and how little `down` holds."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from dsmt.cli.root import main
from dsmt.errors import FailedError, InputError, NotFoundError, RefusedError
from dsmt.operations.local.home import addresses
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.members import certificates
from dsmt.operations.local.processes import ending
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up import machine, startable
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.programs.configuration import BrokerFile, ControllerFile, MigrationFile, NodeFile, read_config, read_identity
from dsmt.system import processes
from dsmt.system.processes import SOCKET
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path, write_record
from dsmt.system.sockets import LinuxSockets
from dsmt.trust.keys import key_id_of
from tests.operations.listening import listening


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize(
    "wanted",
    [Wanted(nodes=100_000), Wanted(nodes=-1), Wanted(controllers=0), Wanted(controllers=10)],
    ids=["many nodes", "fewer than no nodes", "no controller", "many controllers"],
)
def test_a_number_that_no_machine_starts_is_refused_before_anything_is_made(home: Home, wanted: Wanted) -> None:
    with pytest.raises(InputError) as refused:
        asyncio.run(up(home, wanted))
    assert refused.value.code == "up.count"
    assert refused.value.next
    assert not home.root.exists()


def test_a_port_that_was_given_is_not_given_again_before_somebody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PORTS", (19_992, 19_999))
    with pytest.raises(FailedError, match="no free port"):
        [addresses.free_port() for _ in range(9)]


def test_a_port_that_was_given_is_given_to_no_other_process_and_a_server_can_listen_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = addresses.free_port()
    look = f"from dsmt.operations.local.home import addresses as a; a.PORTS = ({port}, {port}); a.free_port()"
    other = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert f"no free port from {port} to {port}" in other.stderr
    addresses.check_free(f"127.0.0.1:{port}", "broker b1", then="")
    with socket.create_server(("127.0.0.1", port)):
        assert LinuxSockets().holder(port, "127.0.0.1", "tcp") is not None


@pytest.mark.parametrize(
    "file",
    [
        "controllers/c1/controller.cbor",
        "controllers/c1/identity",
        "controllers/c1/issuer",
        "nodes/n1/node.cbor",
        "nodes/n1/identity",
    ],
)
def test_of_controllers_and_nodes_it_is_told_which_file_is_damaged(home: Home, file: str) -> None:
    init(home, name="test")
    for name in ("c1", "c2"):
        ensure_controller(home, name)
    ensure_node(home, "n1")
    assert startable.damaged(home) == {}
    (home.root / file).write_bytes((home.root / file).read_bytes()[:7])
    ((whose, said),) = startable.damaged(home).items()
    assert said.startswith(f"{home.root / file} is damaged: it holds no ")
    who = file.split("/")
    assert whose == f"{who[0].removesuffix('s')} {who[1]}"
    assert f"; {who[0].removesuffix('s')} {who[1]} lacks it. Next: restore it from a backup" in said


@pytest.mark.parametrize("kind", ["controllers", "nodes"])
def test_where_the_file_of_a_realm_is_lost_no_other_realm_is_made_over_its_keys(home: Home, kind: str) -> None:
    init(home, name="test")
    made = ensure_controller(home, "c1") if kind == "controllers" else ensure_node(home, "n1")
    kept = {path: path.read_bytes() for path in home.root.rglob("identity")}
    realm = home.root / "realm.cbor"
    told = realm.read_bytes()
    realm.unlink()
    for work in (lambda: asyncio.run(up(home, Wanted())), lambda: init(home, name="test")):
        with pytest.raises(
            InputError, match=f"{realm} is missing, and {kind.removesuffix('s')} {made.name} of its realm is here"
        ):
            work()
    assert {path: path.read_bytes() for path in home.root.rglob("identity")} == kept
    realm.write_bytes(told)
    assert home.realm().name == "test"


def test_what_is_refused_has_not_begun(home: Home) -> None:
    """Who types it at a terminal is not told what an interrupt stops, and no start that was none is undone."""
    init(home, name="test")
    begun: list[tuple[bool, str]] = []
    for wanted in (Wanted(engine="nats"), Wanted(name="other")):
        with pytest.raises(RefusedError) as refused:
            asyncio.run(up(home, wanted, begins=lambda *one: begun.append(one)))
        assert refused.value.code == "up.made"
    assert begun == []


def test_a_broker_that_has_run_and_lost_its_key_is_not_made_anew_behind_everybodys_back(home: Home) -> None:
    """Those that have joined know it by that key, and would find no broker."""
    init(home, name="test")
    (home.part("brokers", "b1") / "broker.log").write_text("")
    identity = home.part("brokers", "b1") / "identity"
    identity.unlink()
    kept = home.realm()
    with pytest.raises(InputError, match=f"{identity} is missing: broker b1 is known by the key in it"):
        asyncio.run(up(home, Wanted()))
    assert not identity.exists()
    assert home.realm() == kept


def test_a_broker_that_lost_its_key_is_given_another_one_at_its_address_when_it_is_told_so(home: Home) -> None:
    init(home, name="test", brokers=2)
    identity = home.part("brokers", "b1") / "identity"
    (address, former), beside = home.realm().brokers
    identity.unlink()
    done = certificates.rotate(home, "broker/b1", Dated(1_800_000_000, "machine"))
    assert done.before == key_id_of(former).hex() != done.key
    assert home.realm().brokers == (beside, (address, read_identity(identity).certificate.public))
    assert BrokerFile.read(home.part("brokers", "b1")).address == address
    assert BrokerFile.read(home.part("brokers", "b2")).realm == home.realm()
    with pytest.raises(NotFoundError, match="broker/b3 is not a member of this home"):
        certificates.rotate(home, "broker/b3", Dated(1_800_000_000, "machine"))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted(), []),
        (
            Wanted(controllers=3, brokers=2),
            ["zed of this home is started, too, for all of its controllers are: dsmt controller"],
        ),
        (Wanted(controllers=1), ["c2, zed of this home are started, too, for all of its controllers are: dsmt controller"]),
        (Wanted(brokers=1), ["b2 of this home is started, too, for all of its brokers are: dsmt broker remove b2 ends one"]),
    ],
)
def test_who_asks_for_fewer_than_the_keeper_keeps_of_a_home_is_told(home: Home, wanted: Wanted, told: list[str]) -> None:
    init(home, name="test", brokers=2)
    for name in ("c1", "c2", "zed"):
        ensure_controller(home, name)
    found = machine.more_than(home, wanted)
    assert len(found) == len(told)
    assert all(map(str.startswith, found, told))


def test_in_a_home_that_was_restored_without_its_brokers_none_is_made_that_nobody_knows(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(home, name="test", brokers=2)
    shutil.rmtree(home.root / "brokers")
    kept, started = home.realm(), AsyncMock()
    monkeypatch.setattr(machine, "start", started)
    with pytest.raises(RefusedError, match=r"no broker of realm test is in .*, and none answers at") as refused:
        asyncio.run(up(home, Wanted()))
    assert refused.value.next == f"restore {home.root}/brokers from a backup"
    with listening(kept.brokers[1][0]):
        with pytest.raises(RefusedError, match="--brokers 1: the brokers of realm test are elsewhere"):
            asyncio.run(up(home, Wanted(brokers=1)))
        asyncio.run(up(home, Wanted(nodes=1)))
    assert started.await_args is not None
    assert started.await_args.args == (home, [], ["c1", "c2"], ["n1"])
    assert home.realm() == kept


def test_a_home_that_is_being_moved_and_has_lost_its_brokers_says_what_to_restore_before_anything_is_started(
    home: Home,
) -> None:
    init(home, name="test")
    MigrationFile(engine="nats").write(home.migration)
    shutil.rmtree(home.root / "brokers")
    with pytest.raises(RefusedError, match=r"no broker of realm test is in .*, and none answers at") as refused:
        asyncio.run(up(home, Wanted()))
    assert refused.value.next == f"restore {home.root}/brokers from a backup", "the move knows the broker by its key"


def test_the_only_broker_of_a_home_that_was_restored_without_it_gets_another_key_at_its_address(home: Home) -> None:
    init(home, name="test")
    ((address, former),) = home.realm().brokers
    shutil.rmtree(home.root / "brokers")
    with pytest.raises(RefusedError) as refused:
        asyncio.run(up(home, Wanted()))
    assert "or dsmt cert rotate broker/b1, then dsmt node add of each host" in refused.value.next
    with listening(address), pytest.raises(NotFoundError, match="broker/b1 is not a member of this home"):
        certificates.rotate(home, "broker/b1", Dated(1_800_000_000, "machine"))
    done = certificates.rotate(home, "broker/b1", Dated(1_800_000_000, "machine"))
    assert done.before == key_id_of(former).hex() != done.key
    assert BrokerFile.read(home.part("brokers", "b1")).address == address


@contextmanager
def slow_keeper(directory: Path, seconds: float) -> Iterator[list[bytes]]:
    """A keeper on a starved machine: it does what it is asked one after the other, and each takes so long."""
    asked: list[bytes] = []
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(directory / SOCKET))
        listening.listen(16)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        asked.append(connection.recv(4096))
                        time.sleep(seconds)
                        connection.send(b"{}")

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            serving.join()


def test_a_slow_keeper_has_the_time_for_one_node_for_each_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    nodes = [f"n{number}" for number in range(1, 9)]
    monkeypatch.setattr(machine, "start_keeper", AsyncMock())
    monkeypatch.setattr(processes, "PATIENCE_S", 3.0)
    with slow_keeper(keeper_directory(home), 0.4) as asked:
        assert asyncio.run(machine.start(home, [], [], nodes)).nodes == tuple(nodes)
    assert len(asked) == len(nodes)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x\n"])
def test_a_realm_gets_no_name_that_is_none(home: Home, name: str) -> None:
    with pytest.raises(InputError, match="is not a name for a realm"):
        init(home, name=name)
    assert not home.root.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:65536", "4711", "127.0.0.1:http"])
def test_a_broker_gets_no_address_that_is_none(home: Home, address: str) -> None:
    with pytest.raises(InputError, match="is not an address to listen at"):
        init(home, name="test", listen=address)
    assert not home.root.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "*", "[::]", "[0:0::0]"])
def test_a_broker_gets_no_address_at_which_only_its_own_machine_would_reach_it(home: Home, host: str) -> None:
    with pytest.raises(InputError, match="stands for all addresses of this machine"):
        init(home, name="test", listen=f"{host}:4000")
    assert not home.root.exists()


@pytest.mark.parametrize("wanted", [Wanted(name="other"), Wanted(listen="127.0.0.1:9")], ids=["name", "port"])
def test_a_realm_that_is_there_is_not_started_as_another(home: Home, wanted: Wanted) -> None:
    init(home, name="test")
    with pytest.raises(RefusedError, match="--name other" if wanted.name else "--port") as refused:
        asyncio.run(up(home, wanted))
    assert refused.value.code == "up.made"


@pytest.mark.parametrize(
    ("wanted", "kind", "record"),
    [(Wanted(nodes=2), "nodes", "spawner"), (Wanted(controllers=2), "controllers", "controller")],
    ids=["nodes", "controllers"],
)
def test_fewer_than_run_are_refused_by_name(home: Home, wanted: Wanted, kind: str, record: str) -> None:
    init(home, name="test")
    own = identity_of(os.getpid())
    assert own is not None
    for number in range(1, 4):
        directory = home.part(kind, f"{kind[0]}{number}")
        directory.mkdir(parents=True)
        write_record(record_path(str(directory), record), own)
    with pytest.raises(RefusedError, match=f"--{kind} 2: {kind[0]}3 runs too") as refused:
        asyncio.run(up(home, wanted))
    assert f"leave --{kind} out" in refused.value.next


def test_ending_a_realm_takes_no_lock_of_nodes_that_never_ran(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    init(home, name="test")
    for number in range(1, 4):
        home.part("nodes", f"n{number}").mkdir(parents=True)
    (home.part("nodes", "n2") / "spawner.lock").touch()
    taken: list[str] = []

    def take(directory: str) -> int:
        taken.append(Path(directory).name)
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(ending, "take_lock", take)
    told: list[str] = []
    assert asyncio.run(down(home, ends=told.append)).processes == 0
    assert taken == ["n2"]
    assert "the services: each is asked to stop, and has the time for it that its file gives it" in told


@pytest.mark.parametrize("program", ["broker", "controller"])
def test_a_program_that_runs_from_its_directory_does_not_run_there_twice(tmp_path: Path, program: str) -> None:
    startable.check_alone(str(tmp_path), program)
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(tmp_path), program), own)
    with pytest.raises(RefusedError, match=f"runs already, pid {os.getpid()}"):
        startable.check_alone(str(tmp_path), program)


@pytest.mark.parametrize(("group", "kind", "name"), [("controller", "controllers", "c1"), ("broker", "brokers", "b1")])
def test_the_command_line_refuses_a_second_copy(home: Home, group: str, kind: str, name: str) -> None:
    init(home, name="test")
    ensure_controller(home, "c1")
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(home.part(kind, name)), group), own)
    assert main(["--home", str(home.root), group, "run", name]) == RefusedError.exit


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file gets longer: what is written behind that fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", range(0, 600, 50))
def test_what_found_no_room_when_it_was_written_is_made_when_there_is_room(home: Home, size: int) -> None:
    with suppress(OSError, FailedError), room_for(size):
        init(home, name="test")
    if not home.exists:
        init(home, name="test")
    for ensure, kind, file, record in (
        (ensure_node, "nodes", "node.cbor", NodeFile),
        (ensure_controller, "controllers", "controller.cbor", ControllerFile),
    ):
        with suppress(OSError), room_for(size):
            ensure(home, f"{kind[0]}1")
        assert [one for one in home.part(kind, f"{kind[0]}1").iterdir() if one.name.startswith(".")] == []
        directory = ensure(home, f"{kind[0]}1")
        assert read_identity(directory / "identity").name == f"{kind[:-1]}/{kind[0]}1"
        assert read_config(directory / file, record).realm == home.realm()


def test_a_port_that_was_named_is_given_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(addresses, "PORTS", (port, port))
    addresses.keep_free(f"127.0.0.1:{port}")
    with pytest.raises(FailedError, match="no free port"):
        addresses.free_port()
