"""Machines that are not as they should be: full disks, wrong clocks. What runs goes on; what is acknowledged is kept."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_node
from dsmt.ports.bus import Draft
from tests import warm
from tests.loops import in_real_time
from tests.real.fleet import Fleet, attached, eventually, fleet, processes_of, redis_spec
from tests.real.seat import dsmt, start
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Small:
    """A small disk: what goes before the argv of who shall see it, and where we see it."""

    within: list[str]
    path: Path

    def fill(self, *, spare: int = 0) -> None:
        """Leave so many bytes."""
        filler = self.path / "filler"
        with filler.open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
            file.truncate(file.tell() - spare)

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.path / "filler").unlink()


@asynccontextmanager
async def small_disk(directory: Path, size: str) -> AsyncIterator[Small]:
    """A tmpfs on a directory, in a mount namespace of its own: it is gone with the last process in there."""
    directory.mkdir(parents=True)  # noqa: ASYNC240 - it is at once
    root = os.geteuid() == 0
    mount = 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && echo mounted && exec cat'
    unshare = ["unshare", "--mount", *([] if root else ["--user", "--map-root-user"])]
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        *unshare, "sh", "-c", mount, "sh", size, str(directory), stdin=pipe, stdout=pipe
    )
    try:
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"mounted\n", "no tmpfs could be mounted"
        enter = ["nsenter", "--target", str(holder.pid), "--mount"]
        yield Small(
            enter + ([] if root else ["--user", "--preserve-credentials"]), Path(f"/proc/{holder.pid}/root{directory}")
        )
    finally:
        warm.end_within()
        holder.kill()
        await holder.wait()


@asynccontextmanager
async def fleet_on(home: Home, small: Small) -> AsyncIterator[Fleet]:
    """A realm of one node that sees the small disk, with a bystander."""
    try:
        await dsmt(home.root, "up", "--nodes", "1", "--name", "test", "--detach", within=small.within)
        async with attached(home, nodes=1) as made:
            await made.apply(redis_spec(1, "bystander"))
            await made.ready("bystander", 1)
            yield made
    finally:
        await dsmt(home.root, "down", within=small.within)
        left = processes_of(home.root)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left


async def restarted(made: Fleet, service: str) -> None:
    """Kill an instance; it is back."""
    (pid,) = made.pids(service).values()
    os.kill(pid, signal.SIGKILL)
    await made.ready(service, 1, but=lambda i: i.application is None or i.application.record.pid == pid)


BIG = """\
service: big
components:
  app:
    artifact: big.tar
    run: [redis-server, --port, "{port.redis}", --bind, 127.0.0.1, --save, ""]
    ports: {redis: auto}
    restart: {first: 3s}
    health: {tcp: {port: redis}}
