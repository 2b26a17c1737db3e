"""The keeper of a home: one that dies is replaced and told, and `down` ends all that it kept."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.known_spawner import KNOWN
from tests.real.fleet import attached, eventually, gone, kill_at_once, processes_of, redis_spec
from tests.real.homes import at, everybody, name_of, run
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_down_ends_all_after_the_keeper_was_killed(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "2", "--detach")
        async with attached(home, nodes=2) as made:
            await made.apply(redis_spec(2))
            await made.ready("store", 2)
            pids = list(made.pids("store").values())
        before = [identity for identity in everybody(home).values() if identity is not None]
        keeper = at(home, "keeper", "", "spawner")()
        assert keeper is not None
        os.kill(keeper.pid, signal.SIGKILL)
        await gone(keeper)
        assert (await dsmt(home.root, "down", "--json")).json["stuck"] == []
        await gone(*before)
        assert processes_of(home.root) == {}
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]  # noqa: ASYNC240 - /proc is no disk

    run(tmp_path, scenario)


async def deaths_of_keepers(home: Home) -> dict[str, str]:
    """What `status` tells of keepers that have died, by who says so, once it tells anything."""
    told: dict[str, str] = {}
    for _ in range(50):
        said = (await dsmt(home.root, "status", "--json")).json
        told = {alert["target"]: alert["message"] for alert in said["alerts"] if alert["code"] == "keeper.died"}
        if told:
            break
    parted = {source: message.rsplit(" ", 3) for source, message in told.items()}
    assert all(ago in (["s", "ago"], ["m", "ago"]) for _, _, *ago in parted.values()), told
    return {source: said for source, (said, *_) in parted.items()}


async def told_of_keepers(home: Home) -> list[str]:
    """The same, whoever says it."""
    return list((await deaths_of_keepers(home)).values())


def test_a_killed_keeper_is_replaced_and_said_and_the_next_broker_death_is_not_final(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        before = everybody(home)
        os.kill(before["keeper"].pid, signal.SIGKILL)
        await gone(before["keeper"])
        keeper = await eventually("a new keeper", at(home, "keeper", "", "spawner"))
        told = await deaths_of_keepers(home)
        assert list(told.values()) == [f"its keeper, pid {before['keeper'].pid}, had died; pid {keeper.pid} took its place"]
        assert [log.name for log in (home.root / "keeper").glob("*.log")] == ["spawner.log"], "both write to one file"
        os.kill(before["broker"].pid, signal.SIGKILL)
        await gone(before["broker"])
        await eventually("a new broker", at(home, "brokers", "b1", "broker"))
        after = everybody(home)
        assert {place: after[place] for place in after.keys() - {"keeper", "broker"}} == {
            place: before[place] for place in before.keys() - {"keeper", "broker"}
        }

        if "broker/b1" not in told:  # who has started it tells it, and no process after that one
            assert await deaths_of_keepers(home) == told

    run(tmp_path, scenario)


def test_what_was_added_is_kept_by_the_keeper_that_follows_one_that_was_killed(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "0", "--controllers", "1", "--detach")
        await dsmt(home.root, "broker", "add", "site")
        added = (await dsmt(home.root, "controller", "add", "mine")).out
        assert added == "controller mine is started\nnext: dsmt controllers shows whether it is alive\n"
        assert (await dsmt(home.root, "controller", "add", "mine", "--json", code=4)).error["code"] == "controller.exists"
        places = {name: at(home, f"{kind}s", name, kind) for kind, name in (("broker", "site"), ("controller", "mine"))}
        for name, place in places.items():
            await eventually(f"{name} begins", place)
        keeper = at(home, "keeper", "", "spawner")()
        assert keeper is not None
        os.kill(keeper.pid, signal.SIGKILL)
        await gone(keeper)
        await eventually("a new keeper", at(home, "keeper", "", "spawner"))
        for name, place in places.items():
            was = place()
            assert was is not None
            os.kill(was.pid, signal.SIGKILL)
            await gone(was)
            await eventually(f"{name} is begun again", place)
        rows = (await dsmt(home.root, "controllers", "--json")).json
        assert {one["controller"] for one in rows} == {"c1", "mine"}
        await dsmt(home.root, "controller", "remove", "mine", "--yes")
        assert home.names("controllers") == ["c1"]

    run(tmp_path, scenario)


def test_a_keeper_that_dies_with_all_controllers_is_replaced_by_a_broker(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "0", "--detach")
        before = everybody(home)
        kill_at_once([before[place].pid for place in ("keeper", "c1", "c2")])
        await gone(*(before[place] for place in ("keeper", "c1", "c2")))
        for place in (("keeper", "", "spawner"), ("controllers", "c1", "controller"), ("controllers", "c2", "controller")):
            await eventually(f"a new {place}", at(home, *place))
        assert everybody(home)["broker"] == before["broker"]
        keeper = everybody(home)["keeper"].pid
        assert await told_of_keepers(home) == [
            f"its keeper, pid {before['keeper'].pid}, had died; pid {keeper} took its place"
        ]

    run(tmp_path, scenario)


def test_a_spawner_that_dies_with_its_manager_is_told_by_the_next_one_and_none_that_was_taken_down(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        spawner, manager = (at(home, "nodes", "n1", one)() for one in ("spawner", "container_manager"))
        assert spawner is not None
        assert manager is not None
        await eventually("its manager knows it", at(home, "nodes", "n1", KNOWN))
        kill_at_once([spawner.pid, manager.pid])
        await gone(spawner, manager)
        now = await eventually("a new spawner", at(home, "nodes", "n1", "spawner"))
        assert await told_of_keepers(home) == [f"its spawner, pid {spawner.pid}, had died; pid {now.pid} took its place"]
        await dsmt(home.root, "down")
        await dsmt(home.root, "up", "--detach")
        said = (await dsmt(home.root, "status", "--json")).json
        assert [alert for alert in said["alerts"] if alert["code"] == "keeper.died"] == []

    run(tmp_path, scenario)


def test_however_often_the_keeper_is_killed_there_is_one_broker_and_down_ends_all(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        chance = random.Random(20)
        killed: list[ProcessIdentity] = []
        for _ in range(19):
            keeper = await eventually("a keeper", at(home, "keeper", "", "spawner"))
            await asyncio.sleep(chance.uniform(0, 0.4))  # the moment is what is tried here
            with suppress(ProcessLookupError):
                os.kill(keeper.pid, signal.SIGKILL)
            killed.append(keeper)
            if chance.random() < 0.3:
                broker = at(home, "brokers", "b1", "broker")()
                if broker is not None:
                    os.kill(broker.pid, signal.SIGKILL)
                    killed.append(broker)
        await gone(*killed)
        await eventually("everybody", lambda: all(everybody(home).values()))
        names = Counter(map(name_of, processes_of(home.root)))
        assert (names["dsmt-broker"], names["dsmt-controller"], names["dsmt-spawner"]) == (1, 2, 1)
        keeper = at(home, "keeper", "", "spawner")()
        assert keeper is not None
        ending = asyncio.ensure_future(down(home))
        os.kill(keeper.pid, signal.SIGKILL)
        assert (await ending).stuck == ()
        assert processes_of(home.root) == {}

    run(tmp_path, scenario)
