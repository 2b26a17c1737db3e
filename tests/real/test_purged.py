"""`dsmt remove --purge`: data goes on each node that has some, also on one that is dead meanwhile, once it is back."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from tests.loops import in_real_time
from tests.real.fleet import eventually, fleet
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = """\
service: kept
components:
  app:
    instances: each_node
    run: [sh, -c, "echo row >> {data}/rows; exec sleep 1000"]
    data: true
    update: {healthy_after: 1s}
"""


@in_real_time
async def test_what_is_away_deletes_it_when_it_is_back_and_what_is_applied_again_keeps_its_own(tmp_path: Path) -> None:
    async with fleet(tmp_path, nodes=2, controllers=1) as made:
        root = made.home.root
        spec = tmp_path / "kept.yaml"
        spec.write_text(SPEC)

        def rows() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {"n1": [], "n2": []}
            for node, index in product(found, ("0", "1")):
                with suppress(FileNotFoundError):  # it may go while it is looked for
                    found[node].append((made.home.part("nodes", node) / "data/kept/app" / index / "rows").read_text())
            return found

        await dsmt(root, "apply", str(spec), "--wait=60s")
        await eventually("both have data", lambda: all(rows().values()))
        await made.kill_node("n2")
        await made.watch.until("its death", lambda: made.watch.sight().fleet.is_lost("n2"), 60)
        done = (await dsmt(root, "remove", "kept", "--purge", "--yes", "--wait=60s", "--json")).json
        assert (done["action"], sorted(done["data"].values())) == ("purge", ["n1", "n2"])
        await eventually("n1 has none", lambda: rows()["n1"] == [])
        assert rows()["n2"] != []
        await dsmt(root, "up", "--detach")
        await eventually("nor has n2", lambda: rows() == {"n1": [], "n2": []}, 60)
        await dsmt(root, "apply", str(spec), "--wait=60s")
        await eventually("both begin with nothing", lambda: rows() == {"n1": ["row\n"], "n2": ["row\n"]})
        await made.kill_node("n1")
        await dsmt(root, "up", "--detach")
        await eventually("n1 goes on with its own", lambda: rows() == {"n1": ["row\nrow\n"], "n2": ["row\n"]})
        await dsmt(root, "remove", "kept", "--yes", "--wait=60s")
        assert (await dsmt(root, "remove", "kept", "--purge", "--yes")).out.startswith("kept is gone; each node deletes")
        await eventually("that goes, too", lambda: rows() == {"n1": [], "n2": []})
