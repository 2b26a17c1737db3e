"""Controllers that are added to a realm: under which names, and by whom."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import NotFoundError, RefusedError
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.records import to_data
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_controller, init
from dsmt.operations.local.members import brokers, certificates, controllers
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.telling import silent
from dsmt.operations.write.revoking import Claim
from dsmt.ports.bus import Draft
from dsmt.trust.store import TrustStore
from tests.bus.idle import run_alone
from tests.bus.realm import memory_network, realm
from tests.controllers.build import Realm as Fleet
from tests.operations.sights import sight


def test_one_is_made_once_and_started_where_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    kept: list[str] = []

    async def keep(_: Home, kind: str, programs: tuple[str, ...], name: str) -> None:
        assert (kind, programs) == ("controllers", ("controller",))
        kept.append(name)

    monkeypatch.setattr(controllers, "keep_added", keep)

    async def test(r: Any) -> None:
        state = ControllerState(version="1", ruleset=1, pid=None, decisions=0)
        await (await r.client("controller/far")).publish(Draft("controller/far/state", to_data(state)))
        bus = await r.client("operator/alice")
        await controllers.add(home, bus, "c7", waits=silent)
        with pytest.raises(RefusedError, match=r"c7 is in .* already, and nothing is left to do"):
            await controllers.add(home, bus, "c7", waits=silent)
        monkeypatch.setattr(controllers, "is_up", lambda _: True)
        await controllers.add(home, bus, "c7", waits=silent)
        with pytest.raises(RefusedError, match="there is a controller far on another machine"):
            await controllers.add(home, bus, "far", waits=silent)

    async def within() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker("b1")
            await test(made)

    run_alone(within())
    assert kept == ["c7", "c7"]
    assert home.names("controllers") == ["c7"]


@pytest.mark.parametrize("below", [[], ["node/n7"]])
def test_one_that_is_gone_ends_with_its_issuer_unless_nodes_need_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: list[str]
) -> None:
    home, fleet = Home(tmp_path / "home"), Fleet("n1")
    init(home, name="test")
    for name in ("c1", "c2"):
        ensure_controller(home, name)
        fleet.controller(name)
    fleet.session("controller/c2", "closed", how="peer")
    shutil.rmtree(home.part("controllers", "c2"))
    ended: list[str] = []

    async def seen(_: Any) -> Sight:
        return sight(fleet)

    async def claim(connection: Any, what: str) -> Claim:
        name = next(one.subject for one in connection.trust.certificates() if one.key_id.hex() == what)
        return Claim(name=name, key=what, ours=[], theirs=[], below=below)

    async def revoke(_: Any, __: Any, found: Claim, *, reason: str) -> Any:
        ended.append(f"{found.name}: {reason}")
        return SimpleNamespace(left=[])

    monkeypatch.setattr(controllers, "look", seen)
    monkeypatch.setattr(controllers, "claim", claim)
    monkeypatch.setattr(certificates, "revoke", revoke)
    at: Any = SimpleNamespace(trust=TrustStore(home.realm().realm), bus=None)
    done = asyncio.run(controllers.remove(home, at, "c2", reason="lost", sure=True, waits=silent))
    assert ended == ([] if below else ["issuer/c2: lost"]), "its own key is known where it has said something"
    assert done.certified == below


def test_without_the_root_key_none_is_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    home.root_key_file.unlink()
    with pytest.raises(NotFoundError, match="the root key is not in"):
        controllers.check_asked(home, "c7")


@pytest.mark.parametrize("kind", ["broker", "controller"])
def test_on_a_machine_that_has_joined_none_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    monkeypatch.setattr(Home, "is_joined", True)
    with pytest.raises(RefusedError, match=f"has joined realm test, and no {kind} is added there") as refused:
        brokers.check_asked(home, "b2", None) if kind == "broker" else controllers.check_asked(home, "c7")
    assert refused.value.next.endswith(f"dsmt node add HOST --roles {kind},node")
