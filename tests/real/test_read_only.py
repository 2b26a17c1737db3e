"""A disk that turns read-only below a whole realm, and comes back: who was begun meanwhile has no record, and is known."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from tests.loops import in_real_time
from tests.real.fleet import Fleet, eventually, processes_of
from tests.real.seat import dsmt
from tests.real.test_bad_machines import Small, fleet_on, small_disk

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def of(home: Home, *titles: str) -> list[int]:
    """The pids of dsmt's own programs of a home, by what they are called."""
    return [pid for pid, title in processes_of(home.root).items() if title.startswith(titles)]


async def mounted(small: Small, home: Home, how: str) -> None:
    """Have the disk read-only, or writable."""
    mount = await asyncio.create_subprocess_exec(*small.within, "mount", "-o", f"remount,bind,{how}", str(home.root))
    assert await mount.wait() == 0


async def killed(home: Home, title: str) -> None:
    """Kill a program; the next one runs."""
    (pid,) = of(home, title)
    os.kill(pid, signal.SIGKILL)
    await eventually(f"another {title}", lambda: [one for one in of(home, title) if one != pid])


async def _whole(made: Fleet, small: Small) -> None:
    """Nobody runs twice, and all is as before."""
    home = made.home
    await dsmt(home.root, "up", "--detach", within=small.within)
    await made.ready("bystander", 1)
    told = (await dsmt(home.root, "status", "--json", within=small.within)).json
    assert (told["state"], told["controllers"]["alive"]) == ("ok", 2)
    for title in ("dsmt-controller", "dsmt-broker", "dsmt-container_manager", "dsmt-node_monitor"):
        assert len(of(home, title)) == (2 if "controller" in title else 1), title


@in_real_time
async def test_who_is_begun_while_a_disk_is_read_only_runs_once_when_it_is_writable_again_and_ends(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    async with (
        small_disk(tmp_path / "disk", "1m") as small,
        fleet_on(home, small) as made,
    ):
        bound = await asyncio.create_subprocess_exec(*small.within, "mount", "--bind", str(home.root), str(home.root))
        assert await bound.wait() == 0
        await mounted(small, home, "ro")
        await killed(home, f"dsmt-controller {home.part('controllers', 'c1')}")
        await killed(home, "dsmt-container_manager")
        (keeper,) = [pid for pid, title in processes_of(home.root).items() if "dsmt.programs.keeper" in title]
        os.kill(keeper, signal.SIGKILL)
        await mounted(small, home, "rw")
        await _whole(made, small)  # whereupon `fleet_on` ends it, and nothing may be left
