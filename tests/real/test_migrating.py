"""A realm that runs moves to another engine: no service is restarted, and nothing acknowledged is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.link import NatsLink
from dsmt.errors import RefusedError, TransportError
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import SERVERS, Home
from dsmt.operations.local.moving import migrating
from dsmt.operations.local.moving.ways import way_to
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.write.brokers import announced
from dsmt.programs.birth import is_birth_record
from dsmt.programs.configuration import GateFile, read_config
from dsmt.programs.kept import KeeperFile
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from tests.real.fleet import eventually, gone
from tests.real.moving import (
    begun,
    commanded,
    has_blob,
    killed,
    moved,
    publishing,
    put_blob,
    running,
    stands,
    within,
    works,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(400), pytest.mark.xdist_group("nats-realm")]

BOTH = pytest.mark.parametrize(("engine", "to"), [("dsmt", "nats"), ("nats", "dsmt")])


async def verified(home: Home, tmp_path: Path) -> None:
    """What each broker exports is whole, and what was decided on its store is decided again."""
    same = 0
    for address, _ in home.realm().brokers:
        file = str(tmp_path / f"history-{address}")
        await commanded(home, "export", file, "--bus", f"dsmt://{address}")
        told = json.loads(await commanded(home, "verify", "--json", file))
        assert (told["ok"], told["gaps"]) == (True, [])
        assert told["history"]["heads"] >= 2
        word = (home.part("brokers", told["history"]["broker"].partition("/")[2]) / "birth").read_bytes()
        assert is_birth_record(word, told["history"]["broker"], told["history"]["store"], TrustStore(home.realm().realm))
        again = json.loads(await commanded(home, "replay", "--json", file))
        assert not [one for one in again["decisions"] if one["outcome"] != "same" and "it read" not in one["details"][0]]
        same += again["same"]
    assert same


@BOTH
def test_a_realm_moves_and_no_service_is_restarted(tmp_path: Path, engine: str, to: str) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        before = await begun(home, engine)
        async with publishing(home) as publisher:
            assert await migrating.begin(home, to)
            await put_blob(home)
            await eventually("a hundred words", lambda: len(publisher.acknowledged) > 100)
            await killed(home.migration, "bridge")
            await killed(home.root / "keeper", "spawner")
            assert "no member has moved yet" in await commanded(home, "bus", "migrate", to)
            assert "no service was restarted" in await commanded(home, "bus", "migrate", "--cut")
        await stands(home, publisher, before)
        (aside,) = home.root.glob(f"brokers.{engine}-*")
        assert (aside / "b1" / ("store.db" if engine == "dsmt" else "jetstream")).exists()
        assert not home.migration.exists()
        assert home.realm().engine == to
        await has_blob(home)
        await works(home)
        if to == "dsmt":
            await verified(home, tmp_path)

    within(home, work)


def test_nobody_comes_in_by_the_key_of_the_bridge_after_a_move(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        await begun(home, "dsmt")
        await migrating.begin(home, "nats")
        seed = read_config(home.part(SERVERS, "b1") / "gate.cbor", GateFile).bridge
        await migrating.level(home, lambda _: None)
        await moved(home)
        gate = read_config(home.part("brokers", "b1") / "gate.cbor", GateFile)
        assert gate.bridge == b""
        realm = home.realm()
        servers = NatsRealm(tuple(at for at, _ in realm.brokers), authority=realm.nats.authority, gated=True)
        with pytest.raises(TransportError, match="does not answer"):  # a gate answers nobody who shows no certificate
            await NatsLink.connect(servers.servers[0], servers, key=SecretKey(seed), name="bridge")

    within(home, work)


@BOTH
def test_a_move_that_is_aborted_leaves_the_realm_as_it_was(tmp_path: Path, engine: str, to: str) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        before = await begun(home, engine)
        realm = home.realm()
        async with publishing(home) as publisher:
            assert await migrating.begin(home, to)
            await migrating.level(home, lambda _: None)
            server, bridge = running(home.part(SERVERS, "b1"), "nats_server"), running(home.migration, "bridge")
            kept = [running(home.part("brokers", "b1"), one) for one in ("broker", "nats_server")]
            assert (server is not None) == (to == "nats")
            assert bridge is not None
            assert await migrating.abort(home) is None
            await gone(bridge, *(one for one in [server] if one is not None))
        assert [running(home.part("brokers", "b1"), one) for one in ("broker", "nats_server")] == kept
        assert home.realm() == realm
        assert not list(home.root.glob("migration*"))
        programs = {program for program, _ in read_config(home.root / "keeper" / "keeper.cbor", KeeperFile).kept}
        assert programs == {"broker", "controller"} | ({"nats_server"} if engine == "nats" else set())
        await stands(home, publisher, before)
        assert await migrating.begin(home, to)  # `down` ends a move that is under way, too

    within(home, work)


STEPS = ("end_own", "_drain", "_settle", "reach_at", "start_all")


class Killed(BaseException):
    """The command is killed here."""


@BOTH
def test_a_cut_that_is_killed_anywhere_goes_on_or_back(tmp_path: Path, monkeypatch, engine: str, to: str) -> None:
    home = Home(tmp_path / "home")

    async def killed_at(step: str, *, after: bool) -> None:
        real = getattr(migrating, step)

        async def dies_after(*values, **more):
            await real(*values, **more)
            raise Killed

        def dies(*values, **more):
            if after and step in ("_settle", "reach_at"):
                real(*values, **more)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(migrating, step, dies_after if after and step == "_drain" else dies)
            with pytest.raises(Killed):
                await migrating.cut(home, tell=lambda _: None)

    async def work() -> None:
        before = await begun(home, engine)
        async with publishing(home) as publisher:
            await migrating.begin(home, to)
            await migrating.level(home, lambda _: None)
            for after in (False, True):
                await killed_at("_drain", after=after)
            with pytest.raises(RefusedError, match=r"is being moved to .*, and was not started again"):
                await up(home, Wanted())
            assert await migrating.abort(home) is not None
            await stands(home, publisher, before)
            await migrating.begin(home, to)
            await migrating.level(home, lambda _: None)
            for step in STEPS:
                await killed_at(step, after=True)
                if step not in ("reach_at", "start_all"):
                    assert home.realm().engine == engine
            with pytest.raises(RefusedError, match="it is too late to abort"):
                await migrating.abort(home)
            await moved(home)
        await stands(home, publisher, before)

    within(home, work)


def test_a_realm_of_three_brokers_goes_there_and_comes_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        before = await begun(home, "dsmt", brokers=3)
        kept = home.part("nodes", "n1") / "bus" / "manager" / "brokers"
        await commanded(home, "up", "--detach")  # says where the brokers are, which everybody keeps
        await eventually("kept", kept.exists)
        async with publishing(home) as publisher:
            for engine in ("nats", "dsmt"):
                await commanded(home, "bus", "migrate", engine)
                await killed(home.part("brokers", "b1"), "broker")  # of dsmt's brokers the one that is copied
                await commanded(home, "bus", "migrate", "--cut")
                said = len(publisher.acknowledged)
                await eventually("more", lambda said=said: len(publisher.acknowledged) > said + 20)
        await stands(home, publisher, before)
        async with connect(home.operator(), home.realm()) as connection:
            assert {one.address for one in (await announced(connection.bus)).values()} == {
                address for address, _ in home.realm().brokers
            }
        await works(home)
        await verified(home, tmp_path)

    within(home, work)


def test_what_cannot_be_moved_is_refused_with_what_to_do(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        await begun(home, "nats")
        with pytest.raises(RefusedError, match="is carried by nats already"):
            way_to(home, "nats")
        (home.root / "root.key").rename(home.root / "away")
        with pytest.raises(RefusedError, match=r"root key is not in .* signs that what the brokers will have") as told:
            way_to(home, "dsmt")
        assert told.value.code == "migrate.root"
        (home.root / "away").rename(home.root / "root.key")
        await migrating.begin(home, "dsmt")
        (home.root / "root.key").rename(home.root / "away")
        way_to(home, "dsmt")  # the root has signed

    within(home, work)
