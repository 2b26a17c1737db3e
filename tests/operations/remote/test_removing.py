"""What is told of a host that cannot be removed yet, or of which not everything is alive."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import InputError, TimedOutError
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.rows.holding import Undrained
from dsmt.operations.remote import adding, removing
from dsmt.operations.remote.places import NodePlace
from dsmt.operations.words.telling import silent
from dsmt.view import NodeEntry

CONNECTION: Any = SimpleNamespace(bus=None)


def refused(
    left: list[Undrained],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    state: str = "alive",
    data: tuple[str, ...] = (),
) -> InputError:
    async def look(_: Any) -> Any:
        return SimpleNamespace(fleet=SimpleNamespace(state=lambda _: state))

    monkeypatch.setattr(removing, "look", look)
    monkeypatch.setattr(removing, "left_on", lambda *_: left)
    monkeypatch.setattr(removing, "data_on", lambda *_: data or [one.instance for one in left if one.stays])
    place = NodePlace(host="one")
    with pytest.raises(InputError) as told:
        asyncio.run(removing.remove(CONNECTION, Home(directory), "one", place, reason="", sure=False, tell=silent))
    return told.value


def left(instance: str, *, stays: bool = False) -> Undrained:
    return Undrained(instance=instance, stays=stays, because="")


def test_who_is_about_to_remove_the_data_of_an_instance_is_told_so_and_not_to_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused([left("web/app/0"), left("kv/redis/1", stays=True)], tmp_path, monkeypatch)
    assert said.message == "kv/redis/1 and 1 more are on one, and the data of kv/redis/1 with them; nothing was done"
    assert said.next == "copy that data; then --yes, which ends them there and removes it"


def test_of_what_has_ended_the_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused([], tmp_path, monkeypatch, data=("old/a/0", "old/a/1", "old/a/2", "old/a/3"))
    assert said.message == "the data of old/a/0, old/a/1, old/a/2 and 1 more is on one; nothing was done"
    assert said.next == "copy that data; then --yes, which removes it"


def test_what_a_drain_moves_is_to_be_drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused([left("web/app/0")], tmp_path, monkeypatch)
    assert said.message == "web/app/0 runs on one; nothing was done"
    assert "dsmt node drain one" in said.next


def test_of_a_dead_node_it_is_not_said_that_anything_runs_there_or_is_to_be_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused([left("web/app/0")], tmp_path, monkeypatch, state="dead")
    assert (said.code, said.message) == ("node.dead", "one is dead; nothing was done")
    assert said.next.startswith("dsmt node remove one --forget, if its machine is gone; or --yes")


def test_who_forgets_a_node_that_is_alive_is_told_how_it_ends_where_it_runs_and_where_nobody_reaches_it(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    assert (
        removing._ends(home, "one", NodePlace(host="one"))
        == "dsmt node remove one, without --forget, which ends it on its host"
    )
    assert removing._ends(home, "one", None).endswith(
        "of a machine that you do not have: dsmt cert revoke node/one, then this again"
    )
    home.part("nodes", "one").mkdir(parents=True)
    assert removing._ends(home, "one", None) == "dsmt node remove one, without --forget, which ends it"


def test_what_is_missing_of_a_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    async def until(_: Any, seen: Any, **more: Any) -> None:
        asked.update(more, seen=seen)

    def sight(*brokers: str, told: bool = True) -> Any:
        fleet = SimpleNamespace(lost_brokers={}, state=lambda _: "alive")
        attributes: Any = SimpleNamespace(record=SimpleNamespace(boot_id="", address="")) if told else None
        nodes = {"one": NodeEntry("one", attributes=attributes)}
        return SimpleNamespace(
            view=SimpleNamespace(sessions=SimpleNamespace(brokers=set(brokers)), nodes=nodes), fleet=fleet
        )

    monkeypatch.setattr(adding, "until", until)
    asyncio.run(adding._alive(CONNECTION, "one", ["broker"]))
    assert (asked["seen"](sight("b1")), asked["far"](sight("b1"))) == (None, "missing: broker")
    assert asked["far"](sight("one", told=False)) == "missing: node"
    assert asked["unmet"] == "not all of one is alive"
    assert asked["seen"](sight("b1", "one"))


def test_who_waits_in_vain_for_the_end_of_a_node_is_told_that_another_machine_may_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def until(*_: Any, unmet: str, **__: Any) -> None:
        raise TimedOutError("wait.timeout", unmet, next="dsmt nodes shows how far it is")

    monkeypatch.setattr(removing, "until", until)
    removal = removing._Removal(CONNECTION, Home(tmp_path), "one", "", silent)
    with pytest.raises(TimedOutError, match="one is still heard") as told:
        asyncio.run(removal.forget_ended())
    assert "if another machine has its name: dsmt cert revoke node/one" in told.value.next