"""


def write_big(directory: Path) -> Path:
    """A service whose artifact has 8 MiB, which are on the node twice while it is unpacked."""
    with tarfile.open(directory / "big.tar", "w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = 8 * MIB
        tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    (directory / "big.yaml").write_text(BIG)
    return directory / "big.yaml"


@in_real_time
async def test_a_nodes_full_disk_is_told_with_what_is_needed_harms_no_other_service_and_is_over_when_there_is_room(tmp_path):
    home = Home(tmp_path / "home")
    node = home.part("nodes", "n1")
    async with small_disk(node, "64m") as small, fleet_on(home, small) as made:
        small.fill(spare=6 * MIB)
        await dsmt(home.root, "apply", str(write_big(tmp_path)))

        def told() -> bool:
            service = made.watch.view.services.get("big")
            slots = () if service is None else service.slots.values()
            said = [held for slot in slots for i in slot.instances.values() for held in i.statuses]
            return any(h.record.reason is not None and h.record.reason.code == "fetch.no_space" for h in said)

        await made.watch.until("fetch.no_space", told, 60)
        (row,) = (await dsmt(home.root, "ps", "big", "--json")).json
        reason = row["reason"]
        assert reason["code"] == "fetch.no_space"
        assert f" free on n1 {node}" in reason["message"]
        need, _, _ = reason["message"].partition(" MiB needed, ")
        assert float(need) >= 5  # it was taken in as far as it fitted
        assert (reason["next"], reason["who"]) == ("free space there", "you")
        small.fill()  # now not even a record can be written
        await restarted(made, "bystander")
        small.free()
        await made.ready("big", 1)
        await restarted(made, "bystander")


@in_real_time
async def test_a_node_on_whose_disk_no_directory_can_be_made_says_so_and_goes_on_when_one_can(tmp_path):
    home = Home(tmp_path / "home")
    async with small_disk(home.part("nodes", "n1"), "64m,nr_inodes=2000") as small, fleet_on(home, small) as made:
        record = small.path / "run/container_manager.json"
        manager = record.read_bytes()
        taken = small.path / "taken"
        taken.mkdir()
        with suppress(OSError):
            for number in range(2000):
                (taken / str(number)).touch()
        await made.apply(redis_spec(1))

        def told() -> bool:
            slots = made.watch.view.services["store"].slots.values()
            said = [held for slot in slots for i in slot.instances.values() for held in i.statuses]
            return any(h.record.reason is not None and "no inode free" in h.record.reason.message for h in said)

        await made.watch.until("no inode free", told, 60)
        assert record.read_bytes() == manager, "it has not ended for that"
        await restarted(made, "bystander")
        shutil.rmtree(taken)
        await made.ready("store", 1)


@in_real_time
@pytest.mark.parametrize("kept", [True, False], ids=["with_its_identity", "with_another"])
async def test_a_monitor_that_dies_on_a_full_disk_is_followed_by_one_that_is_attached(tmp_path, kept):
    """It wrote the identity that it had found there, and could not: no monitor came back, and nobody probed the others."""
    home = Home(tmp_path / "home")
    async with small_disk(home.part("nodes", "n1"), "64m") as small, fleet_on(home, small) as made:

        def monitor() -> int | None:
            attachments = made.watch.view.nodes["n1"].sources.get("monitor/n1")
            newest = None if attachments is None else attachments.newest
            return newest[1].record.pid if newest is not None and newest[1].record.state == "open" else None

        first = await made.watch.until("a monitor is attached", monitor, 60)
        if not kept:
            (small.path / "monitor.identity").unlink()
        small.fill()
        os.kill(first, signal.SIGKILL)
        await made.watch.until("another monitor is attached", lambda: monitor() not in {None, first}, 60)
        small.free()


@in_real_time
async def test_a_brokers_full_disk_acknowledges_nothing_that_it_cannot_keep_and_everything_once_it_can(tmp_path):
    home = Home(tmp_path / "home")
    async with small_disk(home.part("brokers", "b1"), "16m") as small, fleet_on(home, small) as made:
        await asyncio.gather(*(made.say() for _ in range(100)))
        small.fill()
        emissions = [made.connection.bus.emit(Draft("user/test/waits", {"n": n})) for n in range(200)]
        waiting = asyncio.gather(*(emission.acknowledged() for emission in emissions))
        error = (await dsmt(home.root, "publish", "user/test/refused", "1", "--json", code=4)).error
        assert error["code"] == "store.full"
        assert "the store of broker/b1 is full" in error["message"]
        assert error["next"] == "free space on its disk"
        assert not waiting.done()
        (pid,) = made.pids("bystander").values()
        os.kill(pid, signal.SIGKILL)  # repair of what runs needs no broker
        await eventually(
            "another redis", lambda: [p for p, t in processes_of(home.root).items() if "redis" in t and p != pid]
        )
        small.free()
        await asyncio.wait_for(waiting, 60)
        made.acknowledged += [emission.id for emission in emissions if emission.id is not None]
        assert len(made.acknowledged) == 300
        assert await made.missing() == []
        await made.ready("bystander", 1, but=lambda i: i.application is None or i.application.record.pid == pid)
        await restarted(made, "bystander")


async def status_is(home: Home, state: str, patience_s: float) -> list[dict[str, str]]:
    """The alerts, once the realm is said to be so."""

    async def look() -> dict[str, Any] | None:
        said: dict[str, Any] = (await dsmt(home.root, "status", "--json")).json
        return said if said["state"] == state else None

    found: list[dict[str, str]] = (await told(look, f"the realm is {state}", patience_s))["alerts"]
    return found


@in_real_time
async def test_an_operator_sees_all_that_there_is_while_a_brokers_disk_is_full(tmp_path):
    home = Home(tmp_path / "home")
    broker = home.part("brokers", "b1")
    async with small_disk(broker, "8m") as small, fleet_on(home, small) as made:
        small.fill()
        emissions = [made.connection.bus.emit(Draft("user/test/waits", {"n": n})) for n in range(200)]
        error = (await dsmt(home.root, "publish", "user/test/refused", "1", "--json", code=4)).error
        assert error["code"] == "store.full"
        assert [row["service"] for row in (await dsmt(home.root, "ps", "--json")).json] == ["bystander"]
        for command in (["status"], ["why", "bystander"], ["get", "bystander"], ["nodes"], ["history", "bystander"]):
            await dsmt(home.root, *command)
        told = await dsmt(home.root, "tail", "--since", "1h", "--no-follow")
        assert "bystander" in told.out
        alerts = await status_is(home, "degraded", 10)  # of 30 until all that it holds counts as old
        assert ("broker/b1", "broker.silent") in [(one["target"], one["code"]) for one in alerts]
        (full,) = (await dsmt(home.root, "brokers", "--json")).json
        assert full["fault"] == "the store of broker/b1 is full: free space on its disk"
        small.free()
        await asyncio.wait_for(asyncio.gather(*(emission.acknowledged() for emission in emissions)), 60)
        await status_is(home, "ok", 60)


# --- clocks -------------------------------------------------------------------------------------------------------------

CLOCKS = {"n2": 3600, "n3": -3 * 86400}
"""By how many seconds the wall clocks of nodes are off."""


def shifted(offset_s: int) -> dict[str, str]:
    """The environment of processes whose wall clock, and no other, is off."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{offset_s:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@asynccontextmanager
