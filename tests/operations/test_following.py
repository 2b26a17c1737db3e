"""Who moves a realm waits for the members elsewhere, and names who has not come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli.root import main
from dsmt.errors import RefusedError
from dsmt.event.kinds.realm import EngineWord
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.moving import far_members, migrating, moving
from dsmt.operations.local.moving.ways import way_to
from dsmt.operations.local.up.machine import StartedRealm
from dsmt.operations.read.waits import waiting
from dsmt.programs.configuration import MigrationFile, write_config


def sight(**sessions: tuple[str, int]) -> Any:
    """What is seen where these nodes' sessions are in a state, since a time."""
    found = {}
    for node, (state, since_ms) in sessions.items():
        said = SimpleNamespace(record=SimpleNamespace(state=state, since_ms=since_ms))
        found[f"node/{node}"] = SimpleNamespace(newest=("b1", said))
    return SimpleNamespace(view=SimpleNamespace(sessions=SimpleNamespace(of=found)))


def watched(monkeypatch: pytest.MonkeyPatch, seen: Iterable[Any]) -> Iterator[Any]:
    """What whoever waits sees, one after the other, and then nothing new; what of it nobody has looked at yet."""
    looks = iter(seen)

    async def watch(_bus: object) -> AsyncIterator[Any]:
        for one in looks:
            yield one
        await asyncio.sleep(600)

    monkeypatch.setattr(waiting, "watch", watch)
    monkeypatch.setattr(waiting, "is_undecided", lambda _: False)
    return looks


def test_a_session_of_before_is_not_taken_for_one_where_the_realm_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of who had attached, or joined, just before the cut: what carries the realm now knows that session, too."""
    nobody: Any = object()
    before = sight(a=("open", 1000), b=("open", 1000))
    seen = [before, sight(a=("silent", 3000), b=("open", 2000)), sight(a=("open", 4000), b=("open", 2000))]
    looks = watched(monkeypatch, seen)
    assert asyncio.run(far_members.come(nobody, {"node/a": 1000, "node/b": 1000})) == []
    assert next(looks, None) is None, "it looked until both had come"
    watched(monkeypatch, [before])
    monkeypatch.setattr(far_members, "COME_S", -1.0)
    assert asyncio.run(far_members.come(nobody, {"node/a": 1000, "node/b": 1000})) == ["node/a", "node/b"]


def test_members_are_who_is_not_in_this_home_and_none_of_them_may_be_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    ensure_node(home, "n1")
    ensure_controller(home, "c1")
    found = {"n1": "alive", "n7": "alive", "n8": "suspect", "n9": "left"}
    living = {"c1": True, "far": True, "gone": False}
    seen: Any = object()

    def nodes(sight: Any) -> Any:
        assert sight is seen
        return [SimpleNamespace(node=name, liveness=state) for name, state in found.items()]

    def controllers(sight: Any) -> Any:
        assert sight is seen
        return [SimpleNamespace(controller=one, alive=state) for one, state in living.items()]

    monkeypatch.setattr(far_members, "node_rows", nodes)
    monkeypatch.setattr(far_members, "controller_rows", controllers)
    assert far_members._elsewhere(seen, home) == ["node/n7", "node/n8", "controller/far"]
    found["n1"] = "dead"
    assert far_members._elsewhere(seen, home)[:1] == ["node/n7"], "what is here is started here"
    found["n7"] = "dead"
    with pytest.raises(RefusedError, match="node n7 would not hear where the realm goes: it is dead") as told:
        far_members._elsewhere(seen, home)
    assert (told.value.code, told.value.next) == ("migrate.away", "bring it back, or dsmt node remove --forget, first")
    found["n8"] = "dead"
    with pytest.raises(RefusedError, match="node n7, n8 would not hear where the realm goes: they are dead"):
        far_members._elsewhere(seen, home)


class Realm:
    """What is asked and told of it: `members` are elsewhere, and `left` of them have not heard."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Home, **sessions: tuple[str, int]) -> None:
        self.members, self.left = ["node/n7", "node/n8"], dict[str, str]()
        self.said: list[EngineWord] = []
        self._home, self._seen = home, sight(**sessions)
        for name in ("look", "_elsewhere", "tell", "unheard"):
            monkeypatch.setattr(far_members, name, getattr(self, name))

    async def look(self, bus: Any, *, passing: bool = False) -> Any:
        assert bus is self
        return "with what is told of who is dead" if passing else self._seen

    def _elsewhere(self, seen: Any, home: Home) -> list[str]:
        assert (seen, home) == ("with what is told of who is dead", self._home)
        return self.members

    async def tell(self, bus: Any, word: EngineWord) -> str:
        assert bus is self
        self.said.append(word)
        return "its id"

    async def unheard(self, bus: Any, word: str, members: list[str], *, limit_s: float) -> dict[str, str]:
        assert (bus, word, members, limit_s) == (self, "its id", self.members, far_members.HEAR_S)
        return self.left


