"""`up` and `down`: whatever `up` dies of, and however often they are repeated, `down` ends what its home started."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.errors import FailedError, RefusedError
from dsmt.event.phrases import another_certificate
from dsmt.monitors.checks.exec import owner_of_tries
from dsmt.operations.local.home.home import Home, keeper_directory, write_secret
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import ensure_controller, init, issue
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.programs.configuration import BrokerFile, ControllerFile, NodeFile, read_config
from dsmt.system.marks import bearers
from dsmt.system.procfs import children, is_alive, send_signal
from dsmt.system.records import record_path
from dsmt.trust.identity import YEAR_S, dump
from tests.real.fleet import attached, end, eventually, gone, processes_of, redis_spec
from tests.real.homes import at, ended, everybody, foreground, run, whole
from tests.real.seat import dsmt, start

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


MOMENTS = [
    ("keeper", "", "spawner"),
    ("brokers", "b1", "broker"),
    ("nodes", "n2", "spawner"),
    ("nodes", "n1", "container_manager"),
]
"""Processes whose birth is a moment within `up`, in order."""


@pytest.mark.parametrize("moment", [*MOMENTS, None], ids=lambda m: "whole" if m is None else f"{m[1]}{m[2]}")
def test_down_finds_and_ends_all_that_a_killed_up_has_started(tmp_path, moment):
    async def scenario(home: Home) -> None:
        up = await foreground(home)
        try:
            await (whole(up) if moment is None else eventually("the moment", at(home, *moment)))
        finally:
            assert await ended(up, signal.SIGKILL) == -signal.SIGKILL
        said = (await dsmt(home.root, "down", "--json")).json
        assert said["processes"] > 0
        assert said["stuck"] == []
        assert processes_of(home.root) == {}

    run(tmp_path, scenario)


@pytest.mark.parametrize("moment", [MOMENTS[0], MOMENTS[1], None], ids=["keeper", "broker", "whole"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_up_ends_all_that_it_has_started(tmp_path, moment, number):
    async def scenario(home: Home) -> None:
        up = await foreground(home)
        try:
            await (whole(up) if moment is None else eventually("the moment", at(home, *moment)))
        finally:
            assert await ended(up, number) == 0
        assert processes_of(home.root) == {}

    run(tmp_path, scenario)


def test_several_at_once_make_one_realm(tmp_path):
    async def scenario(home: Home) -> None:
        said = await asyncio.gather(*(dsmt(home.root, "up", "--nodes", "1", "--detach") for _ in range(3)))
        assert sum("(made now)" in one.out for one in said) == 1
        (realm,) = {one.out.partition(":")[2].splitlines()[0] for one in said}
        files = [home.part("brokers", "b1") / "broker.cbor", home.part("nodes", "n1") / "node.cbor"]
        kinds = [BrokerFile, NodeFile]
        for name in ("c1", "c2"):
            files.append(home.part("controllers", name) / "controller.cbor")
            kinds.append(ControllerFile)
        known = [read_config(path, kind).realm for path, kind in zip(files, kinds, strict=True)]
        assert known == [home.realm()] * 4, realm
        assert all(everybody(home).values())

    run(tmp_path, scenario)


@pytest.mark.parametrize("command", ["up", "down"])
def test_who_waits_for_another_says_so_and_leaves_its_work_when_it_is_interrupted(tmp_path, command):
    async def scenario(home: Home) -> None:
        async with alone(home):
            init(home, name="test")
            waiting = await start(home.root, command)
            assert waiting.stderr is not None
            told = await asyncio.wait_for(waiting.stderr.readline(), 30)
            assert told.decode() == f"another dsmt, pid {os.getpid()}, is at work on {home.root}; this waits for it\n"
            assert await ended(waiting, signal.SIGINT) == 130
            assert not keeper_directory(home).exists()
        assert (await dsmt(home.root, "down", "--json")).json["processes"] == 0

    run(tmp_path, scenario)


def test_up_may_be_repeated_and_adds_only_what_is_missing_and_down_may_be_repeated(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "down", "--json", code=5)
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        before = everybody(home)
        assert all(before.values())
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        assert everybody(home) == before
        said = (await dsmt(home.root, "up", "--nodes", "2", "--detach", "--json")).json
        assert said["nodes"] == ["n1", "n2"]
        after = everybody(home)
        assert {place: after[place] for place in before} == before
        assert all(after.values())
        assert (await dsmt(home.root, "down", "--json")).json["processes"] == len(after)
        assert processes_of(home.root) == {}
        assert not [*home.root.rglob("*.sock")]
        assert (await dsmt(home.root, "down", "--json")).json == {"processes": 0, "killed": 0, "stuck": []}
        await dsmt(home.root, "up", "--nodes", "2", "--detach")  # and keys and history are still there
        said = (await dsmt(home.root, "nodes", "--json")).json
        assert [(node["node"], node["liveness"]) for node in said] == [("n1", "alive"), ("n2", "alive")]
        for thing in ("node/n2", "broker/b1", "controller/c1"):  # and it says who ended it
            why = (await dsmt(home.root, "why", thing, "--json")).json
            assert f"{thing} is taken down, says root" in [link["says"] for link in why["chain"]]

    run(tmp_path, scenario)


def test_up_gives_a_realm_that_runs_another_broker_and_nodes_that_come_to_that_one(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        before = everybody(home)
        await dsmt(home.root, "up", "--nodes", "5", "--brokers", "2", "--detach")
        after = everybody(home)
        assert {place: after[place] for place in before} == before
        listed = (await dsmt(home.root, "nodes", "--json")).json
        assert [(one["node"], one["liveness"]) for one in listed] == [(f"n{n}", "alive") for n in range(1, 6)]

    run(tmp_path, scenario)


def test_up_names_a_damaged_file_of_a_controller_and_starts_all_else_and_every_screen_is_there(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        await dsmt(home.root, "down")
        (home.root / "controllers/c2/issuer").write_bytes(b"")
        said = await dsmt(home.root, "up", "--detach")
        file = home.root / "controllers/c2/issuer"
        assert f"warning: {file} is damaged: it holds no identity; controller c2 lacks it" in said.err
        assert (await dsmt(home.root, "status", "--json")).json["nodes"]
        assert {one["name"] for one in (await dsmt(home.root, "cert", "list", "--json")).json} >= {"broker/b1", "issuer/c1"}

    run(tmp_path, scenario)


def test_an_operator_whose_certificate_has_ended_hears_that_what_was_started_goes_on(tmp_path):
    async def scenario(home: Home) -> None:
        init(home, name="test")
        own = home.operator().name
        write_secret(home.operator_file, dump(issue(home.root_key(), own, now_s=int(time.time()) - 2 * YEAR_S)))
        error = (await dsmt(home.root, "up", "--detach", "--json", code=4)).error
        assert error["message"].startswith(f"the certificate of {own} ended at ")
        assert error["message"].endswith(f"; what was started in {home.root} goes on")
        assert error["next"] == f"{another_certificate(own)}; dsmt down ends it"
        assert all(everybody(home).values())
        await dsmt(home.root, "cert", "rotate", own)
        await dsmt(home.root, "up", "--detach")

    run(tmp_path, scenario)


def test_who_is_given_another_certificate_uses_it_at_once_and_services_go_on(tmp_path):
    members = [
        ("broker/b1", ("brokers", "b1", "broker")),
        ("issuer/c1", ("controllers", "c1", "controller")),
        ("controller/c1", ("controllers", "c1", "controller")),
        ("node/n1", ("nodes", "n1", "container_manager")),
    ]

    async def scenario(home: Home) -> None:
        init(home, name="test")
        assert (await dsmt(home.root, "cert", "rotate", "broker/b1", "--json")).json["restarted"] is False, "it is not up"
        await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach")
        spec = home.root / "web.yaml"
        spec.write_text("service: web\ncomponents: {app: {run: sleep 1000}}\n")
        await dsmt(home.root, "apply", str(spec), "--wait=90s")
        before = (await dsmt(home.root, "ps", "--json")).json
        for name, place in members:
            was = at(home, *place)()
            done = (await dsmt(home.root, "cert", "rotate", name, "--json")).json
            assert done["restarted"] is True
            await eventually(f"{name} is begun anew", lambda p=place, w=was: at(home, *p)() not in (None, w))
            if done["before"] != done["key"]:
                await dsmt(home.root, "cert", "revoke", done["before"], "--keep", "--yes")
        spec.write_text("service: web\ncomponents: {app: {run: sleep 1000, instances: 2}}\n")
        await dsmt(home.root, "apply", str(spec), "--wait=90s")
        after = (await dsmt(home.root, "ps", "--json")).json
        assert [(one["pid"], one["since"]) for one in after][:1] == [(one["pid"], one["since"]) for one in before]
        assert len(after) == 2

    run(tmp_path, scenario)


def test_a_controller_that_is_removed_ends_and_what_it_had_said_stands(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach")
        spec = home.root / "web.yaml"
        spec.write_text("service: web\ncomponents: {app: {run: sleep 1000}}\n")
        await dsmt(home.root, "apply", str(spec), "--wait=90s")
        before = (await dsmt(home.root, "ps", "--json")).json
        assert (await dsmt(home.root, "controller", "remove", "c1", "--json", code=4)).error["code"] == "controller.last"
        assert (await dsmt(home.root, "controller", "remove", "c7", "--json", code=5)).error["code"] == "controller.unknown"
        ensure_controller(home, "c7")  # it never runs
        await dsmt(home.root, "controller", "remove", "c7")
        revoked = (await dsmt(home.root, "tail", "trust/revoked/", "--no-follow", "--json")).out.splitlines()
        assert {json.loads(one)["subject"] for one in revoked} == {"controller/c7", "issuer/c7"}

        await dsmt(home.root, "up", "--controllers", "2", "--detach")
        ran = at(home, "controllers", "c1", "controller")()
        assert ran is not None
        refused = (await dsmt(home.root, "controller", "remove", "c1", "--json", code=2)).error
        assert (refused["code"], refused["next"]) == ("confirm", "dsmt controller remove c1 --yes")
        done = (await dsmt(home.root, "controller", "remove", "c1", "--yes", "--json")).json
        assert done == {"controller": "c1", "left": [], "certified": []}
        assert not is_alive(ran)
        assert home.names("controllers") == ["c2"]
        assert [one["controller"] for one in (await dsmt(home.root, "controllers", "--json")).json] == ["c2"]
        spec.write_text("service: web\ncomponents: {app: {run: sleep 1000, instances: 2}}\n")
        await dsmt(home.root, "apply", str(spec), "--wait=90s")
        after = (await dsmt(home.root, "ps", "--json")).json
        assert [(one["pid"], one["since"]) for one in after][:1] == [(one["pid"], one["since"]) for one in before]
        await dsmt(home.root, "down")
        assert "1 controller" in (await dsmt(home.root, "up", "--detach")).out

    run(tmp_path, scenario)


def test_down_ends_a_node_whose_spawner_is_only_just_being_started_anew(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "2", "--detach")
        managers = [at(home, "nodes", name, "container_manager")() for name in ("n1", "n2")]
        for name in ("n1", "n2"):
            spawner = at(home, "nodes", name, "spawner")()
            assert spawner is not None
            os.kill(spawner.pid, signal.SIGKILL)
        await eventually("two births", lambda: all(one is not None and children(one.pid) for one in managers))
        assert (await down(home)).stuck == ()
        assert processes_of(home.root) == {}

    run(tmp_path, scenario)


def test_down_ends_who_has_no_record_too(tmp_path):
    """A full disk takes no records: a controller that was started meanwhile would bring all back."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        before = [identity for identity in everybody(home).values() if identity is not None]
        for directory, program in ((home.part("controllers", "c1"), "controller"), (keeper_directory(home), "spawner")):
            Path(record_path(str(directory), program)).unlink()  # noqa: ASYNC240 - no path of a disk that blocks
        assert (await dsmt(home.root, "down", "--json")).json["stuck"] == []
        await gone(*before)
        assert processes_of(home.root) == {}

    run(tmp_path, scenario)


