"""Moving a realm to another engine: what is refused, and the sentence that says what to do."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from dsmt.bus.nats.filler import Taken
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.cli import screens
from dsmt.cli.root import main
from dsmt.errors import FailedError, RefusedError, TimedOutError
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_broker, ensure_node, init
from dsmt.operations.local.members import brokers
from dsmt.operations.local.moving import migrating, ways
from dsmt.operations.local.moving.ways import way_to
from dsmt.operations.local.processes.keeping import write_kept
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted, check_same
from dsmt.operations.read.screens.summaries import status
from dsmt.operations.remote.roles import Roles
from dsmt.ports.bus import HistoryPage
from dsmt.ports.realm import BrokerAddress
from dsmt.ports.store import Append
from dsmt.programs import bridge_copies, nats_server
from dsmt.programs.birth import is_birth_record, open_store
from dsmt.programs.bridge_copies import check_store, end_of
from dsmt.programs.configuration import BrokerFile, CopiedFile, GateFile, MigrationFile, read_config, write_config
from dsmt.programs.kept import KeeperFile
from dsmt.trust.store import TrustStore
from tests.bus.realm import Pen, TestRealm, memory_network
from tests.controllers.build import Realm as FleetRealm
from tests.operations.scripted import ScriptedBus
from tests.operations.sights import sight


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test")
    return made


def under_way(home: Home, *, cut: bool = False, told: CopiedFile | None = None, engine: str = "nats") -> None:
    """A move of which only the files are there."""
    (home.migration / "brokers" / "b1").mkdir(parents=True)
    (home.migration / "brokers" / "b1" / "identity").write_bytes(b"")
    write_config(home.migration / "migration.cbor", MigrationFile(engine=engine, cut=cut, aside="brokers.dsmt-then"))
    if told is not None:
        told.write(home.migration)


@pytest.mark.parametrize(
    ("told", "cut", "said"),
    [
        (None, False, "to nats: 0 of 0 rows copied"),
        (CopiedFile(row=3, head=9), False, "to nats: 3 of 9 rows copied"),
        (CopiedFile(row=3, head=9, why="no answer"), False, "to nats: 3 of 9 rows copied: no answer"),
        (CopiedFile(row=9, head=9, level=True), False, "rows copied; next: dsmt bus migrate --cut, or --abort"),
        (CopiedFile(row=9, head=9, level=True), True, "is being cut over: dsmt bus migrate --cut goes on with that"),
    ],
)
def test_the_realms_screen_tells_how_far_a_move_is(home: Home, told: CopiedFile | None, cut: bool, said: str) -> None:
    seen = sight(FleetRealm("n1"))
    found = status(seen, TrustStore(home.realm().realm), [])
    assert migrating.shown(home) is None
    assert "moving" not in screens.status(found, seen, migrating.shown(home))
    under_way(home, told=told, cut=cut)
    line = next(line for line in screens.status(found, seen, migrating.shown(home)).splitlines() if "  moving " in line)
    assert line.endswith(said)


def test_a_realm_is_not_moved_to_the_engine_that_it_is_on(home: Home, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="realm test is carried by dsmt already"):
        way_to(home, "dsmt")
    with pytest.raises(RefusedError, match="is carried by dsmt, and is not moved by `up`") as told:
        check_same(home, Wanted(engine="nats"))
    assert told.value.next == "leave --engine out, or dsmt bus migrate nats"
    on_nats = Home(tmp_path / "nats")
    init(on_nats, name="test", nats=True)
    with pytest.raises(RefusedError, match="realm test is carried by nats already"):
        way_to(on_nats, "nats")
    with pytest.raises(RefusedError, match="is carried by nats, and is not moved by `up`") as told:
        check_same(on_nats, Wanted(engine="dsmt"))
    assert told.value.next == "leave --engine out, or dsmt bus migrate dsmt"


def test_only_who_has_the_roots_key_begins_to_move_a_realm_to_brokers(tmp_path: Path) -> None:
    home = Home(tmp_path / "nats")
    init(home, name="test", nats=True)
    assert way_to(home, "dsmt").ends_servers
    key = (home.root / "root.key").read_bytes()
    (home.root / "root.key").unlink()
    with pytest.raises(RefusedError, match="signs that what the brokers will have is all that the realm holds") as told:
        way_to(home, "dsmt")
    assert told.value.next == "bring it there; it may go again when the copying has begun"
    (home.root / "root.key").write_bytes(key)
    under_way(home, engine="dsmt")
    (home.root / "root.key").unlink()
    assert way_to(home, "dsmt").ends_servers


def test_the_roots_word_on_a_store_counts_when_all_was_copied_and_not_before(tmp_path: Path) -> None:
    home = Home(tmp_path / "nats")
    realm = init(home, name="test", nats=True)
    made = tmp_path / "b1"
    planned = msgspec.structs.replace(realm, nats=None)
    way_to(home, "dsmt").make(home, [made], planned)
    store = open_store(made)
    store.close()
    assert not (made / "birth").exists()
    for _ in range(2):  # who was killed there does it again
        way_to(home, "dsmt").settle(made)
        assert is_birth_record((made / "birth").read_bytes(), "broker/b1", store.identity, TrustStore(realm.realm))


def test_the_bridge_alone_is_let_in_while_the_rest_is_read_and_nobody_after_an_abort(tmp_path: Path) -> None:
    home = Home(tmp_path / "nats")
    init(home, name="test", nats=True, brokers=3)
    way, files = way_to(home, "dsmt"), [home.part("brokers", name) / "gate.cbor" for name in ("b1", "b2", "b3")]
    way.fence(home)
    (seed,) = {read_config(file, GateFile).bridge for file in files}
    assert len(seed) == 32
    way.fence(home)
    assert {read_config(file, GateFile).bridge for file in files} == {seed}
    way.unfence(home)
    assert {read_config(file, GateFile).bridge for file in files} == {b""}


@pytest.mark.parametrize("swapped", [False, True])
def test_who_aborts_a_cut_leaves_servers_that_let_no_bridge_in(tmp_path: Path, monkeypatch, swapped: bool) -> None:
    home, started = Home(tmp_path / "nats"), []

    async def end_own(_home: Home, *, servers: bool) -> None:
        assert servers

    async def start_all(_home: Home) -> None:
        started.append({read_config(file, GateFile).bridge for file in home.root.glob("brokers/*/gate.cbor")})

    monkeypatch.setattr(migrating, "end_own", end_own)
    monkeypatch.setattr(migrating, "start_all", start_all)
    init(home, name="test", nats=True, brokers=3)
    under_way(home, cut=True, engine="dsmt")
    ways.WAYS["dsmt"].fence(home)
    if swapped:
        (home.root / "brokers").rename(home.root / home.moving().aside)
    (home.root / "migration.old" / "brokers").mkdir(parents=True)  # whoever ended a move before was cut off there
    asyncio.run(migrating.abort(home))
    assert started == [{b""}]
    assert not list(home.root.glob("migration*"))


@pytest.mark.parametrize(("engine", "beside"), [("nats", "migration/brokers"), ("dsmt", "brokers")])
def test_the_keeper_keeps_servers_alone_while_a_move_is_cut(tmp_path: Path, engine: str, beside: str) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", nats=engine == "dsmt")
    under_way(home, engine=engine)
    write_kept(home)
    kept = read_config(home.root / "keeper" / "keeper.cbor", KeeperFile).kept
    assert [program for program, _ in kept].count("bridge") == 1
    assert [one for one in kept if one[0] == "nats_server"] == [("nats_server", str(home.root / beside / "b1"))]
    write_config(home.migration / "migration.cbor", MigrationFile(engine=engine, cut=True))
    write_kept(home)
    kept = read_config(home.root / "keeper" / "keeper.cbor", KeeperFile).kept
    assert kept == (("nats_server", str(home.root / beside / "b1")),)


def test_only_so_many_brokers_are_moved_as_nats_takes(home: Home) -> None:
    ensure_broker(home, "b2")
    with pytest.raises(RefusedError, match="has 2 brokers, and NATS takes 1, 3 or 5 servers") as told:
        way_to(home, "nats")
    assert told.value.next == "dsmt broker add, or dsmt broker remove, first"
    ensure_broker(home, "b3")
    way_to(home, "nats")


def test_a_realm_that_others_reach_is_moved_to_the_same_host(tmp_path: Path) -> None:
    home = Home(tmp_path / "nats")
    init(home, name="test", listen="127.0.0.2:4222", nats=True, brokers=3)
    migrating._make(home, "dsmt", way_to(home, "dsmt"))
    assert {one.address.rpartition(":")[0] for one in migrating.planned(home).values()} == {"127.0.0.2"}


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("to", ["nats", "dsmt"])
def test_a_realm_waits_for_its_disks_on_the_new_engine_as_it_did_on_the_one_before(
    tmp_path: Path, to: str, synced: bool
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", nats=to == "dsmt")
    broker = home.part("brokers", "b1")
    msgspec.structs.replace(BrokerFile.read(broker), synced=synced).write(broker)
    migrating._make(home, to, way_to(home, to))
    assert BrokerFile.read(home.migration / "brokers" / "b1").synced is synced


@pytest.mark.parametrize("engine", ["nats", "dsmt"])
def test_a_machine_that_has_joined_moves_nobody(tmp_path: Path, engine: str) -> None:
    home = Home(tmp_path / "joined")
    init(home, name="test", nats=engine == "dsmt")
    ensure_node(home, "n1")
    for file in (home.operator_file, home.root / "root.key", home.part("brokers", "b1") / "birth"):
        file.unlink()
    with pytest.raises(RefusedError, match="has joined realm test, which was made on another machine"):
        way_to(home, engine)


def checked(home: Home, monkeypatch, *, engine: str = "nats", said=None, off_s: int = 0) -> None:
    async def told(_: object) -> dict[str, BrokerAddress]:
        return said or {}

    async def now(_: object) -> Dated:
        return Dated(int(time.time()) + off_s, "realm")

    monkeypatch.setattr(ways, "announced", told)
    monkeypatch.setattr(ways, "dated", now)
    now_ms = (int(time.time()) + off_s) * 1000 if engine == "dsmt" else 0  # on NATS the bus tells it
    asyncio.run(ways.WAYS[engine].check_realm(ScriptedBus((), now_ms=now_ms), home))


def test_a_realm_with_a_broker_in_another_home_is_not_moved(home: Home, monkeypatch) -> None:
    here, far = (BrokerAddress(f"10.0.0.{n}:7654", bytes(32)) for n in (1, 2))
    checked(home, monkeypatch, said={"b1": here})
    for engine in ("nats", "dsmt"):
        with pytest.raises(RefusedError, match="broker b9 is not in") as told:
            checked(home, monkeypatch, engine=engine, said={"b1": here, "b9": far})
        assert told.value.next.startswith("dsmt broker remove it")
    with pytest.raises(RefusedError, match="brokers b8, b9 are not in"):
        checked(home, monkeypatch, said={"b8": far, "b9": far})


def test_a_realm_with_a_leaf_or_a_clock_of_its_own_is_not_moved(home: Home, monkeypatch) -> None:
    with pytest.raises(RefusedError, match="broker b1 is a leaf") as told:
        checked(home, monkeypatch, said={"b1": BrokerAddress("127.0.0.1:1", bytes(32), leaf=True)})
    assert told.value.next == "dsmt broker remove b1 first"
    for engine in ("nats", "dsmt"):
        with pytest.raises(RefusedError, match=r"realm time is (59|60) s ahead") as told:
            checked(home, monkeypatch, engine=engine, off_s=60)
        assert "set it right" in told.value.next
        with pytest.raises(RefusedError, match=r"realm time is (60|61) s behind"):
            checked(home, monkeypatch, engine=engine, off_s=-60)


def test_a_realm_that_is_not_up_is_not_moved(home: Home) -> None:
    with pytest.raises(RefusedError, match="is not up") as told:
        asyncio.run(migrating.begin(home, "nats"))
    assert told.value.next == "dsmt up, then try again"
    assert home.moving() is None


def test_where_nats_is_not_installed_that_is_said_and_nothing_is_left(home: Home, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(migrating, "is_up", lambda _: True)
    monkeypatch.setattr(nats_server.shutil, "which", lambda _: None)
    monkeypatch.setattr(nats_server.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FailedError, match="nats-server is not installed here") as told:
        asyncio.run(migrating.begin(home, "nats"))
    assert "dsmt[nats]" in told.value.next
    assert home.moving() is None
    assert not list(home.root.glob("migration*"))


def test_where_no_move_is_under_way_there_is_nothing_to_cut_or_abort(home: Home) -> None:
    stands = "no move is under way, and realm test is on dsmt's brokers"
    with pytest.raises(RefusedError, match=f"there is nothing to cut: {stands}") as told:
        migrating.is_cut(home)
    assert told.value.next == "dsmt bus migrate nats, or dsmt, begins one"
    with pytest.raises(RefusedError, match=f"there is nothing to abort: {stands}"):
        asyncio.run(migrating.abort(home))


def test_what_is_not_level_is_not_cut(home: Home) -> None:
    under_way(home, told=CopiedFile(row=7, head=90))
    with pytest.raises(RefusedError, match="7 of 90 rows copied") as told:
        asyncio.run(migrating.cut(home, tell=lambda _: None))
    assert told.value.next == "dsmt bus migrate nats waits until it is level"
    CopiedFile(row=90, head=90, why="no NATS server answers").write(home.migration)
    with pytest.raises(RefusedError, match="no NATS server answers"):
        asyncio.run(migrating.cut(home, tell=lambda _: None))
    assert not migrating.is_cut(home)


def test_who_waits_for_a_bridge_that_gets_no_further_is_told_why(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(migrating, "STUCK_S", 0.2)
    under_way(home, told=CopiedFile(row=7, head=90, why="no NATS server answers at 127.0.0.1:1"))
    with pytest.raises(TimedOutError, match="at row 7 of 90: no NATS server answers") as told:
        asyncio.run(migrating.level(home, lambda _: None))
    assert "bridge.log; dsmt bus migrate --abort" in told.value.next


def test_a_bridge_that_copies_nothing_gets_no_further_though_there_is_more_and_more(home: Home, monkeypatch) -> None:
    heads = count(90)
    monkeypatch.setattr(migrating, "STUCK_S", 0.3)
    monkeypatch.setattr(migrating, "copied", lambda _: CopiedFile(row=7, head=next(heads)))
    under_way(home)
    with pytest.raises(TimedOutError, match="at row 7 of"):
        asyncio.run(asyncio.wait_for(migrating.level(home, lambda _: None), 5))


def test_who_waits_for_a_bridge_that_cannot_go_on_hears_why(home: Home, monkeypatch) -> None:
    looks, told = (
        iter([CopiedFile(head=9), CopiedFile(head=9, why="no server answers"), CopiedFile(row=9, head=9, level=True)]),
        [],
    )
    monkeypatch.setattr(migrating, "copied", lambda _: next(looks))
    under_way(home)
    asyncio.run(asyncio.wait_for(migrating.level(home, told.append), 5))
    assert told == ["0 of 9 rows copied", "0 of 9 rows copied: no server answers", "9 of 9 rows copied"]


def test_a_move_that_is_cut_goes_on_or_back_and_nothing_else_starts_it(home: Home) -> None:
    under_way(home, cut=True)
    assert migrating.is_cut(home)
    with pytest.raises(RefusedError, match="the move is being cut already") as told:
        asyncio.run(migrating.begin(home, "nats"))
    assert told.value.next == "dsmt bus migrate --cut goes on"
    with pytest.raises(RefusedError, match="is being moved to NATS, and was not started again") as told:
        asyncio.run(up(home, Wanted()))
    assert "--cut goes on; dsmt bus migrate --abort goes back" in told.value.next


def test_after_the_swap_nothing_goes_back(home: Home) -> None:
    under_way(home, cut=True)
    (home.migration / "brokers").rename(home.root / "elsewhere")
    with pytest.raises(RefusedError, match="it is too late to abort") as told:
        asyncio.run(migrating.abort(home))
    assert told.value.next == "dsmt bus migrate --cut ends the move"


def test_while_a_realm_is_moved_it_keeps_its_brokers(home: Home) -> None:
    under_way(home)
    bus = ScriptedBus((), now_ms=0)
    giving = Roles(SimpleNamespace(realm=home.realm(), bus=bus), home, ("broker", "node"))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="is being moved to NATS with the brokers that it has") as told:
        asyncio.run(brokers.add(home, bus, "b2", listen=None, by="a", reason="", now_s=0, waits=lambda _: None, leaf=False))
    assert told.value.next == "dsmt bus migrate --cut or --abort first"
    with pytest.raises(RefusedError, match="is being moved to NATS with the brokers that it has"):
        asyncio.run(brokers.remove(home, bus, "b1", by="a", reason="", waits=lambda _: None))
    with pytest.raises(RefusedError, match="is being moved to NATS with the brokers that it has"):
        asyncio.run(giving.give(SimpleNamespace(), {}, "one", SimpleNamespace()))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="--brokers 3"):
        check_same(home, Wanted(brokers=3))


def test_of_another_store_than_the_one_that_was_begun_nothing_is_copied() -> None:
    filler = SimpleNamespace(stores=frozenset({"s1"}))
    check_store(filler, "s1")
    with pytest.raises(RefusedError, match="another store than the one of which a part was copied") as told:
        check_store(filler, "s2")
    assert told.value.next == "dsmt bus migrate --abort, then begin again"


@pytest.mark.parametrize("words", [(), ("nats", "--cut"), ("--cut", "--abort")])
def test_one_thing_at_a_time_is_asked_for(home: Home, capsys, words: tuple[str, ...]) -> None:
    assert main(["bus", "migrate", *words, "--home", str(home.root)]) == 2
    assert "say one of: nats, dsmt, --cut, --abort" in capsys.readouterr().err


def test_a_page_ends_with_its_last_row_that_is_there_was_trimmed_or_is_lost() -> None:
    rows, nodes, lost = ((3, 0, b""), (4, 0, b"")), ((5, 2, bytes(32)),), ((9, 11),)
    assert end_of(HistoryPage("s", (), (), ())) == 0
    assert end_of(HistoryPage("s", rows, (), ())) == 4
    assert end_of(HistoryPage("s", rows, nodes, ())) == 8, "a node of level 2 stands for four rows"
    assert end_of(HistoryPage("s", rows, nodes, lost)) == 11


def test_of_a_second_store_all_is_copied_that_the_first_lacks_also_behind_a_page_of_what_that_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TestRealm(memory_network(), tmp_path)
    first, second = (SqliteStore(":memory:", identity=name * 16) for name in "ab")
    pen = Pen(made.identity("operator/a"))
    events = [pen.write("user/t", {"n": n}) for n in range(5)]
    for store, some in ((first, events[:4]), (second, events)):
        store.append([Append(one, 1000, "signal", fact=False, winner=False, expires_ms=None) for one in some])
    places, taken, left = dict[str, int](), list[int](), list[int]()

    async def take(store: str, rows: list[Taken], upto: int, _proof: object) -> list[object]:
        taken.extend(one.row for one in rows)
        places[store] = upto
        return []

    filler = SimpleNamespace(place=lambda store: places.get(store, 0), take=take)
    monkeypatch.setattr(bridge_copies, "PAGE", 2)
    asyncio.run(bridge_copies._Rest(second, filler, made.trust(), first, left.append).run())
    assert (taken, left) == ([5], [3, 1, 0])
    for store in (first, second):
        store.close()