async def running_nodes(home: Home) -> AsyncIterator[None]:
    """`dsmt node run` for each node with a wrong clock."""
    processes = []
    try:
        for node, offset_s in CLOCKS.items():
            ensure_node(home, node)
            processes.append(await start(home.root, "node", "run", node, env=shifted(offset_s)))
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in processes:
            await asyncio.wait_for(process.communicate(), 30)


@in_real_time
async def test_down_ends_all_of_a_home_whose_disk_has_become_read_only(tmp_path):
    home = Home(tmp_path / "home")
    keeper = home.root / "keeper"
    bound = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    async with small_disk(keeper, "4m") as small, fleet_on(home, small):  # which ends it, and nothing may be left
        closing = await asyncio.create_subprocess_exec(*small.within, "sh", "-c", bound, "sh", str(keeper))
        assert await closing.wait() == 0
        await dsmt(home.root, "up", "--detach", within=small.within)  # it is up, and nothing is to be written
        error = (await dsmt(home.root, "upgrade", "--json", within=small.within, code=4)).error
        assert "read-only file system" in error["message"]


@in_real_time
async def test_nodes_with_wrong_wall_clocks_go_on_by_realm_time_and_say_so(tmp_path):
    async with fleet(tmp_path, nodes=1) as made, running_nodes(made.home):
        nodes = made.watch.view.nodes
        await made.watch.until(
            "three nodes", lambda: {n for n in nodes if nodes[n].attributes is not None} >= {"n1", *CLOCKS}, 60
        )
        await made.apply(redis_spec(3))
        await made.ready("store", 3)
        before = made.pids("store")
        assert {node for _, _, node in before} == {"n1", *CLOCKS}
        for node in CLOCKS:  # who is restarted speaks before it knows realm time
            for program in ("container_manager", "node_monitor"):
                identity = made.record("nodes", node, program)
                os.kill(identity.pid, signal.SIGKILL)
                await made.replaced("nodes", node, program, identity)
        assert made.pids("store") == before
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        await made.ready("store", 3, but=lambda i: i.application is None or i.application.record.pid in before.values())
        await _check_clocks(made)


async def _check_clocks(made: Fleet) -> None:
    def learnt() -> bool:
        told = [made.watch.view.nodes[node].attributes for node in CLOCKS]
        return all(one is not None and abs(one.record.clock_offset_s) > 10 for one in told)

    await made.watch.until("the offsets", learnt, 30)
    shown = {node["node"]: node for node in (await dsmt(made.home.root, "nodes", "--json")).json}
    for node, offset_s in CLOCKS.items():
        assert shown[node]["attributes"]["clock_offset_s"] == pytest.approx(offset_s, abs=5)
        assert shown[node]["liveness"] == "alive"
    assert abs(shown["n1"]["attributes"]["clock_offset_s"]) < 5
    screen = (await dsmt(made.home.root, "nodes")).out
    assert "n2's wall clock is +60 m off; realm time is used   node.clock" in screen
    assert "n3's wall clock is -3 d off; realm time is used   node.clock" in screen
    alerts = (await dsmt(made.home.root, "status", "--json")).json["alerts"]
    assert [(a["target"], a["code"], a["who"]) for a in alerts] == [
        ("node/n2", "node.clock", "you"),
        ("node/n3", "node.clock", "you"),
    ]
    now, now_ms = time.monotonic(), made.connection.bus.now_ms()
    theirs = [s for s in made.watch.seen if any(f"/{node}" in s.signed.event.source for node in CLOCKS)]
    late_ms = [now_ms - (now - seen.at) * 1000 - seen.signed.event.time_ms for seen in theirs]
    assert len(late_ms) > 20
    assert max(map(abs, late_ms)) < 15_000
    assert made.watch.gaps == []
