"""The nodes of a home take the labels that `dsmt up --label` names: what waits for one starts, and what runs goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from tests.real.fleet import end
from tests.real.homes import run
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
TEXT = """\
service: one
components:
  waits: {run: sleep 100000, env: {ZONE: "{node.label.zone}"}, instances: each_node}
  runs: {run: sleep 100000, instances: each_node}
"""


async def label_of(home: Home, node: str) -> dict[str, str]:
    return (await dsmt(home.root, "node", "show", node, "--json")).json["labels"]


def test_up_gives_the_nodes_of_its_home_labels_before_they_start_and_while_they_run(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach", "--label", "rack=7")
        try:
            assert await label_of(home, "n1") == {"rack": "7"}
            file = tmp_path / "one.yaml"
            await asyncio.to_thread(file.write_text, TEXT)
            await dsmt(home.root, "apply", str(file))
            await dsmt(home.root, "wait", "one/runs", "--for", "running", "--timeout", "60s")
            before = (await dsmt(home.root, "ps", "one/runs", "--json")).json[0]["pid"]
            await dsmt(home.root, "up", "--nodes", "2", "--detach", "--label", "zone=a")
            assert await label_of(home, "n1") == {"rack": "7", "zone": "a"}, "a label that is not typed stays"
            assert await label_of(home, "n2") == {"zone": "a"}
            await dsmt(home.root, "wait", "one", "--for", "running", "--timeout", "60s")
            rows = (await dsmt(home.root, "ps", "one", "--json")).json
            assert before in [one["pid"] for one in rows]
            (pid,) = [one["pid"] for one in rows if (one["component"], one["node"]) == ("waits", "n1")]
            told = await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_bytes)
            assert b"ZONE=a" in told.split(b"\0")
            refused = await dsmt(home.root, "up", "--detach", "--label", "zone", "--json", code=2)
            assert refused.error["code"] == "label.form"
        finally:
            await end(home)

    run(tmp_path, scenario)
