"""A host that is added: what this home knows of it from when on, what is brought to it, and who else is on its machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.remote import adding
from dsmt.operations.remote.hosts import address_of
from dsmt.operations.remote.on_host import VERBS
from dsmt.operations.remote.places import NodePlace, keep_place, place_of, places
from dsmt.operations.remote.wheels import Wheels
from dsmt.ports.realm import NatsTerms
from dsmt.programs.configuration import RealmConfig

NATS = NatsTerms(authority="", replicas=3)


def add(home: Home, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Add a host to which nothing can be brought; what was to be installed there."""
    wanted: list[str] = []

    @asynccontextmanager
    async def reached(address: Any, **_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(address=address, platform=None, do=do, bring=bring)

    async def do(*_: Any) -> dict[str, Any]:
        return {"ours": True, "more": False, "nodes": [], "installed": False, "hostname": "one", **found}

    async def bring(*_: Any, **__: Any) -> None:
        raise FailedError("ssh.lost", "the connection was lost")

    async def collected(*_: Any, what: str) -> Wheels:
        wanted.append(what)
        return Wheels(files={})

    async def free(*_: Any) -> None:
        """That the name is nobody's."""

    monkeypatch.setattr(adding, "reached", reached)
    monkeypatch.setattr(adding, "collected", collected)
    monkeypatch.setattr(adding, "_check_free", free)
    realm = RealmConfig(name="test", roots=(bytes(32),), brokers=(("10.0.0.1:1", bytes(32)),), nats=NATS)
    connection: Any = SimpleNamespace(realm=realm)
    roles: Any = SimpleNamespace(all=())
    operator: Any = None
    work = adding.Adding(connection, operator, home, labels={}, roles=roles, user=True, tell=lambda *_: None)
    with pytest.raises(FailedError, match="the connection was lost"):
        asyncio.run(work.add([address_of("one")], lambda _: None))
    return wanted


def test_where_a_node_is_to_be_is_known_before_anything_is_made_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    assert add(home, {}, monkeypatch) == ["dsmt[nats-client]"]
    assert places(home) == {"one": NodePlace(host="one", user=True)}


@pytest.mark.parametrize("damaged", [b"", b"{}x", b'{"one": 1}', b'{"\xff": 1}', b'{"x": ' + b"[" * 9_000])
def test_where_nodes_were_added_is_told_to_be_unknown_where_its_file_is_damaged(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_bytes(damaged)
    with pytest.raises(InputError, match=r"hosts\.json is damaged"):
        places(Home(tmp_path))


def test_a_host_that_serves_is_brought_what_a_server_needs_when_it_is_added_again_as_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    asyncio.run(keep_place(home, "one", NodePlace(host="one", user=True, roles=("broker",))))
    assert add(home, {}, monkeypatch) == ["dsmt[nats]"]
    assert places(home)["one"].roles == ("broker",), "what was added there before stays known"
    assert place_of(home, "one") == ("one", places(home)["one"])


def test_a_node_that_runs_without_what_a_server_needs_gets_none() -> None:
    one = address_of("one")
    with pytest.raises(RefusedError, match="one is a node already, n1, and was brought no NATS server"):
        adding._check_served(one, "dsmt[nats]", {"nodes": ["n1"], "installed": False})
    adding._check_served(one, "dsmt[nats]", {"nodes": ["n1"], "installed": True})
    adding._check_served(one, "dsmt[nats]", {"nodes": [], "installed": False})
    adding._check_served(one, "dsmt[nats-client]", {"nodes": ["n1"], "installed": False})


def test_of_a_machine_its_other_living_nodes_are_told() -> None:
    def node(boot_id: str) -> Any:
        return SimpleNamespace(attributes=SimpleNamespace(record=SimpleNamespace(boot_id=boot_id, address="10.0.0.1")))

    nodes = {
        "one": node("a"),
        "two": node("a"),
        "dead": node("a"),
        "far": node("b"),
        "new": SimpleNamespace(attributes=None),
    }
    fleet = SimpleNamespace(state=lambda name: "dead" if name == "dead" else "alive")
    sight: Any = SimpleNamespace(view=SimpleNamespace(nodes=nodes), fleet=fleet)
    assert adding._on_machine_of(sight, "one") == ("two",)


@pytest.mark.parametrize(
    ("nodes", "ends_s", "done"),
    [
        (["n1"], 1001, ["state", "settle", "start"]),
        (["n1"], 999, ["state", "settle", "join", "start"]),
        ([], 0, ["state", "join", "start"]),
    ],
)
def test_a_host_that_was_added_before_takes_what_is_typed_before_it_is_started(
    nodes: list[str], ends_s: int, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose own certificate has ended joins with the key that it has, whatever others know of that.

    The wheels that were named for it, and that it has, are kept for the next one.
    """
    ran: list[str] = []
    kept = Mock()
    monkeypatch.setattr(adding, "keep", kept)

    @asynccontextmanager
    async def reached(address: Any, **_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(address=address, platform=None, do=do)

    async def do(verb: str, told: dict[str, Any]) -> dict[str, Any]:
        ran.append(verb)
        assert verb in VERBS
        assert told["labels"] == {"zone": "b"}
        state = {"ours": True, "more": False, "nodes": nodes, "installed": True, "hostname": "one", "kept": True}
        return {**state, "ends_s": ends_s}

    async def nothing(*_: Any, **__: Any) -> Any:
        return Wheels(files={}) if "what" in __ else (None, None)

    async def join(*_: Any) -> None:
        ran.append("join")

    async def give(*_: Any) -> Any:
        return SimpleNamespace(certified=[], broker=None)

    monkeypatch.setattr(adding, "reached", reached)
    for name in ("collected", "_out", "_alive", "_check_free"):
        monkeypatch.setattr(adding, name, nothing)
    monkeypatch.setattr(adding.Adding, "_join", join)
    monkeypatch.setattr(adding, "_on_machine_of", lambda *_: ())
    realm = RealmConfig(name="test", roots=(bytes(32),), brokers=(("10.0.0.1:1", bytes(32)),))
    bus = SimpleNamespace(now_ms=lambda: 1_000_000)
    connection, operator, roles = SimpleNamespace(realm=realm, bus=bus), None, SimpleNamespace(all=(), give=give)
    typed: dict[str, Any] = {"labels": {"zone": "b"}, "user": True, "wheels": tmp_path}
    work = adding.Adding(connection, operator, Home(tmp_path), roles=roles, tell=lambda *_: None, **typed)  # type: ignore[arg-type]
    asyncio.run(work.add([address_of("one")], lambda _: None))
    assert ran == done
    assert kept.call_count == 1
