"""`dsmt upgrade`: all of dsmt in a home is begun anew, and what it runs is not touched."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from dsmt.agents.rules.after import CUT_MOST
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.processes import ending
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up import upgrading
from dsmt.operations.words.telling import silent
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import ATTACHED
from dsmt.system.procfs import is_alive
from dsmt.system.records import process_of
from tests.real.fleet import eventually
from tests.real.homes import at, run
from tests.real.seat import dsmt, start
from tests.real.test_bad_machines import small_disk
from tests.waiting import told as until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = """\
service: web
components:
  app:
    instances: 3
    run: python3 -m http.server {port.http} --bind 127.0.0.1
    ports: {http: auto}
    health: {http: {port: http, path: /}}
"""
ONCE = """\
service: once
components:
  job:
    run: sh -c 'until [ -e GO ]; do sleep 0.05; done; echo ran >> RAN; exit CODE'
    restart: RESTART
"""
SLOW = """\
service: slow
components:
  app:
    install: sh -c 'echo begun >> BEGUN; until [ -e GO ]; do sleep 0.05; done'
    run: sleep 1000
"""
MOMENTS = [
    ("keeper", "", "spawner"),
    ("brokers", "b1", "broker"),
    ("nodes", "n1", "container_manager"),
    ("nodes", "n2", "container_manager"),
]
"""Whose end is a moment within it, in order."""


class KilledError(Exception):
    """Stands for SIGKILL at a moment within a command."""


def own(home: Home) -> set[ProcessIdentity]:
    """Everybody of dsmt's own."""
    parts = Parts(home)
    return set(parts.all()) - set(parts.instances())


def spawners(home: Home) -> set[ProcessIdentity]:
    """Of nodes: each begins anew in its own process."""
    return {one for name in home.names("nodes") if (one := process_of(home.part("nodes", name), "spawner"))}


async def shown(home: Home) -> list[Any]:
    rows = (await dsmt(home.root, "ps", "--json")).json
    return [(one["instance"], one["node"], one["pid"], one["since"], one["restarts"]) for one in rows]


async def begin(home: Home, *options: str) -> list[Any]:
    await dsmt(home.root, "up", "--nodes", "2", "--detach", *(options or ("--brokers", "2")))
    spec = home.root / "web.yaml"
    spec.write_text(SPEC)
    await dsmt(home.root, "apply", str(spec), "--wait=60s")
    return await shown(home)


def cmdline(identity: ProcessIdentity) -> bytes:
    return Path(f"/proc/{identity.pid}/cmdline").read_bytes()


async def verdicts(home: Home) -> list[Any]:
    lines = (await dsmt(home.root, "tail", "node/", "--since", "1h", "--no-follow", "--json")).lines
    return [one for one in lines if one.get("type") == "dsmt.node.verdict"]


async def failures(home: Home) -> list[Any]:
    """What was said to have failed."""
    lines = (await dsmt(home.root, "tail", "service/", "--since", "1h", "--no-follow", "--json")).lines
    return [one["data"] for one in lines if one.get("type") == "dsmt.status" and one["data"].get("state") == "failed"]


@pytest.mark.parametrize("engine", ["dsmt", pytest.param("nats", marks=pytest.mark.xdist_group("nats-realm"))])
def test_all_of_dsmt_is_begun_anew_and_what_it_runs_is_not_touched(tmp_path, engine):
    async def scenario(home: Home) -> None:
        before = await begin(home, "--engine", engine)
        ran = own(home)
        done = (await dsmt(home.root, "upgrade", "--json")).json
        assert (done["programs"], done["untouched"]) == (3, 3)
        assert (done["brokers"], done["nodes"]) == (["b1"], ["n1", "n2"])
        assert {one for one in ran if is_alive(one)} == spawners(home), "they alone are told how programs end"
        assert not any(b"dsmt-" in cmdline(one) for one in spawners(home)), "none is a fork of the former keeper"
        assert len(own(home)) == len(ran)
        assert await shown(home) == before
        assert (await dsmt(home.root, "status", "--json")).json["state"] == "ok"
        assert await verdicts(home) == [], "nobody was held for dead"
        assert await failures(home) == [], "no agent failed: it was followed"
        await dsmt(home.root, "scale", "web/app", "4", "--wait=60s")
        assert (await shown(home))[:3] == before

    run(tmp_path, scenario)


