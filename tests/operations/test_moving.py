"""What is asked and said on the bus when the realm of a home moves, and whom it is waited for."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli.root import main
from dsmt.errors import RefusedError, TransportError
from dsmt.operations import connection
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import LOCK_FILE
from dsmt.operations.local.home.making import init
from dsmt.operations.local.moving import far_members, migrating, moving
from dsmt.operations.local.up import coming_up
from dsmt.operations.local.up.machine import StartedRealm
from dsmt.programs.configuration import MigrationFile, write_config

STARTED = StartedRealm(realm="test", brokers=("h:1",), controllers=(), nodes=(), made=False)
PLANNED, HERE = {"b8": "planned", "b9": "planned"}, {"b1": "here", "b2": "here"}


class Seen:
    """A home whose realm can be asked, and what was done on its bus, in order."""

    def __init__(self, home: Home, patch: pytest.MonkeyPatch) -> None:
        self.home, self.done, self.up, self.here, self.words = home, list[Any](), True, dict(HERE), ["an old word"]
        connection = SimpleNamespace(bus=self, by="operator/alice")

        @asynccontextmanager
        async def connect(*_: Any) -> AsyncIterator[Any]:
            yield connection

        async def announced(_: Any) -> list[str]:
            return self.words

        for name in ("connect", "reading"):
            patch.setattr(moving, name, connect)
        patch.setattr(moving, "is_up", lambda _: self.up)
        patch.setattr(moving, "of_home", lambda _: self.here)
        patch.setattr(migrating, "planned", lambda _: PLANNED)
        patch.setattr(moving, "announced", announced)
        patch.setattr(moving, "announce", self._does("announce", None))
        patch.setattr(far_members, "told", self._does("told", {"node/n7": 5}))
        patch.setattr(far_members, "stays", self._does("stays", None))
        patch.setattr(far_members, "come", self._does("come", ["node/n7"]))
        patch.setattr(coming_up, "attached", self._does("attached", []))

    def _does(self, what: str, gives: Any) -> Any:
        async def do(_: Any, *about: Any, by: str = "", limit_s: float = 0.0) -> Any:
            assert by in ("", "operator/alice")
            named = [one for one in about if isinstance(one, dict)]
            self.done.append((what, *named, *([limit_s] if limit_s else [])))
            return gives

        return do

    async def check_realm(self, bus: Any, home: Home) -> None:
        assert (bus, home) == (self, self.home)
        self.done.append("checked")

    def under_way(self, engine: str) -> None:
        write_config(self.home.migration / "migration.cbor", MigrationFile(engine=engine, cut=False, members={}))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test")
    return made


@pytest.fixture
def seen(home: Home, monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(home, monkeypatch)


def test_a_realm_is_asked_whether_it_can_be_moved_where_it_is_up(seen: Seen) -> None:
    way: Any = seen
    asyncio.run(moving.check(seen.home, way))
    assert seen.done == ["checked"]
    seen.up = False
    asyncio.run(moving.check(seen.home, way))
    assert seen.done == ["checked"]


@pytest.mark.parametrize(("engine", "said"), [("dsmt", [("announce", PLANNED)]), ("nats", [])])
def test_members_are_told_where_it_will_be_and_of_brokers_of_dsmt_each_other(seen: Seen, engine: str, said: list) -> None:
    seen.under_way(engine)
    assert asyncio.run(moving.tell_where(seen.home)) == {"node/n7": 5}
    assert seen.done == [("told",), *said]


def test_who_tells_members_where_the_realm_goes_hears_that_the_move_was_ended_meanwhile(seen: Seen, monkeypatch) -> None:
    async def told(_: Any, home: Home, *, by: str) -> None:
        far_members._word(home, by)

    monkeypatch.setattr(far_members, "told", told)
    with pytest.raises(RefusedError, match="the move was ended meanwhile"):
        asyncio.run(moving.tell_where(seen.home))
    write_config(seen.home.migration / MigrationFile.FILE, MigrationFile(engine="nats"))
    with pytest.raises(FileNotFoundError):
        asyncio.run(moving.tell_where(seen.home))


def test_of_a_realm_that_is_down_nobody_can_be_told_where_it_goes(seen: Seen) -> None:
    seen.up = False
    with pytest.raises(RefusedError, match="is not up: members on other machines would not hear where it goes") as refused:
        asyncio.run(moving.tell_where(seen.home))
    assert (refused.value.code, seen.done) == ("migrate.down", [])


@pytest.mark.parametrize(("engine", "said"), [("dsmt", [("announce", HERE)]), ("nats", [])])
def test_that_it_stays_is_said_with_where_its_servers_are_where_others_may_have_been_named(
    seen: Seen, engine: str, said: list
) -> None:
    asyncio.run(moving.stays(seen.home, engine))
    assert seen.done == [("stays",), *said]
    seen.up = False
    asyncio.run(moving.stays(seen.home, engine))
    assert seen.done == [("stays",), *said]


@pytest.mark.parametrize("members", [{"node/n7": 5}, {}], ids=["members elsewhere", "all are here"])
def test_it_is_waited_for_all_that_is_here_and_then_for_who_is_elsewhere(seen: Seen, members: dict[str, int]) -> None:
    away = asyncio.run(moving.attached(seen.home, STARTED, members))
    waits = [("come", members)] if members else []
    assert seen.done == [("attached", moving.ATTACHED_S), ("announce", HERE), *waits]
    assert away == (["node/n7"] if members else [])


@pytest.mark.parametrize(("brokers", "words", "said"), [(1, 0, False), (1, 1, True), (2, 0, True), (2, 1, True)], ids=str)
def test_of_one_that_is_alone_it_is_said_where_it_is_only_where_something_was_said_before(
    seen: Seen, brokers: int, words: int, said: bool
) -> None:
    seen.here, seen.words = dict([*HERE.items()][:brokers]), ["an old word"][:words]
    asyncio.run(moving.attached(seen.home, STARTED, {}))
    assert seen.done[1:] == ([("announce", seen.here)] if said else [])


@pytest.mark.parametrize("up", [True, False])
def test_a_cut_starts_services_only_where_the_realm_was_not_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    home = Home(tmp_path)
    init(home, name="test")
    monkeypatch.setattr(migrating, "is_up", lambda _: up)
    assert migrating.serves(home) is up, "what runs on other machines alone is not restarted either"


@pytest.mark.parametrize("cut", [False, True])
def test_who_is_not_answered_while_a_realm_is_cut_over_hears_of_that(home: Home, capsys, monkeypatch, cut: bool) -> None:
    def unanswered(*_: object, **__: object) -> None:
        raise TransportError("bus.unreachable", "no broker answers", next="dsmt up")

    monkeypatch.setattr(connection, "reading", unanswered)
    monkeypatch.setenv("DSMT_HOME", str(home.root))
    home.migration.mkdir()
    write_config(home.migration / MigrationFile.FILE, MigrationFile(engine="nats", cut=cut))
    with (home.root / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["nodes"]) == 7
    told = capsys.readouterr().err
    assert ("is being cut over to nats: no broker answers" in told) == cut
    assert ("Next: try again when dsmt bus migrate --cut has ended" in told) == cut
    assert main(["nodes"]) == 7
    assert ("Next: dsmt bus migrate --cut goes on with it" in capsys.readouterr().err) == cut, "nobody is at it any more"
