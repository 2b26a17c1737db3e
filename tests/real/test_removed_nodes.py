"""`dsmt node remove` of a node of its own home: it ends, nothing of it is left, and `up` does not bring it back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.processes.parts import Parts
from dsmt.system.procfs import is_alive
from tests.real.homes import run
from tests.real.seat import dsmt, start

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = "service: kept\ncomponents: {app: {run: sleep 1000, data: true, update: {healthy_after: 1s}}}\n"


async def names(home: Home) -> list[str]:
    return [one["node"] for one in (await dsmt(home.root, "nodes", "--json")).json]


def test_it_ends_with_what_it_runs_and_neither_it_nor_its_data_comes_back(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "2", "--controllers", "1", "--detach")
        spec = home.root / "kept.yaml"
        spec.write_text(SPEC)
        await dsmt(home.root, "apply", str(spec), "--wait=60s")
        (row,) = (await dsmt(home.root, "ps", "--json")).json
        node, (program,) = row["node"], Parts(home).instances()
        (other,) = {"n1", "n2"} - {node}
        refused = await dsmt(home.root, "node", "remove", node, code=2)
        assert "kept/app/0 is on" in refused.err
        assert is_alive(program)
        assert await names(home) == ["n1", "n2"]
        await dsmt(home.root, "node", "remove", node, "--yes")
        assert not is_alive(program)
        assert (await names(home), home.names("nodes")) == ([other], [other])
        assert (await dsmt(home.root, "ps", "--json")).json[0]["reason"]["code"] == "wait.pinned"
        await dsmt(home.root, "node", "remove", other)
        await dsmt(home.root, "down")
        await dsmt(home.root, "up", "--detach")
        assert (await names(home), home.names("nodes")) == ([], [])
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        assert await names(home) == ["n1"]

    run(tmp_path, scenario)


def test_one_that_was_never_heard_is_removed_too(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach")
        made = home.part("nodes", "n2")
        made.mkdir()
        (made / "node.cbor").write_bytes((home.part("nodes", "n1") / "node.cbor").read_bytes())
        await dsmt(home.root, "node", "remove", "n2")
        assert home.names("nodes") == ["n1"]
        assert await names(home) == ["n1"]

    run(tmp_path, scenario)


def test_who_waits_for_another_that_removes_it_does_the_rest(tmp_path: Path) -> None:
    """It had found the node of this home, and its directory no more."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "2", "--controllers", "1", "--detach")
        async with alone(home):
            removals = [await start(home.root, "node", "remove", "n2", "--yes") for _ in range(2)]
            for one in removals:
                assert one.stderr is not None
                assert b"this waits for it" in await asyncio.wait_for(one.stderr.readline(), 60)
        said = [await asyncio.wait_for(one.communicate(), 90) for one in removals]
        assert [one.returncode for one in removals] == [0, 0], said
        assert (await names(home), home.names("nodes")) == (["n1"], ["n1"])

    run(tmp_path, scenario)
