"""Who waits for a realm that `dsmt down`, typed elsewhere, ends meanwhile is told so (rule C16)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.cli.root import main
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.processes.keeping import RUN, begin
from dsmt.operations.local.up import coming_up
from dsmt.operations.local.up.machine import RealmRun, StartedRealm
from dsmt.operations.local.up.upgrading import Upgraded

STARTED = StartedRealm("test", ("127.0.0.1:1",), (), ("n1",), made=False)


async def ended(home: Home, *_: Any, **__: Any) -> None:
    """Nodes that are waited for while somebody ends the realm: they never come."""
    (keeper_directory(home) / RUN).unlink()
    await asyncio.Event().wait()


@pytest.mark.parametrize("typed", [["upgrade"], ["up", "--detach"]], ids=["upgrade", "up"])
def test_who_waits_for_nodes_is_told_that_the_realm_was_ended(
    typed: list[str], run: Callable[..., Any], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for half a minute, and said that it goes on by itself."""
    name = begin(Home(made))

    async def upgrade(*_: Any, **__: Any) -> Upgraded:
        return Upgraded(STARTED, ["b1"], 0, 0, name)

    async def up(*_: Any, begins: Callable[[RealmRun], None], **__: Any) -> StartedRealm:
        begins(RealmRun(was_up=False, name=name))
        return STARTED

    async def nothing(*_: Any, **__: Any) -> list[str]:
        return []

    monkeypatch.setattr("dsmt.operations.local.processes.keeping._goes_on", lambda _: True)
    monkeypatch.setattr("dsmt.operations.local.up.upgrading.upgrade", upgrade)
    monkeypatch.setattr("dsmt.operations.local.up.machine.up", up)
    monkeypatch.setattr("dsmt.operations.local.up.machine.left_out", lambda *_: [])
    monkeypatch.setattr(coming_up, "announced", nothing)
    monkeypatch.setattr(coming_up, "attached", ended)
    code, told = run(*typed, home=made)
    assert code == 1
    assert f"dsmt down, typed elsewhere, has ended the realm in {made}. Next: dsmt up starts it again" in told


def test_up_lists_no_broker_that_an_operator_of_another_home_has_removed(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said in a warning that the broker does not belong to the realm any more, and listed it among those that do."""

    async def up(*_: Any, begins: Callable[[RealmRun], None], **__: Any) -> StartedRealm:
        begins(RealmRun(was_up=False, name=begin(Home(made))))
        return replace(STARTED, brokers=("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"))

    async def announced(*_: Any, left: set[str]) -> list[str]:
        left.add("127.0.0.1:2")
        return ["broker b2 does not belong to the realm any more"]

    async def attached(*_: Any, **__: Any) -> list[str]:
        return []

    monkeypatch.setattr("dsmt.operations.local.processes.keeping._goes_on", lambda _: True)
    monkeypatch.setattr("dsmt.operations.local.up.machine.up", up)
    monkeypatch.setattr("dsmt.operations.local.up.machine.left_out", lambda *_: [])
    monkeypatch.setattr(coming_up, "announced", announced)
    monkeypatch.setattr(coming_up, "attached", attached)
    assert main(["--home", str(made), "up", "--detach"]) == 0
    told = capsys.readouterr()
    assert "realm test: brokers 127.0.0.1:1, 127.0.0.1:3, 0 controllers, 1 node\n" in told.out
    assert told.err == "warning: broker b2 does not belong to the realm any more\n"
