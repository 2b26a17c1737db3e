"""A broker that is not alive is asked what is wrong with it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.errors import RefusedError, TransportError
from dsmt.operations.connection import PATIENCE_S as RUNNING_PATIENCE_S
from dsmt.operations.connection import UP_AGAIN
from dsmt.operations.local.home import steadiness
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import init
from dsmt.operations.local.processes import asking, unreached
from dsmt.operations.local.processes.keeping import write_kept
from dsmt.operations.read.rows.broker_rows import BrokerRow
from dsmt.ports.processes import ProcessIdentity
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import BrokerFile
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path, write_record
from tests.operations.listening import listening

OPERATOR: Any = object()
FULL, GONE, CUT_OFF, WELL = (BrokerAddress(f"10.0.0.{n}:1", bytes([n])) for n in range(1, 5))
SAYS = {
    FULL: RefusedError("store.full", "the store of broker/b1 is full", next="free space on its disk"),
    GONE: TransportError("bus.unreachable", "no broker answers at 10.0.0.2:1"),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BrokerAddress]:
    """Whom anybody has tried to attach to."""
    found: list[BrokerAddress] = []

    @asynccontextmanager
    async def connect(operator: Any, realm: Any, *, brokers: list[BrokerAddress], patience_s: float) -> AsyncIterator[None]:
        assert (operator, patience_s) == (OPERATOR, asking.PATIENCE_S)
        assert brokers[0] in realm.addresses
        found.extend(brokers)
        if brokers[0] in SAYS:
            raise SAYS[brokers[0]]
        yield

    monkeypatch.setattr(asking, "connect", connect)
    return found


def broker(address: str, *, alive: bool, name: str | None = None) -> BrokerRow:
    said = {"address": address, "alive": alive, "broker": name}
    fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__) | said
    return BrokerRow(**fields)


def faults(realm: Any, *found: BrokerRow, home: Path = Path("nowhere")) -> list[str | None]:
    return [one.fault for one in asyncio.run(asking.asked(OPERATOR, Home(home), realm, found))]


def test_each_that_is_not_alive_is_asked_and_no_other(asked: list[BrokerAddress]) -> None:
    realm = SimpleNamespace(nats=None, addresses=(FULL, GONE, CUT_OFF, WELL))
    silent = [broker(one.address, alive=False, name=name) for one, name in ((FULL, None), (GONE, "b9"), (CUT_OFF, "b8"))]
    assert faults(realm, *silent, broker(WELL.address, alive=True), broker("10.0.0.9:1", alive=False)) == [
        "the store of broker/b1 is full: free space on its disk",
        "no broker answers at 10.0.0.2:1",
        "it answers here, and its own word does not come to the broker that was asked for this",
        None,
        None,
    ]
    assert sorted(one.address for one in asked) == [FULL.address, GONE.address, CUT_OFF.address]


def test_a_nats_server_whose_gate_says_nothing_is_asked_whether_it_is_there(asked: list[BrokerAddress]) -> None:
    """`status` had sent to `dsmt brokers`, which said of one on another machine that it is not alive, and no more."""
    realm = SimpleNamespace(nats=object(), addresses=(GONE, CUT_OFF, WELL))
    found = [broker(GONE.address, alive=False), broker(CUT_OFF.address, alive=False), broker(WELL.address, alive=True)]
    silent = "its server lets in who comes, and its gate says nothing: broker.log beside it says why"
    assert faults(realm, *found) == ["no broker answers at 10.0.0.2:1", silent, None]
    assert asked == [GONE, CUT_OFF]


def test_of_a_nats_server_of_this_home_whose_gate_says_nothing_its_disk_and_its_log_tell(
    asked: list[BrokerAddress], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    realm, directory = SimpleNamespace(nats=object(), addresses=(GONE,)), tmp_path / "brokers" / "b2"
    directory.mkdir(parents=True)
    gone = broker(GONE.address, alive=False, name="b2")
    assert faults(realm, gone, home=tmp_path) == [
        f"no broker answers at 10.0.0.2:1; what it said last is in {directory / 'broker.log'}"
    ]
    assert asked.pop() == GONE
    (directory / "nats_server.log").write_text("[FTL] no JetStream")
    log = f"its server does not run; what it said last is in {directory / 'nats_server.log'}: [FTL] no JetStream"
    assert faults(realm, gone, home=tmp_path) == [log]
    monkeypatch.setattr(asking, "is_full", lambda _: True)
    full = f"its server cannot begin, for the disk of {directory} is full: free space there"
    assert faults(realm, gone, broker(WELL.address, alive=True, name="b3"), home=tmp_path) == [full, None]
    assert faults(realm, replace(gone, fault="its gate says it"), home=tmp_path) == ["its gate says it"]
    assert asked == []


def test_of_one_of_this_home_that_nobody_reaches_its_disk_is_looked_at(
    asked: list[BrokerAddress], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    realm, directory = SimpleNamespace(nats=None, addresses=(GONE,)), tmp_path / "brokers" / "b2"
    directory.mkdir(parents=True)
    gone = broker(GONE.address, alive=False, name="b2")
    assert faults(realm, gone, home=tmp_path) == [
        f"no broker answers at 10.0.0.2:1; what it said last is in {directory / 'broker.log'}"
    ]
    monkeypatch.setattr(steadiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    (said,) = faults(realm, gone, home=tmp_path)
    assert said == f"no broker answers at 10.0.0.2:1: it cannot start, for the disk of {directory} is full: free space there"
    assert asked == [GONE, GONE]


def test_who_reaches_no_broker_at_all_hears_of_a_disk_of_this_home_that_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, error = Home(tmp_path), TransportError("bus.stranger", "the servers let nobody in", next="try again")
    assert unreached.unreached(home, error) is error
    directory = home.part("brokers", "b1")
    directory.mkdir(parents=True)
    (directory / "identity").touch()
    assert unreached.unreached(home, error) is error
    monkeypatch.setattr(steadiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    told = unreached.unreached(home, error)
    assert (told.code, told.message) == ("bus.stranger", f"the servers let nobody in: the disk of {directory} is full")
    assert told.next == "free space there; it goes on by itself"
    other = TransportError("blob.missing", "another thing")
    assert unreached.unreached(home, other) is other


@pytest.mark.parametrize("nats", [False, True])
def test_who_reaches_no_broker_is_told_why_the_one_of_this_home_does_not_stay(nats: bool, tmp_path: Path) -> None:
    """`dsmt up` had waited for half a minute, and said to type what had just been typed."""
    home, error = (
        Home(tmp_path / "home"),
        TransportError("bus.unreachable", "no broker answers at 10.0.0.2:1", next="dsmt up"),
    )
    init(home, name="test", nats=nats)
    program, last = ("nats_server", "[FTL] no JetStream") if nats else ("broker", "the store cannot be used")
    line = last if nats else json.dumps({"event": "cannot go on", "reason": last})
    log = home.part("brokers", "b1") / f"{program}.log"
    log.write_text(f"before\n{line}\n")
    assert unreached.unreached(home, error) is error, "it is down"
    own = identity_of(os.getpid())
    write_record(record_path(str(keeper_directory(home)), "spawner"), own)
    told = unreached.unreached(home, error)
    assert told.message == f"{error.message}: broker b1 of this home ends again and again: {last}"
    assert told.next == f"see {log}; it goes on by itself when it can"
    write_record(record_path(str(log.parent), program), own)
    assert unreached.unreached(home, error) is error, "it runs"
    Path(record_path(str(log.parent), program)).unlink()
    log.unlink()
    assert unreached.unreached(home, error) is error


@pytest.mark.parametrize("content", [b"x", None], ids=["damaged", "a directory"])
def test_a_broker_whose_file_is_damaged_ends_nobody_who_starts_the_others(tmp_path: Path, content: bytes | None) -> None:
    """`up` had said that the others start without it, and failed when they had; in the foreground it ended them again."""
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)
    file = home.part("brokers", "b2") / "broker.cbor"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert asyncio.run(unreached.while_they_stay(home, asyncio.sleep(0.1, "attached"))) == "attached"


def test_who_reaches_no_broker_of_a_realm_that_is_up_is_not_told_to_start_it_again(tmp_path: Path) -> None:
    home, error = Home(tmp_path / "home"), TransportError("bus.unreachable", "no broker answers at x:1", next=UP_AGAIN)
    init(home, name="test")
    own, directory = identity_of(os.getpid()), home.part("brokers", "b1")
    write_record(record_path(str(directory), "broker"), own)
    assert unreached.unreached(home, error) is error, "it is down"
    write_record(record_path(str(keeper_directory(home)), "spawner"), own)
    told = unreached.unreached(home, error)
    assert told.message == f"{error.message}: broker b1 of this home runs, pid {own.pid}, and does not listen there"
    assert told.next == f"try again in a minute; if it stays so, see {directory / 'broker.log'}"
    other = TransportError("bus.unreachable", "no broker answers at y:1", next="check --bus")
    assert unreached.unreached(home, other) is other
    file = BrokerFile.read(directory)
    replace(file, address="192.0.2.7:4000").write(directory)
    told = unreached.unreached(home, error)
    said = "broker b1 of this home is known by 192.0.2.7, which is no address of this machine any more"
    assert (told.message, told.next) == (f"{error.message}: {said}", "give the machine that address again")


def test_who_is_let_in_by_nobody_is_told_which_other_program_has_the_port(tmp_path: Path) -> None:
    home, error = Home(tmp_path / "home"), TransportError("bus.stranger", "it lets nobody in", next="try again")
    init(home, name="test")
    assert unreached.unreached(home, error) is error
    with listening(home.realm().brokers[0][0]):
        told = unreached.unreached(home, error)
        assert told.message.startswith("broker b1 cannot listen on 127.0.0.1:")
        assert f"is held by pid {os.getpid()} " in told.message
        assert told.next == "stop it, then dsmt up"
        record = record_path(str(home.part("brokers", "b1")), "broker")
        write_record(record, identity_of(os.getpid()))
        assert unreached.unreached(home, error) is error, "it is the broker"


@pytest.mark.parametrize("nats", [False, True])
def test_a_start_whose_only_broker_ends_again_and_again_waits_no_longer(
    nats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited half a minute for it."""
    home, lives = Home(tmp_path / "home"), iter(range(1, 99))
    init(home, name="test", nats=nats)

    def process(_: Path, program: str) -> ProcessIdentity | None:
        assert program == ("nats_server" if nats else "broker")
        life = next(lives)
        return None if life % 2 == 0 else ProcessIdentity(life, 1, "boot")

    monkeypatch.setattr(unreached, "process_of", process)
    with pytest.raises(TransportError, match=r"no broker answers at 127\.0\.0\.1:") as told:
        asyncio.run(unreached.while_they_stay(home, asyncio.sleep(60)))
    assert told.value.code == "bus.unreachable"


