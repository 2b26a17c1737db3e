"""A home that is moved while its realm runs: nothing is begun there in silence, and `down` ends all that it had started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from tests.loops import in_real_time
from tests.real.fleet import attached, end, processes_of, redis_spec
from tests.real.homes import at
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@in_real_time
async def test_a_home_that_is_moved_while_it_runs_is_told_ends_wholly_and_begins_where_it_is(tmp_path: Path) -> None:
    before, home = Home(tmp_path / "before"), Home(tmp_path / "home")
    try:
        await dsmt(before.root, "up", "--nodes", "1", "--name", "test", "--detach")
        async with attached(before, nodes=1) as made:
            await made.apply(redis_spec(1))
            await made.ready("store", 1)
        before.root.rename(home.root)
        for command in (["up", "--detach"], ["upgrade"]):
            error = (await dsmt(home.root, *command, "--json", code=4)).error
            assert error["code"] == "home.moved"
            said = f"{home.root} was moved from {before.root} while its realm runs, which looks for its files there"
            assert error["message"] == said
            assert error["next"].startswith("dsmt down ends it, then dsmt up")
        assert at(home, "nodes", "n1", "container_manager")() is not None, "it runs as before"
        await dsmt(home.root, "down")
        assert processes_of(before.root) == processes_of(home.root) == {}
        await dsmt(home.root, "up", "--detach")
        async with attached(home, nodes=1) as made:
            await made.ready("store", 1)
    finally:
        for one in (before, home):
            if one.exists:
                await end(one)
            for pid in processes_of(one.root):
                os.kill(pid, signal.SIGKILL)