@pytest.mark.parametrize("engine", ["nats", "dsmt"])
def test_members_are_told_where_the_realm_will_be_and_all_of_them_are_to_hear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", nats=engine == "dsmt")
    migrating._make(home, engine, way_to(home, engine))
    realm: Any = Realm(monkeypatch, home, n1=("open", 500), n7=("open", 1000), n8=("silent", 2000))
    assert asyncio.run(far_members.told(realm, home, by="operator/alice")) == {"node/n7": 1000, "node/n8": 0}
    (word,) = realm.said
    assert word.brokers == tuple((one.address, one.public) for one in migrating.planned(home).values())
    assert (word.by, word.replicas) == ("operator/alice", 1 if engine == "nats" else 0)
    assert word.authority[:27] == ("-----BEGIN CERTIFICATE-----" if engine == "nats" else "")
    realm.left = {"node/n8": "lacks the client", "node/n7": "has not heard of it"}
    said = "not everybody can follow the realm: node/n7 has not heard of it; node/n8 lacks the client"
    with pytest.raises(RefusedError, match=f"^{said}") as refused:
        asyncio.run(far_members.told(realm, home, by="operator/alice"))
    assert refused.value.code == "migrate.away"
    assert refused.value.next == "see to it, then dsmt bus migrate --cut again; or --abort"


def test_where_nobody_is_elsewhere_nobody_is_told_and_of_a_move_that_is_broken_off_it_is_that_the_realm_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    realm: Any = Realm(monkeypatch, home)
    realm.members = []
    assert asyncio.run(far_members.told(realm, home, by="operator/alice")) == {}
    assert realm.said == []
    asyncio.run(far_members.stays(realm, by="operator/alice"))
    assert realm.said == [EngineWord(brokers=(), by="operator/alice")]


@pytest.mark.parametrize("engine", ["nats", "dsmt"])
def test_who_goes_on_with_a_cut_that_was_broken_off_waits_for_the_members_that_were_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    home, awaited = Home(tmp_path / "home"), {}
    init(home, name="test")
    monkeypatch.setenv("DSMT_HOME", str(home.root))
    write_config(home.migration / "migration.cbor", MigrationFile(engine=engine, cut=True, members={"node/web-1": 7}))
    started = StartedRealm(realm="test", brokers=("h:1",), controllers=(), nodes=(), made=False)

    async def cut(*_: Any, **__: Any) -> StartedRealm:
        return started

    async def attached(_home: Home, _started: StartedRealm, members: dict[str, int]) -> list[str]:
        awaited.update(members)
        return ["node/web-1"]

    monkeypatch.setattr(migrating, "cut", cut)
    monkeypatch.setattr(moving, "attached", attached)
    assert main(["bus", "migrate", "--cut"]) == 0
    assert awaited == {"node/web-1": 7}
    assert "node/web-1 has not come yet" in capsys.readouterr().out
    assert home.moving() is None
