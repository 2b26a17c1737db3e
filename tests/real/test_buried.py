"""A service is removed and buried while the node that had it is dead, and its container goes before the node is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.loops import in_real_time
from tests.real.fleet import eventually, fleet, processes_of
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = "service: web\ncomponents: {app: {run: sleep 1000, update: {healthy_after: 1s}}}\n"


@in_real_time
async def test_what_went_with_its_directory_is_shown_nowhere_and_holds_no_drain_up_when_its_node_is_back(
    tmp_path: Path,
) -> None:
    async with fleet(tmp_path, nodes=1, controllers=1) as made:
        root, node = made.home.root, made.home.part("nodes", "n1")
        spec = tmp_path / "web.yaml"
        spec.write_text(SPEC)
        await dsmt(root, "apply", str(spec), "--wait=60s")
        await made.kill_node("n1")
        await eventually("nothing of it lives", lambda: not any(str(node) in one for one in processes_of(root).values()))
        await made.watch.until("its death", lambda: made.watch.sight().fleet.is_lost("n1"), 60)
        shutil.rmtree(node / "containers" / "web")
        await dsmt(root, "remove", "web", "--yes", "--wait=60s")
        await dsmt(root, "up", "--detach")
        await made.watch.until("its return", lambda: made.watch.sight().fleet.state("n1") == "alive", 60)
        await dsmt(root, "wait", "web", "--for", "gone", "--timeout", "30s")
        assert (await dsmt(root, "ps", "--json")).json == []
        await dsmt(root, "node", "drain", "n1", "--wait=90s")
