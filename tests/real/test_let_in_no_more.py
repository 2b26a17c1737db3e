"""Machines whose node is let in no more: `up` says so in a sentence, and starts all else; `status` there says so, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.processes.parts import Parts
from tests.real.seat import dsmt, start
from tests.waiting import told as until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
QUICK_S = 20.0
"""Far below the 30 s for which `up` waits for a broker."""


def play(directory: Path, scenario: Callable[[Path, Path], Coroutine[Any, Any, None]]) -> None:
    """A realm of one node in a home, and another home, all of which end with the scenario."""
    home, there = directory / "home", directory / "there"

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for one in (home, there):
                stack.push_async_callback(down, Home(one))
            await dsmt(home, "up", "--detach", "--nodes", "1", "--controllers", "1")
            await scenario(home, there)

    asyncio.run(main())


async def join(home: Path, there: Path, name: str) -> None:
    token = (await dsmt(home, "token", "create")).out.strip()
    await dsmt(there, "join", token, "--name", name)


async def alive(home: Path) -> set[str]:
    return {one["node"] for one in (await dsmt(home, "nodes", "--json")).json if one["liveness"] == "alive"}


def test_a_machine_that_holds_nothing_else_ends_with_what_happened_and_what_to_type(tmp_path: Path) -> None:
    async def scenario(home: Path, there: Path) -> None:
        await join(home, there, "web-1")
        await dsmt(there, "down")
        await dsmt(home, "cert", "revoke", "node/web-1", "--yes", "--reason", "stolen")
        for _ in range(2):
            said = await dsmt(there, "up", "--detach")
            assert said.out == ""
            (told,) = [line for line in said.err.splitlines() if not line.startswith("waiting")]
            assert told.startswith("warning: node/web-1 was revoked: it is let in no more. Next: dsmt join TOKEN here makes")
            assert told.endswith(f"or dsmt down, and remove {there}")
            assert not Parts(Home(there)).all()
        process = await start(there, "up")
        assert await asyncio.wait_for(process.wait(), QUICK_S) == 0
        assert not Parts(Home(there)).all()
        refused = (await dsmt(there, "status", "--json", code=4)).error
        assert (refused["code"], refused["message"]) == ("trust.revoked", "node/web-1 was revoked")
        assert f"remove {there}" in refused["next"]

    play(tmp_path, scenario)


def test_up_looks_for_no_broker_that_was_removed_and_starts_all_but_the_name_that_is_let_in_no_more(tmp_path: Path) -> None:
    async def scenario(home: Path, there: Path) -> None:
        await join(home, there, "a-1")
        await dsmt(home, "cert", "revoke", "node/a-1", "--yes")
        await join(home, there, "b-1")
        await dsmt(home, "broker", "add", "b2")
        await dsmt(home, "broker", "remove", "b1", "--yes")
        await until(lambda: _has(there, "b-1"), "the node has learnt of it", 30)
        await dsmt(there, "down")
        began = time.monotonic()
        said = await dsmt(there, "up", "--detach", "--json")
        assert time.monotonic() - began < QUICK_S
        assert said.json["brokers"] == [address for address, _ in Home(home).realm().brokers]
        assert said.json["out"] == ["a-1"]
        assert "the key of node/a-1 was revoked by " in said.err
        assert f"remove {there}/nodes/a-1" in said.err
        assert await alive(home) == {"n1", "b-1"}

    play(tmp_path, scenario)


async def _has(there: Path, node: str) -> bool:
    kept = there / "nodes" / node / "bus" / "manager" / "brokers"
    return kept.exists() and kept.read_bytes().count(b"127.0.0.1:") >= 2


def test_a_node_of_the_home_of_a_realm_that_was_revoked_keeps_nobody_from_the_rest(tmp_path: Path) -> None:
    async def scenario(home: Path, _there: Path) -> None:
        await dsmt(home, "up", "--detach", "--nodes", "2")
        await dsmt(home, "down")
        await dsmt(home, "up", "--detach", "--nodes", "1")
        await dsmt(home, "cert", "revoke", "node/n2", "--yes", "--reason", "stolen")
        for _ in range(2):
            said = await dsmt(home, "up", "--detach")
            assert "1 controller, 1 node\n" in said.out
            assert "the key of node/n2 was revoked by " in said.err
            assert ': "stolen": it is let in no more. Next: dsmt cert rotate node/n2 gives it another key' in said.err
            assert await alive(home) == {"n1"}
        await dsmt(home, "cert", "rotate", "node/n2")
        assert "revoked" not in (await dsmt(home, "up", "--detach")).err
        assert await alive(home) == {"n1", "n2"}

    play(tmp_path, scenario)


def test_a_machine_whose_name_was_given_again_is_told_so_in_its_logs_and_by_what_is_typed_there(tmp_path: Path) -> None:
    async def scenario(home: Path, there: Path) -> None:
        await join(home, there, "web-1")
        await dsmt(home, "cert", "revoke", "node/web-1", "--yes")
        process = Home(tmp_path / "other")
        try:
            await join(home, process.root, "web-1")
            log = Home(there).part("nodes", "web-1") / "container_manager.log"
            said = "node/web-1 was revoked, and web-1 is another machine, or has another key, by now"
            mends = "dsmt join TOKEN --name NAME makes it a node under another name; or dsmt down, and remove its home"
            await dsmt(there, "down")
            up = await dsmt(there, "up", "--detach")
            assert said in up.err
            assert said in log.read_text()
            assert mends in log.read_text()
            refused = (await dsmt(there, "status", "--json", code=4)).error
            assert refused["message"] == said
            assert "--name under another name" in refused["next"]
            assert await alive(home) == {"n1", "web-1"}
        finally:
            await down(process)

    play(tmp_path, scenario)