def test_so_does_one_whose_only_broker_has_a_damaged_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    (home.part("brokers", "b1") / "broker.cbor").write_bytes(b"nonsense")
    with pytest.raises(TransportError, match="no broker answers"):
        asyncio.run(unreached.while_they_stay(home, asyncio.sleep(60)))


def test_a_start_waits_for_a_broker_that_stays_or_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    with listening(home.realm().brokers[0][0]):
        assert asyncio.run(unreached.while_they_stay(home, asyncio.sleep(0.3, "came"))) == "came"
    monkeypatch.setattr(Home, "names", lambda *_: [])
    assert asyncio.run(unreached.while_they_stay(home, asyncio.sleep(0.3, "came"))) == "came"


def test_a_command_hardly_waits_where_all_is_down_and_nobody_is_at_work(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    realm, waits, hardly = home.realm(), RUNNING_PATIENCE_S, unreached.DOWN_PATIENCE_S
    assert unreached.patience_s(home, realm) == waits, "it was never up"
    write_kept(home)
    assert unreached.patience_s(home, realm) == hardly
    elsewhere = SimpleNamespace(brokers=(*realm.brokers, ("10.0.0.1:1", b"key")))
    assert unreached.patience_s(home, elsewhere) == waits, "a broker of another machine may come back"  # type: ignore[arg-type]

    async def meanwhile() -> float:
        async with alone(home):
            return unreached.patience_s(home, realm)

    assert asyncio.run(meanwhile()) == waits, "somebody is at work on it"
    assert unreached.patience_s(home, realm) == hardly
    own = identity_of(os.getpid())
    for directory, program in ((home.part("brokers", "b1"), "broker"), (keeper_directory(home), "spawner")):
        record = Path(record_path(str(directory), program))
        write_record(str(record), own)
        assert unreached.patience_s(home, realm) == waits, "it runs"
        record.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unreached.Parts, "servers", lambda _: ["s1"])
        assert unreached.patience_s(home, realm) == waits, "a NATS server runs"


def test_where_no_broker_is_here_it_is_said_what_runs_here_and_where_to_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`dsmt up` had started the node of a joined machine, failed, and said to type what had just been typed."""
    home, error = Home(tmp_path), TransportError("bus.unreachable", "no broker answers at 10.0.0.2:1", next="dsmt up")
    told = unreached.unreached(home, error)
    assert (told.message, told.next) == (error.message, "dsmt up on a machine that has a broker")
    monkeypatch.setattr(unreached.Parts, "things", lambda _: ["node/n1", "controller/c1"])
    told = unreached.unreached(home, error)
    assert told.message == "no broker answers at 10.0.0.2:1; node/n1 runs here, and will attach when one does"
    assert told.next == "dsmt up on a machine that has a broker; meanwhile dsmt ps --local"