def test_a_node_with_no_agents_is_not_held_for_dead(tmp_path):
    """Nobody else of it is attached meanwhile: its monitor stays until its next manager is there."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "3", "--detach")
        ran = own(home)
        await dsmt(home.root, "upgrade")
        assert {one for one in ran if is_alive(one)} == spawners(home)
        assert await verdicts(home) == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m[1]}{m[2]}")
def test_what_is_gone_where_it_was_killed_is_started_by_up(tmp_path, moment):
    async def scenario(home: Home) -> None:
        before = await begin(home)
        was = at(home, *moment)()
        assert was is not None
        upgrade = await start(home.root, "upgrade")
        await eventually("the moment", lambda: not is_alive(was))
        upgrade.send_signal(signal.SIGKILL)
        await upgrade.wait()
        await dsmt(home.root, "up", "--detach")
        await eventually("all are there", lambda: all(at(home, *one)() for one in MOMENTS))
        assert await shown(home) == before
        await dsmt(home.root, "upgrade")
        assert await shown(home) == before

    run(tmp_path, scenario)


@pytest.mark.parametrize(("code", "restart", "state"), [(0, "on_failure", "done"), (3, "never", "failed")])
def test_how_a_program_ends_that_runs_meanwhile_is_known(tmp_path, code, restart, state):
    """One that is not to run again does not, and one that failed has its code told."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        go, ran = tmp_path / "go", tmp_path / "ran"
        spec = home.root / "once.yaml"
        told = {"GO": str(go), "RAN": str(ran), "CODE": str(code), "RESTART": restart}
        spec.write_text(reduce(lambda text, word: text.replace(word, told[word]), told, ONCE))
        await dsmt(home.root, "apply", str(spec))
        await dsmt(home.root, "wait", "once", "--for", "running")
        for _ in range(2):
            await dsmt(home.root, "upgrade")
        go.touch()
        await dsmt(home.root, "wait", "once", "--for", state, "--timeout", "60s")
        assert [(one["reason"]["code"], one["last_exit"]["code"]) for one in await failures(home)] == [("run.exited", code)]
        assert ran.read_text() == "ran\n"

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["upgrade", "end_own"])
def test_a_step_that_is_under_way_is_not_cut_off_by_it_however_often(tmp_path, how):
    """`end_own` is how a realm ends all of dsmt's own that moves to another engine."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        go, begun = tmp_path / "go", tmp_path / "begun"
        spec = home.root / "slow.yaml"
        spec.write_text(SLOW.replace("GO", str(go)).replace("BEGUN", str(begun)))
        await dsmt(home.root, "apply", str(spec))
        for count in range(1, CUT_MOST + 2):
            await eventually("the step", lambda count=count: begun.exists() and begun.read_text() == "begun\n" * count)
            if how == "upgrade":
                await dsmt(home.root, "upgrade")
            else:
                await ending.end_own(home, servers=True)
                await dsmt(home.root, "up", "--detach")
        go.touch()
        await dsmt(home.root, "wait", "slow", "--for", "running", "--timeout", "60s")
        assert "install.cut" not in [one["reason"]["code"] for one in await failures(home)]

    run(tmp_path, scenario)


def test_it_is_typed_again_when_it_was_killed_as_all_that_is_kept_had_ended(tmp_path, monkeypatch):
    async def scenario(home: Home) -> None:
        before = await begin(home)

        async def killed(_: Home) -> None:
            raise KilledError

        for again in ("upgrade", "down"):
            monkeypatch.setattr(upgrading, "start_keeper", killed)
            with pytest.raises(KilledError):
                await upgrading.upgrade(home, silent)
            assert not any(at(home, *one)() for one in MOMENTS[:2])
            await dsmt(home.root, again)
            if again == "upgrade":
                assert all(at(home, *one)() for one in MOMENTS)
                assert await shown(home) == before
        assert (await dsmt(home.root, "upgrade", "--json", code=4)).error["code"] == "upgrade.down"

    run(tmp_path, scenario)


def test_all_is_begun_anew_though_the_keeper_was_killed_just_before(tmp_path):
    async def scenario(home: Home) -> None:
        before = await begin(home)
        ran = own(home)
        (keeper,) = [one for one in ran if one == process_of(keeper_directory(home), "spawner")]
        os.kill(keeper.pid, signal.SIGKILL)
        await dsmt(home.root, "upgrade")
        assert {one for one in ran if is_alive(one)} == spawners(home)
        assert await shown(home) == before

    run(tmp_path, scenario)


def test_what_dsmt_up_does_not_keep_is_not_begun_anew(tmp_path):
    async def scenario(home: Home) -> None:
        assert (await dsmt(home.root, "upgrade", "--json", code=5)).error["code"] == "home.empty"
        await dsmt(home.root, "init")
        broker = await start(home.root, "broker", "run", "b1")

        async def answers() -> bool:
            with suppress(AssertionError):
                return bool(await dsmt(home.root, "brokers", "--json"))
            return False

        try:
            await until(answers, "it listens", 60)
            error = (await dsmt(home.root, "upgrade", "--json", code=4)).error
            assert error["code"] == "upgrade.down"
            assert "dsmt up" in error["next"]
            assert broker.returncode is None
            assert not keeper_directory(home).exists()
        finally:
            broker.terminate()
            await asyncio.wait_for(broker.wait(), 30)

    run(tmp_path, scenario)


def test_on_a_full_disk_nothing_is_ended(tmp_path):
    async def scenario(home: Home) -> None:
        async with small_disk(home.part("nodes", "n2"), "4m") as small:
            await dsmt(home.root, "up", "--nodes", "2", "--detach", within=small.within)
            ran = own(home)
            small.fill()
            error = (await dsmt(home.root, "upgrade", "--json", within=small.within, code=1)).error
            assert error["code"] == "machine.full"
            assert str(home.part("nodes", "n2")) in error["message"]
            assert all(map(is_alive, ran))
            small.free()
            await dsmt(home.root, "upgrade", within=small.within)
            await dsmt(home.root, "down", within=small.within)

    run(tmp_path, scenario)


def test_of_a_node_whose_spawner_hangs_and_which_no_keeper_keeps_all_is_begun_anew(tmp_path):
    """As of one that systemd keeps. Who had hung is followed by one that the node's manager begins."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "init")
        running = [await start(home.root, *one, "run") for one in (["broker"], ["controller"], ["node"])]
        own = [at(home, "nodes", "n1", one) for one in ("spawner", "container_manager", "node_monitor")]
        try:
            await eventually("the node runs", lambda: all(look() for look in (*own, at(home, "nodes", "n1", ATTACHED))))
            before = [look() for look in own]
            running[2].send_signal(signal.SIGSTOP)
            assert (await dsmt(home.root, "upgrade", "--json")).json["nodes"] == ["n1"]
            assert [is_alive(one) for one in before] == [False] * 3
            assert all(look() for look in own)
            await dsmt(home.root, "down")
        finally:
            for one in running:
                with suppress(ProcessLookupError):
                    one.kill()

    run(tmp_path, scenario)