CHECKED = """\
service: checked
components:
  app:
    run: sleep 100000
    health: {readiness: {exec: ["true"]}, liveness: {exec: [sh, -c, "sleep 100000.5"], timeout: 10m}}
    update: {healthy_after: 1s}
"""


def _is_endless(pid: int) -> bool:
    with suppress(OSError):
        return b"100000.5" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_check_that_runs_when_all_of_dsmt_was_killed_ends_with_down(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        (home.root / "checked.yaml").write_text(CHECKED)
        await dsmt(home.root, "apply", str(home.root / "checked.yaml"), "--wait=90s")
        parts, tries = Parts(home), owner_of_tries(str(next(iter(Parts(home).containers()))))
        await eventually("the check that lasts", lambda: [one for one in bearers([tries]) if _is_endless(one.pid)])
        everyone = set(parts.all()) - set(parts.instances())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for identity in everyone:
                send_signal(identity, number)
        await gone(*everyone)
        assert bearers([tries])
        await dsmt(home.root, "down")
        assert bearers([tries]) == set()

    run(tmp_path, scenario)


def test_down_ends_the_realm_of_a_home_that_was_removed_and_up_makes_none_beside_it(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        async with attached(home, nodes=1) as made:
            await made.apply(redis_spec(1))
            await made.ready("store", 1)
        before = [identity for identity in everybody(home).values() if identity is not None]
        shutil.rmtree(home.root)
        try:
            with pytest.raises(RefusedError, match=r"the realm that was removed from .* still runs: pid [0-9]+") as caught:
                await up(home, Wanted())
            assert (caught.value.code, caught.value.next) == ("start.running", "dsmt down ends it")
            assert not home.exists
            assert (await dsmt(home.root, "down", "--json")).json["stuck"] == []
            await gone(*before)
            assert processes_of(home.root) == {}
        finally:
            for pid in processes_of(home.root):
                os.kill(pid, signal.SIGKILL)

    run(tmp_path, scenario)


def test_two_homes_side_by_side_do_not_touch_each_other(tmp_path):
    async def scenario(home: Home) -> None:
        async def other(beside: Home) -> None:
            for one in (home, beside):
                await dsmt(one.root, "up", "--nodes", "1", "--detach")
            async with attached(home, nodes=1) as first, attached(beside, nodes=1) as second:
                for made in (first, second):
                    await made.apply(redis_spec(1))
                    await made.ready("store", 1)
                assert first.home.realm().roots != second.home.realm().roots
                before, ran = everybody(home), first.pids("store")
                assert not set(ran.values()) & set(second.pids("store").values())
                assert (await dsmt(beside.root, "down", "--json")).json["stuck"] == []
                assert processes_of(beside.root) == {}
                assert everybody(home) == before
                assert first.pids("store") == ran
                await first.say()
                assert {row["pid"] for row in (await dsmt(home.root, "ps", "--json")).json} == set(ran.values())

        beside = Home(tmp_path / "beside")
        try:
            await other(beside)
        finally:
            if beside.exists:
                await end(beside)

    run(tmp_path, scenario)


def test_down_in_a_copy_of_a_home_ends_nothing_of_the_home_that_was_copied(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        await up(home, Wanted(nodes=1, controllers=1, name="test"))
        async with attached(home, nodes=1) as fleet:
            await fleet.apply(redis_spec(1))
            await fleet.ready("store", 1)
            before = processes_of(home.root)
            copy = Home(tmp_path / "copy")
            shutil.copytree(home.root, copy.root, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
            assert (await down(copy)).processes == 0
            assert set(processes_of(home.root)) >= set(before)
            with pytest.raises(FailedError, match="port"):
                await up(copy, Wanted())
            assert set(processes_of(home.root)) >= set(before)

    run(tmp_path, scenario)


def test_a_good_revision_stays_good_over_down_and_up(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        file, waited = tmp_path / "one.yaml", ("--wait=60s", "--json")
        text = "service: one\ncomponents: {{app: {{run: sleep {n}, update: {{deadline: 1s, healthy_after: 100ms}}}}}}\n"
        await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach")
        try:
            for n in (100_000, 100_001):
                await asyncio.to_thread(file.write_text, text.format(n=n))
                assert (await dsmt(home.root, "apply", str(file), *waited)).json["outcome"] == "ready"
            await dsmt(home.root, "down")
            await dsmt(home.root, "up", "--detach")
            await dsmt(home.root, "wait", "one", "--for", "ready", "--timeout", "60s")
            told = (await dsmt(home.root, "status", "one", "--json")).json
            assert (told["revision"], told["running"], told["refused"]) == (2, [2], None)
        finally:
            await end(home)

    run(tmp_path, scenario)
